//go:build integration

package servertest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"popgate/imapbackend"
	"popgate/imapbackend/servertest"
	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// checks are what the gateway does in front of each server. Each has users of
// its own.
var checks = []struct {
	name string // as docs/upstreams.md lists it
	run  func(*testing.T, *servertest.Server)
}{
	{"five logins in a row", checkLoginsInARow},
	{"five logins at once", checkLoginsAtOnce},
	{"a wrong password, then the right one", checkWrongPassword},
	{"all commands", checkCommands},
	{"RETR and TOP of unusual messages", checkMessages},
	{"sizes", checkSizes},
	{"messages flagged by another client", checkFlagged},
	{"another client during a session", checkDuring},
	{"searches among UIDs that are no sequence numbers", checkSets},
	{"another client between sessions", checkBetween},
	{"removal by each policy", checkRemoval},
	{"cut connections", checkCut},
	{"kept connections", checkKept},
	{"unique-ids from session to session", checkUniqueIDs},
}

// TestGateway runs the gateway in front of each server. P-RETR-3, P-TOP-2, P-TOP-3,
// P-UIDL-2, I-SNAP-3, I-SNAP-7, I-SNAP-9, I-SIZE-3, I-SIZE-4, I-TOP-2, I-DEL-7,
// I-DEL-8, I-DEL-13: what holds in front of Dovecot holds in front of the others.
func TestGateway(t *testing.T) {
	for _, name := range servertest.All() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := servertest.Start(t, name)
			for _, c := range checks {
				t.Run(c.name, func(t *testing.T) { c.run(t, s.In(t)) })
			}
			t.Run("document", func(t *testing.T) { checkDocument(t, s.In(t)) })
		})
	}
}

// gateway serves s by POP3.
type gateway struct {
	*proxytest.Gateway
	backend  *imapbackend.Backend
	s        *servertest.Server
	upstream *relay // to s
	log      *proxytest.Log
}

func serve(t *testing.T, s *servertest.Server, change func(*imapbackend.Options)) gateway {
	t.Helper()
	upstream := imapbackend.Defaults()
	upstream.Name, upstream.Address, upstream.TLS = s.Name, s.Addr, proxy.TLSNone
	if change != nil {
		change(&upstream)
	}
	r := newRelay(t, upstream.Address)
	upstream.Address = r.Addr().String()
	b, err := imapbackend.New(upstream)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	log := new(proxytest.Log)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of the gateway:\n%s", log)
		}
	})
	opts := proxy.Options{Backend: b, Logger: log.Logger()}
	return gateway{proxytest.Serve(t, proxytest.Loopback(t), opts, proxytest.Insecure), b, s, r, log}
}

// session logs a user in.
func (g gateway) session(user string) *proxytest.Client {
	c := g.Dial()
	c.Login(user, g.s.Password)
	return c
}

// quit ends a session. If the server WritesLate, it waits until the server has
// ended it too.
func (g gateway) quit(t *testing.T, c *proxytest.Client) {
	t.Helper()
	c.Do("QUIT", "+OK")
	if limited(g.s, servertest.WritesLate) {
		g.upstream.awaitEnd(t)
	}
}

// message is a plain message. No two with different numbers are equal or of the
// same size.
func message(i int) []byte {
	return fmt.Appendf(nil, "From: a@popgate.test\r\nTo: b@popgate.test\r\nSubject: message %d\r\n"+
		"Date: Mon, 05 Jan 2026 10:00:00 +0000\r\nMessage-ID: <%d@popgate.test>\r\n\r\n"+
		"This is message %d.\r\n.dot\r\nline 3\r\nline 4\r\n%s", i, i, i, strings.Repeat("more text\r\n", 10*i))
}

// seeded is a new user with n messages, numbered from 0.
func seeded(s *servertest.Server, n int) string {
	user := s.NewUser()
	var messages [][]byte
	for i := range n {
		messages = append(messages, message(i))
	}
	s.Append(user, messages...)
	return user
}

// show returns, for each message of the maildrop, its number in the Subject that
// message gave it.
func show(t *testing.T, c *proxytest.Client) []int {
	t.Helper()
	var shown []int
	for line := range strings.Lines(c.Fetch("LIST")) {
		n, _, _ := strings.Cut(line, " ")
		shown = append(shown, numberOf(t, c.Fetch("RETR "+n)))
	}
	return shown
}

// numberOf returns the number in the Subject of a message, and checks that what
// follows is the message of this number.
func numberOf(t *testing.T, text string) int {
	t.Helper()
	_, subject, _ := strings.Cut("\r\n"+text, "\r\nSubject: message ")
	var i int
	if _, err := fmt.Sscan(subject, &i); err != nil {
		t.Fatalf("no number in the Subject (%v) of\n%s", err, text)
	}
	_, body, _ := strings.Cut(text, "\r\n\r\n")
	if !strings.HasSuffix(string(message(i)), "\r\n\r\n"+body) {
		t.Errorf("message %d is\n%s", i, text)
	}
	return i
}

// wantShown checks which messages a new session shows.
func (g gateway) wantShown(t *testing.T, user string, want ...int) {
	t.Helper()
	c := g.session(user)
	if got := show(t, c); !slices.Equal(got, want) {
		t.Errorf("messages %v are shown, want %v", got, want)
	}
	g.quit(t, c)
}

func limited(s *servertest.Server, limit servertest.Limit) bool {
	_, stated := s.Limits()[limit]
	return stated
}

// wantLimit checks that the server has a limit if, and only if, kinds.go says so.
func wantLimit(t *testing.T, s *servertest.Server, limit servertest.Limit, has bool) {
	t.Helper()
	switch stated := limited(s, limit); {
	case has && !stated:
		t.Errorf("the server %s, which kinds.go does not state", limit)
	case stated && !has:
		t.Errorf("kinds.go says that the server %s, which it did not", limit)
	}
}
