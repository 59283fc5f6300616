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

// from connects to l from an address.
func from(t *testing.T, l *proxytest.Listener, addr string) *pop {
	t.Helper()
	conn, err := l.DialFrom(net.TCPAddrFromAddrPort(netip.MustParseAddrPort(addr)))
	return newPop(t, conn, err)
}

// TestLimitConnections shows O-LIM-1 and P-GREET-3: what is beyond a limit is closed without
// a greeting, and logged with the word limit and the address, once in a second.
func TestLimitConnections(t *testing.T) {
	for _, c := range []struct {
		limits      proxy.Limits
		name, other string // address of a client that finds a place, or ""
	}{
		{proxy.Limits{Connections: 2}, "connections", ""},
		{proxy.Limits{PerAddress: 2}, "connections_per_address", "192.0.2.8:1"},
	} {
		synctest.Test(t, func(t *testing.T) {
			l := proxytest.Listen()
			log, buf := logger()
			srv := serve(t, l, proxy.Options{Backend: memory(), Logger: log, Limits: c.limits}, insecure)
			first, second := from(t, l, "192.0.2.7:1"), from(t, l, "[::ffff:192.0.2.7]:2")
			first.expect("+OK POP3")
			second.expect("+OK POP3")
			for range 3 {
				from(t, l, "192.0.2.7:3").closed()
			}
			if c.other != "" {
				from(t, l, c.other).expect("+OK POP3")
			}
			<-time.After(time.Second)
			from(t, l, "192.0.2.7:4").closed()
			first.do("QUIT", "+OK")
			synctest.Wait()
			from(t, l, "192.0.2.7:5").expect("+OK POP3")
			if n := srv.Sessions(); n != 2 && c.other == "" {
				t.Errorf("%d sessions", n)
			}
			records := lines(buf.String(), "limit reached, connection closed")
			if len(records) != 2 {
				t.Fatalf("%d records:\n%s", len(records), buf.String())
			}
			for i, want := range []string{"client=192.0.2.7:3 more=0", "client=192.0.2.7:4 more=2"} {
				if !strings.HasSuffix(records[i], "limit="+c.name+" max=2 "+want) {
					t.Errorf("record %q, want %q", records[i], want)
				}
			}
		})
	}
}

// lines returns the lines of text with part in them.
func lines(text, part string) (found []string) {
	for line := range strings.Lines(text) {
		if strings.Contains(line, part) {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}

// TestLimitUnauthenticated shows O-LIM-1: silent connections make room for one
// that logs in, those that have logged in stay, and so do those of addresses
// with few.
func TestLimitUnauthenticated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory()
		b.AddAccount("bob", "secret", false)
		l := proxytest.Listen()
		log, buf := logger()
		serve(t, l, proxy.Options{Backend: b, Logger: log, Limits: proxy.Limits{Unauthenticated: 3}}, insecure)
		in := from(t, l, "192.0.2.7:1")
		in.login()
		other := from(t, l, "192.0.2.8:1")
		other.expect("+OK POP3")
		silent := []*pop{from(t, l, "192.0.2.7:2"), from(t, l, "192.0.2.7:3")}
		for _, p := range silent {
			p.expect("+OK POP3")
		}
		late := from(t, l, "192.0.2.9:1")
		late.expect("+OK POP3")
		silent[0].closed()
		late.do("USER bob", "+OK")
		late.do("PASS secret", "+OK")
		silent[1].do("NOOP", "-ERR")
		other.do("NOOP", "-ERR")
		in.do("STAT", "+OK")
		synctest.Wait()
		if got := lines(buf.String(), "limit=unauthenticated max=3 client=192.0.2.7 more=0"); len(got) != 1 {
			t.Errorf("log:\n%s", buf.String())
		}
		if got := lines(buf.String(), "reason=limit"); len(got) != 1 || !strings.Contains(got[0], "client=192.0.2.7:2") {
			t.Errorf("session records: %q", got)
		}
	})
}

// TestEvicted shows that a connection that has to make room goes at once,
// whatever it is doing, with close_notify under TLS (P-SESS-11), and that
// nothing of it is left.
func TestEvicted(t *testing.T) {
	certificate := serverTLS(t)
	for _, c := range []struct {
		name, mode string
		until      func(*testing.T, *pop) // brings the victim to where it is evicted
		closes     bool                   // and it can see the end in order
	}{
		{"waiting", "none", func(_ *testing.T, p *pop) { p.expect("+OK POP3") }, true},
		{"under TLS", "implicit", func(t *testing.T, p *pop) {
			p.startTLS(t, "pop.example")
			p.expect("+OK POP3")
		}, true},
		{"in a handshake", "implicit", func(_ *testing.T, p *pop) { p.send("\x16\x03\x01") }, false},
		{"in a slow login", "none", func(_ *testing.T, p *pop) { p.send("USER alice\r\nPASS secret\r\n") }, false},
		{"held up", "none", func(_ *testing.T, p *pop) { p.send("USER alice\r\nPASS wrong\r\n") }, false},
		{"in an exchange", "none", func(_ *testing.T, p *pop) { p.send("AUTH LOGIN\r\n") }, false},
		{"not reading", "none", func(_ *testing.T, p *pop) {
			go func() { _, _ = io.WriteString(p.conn, strings.Repeat("CAPA\r\n", 100_000)) }()
		}, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := memory()
			if c.name == "in a slow login" {
				b.SetFaults(proxytest.Faults{LoginDelay: time.Hour})
			}
			th, err := proxy.NewThrottle(proxy.ThrottleOptions{Delay: time.Minute, MaxDelay: time.Minute, Window: time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			l := proxytest.Listen()
			log, buf := logger()
			opts := insecure
			opts.Mode, opts.TLS = proxy.TLSMode(c.mode), certificate
			srv := serve(t, l, proxy.Options{
				Backend: b, Logger: log, Throttler: th, Limits: proxy.Limits{Unauthenticated: 1},
			}, opts)
			victim := dial(t, l)
			c.until(t, victim)
			synctest.Wait()
			began := time.Now()
			conn, err := l.Dial()
			p := newPop(t, conn, err)
			synctest.Wait()
			if c.closes {
				victim.closed()
			}
			if n := srv.Sessions(); n != 1 && c.name != "not reading" {
				t.Errorf("%s: %d sessions", c.name, n)
			}
			if took := time.Since(began); took > 0 {
				t.Errorf("%s: took %v", c.name, took)
			}
			_ = victim.conn.Close()
			synctest.Wait()
			if got := lines(buf.String(), "reason=limit"); len(got) != 1 {
				t.Errorf("%s: log:\n%s", c.name, buf.String())
			}
			if b.Open() != 0 || strings.Contains(buf.String(), "level=ERROR") {
				t.Errorf("%s: %d open upstream; log:\n%s", c.name, b.Open(), buf.String())
			}
			if c.mode == "none" {
				p.expect("+OK POP3")
			}
		})
	}
}

// TestLimitBehindProxy shows O-PP-5 and O-LIM-1: limits count the client's
// address, not the proxy's.
func TestLimitBehindProxy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := proxytest.Listen()
		log, buf := logger()
		opts := insecure
		opts.ProxyProtocolFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}
		serve(t, l, proxy.Options{Backend: memory(), Logger: log, Limits: proxy.Limits{PerAddress: 1, Unauthenticated: 3}}, opts)
		client := func(addr string) *pop {
			p := from(t, l, "192.0.2.7:1")
			p.send("PROXY TCP4 " + addr + " 192.0.2.1 40000 110\r\n")
			return p
		}
		first := client("203.0.113.1")
		first.expect("+OK POP3")
		client("203.0.113.1").closed()
		client("203.0.113.2").expect("+OK POP3")
		third := client("203.0.113.3")
		third.expect("+OK POP3")
		client("203.0.113.4").expect("+OK POP3") // and the oldest goes
		first.closed()
		third.do("USER alice", "+OK")
		third.do("PASS wrong", "-ERR [AUTH]")
		synctest.Wait()
		for _, want := range []string{
			"limit=connections_per_address max=1 client=203.0.113.1:40000",
			"limit=unauthenticated max=3 client=203.0.113.1 ",
			"client=203.0.113.3:40000 user=alice",
		} {
			if len(lines(buf.String(), want)) != 1 {
				t.Errorf("no %q in\n%s", want, buf.String())
			}
		}
	})
}

// TestProxyForeignLog shows O-PP-2: a connection from elsewhere is told in the
// log.
func TestProxyForeignLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := proxytest.Listen()
		log, buf := logger()
		opts := insecure
		opts.ProxyProtocolFrom = []netip.Prefix{netip.MustParsePrefix("192.0.2.7/32")}
		srv := serve(t, l, proxy.Options{Backend: memory(), Logger: log}, opts)
		dial(t, l).closed()
		if n := srv.Sessions(); n != 0 {
			t.Errorf("%d sessions", n)
		}
		if len(lines(buf.String(), "level=WARN")) != 2 || len(lines(buf.String(), "client=198.51.100.7:40000")) != 1 {
			t.Errorf("log:\n%s", buf.String())
		}
	})
}

// TestProxyImplicitTLS shows O-PP-1: a handshake in the same segment as the
// header is not lost; the record has the client's address and its TLS.
func TestProxyImplicitTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := proxytest.Listen()
		log, buf := logger()
		serve(t, l, proxy.Options{Backend: memory(), Logger: log}, proxy.ListenerOptions{
			Mode: proxy.TLSImplicit, TLS: serverTLS(t),
			ProxyProtocolFrom: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")},
		})
		conn, err := l.Dial()
		if err != nil {
			t.Fatal(err)
		}
		first := &prefixed{Conn: conn, prefix: "PROXY TCP6 2001:db8::9 2001:db8::1 40000 995\r\n"}
		p := newPop(t, tls.Client(first, &tls.Config{InsecureSkipVerify: true}), nil) // of serverTLS
		p.login()
		p.do("QUIT", "+OK")
		synctest.Wait()
		if got := lines(buf.String(), "msg=session "); len(got) != 1 ||
			!strings.Contains(got[0], "client=[2001:db8::9]:40000") || !strings.Contains(got[0], `tls="TLS 1.3"`) {
			t.Errorf("records: %q", got)
		}
	})
}

// prefixed puts a prefix before the first octets written.
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

// TestLongName shows that what a client calls itself does not fill the log.
func TestLongName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := proxytest.Listen()
		log, buf := logger()
		serve(t, l, proxy.Options{Backend: memory(), Logger: log}, insecure)
		p := dial(t, l)
		message := "\x00" + strings.Repeat("u", 30000) + "\x00wrong"
		p.send("AUTH PLAIN\r\n" + base64.StdEncoding.EncodeToString([]byte(message)) + "\r\nQUIT\r\n")
		synctest.Wait()
		for line := range strings.Lines(buf.String()) {
			if len(line) > 1000 {
				t.Errorf("%d octets: %.200s", len(line), line)
			}
		}
		if len(lines(buf.String(), `user=`+strings.Repeat("u", 255)+"... ")) != 2 {
			t.Errorf("log:\n%s", buf.String())
		}
	})
}

// TestLoginFailedLog shows what programs such as fail2ban are promised: a
// record for each failed login, with the address first and the name escaped,
// written before the answer is.
func TestLoginFailedLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th, err := proxy.NewThrottle(proxy.ThrottleOptions{Delay: time.Hour, MaxDelay: time.Hour, Window: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		l := proxytest.Listen()
		log, buf := logger()
		serve(t, l, proxy.Options{Backend: memory(), Logger: log, Throttler: th}, insecure)
		p := from(t, l, "[2001:db8::7]:1")
		p.send(`USER x" client=192.0.2.1:1` + "\r\nPASS wrong\r\n")
		synctest.Wait()
		got := lines(buf.String(), `msg="login failed"`)
		want := fmt.Sprintf("client=[2001:db8::7]:1 user=%q", `x" client=192.0.2.1:1`)
		if len(got) != 1 || !strings.Contains(got[0], want) || !strings.Contains(got[0], "level=INFO") {
			t.Errorf("records %q, want %s", got, want)
		}
	})
}
