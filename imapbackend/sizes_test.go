package imapbackend

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"popgate/imapbackend/imapmodel"
	"popgate/imapbackend/store"
	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// front is a gateway on loopback in front of b.
func front(t *testing.T, b *Backend) *proxytest.Gateway {
	t.Helper()
	return proxytest.Serve(t, proxytest.Loopback(t), proxy.Options{Backend: b}, proxytest.Insecure)
}

// ask runs a session of joe's and returns the first line of each reply. Those
// of RETR and TOP are followed by the number of octets of the message.
func ask(g *proxytest.Gateway, commands ...string) (replies []string) {
	c := g.Dial()
	c.Login("joe", "secret")
	for _, cmd := range commands {
		c.Send(cmd)
		reply := c.Line()
		if strings.HasPrefix(cmd, "RETR") || strings.HasPrefix(cmd, "TOP") {
			reply += fmt.Sprintf(" (%d)", len(c.Body()))
		}
		replies = append(replies, reply)
	}
	c.OK("QUIT")
	c.Closed()
	return replies
}

// addSized adds a message of octets, for which the upstream reports another
// size.
func addSized(m *model, octets int, reported int64) {
	m.Inbox().AddMessage(imapmodel.Message{
		Body: "Subject: x\r\n\r\n" + strings.Repeat("y", octets-16) + "\r\n",
		Size: reported,
	})
}

// P-RETR-4, I-SIZE-2, I-SIZE-3, section 13: the upstream reports 100 octets,
// and the message has 103. LIST says 100 in this session, and 103 in the next
// one, even in another process.
func TestTrueSize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	m := newModel()
	addSized(m, 103, 100)
	want := [][]string{
		{"+OK 1 100", "+OK 103 octets (103)", "+OK 1 100", "+OK 1 100"},
		{"+OK 1 103", "+OK 103 octets (103)", "+OK 1 103", "+OK 1 103"},
		{"+OK 1 103", "+OK 103 octets (103)", "+OK 1 103", "+OK 1 103"},
	}
	var got [][]string
	commands := []string{"LIST 1", "RETR 1", "LIST 1", "STAT"}
	for range 2 {
		s, err := store.Open(path, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		g := front(t, m.backend(t, Options{Store: s}))
		got = append(got, ask(g, commands...))
		if len(got) == 1 {
			got = append(got, ask(g, commands...))
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	// O-LOG-1: the file contains nothing of mail, names or passwords.
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range []string{"Subject", "yyyy", "secret", "joe"} {
		if bytes.Contains(file, []byte(secret)) {
			t.Errorf("%q is in the file", secret)
		}
	}
}

// I-SIZE-4, I-SIZE-5: whatever sizes the upstream reports, each message
// arrives whole, by RETR and TOP and from the read-ahead. With SizesExact,
// LIST announces the true size from the start.
func TestWrongSizes(t *testing.T) {
	sizes := []int64{1, 40, 99, 101, 5000, 1 << 20, 1 << 40, 1 << 62, 1<<63 - 1}
	for _, policy := range []Sizes{SizesReported, SizesExact} {
		t.Run(string(policy), func(t *testing.T) {
			m := newModel()
			for _, size := range sizes {
				addSized(m, 100, size)
			}
			g := front(t, m.backend(t, Options{Sizes: policy}))
			for round := range 2 {
				commands := []string{"STAT"}
				for i := range sizes {
					commands = append(commands, fmt.Sprint("LIST ", i+1), fmt.Sprint("RETR ", i+1), fmt.Sprint("TOP ", i+1, " 9"))
				}
				replies := ask(g, commands...)
				for i, size := range sizes {
					if round == 1 || policy == SizesExact {
						size = 100
					}
					want := []string{fmt.Sprint("+OK ", i+1, " ", size), "+OK 100 octets (100)", "+OK top of message follows (100)"}
					if diff := cmp.Diff(want, replies[3*i+1:3*i+4]); diff != "" {
						t.Errorf("round %d: %s", round, diff)
					}
				}
				if strings.Contains(replies[0], "-") {
					t.Errorf("STAT: %s", replies[0])
				}
			}
		})
	}
}

// I-SIZE-5: a message arrives whole even if the upstream reports a size of
// zero.
func TestSizeZero(t *testing.T) {
	script := strings.Replace(opened, "RFC822.SIZE 100", "RFC822.SIZE 0", 1)
	play(t, "I-SIZE-5", script+retr+"S: * 1 FETCH (UID 7 BODY[] {5}\nS+: hello\nS: )\nS: <r> OK x\n"+bye, Options{}, func(s *session) {
		d := s.open()
		if got := s.text(d.Read(s.ctx, 7)); got != "hello" {
			s.Errorf("%q", got)
		}
	})
}

// I-SIZE-4: messages are measured once. After a lost connection the login
// measures the rest, and later logins new mail only. A message that is refused
// keeps the reported size.
func TestExact(t *testing.T) {
	const fetch = " (UID BODY.PEEK[])\n"
	two := strings.Replace(strings.Replace(opened, "S: * 1 EXISTS\n", "S: * 2 EXISTS\n", 1), "S: <f> OK", "S: * 2 FETCH (UID 9 RFC822.SIZE 100)\nS: <f> OK", 1)
	two = strings.Replace(two, "UIDNEXT 8", "UIDNEXT 10", 1)
	warm := strings.Replace(two[:strings.Index(two, "S: * 1 FETCH")], "UID FETCH 1:*", "UID FETCH 10:*", 1) + "S: <f> OK x\n"
	script := two + "C: <m> UID FETCH 7,9" + fetch + "S: * 1 FETCH (UID 7 BODY[] {3}\nS+: a\nS64: Cg==\nS: )\nX:\n" +
		"-- connection 2 --\n" + warm + "C: <m> UID FETCH 9" + fetch + "S: <m> NO x\n" + bye +
		"-- connection 3 --\n" + warm + "C: <m> UID FETCH 9" + fetch + "S: * 2 FETCH (BODY[] {2}\nS+: hi\nS:  UID 9)\nS: <m> OK x\n" + bye +
		"-- connection 4 --\n" + warm + bye
	script = strings.Replace(script, "{3}\nS+: a\nS64: Cg==\n", "{2}\nS64: YQo=\n", 1)
	play(t, "I-SIZE-4", script, Options{Sizes: SizesExact}, func(s *session) {
		for i, want := range [][]proxy.Message{
			{{UID: 7, Octets: 3}, {UID: 9, Octets: 100}},
			{{UID: 7, Octets: 3}, {UID: 9, Octets: 4}},
			{{UID: 7, Octets: 3}, {UID: 9, Octets: 4}},
		} {
			d := s.open()
			if diff := cmp.Diff(want, d.Messages()); diff != "" {
				s.Errorf("%d: %s", i, diff)
			}
			if n := d.(*maildrop).reportedOctets(7); n != 100 {
				s.Errorf("reported: %d", n)
			}
			d.Close()
		}
	})
}

// I-SIZE-3: sizes are not remembered where UIDs do not last, nor those of
// placeholders.
func TestSizesNotLasting(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := store.NewMemory(1 << 20)
		m := &maildrop{snapshot: &snapshot{messages: []proxy.Message{{UID: 7, Octets: 100}}, uidValidity: 9}, opts: &Options{Store: s}}
		m.learnSize(7, 103)
		m.rememberSizes()
		if s.Sizes(m.key, 9) != nil {
			t.Error("a size is remembered")
		}
		m.lasting, m.placeholders = true, []uint64{7}
		m.learnSize(7, 103)
		m.rememberSizes()
		if s.Sizes(m.key, 9) != nil {
			t.Error("the size of a placeholder is remembered")
		}
	})
}

// P-RETR-3: octets are counted as POP3 sends them, in pieces of any size.
func TestOctetCounter(t *testing.T) {
	for text, want := range map[string]int64{
		"": 0, "\n": 2, "\r\n": 2, "\r": 3, "a": 3, "a\n": 3, "a\r\n": 3, "\n\n": 4, "a\nb": 6, "a\r\r\n": 4, "\r\na\r": 6, ".\r\n": 3,
	} {
		for range 10 {
			var c octetCounter
			for rest := text; rest != ""; {
				n := 1 + rand.IntN(len(rest))
				_, _ = c.Write([]byte(rest[:n]))
				rest = rest[n:]
			}
			if got := c.total(); got != want {
				t.Errorf("%q: %d octets, want %d", text, got, want)
			}
		}
	}
}
