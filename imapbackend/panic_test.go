package imapbackend

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"popgate/imapbackend/imapmodel"
	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// fragileConn is a connection to the upstream of which one call panics.
type fragileConn struct {
	net.Conn
	reads  *atomic.Bool  // the next Read panics
	writes *atomic.Bool  // the next Write panics
	later  *atomic.Int32 // after as many others
}

func (c *fragileConn) Read(p []byte) (int, error) {
	if c.reads.CompareAndSwap(true, false) {
		panic("fault of Read")
	}
	return c.Conn.Read(p)
}

func (c *fragileConn) Write(p []byte) (int, error) {
	if c.writes.Load() && c.later.Add(-1) < 0 {
		c.writes.Store(false)
		panic("fault of Write")
	}
	return c.Conn.Write(p)
}

// panicking is a writer that panics.
type panicking struct{}

func (panicking) Write([]byte) (int, error) { panic("fault of the client's Write") }

// P-SESS-13: a panic in any call leaves no connection open once what the caller
// has got is closed, and Close does not wait for a call that has ended by one.
func TestPanics(t *testing.T) {
	type world struct {
		b             *Backend
		reads, writes atomic.Bool
		later         atomic.Int32
	}
	opened := func(t *testing.T, w *world, use func(d proxy.Maildrop)) {
		d := openMaildrop(t, w.b)
		defer d.Close()
		use(d)
	}
	ctx := context.Background()
	for name, call := range map[string]func(t *testing.T, w *world){
		"greeting": func(t *testing.T, w *world) {
			w.reads.Store(true)
			w.b.Login(ctx, joe)
		},
		"prepared greeting": func(t *testing.T, w *world) {
			w.reads.Store(true)
			if _, err := w.b.Prepare(ctx, proxy.Caller{}).Login(ctx, joe); err == nil {
				t.Error("a login without a connection succeeds")
			}
			panic("none reaches the caller")
		},
		"login": func(t *testing.T, w *world) {
			w.writes.Store(true)
			w.b.Login(ctx, joe)
		},
		"prepared login": func(t *testing.T, w *world) {
			p := w.b.Prepare(ctx, proxy.Caller{})
			<-time.After(time.Second)
			w.writes.Store(true)
			p.Login(ctx, joe)
		},
		"exchange": func(t *testing.T, w *world) {
			w.writes.Store(true)
			w.b.Exchange(ctx, &proxy.Exchange{Mechanism: "XOAUTH2", Username: "joe", Authorization: "Bearer x"})
		},
		"open": func(t *testing.T, w *world) {
			l, err := w.b.Login(ctx, joe)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			w.writes.Store(true)
			l.Open(ctx)
		},
		"SELECT, on the goroutine of go-imap": func(t *testing.T, w *world) {
			l, err := w.b.Login(ctx, joe)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			w.reads.Store(true)
			var log proxytest.Log
			d, err := l.Open(proxy.WithLogger(ctx, log.Logger()))
			if err != nil {
				t.Fatal(err) // the connection was replaced
			}
			d.Close()
			if len(log.Lines("level=ERROR", "panic in session", "fault of Read", "stack=")) != 1 {
				t.Errorf("log:\n%s", log.String())
			}
			panic("none reaches the caller")
		},
		"RETR": func(t *testing.T, w *world) {
			opened(t, w, func(d proxy.Maildrop) {
				w.writes.Store(true)
				d.Read(ctx, 1)
			})
		},
		"the body of RETR": func(t *testing.T, w *world) {
			opened(t, w, func(d proxy.Maildrop) {
				body, err := d.Read(ctx, 1)
				if err != nil {
					t.Fatal(err)
				}
				defer body.Close()
				body.WriteTo(panicking{})
			})
		},
		"TOP": func(t *testing.T, w *world) {
			opened(t, w, func(d proxy.Maildrop) {
				w.writes.Store(true)
				d.Top(ctx, 1, 3)
			})
		},
		"the body of TOP": func(t *testing.T, w *world) {
			opened(t, w, func(d proxy.Maildrop) {
				body, err := d.Top(ctx, 1, 3)
				if err != nil {
					t.Fatal(err)
				}
				defer body.Close()
				body.WriteTo(panicking{})
			})
		},
		"QUIT": func(t *testing.T, w *world) {
			opened(t, w, func(d proxy.Maildrop) {
				w.writes.Store(true)
				d.Update(ctx, []uint64{1})
			})
		},
		"QUIT, before it asks": func(t *testing.T, w *world) {
			opened(t, w, func(d proxy.Maildrop) {
				<-time.After(probeAfter)
				w.writes.Store(true)
				d.Update(ctx, []uint64{1})
			})
		},
		"SELECT on the connection that replaces a lost one": func(t *testing.T, w *world) {
			opened(t, w, func(d proxy.Maildrop) {
				d.(*maildrop).u.Wire.Close()
				w.later.Store(1) // the login
				w.writes.Store(true)
				d.Read(ctx, 1)
			})
		},
		"a login that is to replace a connection": func(t *testing.T, w *world) {
			opened(t, w, func(d proxy.Maildrop) {
				m := d.(*maildrop)
				m.readAhead.coming = 1
				w.writes.Store(true)
				stop := m.detour(ctx)
				<-time.After(detourAfter + time.Second)
				if stop(); w.writes.Load() {
					t.Error("nobody logs in")
				}
				m.readAhead.coming = 0
			})
			panic("none reaches the caller")
		},
		"keep-alive": func(t *testing.T, w *world) {
			opened(t, w, func(proxy.Maildrop) {
				w.writes.Store(true)
				<-time.After(keepAlive + time.Second)
				if w.writes.Load() {
					t.Error("no NOOP was sent")
				}
			})
			panic("none reaches the caller")
		},
		"Close": func(t *testing.T, w *world) {
			d := openMaildrop(t, w.b)
			w.writes.Store(true)
			d.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := imapmodel.New()
				m.Caps += " AUTH=XOAUTH2"
				m.Inbox().Add("Subject: x\r\n\r\n1\r\n2\r\n3\r\n4\r\n5\r\n6\r\n7\r\n8\r\n9\r\n")
				w := &world{b: backend(t, Options{})}
				w.b.dial = func(ctx context.Context) (net.Conn, error) {
					conn, err := m.Dial(ctx)
					return &fragileConn{conn, &w.reads, &w.writes, &w.later}, err
				}
				done := make(chan any)
				go func() {
					defer func() { done <- recover() }()
					call(t, w)
				}()
				select {
				case p := <-done:
					if p == nil {
						t.Error("nothing panicked")
					}
				case <-time.After(time.Hour):
					t.Fatal("the call does not end")
				}
				synctest.Wait()
				if m.Open() != 0 {
					t.Errorf("%d of %d connections are left open", m.Open(), m.Dials())
				}
			})
		})
	}
}
