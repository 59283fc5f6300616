package proxy_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// inSlowLogins runs f for each phase of a login that takes an hour, over plain
// connections and under TLS.
func inSlowLogins(t *testing.T, f func(t *testing.T, w slowLogin)) {
	for name, faults := range map[string]proxytest.Faults{
		"the credential": {LoginDelay: time.Hour}, "the snapshot": {OpenDelay: time.Hour},
	} {
		for _, mode := range []proxy.TLSMode{proxy.TLSNone, proxy.TLSImplicit} {
			t.Run(fmt.Sprint(name, "/", mode), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					w := slowLogin{b: memory(generated(3, 100)...), log: new(proxytest.Log)}
					w.b.SetFaults(faults)
					lis := proxytest.Insecure
					if mode == proxy.TLSImplicit {
						lis = proxy.ListenerOptions{Mode: mode, TLS: serverTLS(t)}
					}
					w.g = proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: w.b, Logger: w.log.Logger()}, lis)
					w.tls = mode == proxy.TLSImplicit
					f(t, w)
				})
			})
		}
	}
}

type slowLogin struct {
	b   *proxytest.Backend
	g   *proxytest.Gateway
	log *proxytest.Log
	tls bool
}

// dial returns a client that has had the greeting, and its connection below TLS.
func (w slowLogin) dial(t *testing.T) (*proxytest.Client, *proxytest.Conn) {
	p := w.g.Dial()
	raw := p.Conn.(*proxytest.Conn)
	if w.tls {
		p.StartTLS(serverTLS(t))
	}
	p.Greeting()
	return p, raw
}

// TestClientLeaves shows P-SESS-14: a client that leaves during a slow login is
// noticed at once, its login ends, and its maildrop is free.
func TestClientLeaves(t *testing.T) {
	const pass = "USER alice\r\nPASS secret\r\n"
	for name, leave := range map[string]func(p *proxytest.Client, raw *proxytest.Conn){
		"closed": func(p *proxytest.Client, _ *proxytest.Conn) {
			p.Write(pass)
			synctest.Wait()
			p.Conn.Close()
		},
		"gone without close_notify": func(p *proxytest.Client, raw *proxytest.Conn) {
			p.Write(pass)
			synctest.Wait()
			raw.Close()
		},
		"closed for writing, nothing left to answer": func(p *proxytest.Client, raw *proxytest.Conn) {
			p.Write(pass)
			raw.CloseWrite()
		},
		"closed after half a command": func(p *proxytest.Client, _ *proxytest.Conn) {
			p.Write(pass + "ST")
			synctest.Wait()
			p.Conn.Close()
		},
		"reset": func(p *proxytest.Client, raw *proxytest.Conn) {
			p.Write(pass)
			synctest.Wait()
			raw.SetLinger(0)
			raw.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			inSlowLogins(t, func(t *testing.T, w slowLogin) {
				p, raw := w.dial(t)
				<-time.After(time.Second)
				leave(p, raw)
				<-time.After(time.Second)
				synctest.Wait()
				if w.g.Sessions() != 0 || w.b.Open() != 0 {
					t.Errorf("%d sessions and %d maildrops a second later", w.g.Sessions(), w.b.Open())
				}
				if len(w.log.Lines("msg=session", "reason=dropped")) != 1 {
					t.Errorf("log:\n%s", w.log.String())
				}
				w.b.SetFaults(proxytest.Faults{})
				next, _ := w.dial(t)
				began := time.Now()
				next.OK("USER alice", "PASS secret")
				if time.Since(began) != 0 {
					t.Errorf("the next login waited %v", time.Since(began))
				}
			})
		})
	}
}

// TestClientStays shows P-SESS-14 and P-PIPE-1: a client that has sent everything
// gets its answers although it has closed its sending side, and no input is lost
// by looking for its end, however much comes and in whatever pieces.
func TestClientStays(t *testing.T) {
	inSlowLogins(t, func(t *testing.T, w slowLogin) {
		p, raw := w.dial(t)
		p.Timeout = 2 * time.Hour
		_ = p.Conn.SetWriteDeadline(time.Time{}) // that of the handshake
		input := "USER alice\r\nPASS secret\r\nSTAT\r\nDELE 2\r\n" + strings.Repeat("NOOP\r\n", 1000) + "QUIT\r\n"
		go func() {
			for i := 0; i < len(input); i += 7 {
				if _, err := io.WriteString(p.Conn, input[i:min(i+7, len(input))]); err != nil {
					t.Error(err)
				}
				if i < 700 {
					<-time.After(time.Second)
				}
			}
			raw.CloseWrite()
		}()
		began := time.Now()
		p.Expect("+OK")
		p.Expect("+OK maildrop has 3 messages")
		if took := time.Since(began); took < time.Hour || took > time.Hour+time.Minute {
			t.Errorf("the login took %v", took)
		}
		p.Expect("+OK 3 ")
		p.Expect("+OK message 2 deleted")
		for range 1000 {
			p.Expect("+OK")
		}
		p.Expect("+OK bye, 1 messages removed")
	})
}

// TestClientLeavesExchange shows P-SESS-14 in an exchange: the client's responses
// are read by the exchange, and its end is noticed before and after them.
func TestClientLeavesExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory()
		b.AddAccount("tim", "tanstaaftanstaaf", false)
		b.SetFaults(proxytest.Faults{LoginDelay: time.Minute, OpenDelay: time.Hour})
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b, Mechanisms: []string{"CRAM-MD5"}}, proxytest.Insecure)
		p := g.Dial()
		p.Timeout = time.Hour
		p.Greeting()
		p.Do("AUTH CRAM-MD5", "+ ")
		<-time.After(50 * time.Second)
		p.Send("dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw")
		<-time.After(time.Minute)
		if b.Open() != 1 {
			t.Fatal("no login after the response")
		}
		p.Conn.Close()
		<-time.After(time.Second)
		if g.Sessions() != 0 || b.Open() != 0 {
			t.Errorf("%d sessions and %d logins are left", g.Sessions(), b.Open())
		}
	})
}

// TestClientLeavesMessage shows P-SESS-14 in RETR and TOP that wait for the upstream.
// A QUIT that has come is carried out (P-SESS-6).
func TestClientLeavesMessage(t *testing.T) {
	for name, leave := range map[string]func(p *proxytest.Client, raw *proxytest.Conn){
		"closed":                    func(p *proxytest.Client, _ *proxytest.Conn) { p.Conn.Close() },
		"gone without close_notify": func(_ *proxytest.Client, raw *proxytest.Conn) { raw.Close() },
		"closed for writing":        func(_ *proxytest.Client, raw *proxytest.Conn) { raw.CloseWrite() },
		"closed after half a command": func(p *proxytest.Client, _ *proxytest.Conn) {
			p.Write("QU")
			synctest.Wait()
			p.Conn.Close()
		},
		"reset": func(_ *proxytest.Client, raw *proxytest.Conn) {
			raw.SetLinger(0)
			raw.Close()
		},
	} {
		for _, command := range []string{"RETR 2", "TOP 2 1"} {
			t.Run(name+"/"+command, func(t *testing.T) {
				inSlowMessages(t, func(t *testing.T, w slowLogin, p *proxytest.Client, raw *proxytest.Conn) {
					p.Write("DELE 1\r\n" + command + "\r\n")
					<-time.After(10 * time.Minute)
					if w.g.Sessions() != 1 {
						t.Fatal("the session of a client that waits has ended")
					}
					leave(p, raw)
					<-time.After(time.Second)
					synctest.Wait()
					if w.g.Sessions() != 0 || w.b.Open() != 0 || len(w.b.Removed("alice")) != 0 {
						t.Errorf("%d sessions and %d maildrops a second later, removed %d", w.g.Sessions(), w.b.Open(), w.b.Removed("alice"))
					}
					if len(w.log.Lines("msg=session", "reason=dropped")) != 1 {
						t.Errorf("log:\n%s", w.log.String())
					}
				})
			})
		}
	}
	inSlowMessages(t, func(t *testing.T, w slowLogin, p *proxytest.Client, _ *proxytest.Conn) {
		p.Write("DELE 1\r\nRETR 2\r\nQUIT\r\n")
		synctest.Wait()
		p.Conn.Close()
		<-time.After(2 * time.Hour)
		if got := w.b.Removed("alice"); len(got) != 1 {
			t.Errorf("removed %d, want one message", got)
		}
	})
}

// TestMessageWhileLooking shows P-SESS-14: a message that comes while the session looks
// whether the client has left goes to the client at once.
func TestMessageWhileLooking(t *testing.T) {
	const delay = 405 * time.Millisecond
	synctest.Test(t, func(t *testing.T) {
		b := memory(generated(2, 100)...)
		b.SetFaults(proxytest.Faults{ReadDelay: delay})
		p := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b}, proxytest.Insecure).Dial()
		p.Greeting()
		p.OK("USER alice", "PASS secret")
		for _, command := range []string{"RETR 1", "TOP 2 1", "RETR 2"} {
			start := time.Now()
			p.Do(command, "+OK ")
			p.Body()
			if d := time.Since(start); d != delay {
				t.Errorf("%s takes %v, want %v", command, d, delay)
			}
		}
		p.Do("QUIT", "+OK bye")
	})
}

// inSlowMessages runs f with a client that has logged in, where messages come after an
// hour, over plain connections and under TLS.
func inSlowMessages(t *testing.T, f func(t *testing.T, w slowLogin, p *proxytest.Client, raw *proxytest.Conn)) {
	for _, mode := range []proxy.TLSMode{proxy.TLSNone, proxy.TLSImplicit} {
		t.Run(fmt.Sprint(mode), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := slowLogin{b: memory(generated(3, 100)...), log: new(proxytest.Log), tls: mode == proxy.TLSImplicit}
				w.b.SetFaults(proxytest.Faults{ReadDelay: time.Hour})
				lis := proxytest.Insecure
				if w.tls {
					lis = proxy.ListenerOptions{Mode: mode, TLS: serverTLS(t)}
				}
				w.g = proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: w.b, Logger: w.log.Logger()}, lis)
				p, raw := w.dial(t)
				p.Timeout = 2 * time.Hour
				_ = p.Conn.SetWriteDeadline(time.Time{}) // that of the handshake
				p.OK("USER alice", "PASS secret")
				f(t, w, p, raw)
			})
		})
	}
}

// TestClientClosesSending shows P-SESS-14: a client that has closed its sending side
// gets a message whole that makes progress, however long that takes, and one that
// sends commands meanwhile loses none.
func TestClientClosesSending(t *testing.T) {
	const octets = 100 << 10
	synctest.Test(t, func(t *testing.T) {
		b := memory(generated(2, 20*octets)...)
		b.SetFaults(proxytest.Faults{Chunk: octets, OnWrite: func() { <-time.After(300 * time.Millisecond) }})
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b}, proxytest.Insecure)
		for _, last := range []bool{false, true} {
			p := g.Dial()
			raw := p.Conn.(*proxytest.Conn)
			p.Timeout = time.Hour
			p.Greeting()
			p.OK("USER alice", "PASS secret")
			p.Write("RETR 1\r\n")
			if last {
				raw.CloseWrite()
			} else {
				go func() {
					<-time.After(2 * time.Second)
					p.Write("NOOP\r\nST")
					<-time.After(2 * time.Second)
					p.Write("AT\r\n")
				}()
			}
			p.Expect("+OK ")
			if got := p.Body(); len(got) < 20*octets {
				t.Errorf("%d octets", len(got))
			}
			if !last {
				p.Expect("+OK")
				p.Expect("+OK 2 ")
				p.Do("QUIT", "+OK bye")
			}
		}
	})
}

// TestSlowClientClosesSending shows P-SESS-14: a client that has closed its sending
// side, and reads more slowly than the gateway writes, gets a message whole.
func TestSlowClientClosesSending(t *testing.T) {
	const octets = 2 << 20 // more than the buffers on the way hold
	for _, mode := range []proxy.TLSMode{proxy.TLSNone, proxy.TLSImplicit} {
		synctest.Test(t, func(t *testing.T) {
			w := slowLogin{b: memory(generated(1, octets)...), tls: mode == proxy.TLSImplicit}
			w.b.SetFaults(proxytest.Faults{Chunk: 32 << 10})
			lis := proxytest.Insecure
			if w.tls {
				lis = proxy.ListenerOptions{Mode: mode, TLS: serverTLS(t)}
			}
			w.g = proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: w.b}, lis)
			p, raw := w.dial(t)
			p.Timeout = time.Hour
			_ = p.Conn.SetWriteDeadline(time.Time{}) // that of the handshake
			p.OK("USER alice", "PASS secret")
			p.Write("RETR 1\r\n")
			raw.CloseWrite()
			<-time.After(time.Minute)
			p.Expect("+OK ")
			if got := p.Body(); len(got) < octets {
				t.Errorf("%s: %d octets", mode, len(got))
			}
		})
	}
}
