package proxytest

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"popgate/proxy"
)

// Mailbox is an empty mailbox of the Backend under test, with functions that
// access it without the Backend.
type Mailbox struct {
	Backend    proxy.Backend
	Credential proxy.Credential // of its owner; the password is ASCII

	// Seed appends messages to the mailbox. It may change line ends to CRLF,
	// and add one that is missing at the end.
	Seed func(t *testing.T, messages ...[]byte)

	// Left returns the messages in the mailbox, oldest first.
	Left func(t *testing.T) [][]byte

	// Expunge removes the message at index i of Left, as another client of
	// the mailbox does.
	Expunge func(t *testing.T, i int)
}

// conformanceTime is the time limit of one case of the suite.
const conformanceTime = time.Minute

// TestBackend checks that a Backend does what the comments of package proxy
// demand, each case as a subtest. open returns a new, empty mailbox for each case
// and cleans up by t.Cleanup.
func TestBackend(t *testing.T, open func(t *testing.T) Mailbox) {
	for _, tt := range []struct {
		name string
		test func(*conformance)
	}{
		{"P-RESP-7 wrong password", (*conformance).wrongPassword},
		{"P-RESP-7 unknown user", (*conformance).unknownUser},
		{"P-AUTH-5 foreign authzid", (*conformance).foreignAuthzid},
		{"O-LOCK-2 identity", (*conformance).identity},
		{"P-PASS-4 login not opened", (*conformance).loginNotOpened},
		{"P-STAT-1 empty", (*conformance).empty},
		{"P-LIST-3 snapshot", (*conformance).snapshot},
		{"I-CONC-3 new mail", (*conformance).newMail},
		{"P-UIDL-2 unique-ids", (*conformance).uniqueIDs},
		{"P-RETR-3 read", (*conformance).read},
		{"P-RETR-8 gone", (*conformance).gone},
		{"P-RETR-5 body not read", (*conformance).bodyNotRead},
		{"P-TOP-2 top", (*conformance).top},
		{"P-SESS-5 close", (*conformance).closeOnly},
		{"P-QUIT-2 update", (*conformance).update},
		{"P-QUIT-3 update after expunge", (*conformance).updateGone},
		{"P-QUIT-4 update of none", (*conformance).updateNone},
		{"P-SESS-9 cancelled", (*conformance).cancelled},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), conformanceTime)
			defer cancel()
			tt.test(&conformance{T: t, Mailbox: open(t), ctx: ctx})
		})
	}
}

// Samples returns messages that gateways often get wrong: with dots, 8-bit
// octets, long lines and many lines, without a final line end or a body.
func Samples() [][]byte {
	return [][]byte{
		[]byte("Subject: plain\r\nFrom: a@example.org\r\n\r\none\r\ntwo\r\nthree\r\n"),
		[]byte("Subject: dots\r\n\r\n.\r\n..\r\n.a\r\n...\r\n\r\n"),
		[]byte("Subject: 8-bit\r\n\r\ngr\xfc\xdfe \xff\xfe\r\n"),
		[]byte("Subject: no final line end\r\n\r\nlast"),
		[]byte("Subject: no body\r\n\r\n"),
		[]byte("Subject: no empty line\r\n"),
		append([]byte("Subject: long line\r\n\r\n"), bytes.Repeat([]byte("0123456789"), 20000)...),
		append([]byte("Subject: many lines\r\n\r\n"), bytes.Repeat([]byte(".dot\r\n"), 30000)...),
		[]byte("Subject: empty lines\r\n\r\n\r\n\r\n\r\n"),
	}
}

type conformance struct {
	*testing.T
	Mailbox
	ctx context.Context
}

// login logs in, or ends the test.
func (c *conformance) login() proxy.Login {
	c.Helper()
	l, err := c.Backend.Login(c.ctx, c.Credential)
	if err != nil {
		c.Fatalf("Login: %v", err)
	}
	return l
}

// open logs in and opens the maildrop, which is closed at the end of the test.
func (c *conformance) open() proxy.Maildrop {
	c.Helper()
	l := c.login()
	d, err := l.Open(c.ctx)
	if err != nil {
		_ = l.Close()
		c.Fatalf("Open: %v", err)
	}
	if err := l.Close(); err != nil {
		c.Errorf("Close of an opened Login: %v", err)
	}
	c.Cleanup(func() { _ = d.Close() })
	return d
}

// text reads a whole message.
func (c *conformance) text(body proxy.Body, err error) []byte {
	c.Helper()
	if err != nil {
		c.Fatalf("opening a message: %v", err)
	}
	var buf bytes.Buffer
	if _, err := body.WriteTo(&buf); err != nil {
		c.Errorf("WriteTo: %v", err)
	}
	if err := body.Close(); err != nil {
		c.Errorf("Close of a Body: %v", err)
	}
	return buf.Bytes()
}

func (c *conformance) refused(cred proxy.Credential) {
	c.Helper()
	l, err := c.Backend.Login(c.ctx, cred)
	if err == nil {
		_ = l.Close()
		c.Fatal("login succeeded")
	}
	if !errors.Is(err, proxy.ErrAuth) {
		c.Errorf("Login: %v, want ErrAuth", err)
	}
}

// MemoryMailbox returns a Mailbox of a Backend of this package.
func MemoryMailbox(t *testing.T) Mailbox {
	b := NewBackend()
	b.AddAccount("alice", "secret", false)
	t.Cleanup(func() {
		if n := b.Open(); n != 0 {
			t.Errorf("%d logins or maildrops are still open", n)
		}
	})
	return Mailbox{
		Backend:    b,
		Credential: proxy.Credential{Username: "alice", Password: "secret"},
		Seed: func(_ *testing.T, messages ...[]byte) {
			for _, m := range messages {
				b.Add("alice", Stored{Body: m})
			}
		},
		Left: func(*testing.T) [][]byte {
			var left [][]byte
			for _, m := range b.Messages("alice") {
				left = append(left, m.Body)
			}
			return left
		},
		Expunge: func(_ *testing.T, i int) { b.Expunge("alice", b.Messages("alice")[i].UID) },
	}
}
