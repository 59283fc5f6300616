//go:build integration

package main_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"popgate/imapbackend/dovecottest"
	"popgate/proxy/proxytest"
)

// bigMessage is the message-number in smallMaildrop of a message that is larger
// than any socket buffer.
const bigMessage = 6

// smallMaildrop returns joe's INBOX with a few messages and flags, and a gateway
// in front of it.
func smallMaildrop(t testing.TB, opts ...dovecottest.Option) *maildrop {
	t.Helper()
	m := &maildrop{upstream: dovecottest.Start(t, opts...)}
	for n := 1; n <= 10; n++ {
		text := fmt.Sprintf("Subject: %d\r\n\r\n.text %d\r\n", n, n)
		if n == bigMessage {
			text += strings.Repeat("0123456789012345678901234567890123456789012345678901234567890123456789\r\n", 400000)
		}
		m.names = append(m.names, fmt.Sprintf("message %d", n))
		m.want = append(m.want, []byte(text))
	}
	m.upstream.Append("joe", m.want...)
	c := m.upstream.Login("joe")
	c.Select("INBOX")
	c.Store("1:4", `+FLAGS (\Seen)`)
	c.Store("2,9", `+FLAGS (\Flagged $Work)`)
	c.Logout()
	m.before = m.upstream.Flags("joe")
	m.gateway = startGateway(t, plainConfig(m.upstream.Addr))
	return m
}

// without returns the messages before the test, except those with uids.
func (m *maildrop) without(uids ...uint64) []dovecottest.Message {
	var left []dovecottest.Message
	for _, message := range m.before {
		removed := false
		for _, uid := range uids {
			removed = removed || message.UID == uid
		}
		if !removed {
			left = append(left, message)
		}
	}
	return left
}

// mustHave checks the messages and flags upstream.
func (m *maildrop) mustHave(t testing.TB, want []dovecottest.Message) {
	t.Helper()
	if diff := cmp.Diff(want, m.upstream.Flags("joe")); diff != "" {
		t.Errorf("upstream (-want +got):\n%s", diff)
	}
}

// beginRetr reads the first octets of a big message.
func beginRetr(t testing.TB, c *proxytest.Client) {
	t.Helper()
	c.OK(fmt.Sprintf("RETR %d", bigMessage))
	if _, err := io.CopyN(io.Discard, c.Reader, 1<<20); err != nil {
		t.Fatal(err)
	}
}

// A client that disconnects without QUIT, at any point, changes nothing upstream
// and releases the maildrop: P-SESS-5, P-RETR-6, P-TOP-4, O-LOCK-1.
func TestClientKilled(t *testing.T) {
	m := smallMaildrop(t)
	points := []struct {
		name string
		do   func(t *testing.T, c *proxytest.Client)
	}{
		{"after login", func(*testing.T, *proxytest.Client) {}},
		{"after DELE", func(t *testing.T, c *proxytest.Client) { c.OK("DELE 1", "DELE 2", "DELE 10") }},
		{"after RETR, TOP and DELE", func(t *testing.T, c *proxytest.Client) {
			for _, command := range []string{"RETR 7", "TOP 8 0", "UIDL", "LIST"} {
				c.Fetch(command)
			}
			c.OK("DELE 7")
		}},
		{"during RETR", beginRetrAfterDELE},
		{"with replies unread", func(t *testing.T, c *proxytest.Client) {
			c.OK("DELE 3")
			c.Send("RETR 6", "RETR 6", "RETR 6", "DELE 1", "DELE 2")
		}},
		{"within a command", func(t *testing.T, c *proxytest.Client) {
			c.OK("DELE 1")
			c.Write("QUIT")
		}},
		{"after CR of QUIT", func(t *testing.T, c *proxytest.Client) {
			c.OK("DELE 1")
			c.Write("QUIT\r")
		}},
	}
	for _, point := range points {
		for _, reset := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, reset %v", point.name, reset), func(t *testing.T) {
				c := loginPOP(t, m.gateway.addr, "joe")
				point.do(t, c)
				if reset {
					if err := c.Conn.(*net.TCPConn).SetLinger(0); err != nil {
						t.Fatal(err)
					}
				}
				c.Conn.Close()
				// The next session waits for the end of this one.
				loginPOP(t, m.gateway.addr, "joe").OK("QUIT")
				m.mustBeUntouched(t)
			})
		}
	}
}

func beginRetrAfterDELE(t *testing.T, c *proxytest.Client) {
	c.OK("DELE 1")
	beginRetr(t, c)
}

// A session whose upstream connection is lost continues, and so does a message,
// at the octet where it was cut off: I-CONC-4, I-FETCH-7, I-DEL-11, P-RETR-7.
func TestUpstreamConnectionKilled(t *testing.T) {
	m := smallMaildrop(t)
	kill := func(t *testing.T) {
		t.Helper()
		if n := m.upstream.KillSessions(); n != 1 {
			t.Fatalf("killed %d sessions, want 1", n)
		}
	}
	t.Run("nothing marked", func(t *testing.T) {
		c := loginPOP(t, m.gateway.addr, "joe")
		kill(t)
		c.OK("STAT", "NOOP", "LIST 1", "UIDL 1")
		if got := c.Fetch("RETR 1"); got != string(m.want[0]) {
			t.Errorf("RETR: %q", got)
		}
		kill(t)
		c.Fetch("TOP 1 0")
		c.OK("DELE 1", "RSET", "QUIT")
		m.mustBeUntouched(t)
	})
	t.Run("in mid-RETR", func(t *testing.T) {
		c := loginPOP(t, m.gateway.addr, "joe")
		c.OK("DELE 1")
		c.Send(fmt.Sprintf("RETR %d", bigMessage))
		if line, err := c.Reader.ReadString('\n'); err != nil || !strings.HasPrefix(line, "+OK") {
			t.Fatal(line, err)
		}
		want := bytes.ReplaceAll(m.want[bigMessage-1], []byte("\n."), []byte("\n.."))
		got := make([]byte, len(want))
		if _, err := io.ReadFull(c.Reader, got[:1<<20]); err != nil {
			t.Fatal(err)
		}
		kill(t)
		if _, err := io.ReadFull(c.Reader, got[1<<20:]); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Error("the message is not the one that is upstream")
		}
		if end, err := c.Reader.ReadString('\n'); err != nil || end != ".\r\n" {
			t.Errorf("the end of the message: %q, %v", end, err)
		}
		c.OK("RSET", "QUIT")
		m.mustBeUntouched(t)
	})
	t.Run("messages marked", func(t *testing.T) {
		c := loginPOP(t, m.gateway.addr, "joe")
		c.OK("DELE 1", "DELE 2")
		kill(t)
		c.OK("DELE 3", "QUIT")
		m.mustHave(t, m.without(1, 2, 3))
	})
}

// No message is lost if the upstream stops before QUIT: P-SESS-5, P-RETR-7,
// I-CONC-4, I-FETCH-6, P-QUIT-2.
func TestUpstreamKilled(t *testing.T) {
	m := smallMaildrop(t)
	t.Run("nothing marked", func(t *testing.T) {
		c := loginPOP(t, m.gateway.addr, "joe")
		m.upstream.Kill()
		c.OK("STAT", "NOOP", "LIST 1", "UIDL 1")
		c.Do("RETR 1", "-ERR [SYS/TEMP] ")
		c.Do("TOP 1 0", "-ERR [SYS/TEMP] ")
		m.upstream.Restart()
		if got := c.Fetch("RETR 1"); got != string(m.want[0]) {
			t.Errorf("RETR after the restart: %q", got)
		}
		c.OK("DELE 1", "RSET", "QUIT")
		m.mustBeUntouched(t)
	})
	t.Run("messages marked", func(t *testing.T) {
		c := loginPOP(t, m.gateway.addr, "joe")
		c.OK("DELE 1", "DELE 2")
		m.upstream.Kill()
		c.OK("DELE 3")
		c.Do("QUIT", "-ERR [SYS/TEMP] ")
		m.upstream.Restart()
		m.mustBeUntouched(t)
	})
	t.Run("in mid-RETR", func(t *testing.T) {
		c := loginPOP(t, m.gateway.addr, "joe")
		beginRetrAfterDELE(t, c)
		m.upstream.Kill()
		rest, err := io.ReadAll(c.Reader)
		if err != nil && !strings.Contains(err.Error(), "reset by peer") {
			t.Errorf("after a lost upstream: %v", err)
		}
		if bytes.HasSuffix(rest, []byte("\r\n.\r\n")) {
			t.Error("a message that was cut off ends like a whole one")
		}
		m.upstream.Restart()
		m.mustBeUntouched(t)
	})
}

// QUIT removes the messages that the session has marked and no others: P-QUIT-2,
// P-QUIT-3, P-RSET-1, I-DEL-2, I-DEL-3, I-SNAP-3, I-CONC-3.
func TestQuitRemovesExactlyTheMarked(t *testing.T) {
	m := smallMaildrop(t)
	other := m.upstream.Login("joe")
	other.Select("INBOX")
	other.Store("3", `+FLAGS (\Deleted)`) // before the session: not in the maildrop
	c := loginPOP(t, m.gateway.addr, "joe")
	c.Do("STAT", "+OK 9 ")
	other.Store("5", `+FLAGS (\Deleted)`) // during the session: stays in the maildrop
	other.Append("INBOX", []byte("Subject: new\r\n\r\nnew\r\n"))
	c.Do("STAT", "+OK 9 ")
	c.OK("DELE 8", "RSET")
	// UID 3 is hidden: message-numbers 1, 3 and 5 are UIDs 1, 4 and 6.
	c.OK("DELE 1", "DELE 3", "DELE 5", "QUIT")

	want := m.without(1, 4, 6)
	for i := range want {
		switch want[i].UID {
		case 3:
			want[i].Flags = `(\Deleted \Seen)`
		case 5:
			want[i].Flags = `(\Deleted)`
		}
	}
	m.mustHave(t, append(want, dovecottest.Message{UID: 11, Flags: "()"}))
}

// QUIT is executed although the client has disconnected: P-SESS-6.
func TestQuitWithoutReader(t *testing.T) {
	m := smallMaildrop(t)
	c := loginPOP(t, m.gateway.addr, "joe")
	c.OK("DELE 2", "DELE 3")
	c.Send("QUIT")
	c.Conn.Close()
	loginPOP(t, m.gateway.addr, "joe").Do("STAT", "+OK 8 ")
	m.mustHave(t, m.without(2, 3))
}

// Without UIDPLUS nothing is expunged, by either policy: I-DEL-7, I-LOGIN-2.
func TestWithoutUIDPLUS(t *testing.T) {
	m := smallMaildrop(t, dovecottest.WithCapability("IMAP4rev1"))
	refusing := startGateway(t, plainConfig(m.upstream.Addr)+"without_uidplus = \"refuse\"\n")
	c := loginPOP(t, refusing.addr, "joe")
	c.OK("DELE 1")
	c.Do("QUIT", "-ERR [SYS/PERM] ")
	m.mustBeUntouched(t)

	other := m.upstream.Login("joe")
	other.Select("INBOX")
	other.Store("10", `+FLAGS (\Deleted)`)
	other.Logout()
	c = loginPOP(t, m.gateway.addr, "joe")
	c.OK("DELE 1", "QUIT")
	loginPOP(t, m.gateway.addr, "joe").Do("STAT", "+OK 8 ")
	want := m.without()
	want[0].Flags = `(\Deleted \Seen)`
	want[9].Flags = `(\Deleted)`
	m.mustHave(t, want)
}
