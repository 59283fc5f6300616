package proxy_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// observed runs drive against a Server with an Observer and compares the recorded
// events, sorted unless they are ordered. In them ADDR replaces the address of the
// listener and PEER that of the client.
func observed(t *testing.T, ordered bool, opts proxy.Options, lopts proxy.ListenerOptions, drive func(g *proxytest.Gateway), want []string) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Helper()
		o := new(proxytest.Observer)
		opts.Observer = o
		g := proxytest.Serve(t, proxytest.Listen(), opts, lopts)
		drive(g)
		synctest.Wait()
		got := o.Events()
		for i := range got {
			got[i] = strings.NewReplacer(g.Addr(), "ADDR", "198.51.100.7:40000", "PEER").Replace(got[i])
		}
		if !ordered {
			slices.Sort(got)
			slices.Sort(want)
		}
		if !slices.Equal(got, want) {
			t.Errorf("events:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// TestObserveSession shows that an Observer receives each state of a session, each
// login with its waits, each command, and the final record.
func TestObserveSession(t *testing.T) {
	th, err := proxy.NewThrottle(proxy.ThrottleOptions{Delay: time.Second, MaxDelay: time.Minute, Window: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	b := memory(generated(2, 10)...)
	b.Add("alice", proxytest.Stored{Body: []byte("a: b\r\n"), Listed: 99})
	b.SetFaults(proxytest.Faults{LoginDelay: 100 * time.Millisecond})
	observed(t, true, proxy.Options{Backend: b, Throttler: th}, proxytest.Insecure, func(g *proxytest.Gateway) {
		p := g.Dial()
		p.Greeting()
		p.OK("USER alice")
		p.Do("PASS wrong", "-ERR [AUTH]")
		p.Do("AUTH PLAIN AGFsaWNlAHNlY3JldA==", "+OK")
		p.Do("nonsense", "-ERR")
		p.Fetch("RETR 3")
		p.Fetch("TOP 1 0")
		p.OK("DELE 1", "QUIT")
		p.Closed()
	}, []string{
		"session from PEER to ADDR",
		"AUTHORIZATION ",
		"USER +OK, 10 octets, 0s",
		"login PASS alice: AUTH, 1s, throttled 900ms, lock 0s, ",
		"PASS -ERR, 10 octets, 1s",
		"login PLAIN alice: ok, 1.1s, throttled 1s, lock 0s, ",
		"TRANSACTION alice",
		"AUTH +OK, 31 octets, 1.1s",
		"unknown -ERR, 8 octets, 0s",
		"RETR +OK, 6 octets, 0s",
		"TOP +OK, 7 octets, 0s",
		"DELE +OK, 6 octets, 0s",
		"UPDATE alice",
		"QUIT +OK, 4 octets, 0s",
		"end of alice: quit after 2.1s in UPDATE, TLS false, retr 1, top 1, dele 1, octets 20, removed 1 of 3, " +
			"mismatches 1, failed 1, sent 257, received 98",
	})
}

// TestObserveLogins shows the errors of logins that an Observer receives: for a
// maildrop in use, with its wait, for a fault, and for a cancelled exchange.
func TestObserveLogins(t *testing.T) {
	b := memory()
	b.AddAccount("bob", "secret", false)
	events := func(g *proxytest.Gateway) {
		g.Dial().Login("alice", "secret")
		p := g.Dial()
		p.Greeting()
		p.OK("USER alice")
		p.Do("PASS secret", "-ERR [IN-USE]")
		b.SetFaults(proxytest.Faults{Open: errors.New("no mailbox")})
		p.OK("USER bob")
		p.Do("PASS secret", "-ERR [SYS/TEMP]")
		p.Do("AUTH CRAM-MD5", "+ ")
		p.Do("*", "-ERR authentication cancelled")
	}
	synctest.Test(t, func(t *testing.T) {
		o := new(proxytest.Observer)
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b, Mechanisms: []string{"CRAM-MD5"}, Observer: o}, proxytest.Insecure)
		events(g)
		var got []string
		for _, e := range o.Events() {
			if strings.HasPrefix(e, "login") {
				got = append(got, e)
			}
		}
		want := []string{
			"login PASS alice: ok, 0s, throttled 0s, lock 0s, ",
			"login PASS alice: IN-USE, 5s, throttled 0s, lock 5s, ",
			"login PASS bob: SYS/TEMP, 0s, throttled 0s, lock 0s, ",
			"login CRAM-MD5 : authentication cancelled, 0s, throttled 0s, lock 0s, ",
		}
		if !slices.Equal(got, want) {
			t.Errorf("events:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// TestObserveRefusals shows that an Observer receives each connection that ends
// because of a limit, a PROXY header or a handshake.
func TestObserveRefusals(t *testing.T) {
	end := func(reason, state, octets string) string {
		return "end of : " + reason + " after 0s in " + state + ", TLS false, retr 0, top 0, dele 0, octets 0, removed 0 of 0, " +
			"mismatches 0, failed 0, sent " + octets
	}
	observed(t, true, proxy.Options{Backend: memory(), Limits: proxy.Limits{PerAddress: 1}}, proxytest.Insecure, func(g *proxytest.Gateway) {
		p := g.Dial()
		p.Greeting()
		for range 2 {
			g.Dial().Closed()
		}
		p.OK("QUIT")
	}, []string{
		"session from PEER to ADDR",
		"AUTHORIZATION ",
		"refused 198.51.100.7 at ADDR: connections_per_address",
		"refused 198.51.100.7 at ADDR: connections_per_address",
		"QUIT +OK, 4 octets, 0s",
		end("quit", "AUTHORIZATION", "32, received 6"),
	})
	observed(t, false, proxy.Options{Backend: memory(), Limits: proxy.Limits{Unauthenticated: 1}}, proxytest.Insecure, func(g *proxytest.Gateway) {
		p := g.Dial()
		p.Greeting()
		g.DialFrom("192.0.2.1:1").Greeting()
		p.Closed()
	}, []string{
		"session from PEER to ADDR",
		"AUTHORIZATION ",
		"refused 198.51.100.7 at ADDR: unauthenticated",
		"session from 192.0.2.1:1 to ADDR",
		"AUTHORIZATION ",
		end("limit", "AUTHORIZATION", "23, received 0"),
	})
	proxied := proxytest.Insecure
	proxied.ProxyProtocolFrom = proxied.InsecureLoginFrom[:1]
	observed(t, true, proxy.Options{Backend: memory()}, proxied, func(g *proxytest.Gateway) {
		g.DialFrom("[2001:db8::1]:1").Closed()
		p := g.Dial()
		p.Send("CAPA")
		p.Closed()
	}, []string{
		"refused 2001:db8::1 at ADDR: proxy_protocol_from",
		"session from PEER to ADDR",
		end("PROXY header", "none", "0, received 0"),
	})
	implicit := proxytest.Insecure
	implicit.Mode, implicit.TLS = proxy.TLSImplicit, serverTLS(t)
	observed(t, true, proxy.Options{Backend: memory()}, implicit, func(g *proxytest.Gateway) {
		p := g.Dial()
		p.Send("CAPA")
		synctest.Wait()
		_ = p.Conn.Close()
	}, []string{
		"session from PEER to ADDR",
		end("handshake", "none", "0, received 0"),
	})
}
