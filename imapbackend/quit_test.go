package imapbackend

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// gateway is a whole gateway before a model, in fake time.
type gateway struct {
	*testing.T
	m *model
	l *proxytest.Listener
}

// withGateway runs f with a gateway before a mailbox of three messages.
func withGateway(t *testing.T, f func(g *gateway)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		g := &gateway{T: t, m: newModel(), l: proxytest.Listen()}
		for i := range 3 {
			g.m.add(fmt.Sprintf("A: %d\r\n\r\n", i))
		}
		srv, err := proxy.NewServer(proxy.Options{Backend: g.m.backend(t, Options{}), Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		var serving sync.WaitGroup
		serving.Go(func() {
			_ = srv.Serve(g.l, proxy.ListenerOptions{Mode: proxy.TLSNone,
				InsecureLoginFrom: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}})
		})
		f(g)
		_ = srv.Close()
		serving.Wait()
	})
}

// client3 is a POP3 client of a gateway.
type client3 struct {
	*gateway
	conn net.Conn
	r    *bufio.Reader
}

func (g *gateway) connect() *client3 {
	g.Helper()
	conn, err := g.l.Dial()
	if err != nil {
		g.Fatal(err)
	}
	g.Cleanup(func() { conn.Close() })
	c := &client3{g, conn, bufio.NewReader(conn)}
	c.expect("+OK")
	return c
}

func (c *client3) expect(prefix string) {
	c.Helper()
	line, err := c.r.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, prefix) {
		c.Fatalf("got %q, %v, want %q", line, err, prefix)
	}
}

func (c *client3) send(line string) {
	c.Helper()
	if _, err := io.WriteString(c.conn, line+"\r\n"); err != nil {
		c.Fatal(err)
	}
}

func (c *client3) do(line, prefix string) { c.Helper(); c.send(line); c.expect(prefix) }

// login logs joe in, to whom PASS is answered by a line with prefix.
func (g *gateway) login(prefix string) *client3 {
	g.Helper()
	c := g.connect()
	c.do("USER joe", "+OK")
	c.do("PASS secret", prefix)
	return c
}

// P-QUIT-6, P-QUIT-5: an UPDATE that takes too long is told after 120 s, and
// has 30 s more, in which nobody else may open the maildrop.
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
			withGateway(t, func(g *gateway) {
				g.m.Before = func(cmd string) {
					if strings.HasPrefix(cmd, "UID EXPUNGE") {
						<-time.After(tt.took)
					}
				}
				c, began := g.login("+OK"), time.Now()
				c.do("DELE 1", "+OK")
				c.do("DELE 3", "+OK")
				want, patience := "+OK", tt.took
				if tt.took > 120*time.Second {
					want, patience = "-ERR [SYS/TEMP] some deleted messages not removed", 120*time.Second
				}
				c.do("QUIT", want)
				if got := time.Since(began); got != patience {
					t.Errorf("answered after %v, want %v", got, patience)
				}
				if tt.free > patience {
					g.login("-ERR [IN-USE]").conn.Close()
				}
				<-time.After(tt.free + 3*time.Second - time.Since(began))
				if got := len(g.m.messages()); got != tt.left {
					t.Errorf("%d messages left, want %d", got, tt.left)
				}
				g.login("+OK").conn.Close()
				<-time.After(tt.took) // the upstream comes to its end
			})
		})
	}
}

// P-SESS-6, P-SESS-5: a client that vanishes behind its QUIT has its deletions
// carried through, also where the upstream is lost then; one that vanishes
// before the line is whole has none.
func TestClientVanishes(t *testing.T) {
	for _, tt := range []struct {
		name, last, left string
		lose             string // the upstream is lost before this command, once
	}{
		{"behind QUIT", "QUIT\r\n", "2", ""},
		{"behind QUIT, upstream lost", "QUIT\r\n", "2", "UID EXPUNGE"},
		{"in QUIT", "QUIT", "1 2 3", ""},
		{"before QUIT", "NOOP\r\n", "1 2 3", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			withGateway(t, func(g *gateway) {
				var lost sync.Once
				g.m.Before = func(cmd string) {
					if tt.lose != "" && strings.HasPrefix(cmd, tt.lose) {
						lost.Do(func() { g.m.Push("* BYE going down", true) })
					}
				}
				c := g.login("+OK")
				c.do("DELE 1", "+OK")
				c.do("DELE 3", "+OK")
				if _, err := io.WriteString(c.conn, tt.last); err != nil {
					t.Fatal(err)
				}
				c.conn.Close()
				<-time.After(5 * time.Second)
				if got := g.m.left(); got != tt.left {
					t.Errorf("left are %s, want %s", got, tt.left)
				}
			})
		})
	}
}

// left writes the UIDs in the INBOX, in parentheses those flagged \Deleted.
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
