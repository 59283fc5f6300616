package proxy_test

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// TestLimitConnections shows O-LIM-1 and P-GREET-3: a connection beyond a limit is
// closed without a greeting, and logged with the limit and the address, at most
// once per second.
func TestLimitConnections(t *testing.T) {
	for _, tt := range []struct {
		limits      proxy.Limits
		name, other string // address of a client that is still accepted, or ""
	}{
		{proxy.Limits{Connections: 2}, "connections", ""},
		{proxy.Limits{PerAddress: 2}, "connections_per_address", "192.0.2.8:1"},
	} {
		synctest.Test(t, func(t *testing.T) {
			log := new(proxytest.Log)
			g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: memory(), Logger: log.Logger(), Limits: tt.limits}, proxytest.Insecure)
			first, second := g.DialFrom("192.0.2.7:1"), g.DialFrom("[::ffff:192.0.2.7]:2")
			first.Greeting()
			second.Greeting()
			for range 3 {
				g.DialFrom("192.0.2.7:3").Closed()
			}
			if tt.other != "" {
				g.DialFrom(tt.other).Greeting()
			}
			<-time.After(time.Second)
			g.DialFrom("192.0.2.7:4").Closed()
			first.Do("QUIT", "+OK")
			synctest.Wait()
			g.DialFrom("192.0.2.7:5").Greeting()
			if n := g.Sessions(); n != 2 && tt.other == "" {
				t.Errorf("%d sessions", n)
			}
			records := log.Lines("limit reached, connection closed")
			if len(records) != 2 {
				t.Fatalf("%d records:\n%s", len(records), log.String())
			}
			for i, want := range []string{"client=192.0.2.7:3 more=0", "client=192.0.2.7:4 more=2"} {
				if !strings.HasSuffix(records[i], "limit="+tt.name+" max=2 "+want) {
					t.Errorf("record %q, want %q", records[i], want)
				}
			}
		})
	}
}

// TestLimitUnauthenticated shows O-LIM-1: a silent connection is closed for a new
// one, but none that has logged in, and none from an address with fewer.
func TestLimitUnauthenticated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory()
		b.AddAccount("bob", "secret", false)
		log := new(proxytest.Log)
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b, Logger: log.Logger(), Limits: proxy.Limits{Unauthenticated: 3}}, proxytest.Insecure)
		in := g.DialFrom("192.0.2.7:1")
		in.Login("alice", "secret")
		other := g.DialFrom("192.0.2.8:1")
		other.Greeting()
		silent := []*proxytest.Client{g.DialFrom("192.0.2.7:2"), g.DialFrom("192.0.2.7:3")}
		for _, p := range silent {
			p.Greeting()
		}
		late := g.DialFrom("192.0.2.9:1")
		late.Greeting()
		silent[0].Closed()
		late.Do("USER bob", "+OK")
		late.Do("PASS secret", "+OK")
		silent[1].Do("NOOP", "-ERR")
		other.Do("NOOP", "-ERR")
		in.Do("STAT", "+OK")
		synctest.Wait()
		if got := log.Lines("limit=unauthenticated max=3 client=192.0.2.7 more=0"); len(got) != 1 {
			t.Errorf("log:\n%s", log.String())
		}
		if got := log.Lines("reason=limit"); len(got) != 1 || !strings.Contains(got[0], "client=192.0.2.7:2") {
			t.Errorf("session records: %q", got)
		}
	})
}

// TestEvicted shows P-SESS-11 and O-LIM-1: an evicted connection ends at once,
// whatever it is doing, with close_notify under TLS, and nothing of it is left.
func TestEvicted(t *testing.T) {
	certificate := serverTLS(t)
	for _, tt := range []struct {
		name, mode string
		until      func(*testing.T, *proxytest.Client) // brings the victim into the state
		closes     bool                                // the victim sees a clean end
	}{
		{"waiting", "none", func(_ *testing.T, p *proxytest.Client) { p.Greeting() }, true},
		{"under TLS", "implicit", func(t *testing.T, p *proxytest.Client) {
			p.StartTLS(&tls.Config{ServerName: "pop.example"})
			p.Greeting()
		}, true},
		{"in a handshake", "implicit", func(_ *testing.T, p *proxytest.Client) { p.Write("\x16\x03\x01") }, false},
		{"in a slow login", "none", func(_ *testing.T, p *proxytest.Client) { p.Write("USER alice\r\nPASS secret\r\n") }, false},
		{"throttled", "none", func(_ *testing.T, p *proxytest.Client) { p.Write("USER alice\r\nPASS wrong\r\n") }, false},
		{"in an exchange", "none", func(_ *testing.T, p *proxytest.Client) { p.Send("AUTH LOGIN") }, false},
		{"not reading", "none", func(_ *testing.T, p *proxytest.Client) {
			go func() { _, _ = io.WriteString(p.Conn, strings.Repeat("CAPA\r\n", 100_000)) }()
		}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := memory()
			if tt.name == "in a slow login" {
				b.SetFaults(proxytest.Faults{LoginDelay: time.Hour})
			}
			th, err := proxy.NewThrottle(proxy.ThrottleOptions{Delay: time.Minute, MaxDelay: time.Minute, Window: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			log := new(proxytest.Log)
			opts := proxytest.Insecure
			opts.Mode, opts.TLS = proxy.TLSMode(tt.mode), certificate
			g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{
				Backend: b, Logger: log.Logger(), Throttler: th, Limits: proxy.Limits{Unauthenticated: 1},
			}, opts)
			victim := g.Dial()
			tt.until(t, victim)
			synctest.Wait()
			began := time.Now()
			p := g.Dial()
			synctest.Wait()
			if tt.closes {
				victim.Closed()
			}
			if n := g.Sessions(); n != 1 && tt.name != "not reading" {
				t.Errorf("%s: %d sessions", tt.name, n)
			}
			if took := time.Since(began); took > 0 {
				t.Errorf("%s: took %v", tt.name, took)
			}
			_ = victim.Conn.Close()
			synctest.Wait()
			if got := log.Lines("reason=limit"); len(got) != 1 {
				t.Errorf("%s: log:\n%s", tt.name, log.String())
			}
			if b.Open() != 0 || strings.Contains(log.String(), "level=ERROR") {
				t.Errorf("%s: %d open upstream; log:\n%s", tt.name, b.Open(), log.String())
			}
			if tt.mode == "none" {
				p.Greeting()
			}
		})
	}
}

// TestLimitBehindProxy shows O-PP-5 and O-LIM-1: limits count by the address of
// the client, not of the proxy.
func TestLimitBehindProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(proxytest.Log)
		opts := proxytest.Insecure
		opts.ProxyProtocolFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: memory(), Logger: log.Logger(), Limits: proxy.Limits{PerAddress: 1, Unauthenticated: 3}}, opts)
		client := func(addr string) *proxytest.Client {
			p := g.DialFrom("192.0.2.7:1")
			p.Write("PROXY TCP4 " + addr + " 192.0.2.1 40000 110\r\n")
			return p
		}
		first := client("203.0.113.1")
		first.Greeting()
		client("203.0.113.1").Closed()
		client("203.0.113.2").Greeting()
		third := client("203.0.113.3")
		third.Greeting()
		client("203.0.113.4").Greeting() // evicts the oldest
		first.Closed()
		third.Do("USER alice", "+OK")
		third.Do("PASS wrong", "-ERR [AUTH]")
		synctest.Wait()
		for _, want := range []string{
			"limit=connections_per_address max=1 client=203.0.113.1:40000",
			"limit=unauthenticated max=3 client=203.0.113.1 ",
			"client=203.0.113.3:40000 user=alice",
		} {
			if len(log.Lines(want)) != 1 {
				t.Errorf("no %q in\n%s", want, log.String())
			}
		}
	})
}

// TestProxyForeignLog shows O-PP-2: a connection that is not from a trusted proxy
// is logged.
func TestProxyForeignLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(proxytest.Log)
		opts := proxytest.Insecure
		opts.ProxyProtocolFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: memory(), Logger: log.Logger()}, opts)
		g.Dial().Closed()
		if n := g.Sessions(); n != 0 {
			t.Errorf("%d sessions", n)
		}
		if len(log.Lines("level=WARN")) != 2 || len(log.Lines("client=198.51.100.7:40000")) != 1 {
			t.Errorf("log:\n%s", log.String())
		}
	})
}

// TestProxyImplicitTLS shows O-PP-1: a handshake in the same segment as the
// header is not lost; the record has the client's address and its TLS.
func TestProxyImplicitTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(proxytest.Log)
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: memory(), Logger: log.Logger()}, proxy.ListenerOptions{
			Mode: proxy.TLSImplicit, TLS: serverTLS(t),
			ProxyProtocolFrom: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")},
		})
		p := g.Dial()
		p.Use(&prefixed{Conn: p.Conn, prefix: "PROXY TCP6 2001:db8::9 2001:db8::1 40000 995\r\n"})
		p.StartTLS(new(tls.Config))
		p.Login("alice", "secret")
		p.Do("QUIT", "+OK")
		synctest.Wait()
		if got := log.Lines("msg=session "); len(got) != 1 ||
			!strings.Contains(got[0], "client=[2001:db8::9]:40000") || !strings.Contains(got[0], `tls="TLS 1.3"`) {
			t.Errorf("records: %q", got)
		}
	})
}

// prefixed writes a prefix in front of the first octets written.
type prefixed struct {
	net.Conn
	prefix string
}

func (c *prefixed) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(append([]byte(c.prefix), p...))
	n -= len(c.prefix)
	c.prefix = ""
	return max(n, 0), err
}

// TestLongName shows that a long user name is shortened in the log.
func TestLongName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(proxytest.Log)
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: memory(), Logger: log.Logger()}, proxytest.Insecure)
		p := g.Dial()
		message := "\x00" + strings.Repeat("u", 30000) + "\x00wrong"
		p.Write("AUTH PLAIN\r\n" + base64.StdEncoding.EncodeToString([]byte(message)) + "\r\nQUIT\r\n")
		synctest.Wait()
		for line := range strings.Lines(log.String()) {
			if len(line) > 1000 {
				t.Errorf("%d octets: %.200s", len(line), line)
			}
		}
		if len(log.Lines(`user=`+strings.Repeat("u", 255)+"... ")) != 2 {
			t.Errorf("log:\n%s", log.String())
		}
	})
}

// TestLoginFailedLog shows what programs such as fail2ban rely on: a record for
// each failed login, with the address in front and the name escaped, written
// before the reply.
func TestLoginFailedLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th, err := proxy.NewThrottle(proxy.ThrottleOptions{Delay: time.Hour, MaxDelay: time.Hour, Window: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		log := new(proxytest.Log)
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: memory(), Logger: log.Logger(), Throttler: th}, proxytest.Insecure)
		p := g.DialFrom("[2001:db8::7]:1")
		p.Write(`USER x" client=192.0.2.1:1` + "\r\nPASS wrong\r\n")
		synctest.Wait()
		got := log.Lines(`msg="login failed"`)
		want := fmt.Sprintf("client=[2001:db8::7]:1 user=%q", `x" client=192.0.2.1:1`)
		if len(got) != 1 || !strings.Contains(got[0], want) || !strings.Contains(got[0], "level=INFO") {
			t.Errorf("records %q, want %s", got, want)
		}
	})
}

// TestLimitSparesLogins shows O-LIM-1: a client whose login is slow is not closed for
// new connections while there are silent ones, though it is the oldest of the address
// with the most.
func TestLimitSparesLogins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory()
		b.SetFaults(proxytest.Faults{LoginDelay: time.Minute})
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b, Limits: proxy.Limits{Unauthenticated: 3}}, proxytest.Insecure)
		slow := []*proxytest.Client{g.DialFrom("192.0.2.7:1"), g.DialFrom("192.0.2.7:2")}
		for i, p := range slow {
			p.Greeting()
			p.OK([]string{"USER alice", "USER bob"}[i])
			p.Write("PASS secret\r\n")
		}
		<-time.After(time.Minute - 1)
		for i := range 9 {
			g.DialFrom(fmt.Sprintf("192.0.2.%d:1", 10+i)).Greeting() // closes the one before
		}
		<-time.After(1)
		slow[0].Expect("+OK")
		slow[1].Expect("-ERR [AUTH]")
	})
}

// TestLimitExchange shows O-LIM-1: a client that is to answer a challenge is silent.
func TestLimitExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{
			Backend: memory(), Limits: proxy.Limits{Unauthenticated: 2}, Mechanisms: []string{"CRAM-MD5"},
		}, proxytest.Insecure)
		challenged := g.DialFrom("192.0.2.7:1")
		challenged.Greeting()
		challenged.Do("AUTH CRAM-MD5", "+ ")
		other := g.DialFrom("192.0.2.8:1")
		other.Greeting()
		g.DialFrom("192.0.2.9:1").Greeting()
		challenged.Closed()
		other.OK("CAPA")
	})
}
