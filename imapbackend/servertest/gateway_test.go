//go:build integration

package servertest_test

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"testing"

	"popgate/imapbackend"
	"popgate/imapbackend/servertest"
	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// gateway serves s by POP3.
type gateway struct {
	*proxytest.Gateway
	s *servertest.Server
}

func serve(t *testing.T, s *servertest.Server, change func(*imapbackend.Options)) gateway {
	t.Helper()
	upstream := imapbackend.Defaults()
	upstream.Name, upstream.Address, upstream.TLS = s.Name, s.Addr, proxy.TLSNone
	if change != nil {
		change(&upstream)
	}
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
	return gateway{proxytest.Serve(t, proxytest.Loopback(t), opts, proxytest.Insecure), s}
}

// session logs a user in.
func (g gateway) session(user string) *proxytest.Client {
	c := g.Dial()
	c.Login(user, g.s.Password)
	return c
}

func message(i int) []byte {
	return fmt.Appendf(nil, "From: a@popgate.test\r\nTo: b@popgate.test\r\nSubject: message %d\r\n"+
		"Date: Mon, 05 Jan 2026 10:00:00 +0000\r\nMessage-ID: <%d@popgate.test>\r\n\r\n"+
		"This is message %d.\r\n.dot\r\nline 3\r\nline 4\r\n%s", i, i, i, strings.Repeat("more text\r\n", 10*i))
}

// TestGateway runs the gateway in front of each server.
func TestGateway(t *testing.T) {
	for _, name := range servertest.All() {
		t.Run(name, func(t *testing.T) {
			s := servertest.Start(t, name)
			for i := range 5 {
				s.Append(s.User, message(i))
			}
			g := serve(t, s, nil)
			t.Run("logins", func(t *testing.T) { checkLogins(t, g) })
			t.Run("reading", func(t *testing.T) { checkReading(t, g) })
			t.Run("header only", func(t *testing.T) { checkHeaderOnly(t, g) })
			t.Run("removal", func(t *testing.T) { checkRemoval(t, g) })
			t.Run("flagged", func(t *testing.T) { checkFlagged(t, g) })
		})
	}
}

// checkLogins logs in five times in a row, five times at once, and with a wrong
// password and then the right one on one connection.
func checkLogins(t *testing.T, g gateway) {
	for range 5 {
		c := g.session(g.s.User)
		c.Do("STAT", "+OK 5 ")
		c.Do("QUIT", "+OK")
	}
	var wait sync.WaitGroup
	for range 5 {
		user := g.s.NewUser()
		g.s.Append(user, message(0)) // maddy cannot create accounts at the same time
		wait.Go(func() {
			c := g.session(user)
			c.Do("STAT", "+OK 1 ")
			c.Do("QUIT", "+OK")
		})
	}
	wait.Wait()
	c := g.Dial()
	c.Greeting()
	c.Do("USER "+g.s.User, "+OK")
	c.Do("PASS not the password", "-ERR [AUTH]")
	c.OK("USER "+g.s.User, "PASS "+g.s.Password, "QUIT")
}

// checkReading reads all messages, whole and in part, twice, and their
// unique-ids from one session to the next.
func checkReading(t *testing.T, g gateway) {
	var before string
	for round := range 2 {
		c := g.session(g.s.User)
		ids := c.Fetch("UIDL")
		if round == 0 {
			before = ids
		} else if ids != before {
			t.Errorf("unique-ids were\n%s, are\n%s", before, ids)
		}
		for i := range 5 {
			n, want := i+1, string(message(i))
			got := c.Fetch(fmt.Sprintf("RETR %d", n))
			header, body, _ := strings.Cut(got, "\r\n\r\n")
			if !strings.Contains(got, "Subject: message") || !strings.HasSuffix(want, "\r\n\r\n"+body) {
				t.Errorf("RETR %d: %q", n, got)
			}
			lines := strings.SplitAfter(body, "\r\n")
			for _, k := range []int{0, 3, 1000} {
				top := c.Fetch(fmt.Sprintf("TOP %d %d", n, k))
				if want := header + "\r\n\r\n" + strings.Join(lines[:min(k, len(lines))], ""); top != want {
					t.Errorf("TOP %d %d:\n%q, want\n%q", n, k, top, want)
				}
			}
		}
		c.Do("QUIT", "+OK")
	}
}

// checkHeaderOnly reads messages without a text: one that ends with an empty line,
// and one without. To that some servers add it, mailutils with a text that is an
// empty line, and hoodiecrow only to BODY[HEADER] (P-TOP-3, I-TOP-2).
func checkHeaderOnly(t *testing.T, g gateway) {
	user := g.s.NewUser()
	header, _, _ := bytes.Cut(message(7), []byte("\r\n\r\n"))
	g.s.Append(user, append(header, "\r\n\r\n"...))
	g.s.Append(user, append(header, "\r\n"...))
	c := g.session(user)
	for n := 1; n <= 2; n++ {
		want := c.Fetch(fmt.Sprintf("RETR %d", n))
		if !strings.Contains(want, "Subject: message 7\r\n") || len(want) < len(header) {
			t.Errorf("RETR %d: %q", n, want)
		}
		for _, k := range []int{0, 1, 3, 1000} {
			top, want := c.Fetch(fmt.Sprintf("TOP %d %d", n, k)), want
			if k == 0 && g.s.Name == "mailutils" || g.s.Name == "hoodiecrow" && n == 2 && k < 1000 {
				want = strings.TrimRight(want, "\r\n") + "\r\n\r\n"
			}
			if top != want {
				t.Errorf("TOP %d %d:\n%q, want\n%q", n, k, top, want)
			}
		}
	}
	c.Do("QUIT", "+OK")
}

// checkRemoval removes two messages by the default policy.
func checkRemoval(t *testing.T, g gateway) {
	c := g.session(g.s.User)
	c.OK("DELE 2", "DELE 4")
	c.Do("QUIT", "+OK")
	c = g.session(g.s.User)
	c.Do("STAT", "+OK 3 ")
	for n, i := range []int{0, 2, 4} {
		if got := c.Fetch(fmt.Sprintf("RETR %d", n+1)); !strings.Contains(got, fmt.Sprintf("Subject: message %d\r\n", i)) {
			t.Errorf("RETR %d: %q", n+1, got)
		}
	}
	c.Do("QUIT", "+OK")
}

// checkFlagged has another client flag a message \Deleted: it is hidden, and all
// messages of other users are shown, also those with the same UID (I-SNAP-3).
func checkFlagged(t *testing.T, g gateway) {
	one, two := g.s.NewUser(), g.s.NewUser()
	for _, user := range []string{one, two} {
		for i := range 4 {
			g.s.Append(user, message(i))
		}
	}
	other := g.s.Login(one)
	other.Select("INBOX")
	other.Store("3", `+FLAGS (\Deleted)`)
	other.Logout()
	for range 2 {
		c := g.session(one)
		c.Do("STAT", "+OK 3 ")
		for n, i := range []int{0, 1, 3} {
			if got := c.Fetch(fmt.Sprintf("RETR %d", n+1)); !strings.Contains(got, fmt.Sprintf("Subject: message %d\r\n", i)) {
				t.Errorf("RETR %d: %q", n+1, got)
			}
		}
		c.Do("QUIT", "+OK")
		c = g.session(two)
		c.Do("STAT", "+OK 4 ")
		c.Do("QUIT", "+OK")
	}
}
