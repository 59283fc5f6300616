package imapbackend

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"popgate/imapbackend/upstream"
	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// countedConns counts the connections of a Backend that are open.
type countedConns struct{ open, most atomic.Int32 }

// counted makes the future connections of b counted.
func counted(b *Backend) *countedConns {
	c, dial := new(countedConns), b.dial
	b.dial = func(ctx context.Context) (net.Conn, error) {
		conn, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		c.most.Store(max(c.most.Load(), c.open.Add(1)))
		return &countedConn{Conn: conn, closed: sync.OnceFunc(func() { c.open.Add(-1) })}, nil
	}
	return c
}

type countedConn struct {
	net.Conn
	closed func()
}

func (c *countedConn) Close() error {
	c.closed()
	return c.Conn.Close()
}

// from returns a context of a client at 192.0.2.n.
func from(ctx context.Context, n int) context.Context {
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), 40000)
	return proxy.WithClient(ctx, proxy.Client{Addr: addr, Local: addr})
}

// slowModel is a model that judges a password after a latency, and wants "secret" of
// joe.
func slowModel(latency time.Duration) *model {
	m := newModel()
	m.SetPassword("\x00joe", "secret")
	m.Before = func(cmd string) {
		if strings.HasPrefix(cmd, "AUTHENTICATE") {
			<-time.After(latency)
		}
	}
	return m
}

var guess = proxy.Credential{Username: "guessed", Password: "wrong"}

// I-LOGIN-9: no more logins than max_logins hold a connection, with those opened
// ahead; the others wait, and another client gets its turn among many of one.
func TestMaxLogins(t *testing.T) {
	for _, ahead := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			b := slowModel(time.Second).backend(t, Options{MaxLogins: 5})
			conns := counted(b)
			var all sync.WaitGroup
			began := time.Now()
			for i := range 100 {
				all.Go(func() {
					ctx, cred := from(t.Context(), 1), guess
					cred.Username, cred.Password = fmt.Sprint("guessed", i), fmt.Sprint("wrong", i)
					login := b.Login
					if ahead {
						if p := b.Prepare(ctx, proxy.Caller{Username: cred.Username}); p != nil {
							login = p.Login
						}
					}
					if l, err := login(ctx, cred); err == nil {
						l.Close()
					} else if e := proxy.AsError(err); e.Code != auth {
						t.Error(err)
					}
				})
			}
			<-time.After(500 * time.Millisecond)
			l, err := b.Login(from(t.Context(), 2), joe)
			if took := time.Since(began); took > 3*time.Second {
				t.Errorf("ahead %v: the other client waits %v", ahead, took)
			}
			if err != nil {
				t.Error(err)
			} else {
				l.Close()
			}
			all.Wait()
			// The one that has logged in may still be open when the next begins.
			if most, open := conns.most.Load(), conns.open.Load(); most < 5 || most > 6 || open != 0 {
				t.Errorf("ahead %v: %d connections at a time, %d are open", ahead, most, open)
			}
		})
	}
}

// I-LOGIN-9: connections opened ahead for clients that then fall silent give way.
func TestMaxLoginsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := slowModel(time.Second).backend(t, Options{MaxLogins: 3})
		conns := counted(b)
		for i := range 3 {
			if b.Prepare(from(t.Context(), 1), proxy.Caller{}) == nil {
				t.Errorf("%d is not opened ahead", i)
			}
		}
		if b.Prepare(from(t.Context(), 1), proxy.Caller{}) != nil {
			t.Error("a fourth is opened ahead")
		}
		synctest.Wait()
		began := time.Now()
		l, err := b.Login(from(t.Context(), 2), joe)
		if err != nil {
			t.Fatal(err)
		}
		l.Close()
		if took := time.Since(began); took > 1100*time.Millisecond || conns.most.Load() != 3 {
			t.Errorf("took %v, %d connections", took, conns.most.Load())
		}
		<-time.After(preparedTimeout)
		synctest.Wait()
		if n := conns.open.Load(); n != 0 || len(b.waiting) != 0 {
			t.Errorf("%d are open", n)
		}
	})
}

// I-LOGIN-9, M-2: the wait counts in the minute of the login, and ends with the client.
func TestMaxLoginsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newModel().backend(t, Options{MaxLogins: 1})
		conns := counted(b)
		leave, err := b.gate.Enter(t.Context(), who(from(t.Context(), 1), ""), false)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(from(t.Context(), 2))
		var all sync.WaitGroup
		began := time.Now()
		login := func(ctx context.Context, cred proxy.Credential, after time.Duration) {
			all.Go(func() {
				_, err := b.Login(ctx, cred)
				if took := time.Since(began); err == nil || proxy.AsError(err).Code != temp || took != after || !strings.Contains(err.Error(), "max_logins") {
					t.Errorf("%v after %v", err, took)
				}
			})
		}
		login(ctx, guess, time.Second)
		login(from(t.Context(), 3), joe, upstream.LoginLimit)
		<-time.After(time.Second)
		cancel()
		all.Wait()
		if n := conns.most.Load(); n != 0 {
			t.Errorf("%d connections", n)
		}
		leave()
		openMaildrop(t, b).Close()
	})
}

// I-LOGIN-9: at most four logins for a maildrop hold a connection, under whichever of
// its names, until they have opened it or are closed; no other maildrop waits for
// them.
func TestLoginsOfMaildrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newModel().backend(t, Options{})
		alias := proxy.Credential{Username: "JOE", Password: "secret"}
		conns := counted(b)
		ctx, cancel := context.WithCancel(from(t.Context(), 1))
		got := make(chan proxy.Login, 50)
		var all sync.WaitGroup
		for i := range 50 {
			all.Go(func() {
				if l, err := b.Login(ctx, []proxy.Credential{joe, alias}[i%2]); err == nil {
					got <- l // it waits for the lock
				}
			})
		}
		<-time.After(time.Second)
		if n := conns.open.Load(); n != 4 || len(got) != 4 {
			t.Errorf("%d connections, %d logins", n, len(got))
		}
		p := b.Prepare(ctx, proxy.Caller{})
		all.Go(func() {
			if l, err := p.Login(ctx, joe); err == nil {
				got <- l
			}
		})
		<-time.After(time.Second)
		if n := conns.open.Load(); n != 4 {
			t.Errorf("%d connections, with one opened ahead", n)
		}
		d, err := (<-got).Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		(<-got).Close()
		<-time.After(time.Second)
		if len(got) != 4 || conns.most.Load() != 5 {
			t.Errorf("%d logins, %d connections", len(got), conns.most.Load())
		}
		cancel()
		all.Wait()
		close(got)
		for l := range got {
			l.Close()
		}
		d.Close()
		if n := conns.open.Load(); n != 0 {
			t.Errorf("%d are open", n)
		}
	})
}

// I-LOGIN-9, P-PASS-6: of 400 clients that log in at once to one maildrop four have a
// connection until it is open, those included that have only sent USER or are held by
// the throttle; all get in or find it locked. Of those with 400 names max_logins have
// one.
func TestLoginsAtOnce(t *testing.T) {
	for _, tt := range []struct {
		what, name, answer string
		asked, most        int32 // connections
	}{
		{"one maildrop", "joe", "+OK maildrop has ", 4, 4 + 4}, // of four sessions that end
		{"many names", "guessed%d", "-ERR [AUTH]", 64, 64},
	} {
		synctest.Test(t, func(t *testing.T) {
			m := slowModel(50 * time.Millisecond)
			var judging, judged atomic.Int32 // logins at the upstream; the most of them
			judge := m.Before
			m.Before = func(cmd string) {
				if strings.HasPrefix(cmd, "AUTHENTICATE") {
					judged.Store(max(judged.Load(), judging.Add(1)))
					defer judging.Add(-1)
				}
				judge(cmd)
			}
			b := m.backend(t, Options{MaxLogins: 64})
			th, err := proxy.NewThrottle(proxy.ThrottleOptions{Delay: 2 * time.Second, MaxDelay: 15 * time.Second, Window: time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b, Throttler: th}, proxytest.Insecure)
			ask(g) // joe is known
			conns := counted(b)
			var all []*proxytest.Client
			for i := range 400 {
				p := g.DialFrom(netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 40000).String())
				p.Greeting()
				p.OK("USER " + strings.ReplaceAll(tt.name, "%d", fmt.Sprint(i)))
				all = append(all, p)
			}
			synctest.Wait()
			if n := conns.open.Load(); n != tt.asked {
				t.Errorf("%s: %d connections after USER, want %d", tt.what, n, tt.asked)
			}
			for _, p := range all {
				p.Write("PASS secret\r\nQUIT\r\n")
			}
			for _, p := range all {
				if line := p.Line(); !strings.HasPrefix(line, tt.answer) && !strings.HasPrefix(line, "-ERR [IN-USE]") {
					t.Errorf("%s: %s", tt.what, line)
				}
			}
			<-time.After(time.Minute)
			if most, open := conns.most.Load(), conns.open.Load(); most > tt.most || open != 0 || judged.Load() != tt.asked {
				t.Errorf("%s: %d logins and %d connections at a time, %d are open", tt.what, judged.Load(), most, open)
			}
			if n := len(b.waiting); n != 0 {
				t.Errorf("%s: %d opened ahead are left", tt.what, n)
			}
		})
	}
}

// I-LOGIN-9: a user who has logged in from an address before does not wait there for
// the guesses of 250 others.
func TestMaxLoginsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := slowModel(time.Second).backend(t, Options{MaxLogins: 5})
		login := func(ctx context.Context) {
			l, err := b.Login(ctx, joe)
			if err != nil {
				t.Error(err)
				return
			}
			l.Close()
		}
		login(from(t.Context(), 251))
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for i := range 250 {
			all.Go(func() {
				for n := 0; ctx.Err() == nil; n++ {
					cred := proxy.Credential{Username: fmt.Sprintf("guessed%d.%d", i, n), Password: "wrong"}
					if l, err := b.Login(from(ctx, i), cred); err == nil {
						l.Close()
					}
				}
			})
		}
		<-time.After(10*time.Second + time.Millisecond)
		for range 3 {
			began := time.Now()
			login(from(t.Context(), 251))
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("joe waits %v", took)
			}
		}
		cancel()
		all.Wait()
		<-time.After(time.Second) // the verdicts
	})
}

// I-LOGIN-9: exchanges, whose clients may keep them waiting, leave half of the places
// to others. One whose name is not known counts until the maildrop is open.
func TestMaxLoginsExchanges(t *testing.T) {
	const script = "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN AUTH=CRAM-MD5 SASL-IR] x\n"
	play(t, "", script+"C: <l> AUTHENTICATE CRAM-MD5\nS: + PDE+\nC: *\nS: <l> BAD x\n"+bye+
		next(2, greeted+"C: <l> AUTHENTICATE PLAIN "+ir+"\nS: <l> OK [CAPABILITY IMAP4rev1] x\n"+bye), Options{MaxLogins: 2}, func(s *session) {
		ctx, cancel := context.WithCancel(s.ctx)
		answer := make(chan struct{})
		var all sync.WaitGroup
		exchange := func(ctx context.Context) {
			ex := &proxy.Exchange{Mechanism: "CRAM-MD5", Challenge: func(context.Context, string) (string, error) {
				<-answer
				return "", errHungUp
			}}
			if _, err := s.b.Exchange(ctx, ex); err == nil {
				s.Error("logged in")
			}
		}
		all.Go(func() { exchange(s.ctx) })
		synctest.Wait()
		for range 5 {
			all.Go(func() { exchange(ctx) })
		}
		<-time.After(time.Second)
		l, err := s.b.Login(s.ctx, joe)
		if err != nil {
			s.Fatal(err)
		}
		l.Close()
		cancel()
		synctest.Wait()
		close(answer)
		all.Wait()
	})
}
