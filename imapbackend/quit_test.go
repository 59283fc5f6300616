package imapbackend

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// gateway is a gateway in front of a model, in fake time.
type gateway struct {
	*proxytest.Gateway
	m *model
}

// withGateway runs f with a gateway in front of a mailbox of three messages.
func withGateway(t *testing.T, f func(t *testing.T, g gateway)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newModel()
		for i := range 3 {
			m.add(fmt.Sprintf("A: %d\r\n\r\n", i))
		}
		opts := proxy.Options{Backend: m.backend(t, Options{})}
		f(t, gateway{proxytest.Serve(t, proxytest.Listen(), opts, proxytest.Insecure), m})
	})
}

// login logs joe in; the reply to PASS must begin with prefix.
func (g gateway) login(prefix string) *proxytest.Client {
	c := g.Dial()
	c.Timeout = time.Hour
	c.Greeting()
	c.OK("USER joe")
	c.Do("PASS secret", prefix)
	return c
}

// P-QUIT-6, P-QUIT-5: an UPDATE that takes too long is reported after 120 s,
// and is cut after 30 s more, until which the maildrop stays locked.
func TestUpdateOverdue(t *testing.T) {
	for _, tt := range []struct {
		took, free time.Duration
		left       int
	}{
		{119 * time.Second, 119 * time.Second, 1},
		{130 * time.Second, 130 * time.Second, 1},
		{time.Hour, 150 * time.Second, 3},
	} {
		t.Run(tt.took.String(), func(t *testing.T) {
			withGateway(t, func(t *testing.T, g gateway) {
				g.m.Before = func(cmd string) {
					if strings.HasPrefix(cmd, "UID EXPUNGE") {
						<-time.After(tt.took)
					}
				}
				c, began := g.login("+OK"), time.Now()
				c.OK("DELE 1", "DELE 3")
				want, answered := "+OK", tt.took
				if tt.took > 120*time.Second {
					want, answered = "-ERR [SYS/TEMP] some deleted messages not removed", 120*time.Second
				}
				c.Do("QUIT", want)
				if got := time.Since(began); got != answered {
					t.Errorf("answered after %v, want %v", got, answered)
				}
				if tt.free > answered {
					g.login("-ERR [IN-USE]").Conn.Close()
				}
				<-time.After(tt.free + 3*time.Second - time.Since(began))
				if got := len(g.m.messages()); got != tt.left {
					t.Errorf("%d messages left, want %d", got, tt.left)
				}
				g.login("+OK").Conn.Close()
				<-time.After(tt.took) // until the upstream has finished
			})
		})
	}
}

// P-SESS-6, P-SESS-5: if a client vanishes after QUIT, its messages are
// removed, also if the upstream is lost then. If it vanishes before the line
// is complete, none is.
func TestClientVanishes(t *testing.T) {
	for _, tt := range []struct {
		name, last, left string
		lose             string // the upstream is lost before this command, once
	}{
		{"after QUIT", "QUIT\r\n", "2", ""},
		{"after QUIT, upstream lost", "QUIT\r\n", "2", "UID EXPUNGE"},
		{"within QUIT", "QUIT", "1 2 3", ""},
		{"before QUIT", "NOOP\r\n", "1 2 3", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			withGateway(t, func(t *testing.T, g gateway) {
				var lost sync.Once
				g.m.Before = func(cmd string) {
					if tt.lose != "" && strings.HasPrefix(cmd, tt.lose) {
						lost.Do(func() { g.m.Push("* BYE going down", true) })
					}
				}
				c := g.login("+OK")
				c.OK("DELE 1", "DELE 3")
				c.Write(tt.last)
				c.Conn.Close()
				<-time.After(5 * time.Second)
				if got := g.m.left(); got != tt.left {
					t.Errorf("left are %s, want %s", got, tt.left)
				}
			})
		})
	}
}

// left returns the UIDs in the INBOX, in parentheses those flagged \Deleted.
func (m *model) left() string {
	var left []string
	for _, msg := range m.messages() {
		uid := fmt.Sprint(msg.UID)
		if msg.Deleted() {
			uid = "(" + uid + ")"
		}
		left = append(left, uid)
	}
	return strings.Join(left, " ")
}
