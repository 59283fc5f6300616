package demo

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/emersion/go-imap"
	"github.com/emersion/go-imap/client"
	"github.com/emersion/go-sasl"
)

func TestSamplesOctetForOctet(t *testing.T) {
	s := New()
	addr := start(t, s)
	samples := Samples()
	for _, m := range samples {
		add(t, s, string(m))
	}
	c := login(t, addr, "EXAMINE inbox")
	for i, m := range samples {
		want := fmt.Sprintf("* %d FETCH (UID %d RFC822.SIZE %d BODY[] {%d}\r\n%s)\r\n", i+1, i+1, len(m), len(m), m)
		c.want(fmt.Sprintf("UID FETCH %d (UID RFC822.SIZE BODY.PEEK[])", i+1), want)

		text := textStart(m)
		want = fmt.Sprintf("* %d FETCH (BODY[HEADER] {%d}\r\n%s BODY[TEXT] {%d}\r\n%s)\r\n",
			i+1, text, m[:text], len(m)-text, m[text:])
		c.want(fmt.Sprintf("FETCH %d (BODY.PEEK[HEADER] BODY.PEEK[TEXT])", i+1), want)
	}
	for _, m := range s.Messages("demo") {
		if len(m.Flags) > 0 {
			t.Errorf("UID %d has flags %q after BODY.PEEK", m.UID, m.Flags)
		}
	}
}

func TestSamplesAreWhatTheySay(t *testing.T) {
	checks := map[string]func(m string) bool{
		"dots":              func(m string) bool { return strings.Contains(m, "\r\n.\r\n..\r\n...\r\n") },
		"first octet":       func(m string) bool { return strings.Contains(m, "\r\n\r\n.") },
		"last line":         func(m string) bool { return strings.HasSuffix(m, "\r\n.\r\n") },
		"eight bits":        func(m string) bool { return strings.Contains(m, "\u2603") },
		"long lines":        func(m string) bool { return slices.ContainsFunc(strings.Split(m, "\r\n"), isLong) },
		"no final line end": func(m string) bool { return !strings.HasSuffix(m, "\n") },
		"attachment":        func(m string) bool { return strings.Contains(m, "base64") },
		"no text":           func(m string) bool { return strings.Index(m, "\r\n\r\n") == len(m)-4 },
		"header only":       func(m string) bool { return !strings.Contains(m, "\r\n\r\n") && strings.HasSuffix(m, ">\r\n") },
		"bare LF":           func(m string) bool { return !strings.Contains(m, "\r") },
		"bare CR":           func(m string) bool { return strings.Contains(m, "%\rP") },
		"many Received":     func(m string) bool { return strings.Count(m, "\r\nReceived:") > 100 },
		"no header":         func(m string) bool { return strings.HasPrefix(m, "\r\n") },
	}
	for name, is := range checks {
		if !slices.ContainsFunc(Samples(), func(m []byte) bool { return is(string(m)) }) {
			t.Errorf("no sample with %s", name)
		}
	}
}

func isLong(line string) bool { return len(line) > 64<<10 }

func TestLogin(t *testing.T) {
	s := New()
	addr := start(t, s)
	s.AddUser("ann@example.org", "old")
	s.AddUser("ann@example.org", `pa ss"\`)
	plain := base64.StdEncoding.EncodeToString([]byte("\x00ann@example.org\x00pa ss\"\\"))

	for _, lines := range [][]string{
		{`LOGIN ann@example.org "pa ss\"\\"`},
		{"AUTHENTICATE PLAIN " + plain},
		{"AUTHENTICATE PLAIN", plain},
		{"AUTHENTICATE LOGIN", "YW5uQGV4YW1wbGUub3Jn", "cGEgc3MiXA=="},
		{"AUTHENTICATE LOGIN YW5uQGV4YW1wbGUub3Jn", "cGEgc3MiXA=="},
	} {
		// NOOP is pipelined after the credentials.
		c := dial(t, addr)
		lines[len(lines)-1] += "\r\nx NOOP"
		if status := c.authenticate(lines); !strings.HasPrefix(status, "OK") {
			t.Errorf("%q: %s", lines, status)
		}
		if l := c.line(); !strings.HasPrefix(l, "x OK") {
			t.Errorf("%q: pipelined NOOP: %s", lines, l)
		}
		c.ok("SELECT INBOX")
	}
	c := dial(t, addr)
	for _, lines := range [][]string{
		{"LOGIN ann@example.org wrong"},
		{"LOGIN ann@example.org old"},
		{"LOGIN nobody x"},
		{"AUTHENTICATE PLAIN AGRlbW8Ad3Jvbmc="},
		{"AUTHENTICATE LOGIN", "ZGVtbw==", "d3Jvbmc="},
	} {
		if status := c.authenticate(lines); status != "NO [AUTHENTICATIONFAILED] wrong user name or password" {
			t.Errorf("%q: %s", lines, status)
		}
	}
	c.refused("SELECT INBOX", "NO")
}

// authenticate sends lines, each but the first when the server asks for it,
// and returns the tagged response.
func (s *session) authenticate(lines []string) (status string) {
	s.t.Helper()
	s.tags++
	tag := fmt.Sprintf("t%d ", s.tags)
	for i, l := range lines {
		if i == 0 {
			l = tag + l
		} else if got := s.line(); !strings.HasPrefix(got, "+") {
			s.t.Fatalf("%q: %s", lines[0], got)
		}
		if _, err := fmt.Fprintf(s.conn, "%s\r\n", l); err != nil {
			s.t.Fatal(err)
		}
	}
	return strings.TrimPrefix(s.line(), tag)
}

// TestClient has a session like the gateway's, with go-imap's client.
func TestClient(t *testing.T) {
	s := New()
	s.UIDValidity = 77
	addr := start(t, s)
	add(t, s, "a\r\n", "bb\r\n", "ccc\r\n")
	c, err := client.Dial(addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Terminate()
	for _, name := range []string{"IMAP4rev1", "UIDPLUS", "SASL-IR", "AUTH=PLAIN", "AUTH=LOGIN"} {
		if ok, err := c.Support(name); !ok || err != nil {
			t.Errorf("%s: %v, %v", name, ok, err)
		}
	}
	if err := c.Authenticate(sasl.NewLoginClient("demo", "demo")); err != nil {
		t.Fatal(err)
	}
	st, err := c.Select("INBOX", false)
	if err != nil {
		t.Fatal(err)
	}
	if st.Messages != 3 || st.UidValidity != 77 || st.UidNext != 4 || st.UnseenSeqNum != 1 || st.ReadOnly {
		t.Errorf("SELECT: %+v", st)
	}
	set, _ := imap.ParseSeqSet("1:*")
	ch := make(chan *imap.Message, 3)
	if err := c.UidFetch(set, []imap.FetchItem{imap.FetchUid, imap.FetchRFC822Size}, ch); err != nil {
		t.Fatal(err)
	}
	for n := uint32(1); n <= 3; n++ {
		if m := <-ch; m.SeqNum != n || m.Uid != n || m.Size != n+2 {
			t.Errorf("message %d: UID %d, %d octets", m.SeqNum, m.Uid, m.Size)
		}
	}
	if err := c.Logout(); err != nil {
		t.Fatal(err)
	}
}

func TestLargeMessage(t *testing.T) {
	s := New()
	addr := start(t, s)
	big := bytes.Repeat([]byte("30,000,000 octets of this line\r\n"), 30e6/32)
	if _, err := s.Append("demo", big); err != nil {
		t.Fatal(err)
	}
	c := login(t, addr, "SELECT INBOX")
	c.want("UID FETCH 1 (BODY.PEEK[]<29999900.100>)",
		fmt.Sprintf("* 1 FETCH (BODY[]<29999900> {%d}\r\n%s UID 1)\r\n", len(big)-29999900, big[29999900:]))

	if _, err := io.WriteString(c.conn, "x UID FETCH 1 (BODY.PEEK[])\r\n"); err != nil {
		t.Fatal(err)
	}
	if l, err := c.in.ReadString('\n'); l != fmt.Sprintf("* 1 FETCH (BODY[] {%d}\r\n", len(big)) {
		t.Fatalf("%q, %v", l, err)
	}
	for part := range slices.Chunk(big, 30e6/32) {
		got := make([]byte, len(part))
		if _, err := io.ReadFull(c.in, got); err != nil || !bytes.Equal(got, part) {
			t.Fatalf("other octets, or %v", err)
		}
	}
	if l := c.line(); l != " UID 1)" {
		t.Errorf("after the literal: %q", l)
	}
	c.line()

	if _, err := fmt.Fprintf(c.conn, "y APPEND INBOX {%d+}\r\n", len(big)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.conn.Write(big); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c.conn, "\r\n"); err != nil {
		t.Fatal(err)
	}
	for l := ""; !strings.HasPrefix(l, "y OK"); {
		if l = c.line(); l != "* 2 EXISTS" && !strings.HasPrefix(l, "y OK") {
			t.Fatalf("APPEND: %q", l)
		}
	}
	if m := s.Messages("demo"); len(m) != 2 || !bytes.Equal(m[1].Octets, big) {
		t.Errorf("%d messages after APPEND, or another one", len(m))
	}
}

// TestParallelSessions reads, flags, appends and expunges in several sessions at
// the same time: each must see whole messages with the right UID, and no UID
// twice.
func TestParallelSessions(t *testing.T) {
	const sessions, rounds = 8, 10
	s := New()
	addr := start(t, s)
	body := func(i int) string { return fmt.Sprintf("Subject: %d\r\n\r\n%s\r\n", i, strings.Repeat("x", i)) }
	for i := range sessions * rounds {
		add(t, s, body(i))
	}
	var wg sync.WaitGroup
	for n := range sessions {
		c := login(t, addr, "SELECT INBOX")
		wg.Go(func() {
			for r := range rounds {
				i := r*sessions + n
				want := body(i)
				u, status := c.cmd(fmt.Sprintf("UID FETCH %d (UID BODY[])", i+1))
				if !strings.HasPrefix(status, "OK") || !strings.Contains(u, fmt.Sprintf("UID %d BODY[] {%d}\r\n%s", i+1, len(want), want)) {
					t.Errorf("UID FETCH %d: %q %s", i+1, u, status)
				}
				for _, cmd := range []string{
					fmt.Sprintf(`UID STORE %d +FLAGS.SILENT (\Deleted)`, i+1),
					fmt.Sprintf("UID EXPUNGE %d", i+1),
					"NOOP",
					"APPEND INBOX {3+}\r\nnew",
					"UID SEARCH DELETED",
					"UID FETCH 1:* (FLAGS)",
				} {
					if _, status := c.cmd(cmd); !strings.HasPrefix(status, "OK") {
						t.Errorf("%s: %s", cmd, status)
					}
				}
			}
		})
	}
	wg.Wait()
	left := s.Messages("demo")
	if len(left) != sessions*rounds {
		t.Fatalf("%d messages left, want the %d new ones", len(left), sessions*rounds)
	}
	for i, m := range left {
		if m.UID != uint32(sessions*rounds+i+1) || string(m.Octets) != "new" {
			t.Errorf("message %d: UID %d, %q", i+1, m.UID, m.Octets)
		}
	}
}

func TestClose(t *testing.T) {
	s := New()
	s.Logger = slog.New(slog.NewTextHandler(io.Discard, &slog.HandlerOptions{Level: slog.LevelDebug}))
	addr := start(t, s)
	c := login(t, addr, "SELECT INBOX")
	s.Close()
	s.Close()
	if _, err := c.in.ReadByte(); err == nil {
		t.Error("the connection is open after Close")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Serve(l); err != nil {
		t.Errorf("Serve after Close: %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the listener after Serve: %v, want closed", err)
	}
}

func TestServeReportsListenerFailure(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if err := New().Serve(l); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Serve: %v", err)
	}
}

func TestUnknownUser(t *testing.T) {
	s := New()
	if _, err := s.Append("nobody", nil); err == nil {
		t.Error("Append for an unknown user succeeds")
	}
	if m := s.Messages("nobody"); m != nil {
		t.Errorf("Messages: %v", m)
	}
}
