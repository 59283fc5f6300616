//go:build integration

package servertest_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"popgate/imapbackend"
	"popgate/imapbackend/servertest"
	"popgate/proxy"
	"popgate/proxy/proxytest"
)

func checkLoginsInARow(t *testing.T, s *servertest.Server) {
	user, g := seeded(s, 2), serve(t, s, nil)
	for range 5 {
		c := g.session(user)
		c.Do("STAT", "+OK 2 ")
		g.quit(t, c)
	}
	if s.TLSAddr == "" {
		return
	}
	g = serve(t, s, func(o *imapbackend.Options) {
		o.Address, o.TLS, o.ServerName, o.RootCAs = s.TLSAddr, proxy.TLSImplicit, "localhost", s.RootCAs
	})
	c := g.session(user)
	c.Do("STAT", "+OK 2 ")
	g.quit(t, c)
}

func checkLoginsAtOnce(t *testing.T, s *servertest.Server) {
	g := serve(t, s, nil)
	var users []string
	for range 5 {
		users = append(users, seeded(s, 1))
	}
	var wait sync.WaitGroup
	for _, user := range users {
		wait.Go(func() {
			c, err := proxytest.DialConversation(g.Addr())
			if err == nil {
				defer c.Conn.Close()
				err = c.Login(user, s.Password)
			}
			if err == nil {
				_, err = c.Fetch("RETR 1")
			}
			if err == nil {
				err = c.OK("QUIT")
			}
			if err != nil {
				t.Errorf("%s: %v", user, err)
			}
		})
	}
	wait.Wait()
}

// checkWrongPassword gives a wrong password and then the right one on one
// connection of the client.
func checkWrongPassword(t *testing.T, s *servertest.Server) {
	user, g := seeded(s, 1), serve(t, s, nil)
	for range 2 { // the second time the server has been seen
		c := g.Dial()
		c.Greeting()
		c.Do("USER "+user, "+OK")
		c.Do("PASS not the password", "-ERR [AUTH]")
		c.OK("USER "+user, "PASS "+s.Password, "STAT", "QUIT")
	}
}

// checkKept logs in again on a kept connection, and with a wrong password.
func checkKept(t *testing.T, s *servertest.Server) {
	user := seeded(s, 3)
	g := serve(t, s, func(o *imapbackend.Options) { o.KeepOpen = time.Minute })
	if !limited(s, servertest.WritesLate) {
		g.wantKept(t, user, 0, 1, 2)
	}
	s.Append(user, message(3))
	// A client that comes back at once may find that the connection is not yet
	// free, and gets another one.
	logins := g.upstream.connections()
	for len(g.log.Lines("upstream connection kept from the last session")) < 3 && logins < 30 {
		g.wantKept(t, user, 0, 1, 2, 3)
		logins++
	}
	if n := g.upstream.connections(); n > logins || logins == 30 {
		t.Errorf("%d connections for %d logins", n, logins)
	}
	c := g.session(user)
	c.OK("DELE 2", "QUIT")
	g.wantKept(t, user, 0, 2, 3)

	c = g.Dial()
	c.Greeting()
	c.Do("USER "+user, "+OK")
	c.Do("PASS not the password", "-ERR [AUTH]")
	c.OK("USER "+user, "PASS "+s.Password, "QUIT")

	// A connection that has ended while it was kept is replaced.
	g.upstream.cut()
	g.wantKept(t, user, 0, 2, 3)
}

// wantKept is wantShown where the connection to the server is kept.
func (g gateway) wantKept(t *testing.T, user string, want ...int) {
	t.Helper()
	c := g.session(user)
	if got := show(t, c); !slices.Equal(got, want) {
		t.Errorf("messages %v are shown, want %v", got, want)
	}
	c.OK("QUIT")
}
