package proxy_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// newThrottle returns a Throttle with the default options of the configuration.
func newThrottle(t *testing.T) *proxy.Throttle {
	t.Helper()
	th, err := proxy.NewThrottle(proxy.ThrottleOptions{Delay: 2 * time.Second, MaxDelay: 15 * time.Second, Window: 10 * time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	return th
}

// judge is a Backend that refuses all logins, and counts them by second.
type judge struct {
	mu    sync.Mutex
	began time.Time
	asked map[time.Duration]int
}

func (j *judge) Login(context.Context, proxy.Credential) (proxy.Login, error) {
	j.mu.Lock()
	j.asked[time.Since(j.began).Truncate(time.Second)]++
	j.mu.Unlock()
	<-time.After(time.Millisecond)
	return nil, proxy.ErrAuth
}

// TestGuessing shows P-PASS-6: 200 connections that guess at once get five verdicts
// a second; the others are answered [SYS/TEMP], which is logged once a second and is
// no failed login.
func TestGuessing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(proxytest.Log)
		j := &judge{began: time.Now(), asked: map[time.Duration]int{}}
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: j, Throttler: newThrottle(t), Logger: log.Logger()}, proxytest.Insecure)
		var all []*proxytest.Client
		for i := range 200 {
			p := g.DialFrom(fmt.Sprintf("192.0.2.%d:1", i))
			p.Greeting()
			p.OK("USER alice")
			all = append(all, p)
		}
		for i, p := range all {
			p.Write(fmt.Sprintf("PASS guess%d\r\n", i))
		}
		<-time.After(17 * time.Second)
		refused := 0
		for _, p := range all {
			if line := p.Line(); line == "-ERR [SYS/TEMP] too many logins at once, try again later" {
				refused++
			} else if line != "-ERR [AUTH] authentication failed" {
				t.Errorf("answer %q", line)
			}
		}
		asked := 0
		for second, n := range j.asked {
			if asked += n; n > 5 {
				t.Errorf("%d verdicts in second %v", n, second)
			}
		}
		if asked < 75 || asked+refused != 200 || len(log.Lines(`msg="login failed"`)) != asked {
			t.Errorf("%d asked, %d refused", asked, refused)
		}
		if got := log.Lines("limit=throttle"); len(got) != 1 || !strings.Contains(got[0], `level=WARN msg="limit reached, login not tried"`) {
			t.Errorf("log: %q", got)
		}
		if got := log.Lines("command failed"); len(got) != 0 {
			t.Errorf("log: %q", got)
		}
	})
}

// TestLockout shows P-PASS-6: failures for a name elsewhere do not delay the user where
// the user has logged in; the user's own do.
func TestLockout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: memory(), Throttler: newThrottle(t)}, proxytest.Insecure)
		home := func() time.Duration {
			p := g.DialFrom("192.0.2.1:1")
			began := time.Now()
			p.Login("alice", "secret")
			p.OK("QUIT")
			return time.Since(began)
		}
		home()
		for i, name := range []string{"ALICE", " alice", "alice", "Alice "} {
			p := g.DialFrom(fmt.Sprintf("192.0.2.%d:1", 2+i))
			p.Greeting()
			p.OK("USER " + name)
			p.Do("PASS wrong", "-ERR [AUTH]")
		}
		<-time.After(24 * time.Hour)
		for i := range 4 {
			p := g.DialFrom(fmt.Sprintf("192.0.2.%d:1", 2+i))
			p.Greeting()
			p.OK("USER ALICE")
			p.Do("PASS wrong", "-ERR [AUTH]")
		}
		if took := home(); took != 0 {
			t.Errorf("alice waits %v at home", took)
		}
		p := g.DialFrom("192.0.2.1:1")
		p.Greeting()
		p.OK("USER alice")
		p.Do("PASS wrong", "-ERR [AUTH]")
		if took := home(); took != 2*time.Second {
			t.Errorf("alice waits %v after her own failure", took)
		}
	})
}

// TestThrottledLeft shows that a client that leaves while its login is held is no
// longer asked for upstream.
func TestThrottledLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &judge{began: time.Now(), asked: map[time.Duration]int{}}
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: j, Throttler: newThrottle(t)}, proxytest.Insecure)
		p := g.Dial()
		p.Greeting()
		p.OK("USER alice")
		p.Do("PASS wrong", "-ERR [AUTH]")
		p.OK("USER alice")
		p.Write("PASS again\r\n")
		synctest.Wait()
		_ = p.Conn.Close()
		synctest.Wait()
		if n := g.Sessions(); n != 0 {
			t.Errorf("%d sessions", n)
		}
		<-time.After(time.Minute)
		if len(j.asked) != 1 {
			t.Errorf("asked %v", j.asked)
		}
	})
}

// TestAbandoned shows P-AUTH-4 and P-SESS-10: an exchange that ends after a challenge
// without an answer to it, in whatever way, is counted, delayed and logged as a failed
// login. One that the gateway itself ends is not, nor one that ends before.
func TestAbandoned(t *testing.T) {
	const scram = "AUTH SCRAM-SHA-256 biwsbj1hbGljZSxyPWI=\r\n"
	for _, tt := range []struct {
		what, input string
		end         func(*proxytest.Gateway, *proxytest.Client)
		answer      string // "": none
		user        string // that is logged; "": nothing is
	}{
		{"cancelled", scram + "*\r\n", nil, "-ERR authentication cancelled", "alice"},
		{"not base64", scram + "!\r\n", nil, "-ERR invalid base64", "alice"},
		{"too long", scram + strings.Repeat("x", 70000) + "\r\n", nil, "-ERR line too long", "alice"},
		{"no name", "AUTH CRAM-MD5\r\n*\r\n", nil, "-ERR authentication cancelled", `""`},
		{"no digest", "AUTH CRAM-MD5\r\nYm9i\r\n", nil, "-ERR invalid authentication message", `""`},
		{"silent", scram, func(*proxytest.Gateway, *proxytest.Client) { <-time.After(61 * time.Second) }, "-ERR authentication timed out", "alice"},
		{"closed", scram, func(_ *proxytest.Gateway, p *proxytest.Client) { _ = p.Conn.Close() }, "", "alice"},
		{"shutdown", scram, func(g *proxytest.Gateway, _ *proxytest.Client) { go g.Shutdown(context.Background()) }, "", ""},
		{"before a challenge of the upstream", "AUTH SCRAM-SHA-256\r\n*\r\n", nil, "-ERR authentication cancelled", ""},
		{"LOGIN", "AUTH LOGIN\r\n*\r\n", nil, "-ERR authentication cancelled", ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			log := new(proxytest.Log)
			b := memory()
			g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{
				Backend: b, Throttler: newThrottle(t), Logger: log.Logger(), Mechanisms: allMechanisms,
			}, proxytest.Insecure)
			p := g.DialFrom("192.0.2.7:1")
			p.Greeting()
			began := time.Now()
			p.Write(tt.input)
			synctest.Wait()
			if tt.end != nil {
				tt.end(g, p)
			}
			if tt.answer != "" {
				for line := p.Line(); line != tt.answer; line = p.Line() {
					if !strings.HasPrefix(line, "+ ") {
						t.Fatalf("%s: %q", tt.what, line)
					}
				}
				if took := time.Since(began); (took >= 2*time.Second) != (tt.user != "") {
					t.Errorf("%s: answered after %v", tt.what, took)
				}
				p.OK("QUIT")
			}
			<-time.After(time.Second)
			want, count := "client=192.0.2.7:1 user="+tt.user+" cause=abandoned ", "failed_logins=1"
			if tt.user == "" {
				want, count = "level=INFO msg=session", "failed_logins=0"
			}
			if len(log.Lines(want)) != 1 || len(log.Lines(count)) != 1 || len(log.Lines(`msg="login failed"`)) > 1 {
				t.Errorf("%s: no %q and %q in\n%s", tt.what, want, count, log.String())
			}
			if b.Open() != 0 {
				t.Errorf("%s: %d are open upstream", tt.what, b.Open())
			}
		})
	}
}

// TestAbandonedCounts shows P-AUTH-4 and M-3: whoever asks for challenges only is slowed down,
// and loses the connection, like any guesser.
func TestAbandonedCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: memory(), Throttler: newThrottle(t), Mechanisms: allMechanisms}, proxytest.Insecure)
		p := g.Dial()
		p.Greeting()
		for _, want := range []time.Duration{2 * time.Second, 4 * time.Second, 8 * time.Second} {
			began := time.Now()
			p.Do("AUTH SCRAM-SHA-256 biwsbj1hbGljZSxyPWI=", "+ ")
			p.Do("*", "-ERR authentication cancelled")
			if took := time.Since(began); took != want {
				t.Errorf("took %v, want %v", took, want)
			}
		}
		p.Closed()
	})
}

// TestHTTP shows P-SESS-3: a session whose client speaks HTTP ends without an answer,
// before anything in the request is taken for a command. After the login, and in a
// line that only resembles a request, it is an unknown command.
func TestHTTP(t *testing.T) {
	long := "/" + strings.Repeat("x", 300)
	for _, tt := range []struct {
		request string
		ends    bool
	}{
		{"GET / HTTP/1.1", true}, {"HEAD /x HTTP/1.0", true}, {"POST / HTTP/1.1", true}, {"PUT / HTTP/1.1", true},
		{"OPTIONS * HTTP/1.1", true}, {"CONNECT a:110 HTTP/1.1", true}, {"DELETE / HTTP/1.1", true}, {"PATCH / HTTP/1.1", true},
		{"TRACE / HTTP/1.1", true}, {"patch / http/1.1", true}, {"POST " + long + " HTTP/1.1", true}, {"POST /" + strings.Repeat(long, 60) + " HTTP/1.1", true},
		{"GET /", false}, {"GET", false}, {"FROB / HTTP/1.1", false}, {"POST", false}, {"GETS " + long, false},
	} {
		for _, mode := range []proxy.TLSMode{proxy.TLSNone, proxy.TLSImplicit} {
			synctest.Test(t, func(t *testing.T) {
				r := new(recorder)
				log := new(proxytest.Log)
				opts := proxytest.Insecure
				opts.Mode, opts.TLS = mode, serverTLS(t)
				g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: r, Logger: log.Logger()}, opts)
				p := g.Dial()
				if mode == proxy.TLSImplicit {
					p.StartTLS(&tls.Config{ServerName: "pop.example"})
				}
				p.Greeting()
				p.Write(tt.request + "\r\nHost: x\r\n\r\nUSER alice\r\nPASS secret\r\n")
				synctest.Wait()
				if !tt.ends {
					if line := p.Line(); !strings.HasPrefix(line, "-ERR ") || len(r.got) != 1 {
						t.Errorf("%.20q: %q, then %d logins", tt.request, line, len(r.got))
					}
					return
				}
				p.Closed()
				if len(r.got) != 0 || len(log.Lines(`reason="HTTP request"`)) != 1 {
					t.Errorf("%.20q: %d logins, log:\n%s", tt.request, len(r.got), log.String())
				}
			})
		}
	}
}

// TestHTTPAfterLogin shows that HTTP is not looked for after the login, when its
// client has proved to be one.
func TestHTTPAfterLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: memory()}, proxytest.Insecure)
		p := g.Dial()
		p.Login("alice", "secret")
		p.Do("GET / HTTP/1.1", "-ERR unknown command")
		p.OK("STAT")
	})
}

// TestHTTPToTLS shows P-SESS-3: HTTP on a port for TLS gets no answer either.
func TestHTTPToTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opts := proxytest.Insecure
		opts.Mode, opts.TLS = proxy.TLSImplicit, serverTLS(t)
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: memory()}, opts)
		p := g.Dial()
		p.Write("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		synctest.Wait()
		p.Closed()
	})
}

// TestSilentLog shows O-LIM-1: the records of clients that connect and leave without a
// word are rationed; those of others are not.
func TestSilentLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(proxytest.Log)
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: memory(), Logger: log.Logger()}, proxytest.Insecure)
		for range 2 {
			for range 10 {
				_ = g.DialFrom("192.0.2.7:1").Conn.Close()
				p := g.DialFrom("192.0.2.8:1")
				p.Greeting()
				p.OK("QUIT")
			}
			<-time.After(time.Second)
		}
		got := log.Lines("msg=session ")
		var silent []string
		for _, line := range got {
			if strings.Contains(line, "client=192.0.2.7:1") {
				silent = append(silent, line[strings.LastIndex(line, " ")+1:])
			}
		}
		if len(got) != 22 || strings.Join(silent, " ") != "more=0 more=9" {
			t.Errorf("%d records, %q of silent clients", len(got), silent)
		}
	})
}
