//go:build integration

package dovecottest_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"popgate/imapbackend/dovecottest"
)

// Each format stores the messages that Stored returns.
func TestStores(t *testing.T) {
	for _, store := range []string{"maildir", "sdbox", "mdbox"} {
		t.Run(store, func(t *testing.T) {
			s := dovecottest.Start(t, dovecottest.WithStore(store))
			corpus := dovecottest.Corpus()
			s.Append("joe", octets(corpus)...)
			got := s.Messages("joe")
			if len(got) != len(corpus) {
				t.Fatalf("%d messages, appended %d", len(got), len(corpus))
			}
			for i, m := range got {
				want := dovecottest.Stored(corpus[i].Octets)
				if at := difference(m.Octets, want); at >= 0 {
					t.Errorf("%s: %d octets stored, want %d; from octet %d on %.80q, want %.80q", corpus[i].Name,
						len(m.Octets), len(want), at, m.Octets[at:], want[at:])
				}
			}
		})
	}
}

// difference returns the index of the first octet in which a and b differ, -1
// if they are equal.
func difference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

func octets(corpus []dovecottest.Sample) [][]byte {
	all := make([][]byte, len(corpus))
	for i, s := range corpus {
		all[i] = s.Octets
	}
	return all
}

func TestFlagsAndExpunge(t *testing.T) {
	s := dovecottest.Start(t)
	m := []byte("Subject: x\r\n\r\ny\r\n")
	s.Append("joe@example.com", m, m, m)
	c := s.Login("joe@example.com")
	c.Select("INBOX")
	c.Store("2:3", `+FLAGS (\Seen)`)
	c.Store("1", `+FLAGS (\Deleted)`)
	want := []dovecottest.Message{{UID: 1, Flags: `(\Deleted)`}, {UID: 2, Flags: `(\Seen)`}, {UID: 3, Flags: `(\Seen)`}}
	if diff := cmp.Diff(want, s.Flags("joe@example.com")); diff != "" {
		t.Errorf("before EXPUNGE:\n%s", diff)
	}
	c.Expunge()
	if diff := cmp.Diff(want[1:], s.Flags("joe@example.com")); diff != "" {
		t.Errorf("after EXPUNGE:\n%s", diff)
	}
}

func TestTLSVerifiesAgainstCA(t *testing.T) {
	s := dovecottest.Start(t)
	for _, name := range []string{"localhost", "127.0.0.1"} {
		conn, err := tls.Dial("tcp", s.TLSAddr, &tls.Config{RootCAs: s.RootCAs, ServerName: name})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		conn.Close()
	}
	if pem, err := os.ReadFile(s.CAFile); err != nil || !bytes.Contains(pem, []byte("BEGIN CERTIFICATE")) {
		t.Errorf("CA file: %v, %.40q", err, pem)
	}
}

func TestCapability(t *testing.T) {
	s := dovecottest.Start(t, dovecottest.WithCapability("IMAP4rev1"))
	got := s.Login("joe").Command("CAPABILITY")
	if len(got) != 1 || got[0].Text != "* CAPABILITY IMAP4rev1" {
		t.Errorf("CAPABILITY: %v", got)
	}
}

// Killed sessions and a killed server lose no mail.
func TestKill(t *testing.T) {
	s := dovecottest.Start(t)
	s.Append("joe", []byte("Subject: x\r\n\r\ny\r\n"))
	before := s.Messages("joe")
	c := s.Login("joe")
	c.Select("INBOX")
	if n := s.KillSessions(); n < 1 {
		t.Errorf("KillSessions found %d sessions", n)
	}
	if diff := cmp.Diff(before, s.Messages("joe")); diff != "" {
		t.Errorf("after KillSessions:\n%s", diff)
	}
	s.Kill()
	if conn, err := net.Dial("tcp", s.Addr); err == nil {
		conn.Close()
		t.Error("the server accepts connections after Kill")
	}
	s.Restart()
	if diff := cmp.Diff(before, s.Messages("joe")); diff != "" {
		t.Errorf("after Kill and Restart:\n%s", diff)
	}
}

func TestDeliver(t *testing.T) {
	s := dovecottest.Start(t)
	message := "Subject: x\r\n\r\n" + strings.Repeat("0123456789\r\n", 1000)
	s.Deliver("joe", int64(len(message)), func(f *os.File) error {
		_, err := f.WriteString(message)
		return err
	})
	got := s.Messages("joe")
	if len(got) != 1 || string(got[0].Octets) != message {
		t.Errorf("the delivered message is %.200q", fmt.Sprint(got))
	}
}

func TestManySessions(t *testing.T) {
	s := dovecottest.Start(t, dovecottest.WithSessionsPerProcess(50))
	for i := range 200 {
		s.Login(fmt.Sprintf("user%d", i)).Select("INBOX")
	}
}
