package proxy_test

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// TestPipelinedDELE shows P-PIPE-1: 10,000 commands in one write, before any reply
// is read.
func TestPipelinedDELE(t *testing.T) {
	const n = 10000
	b := memory(generated(n, 10)...)
	g := proxytest.Serve(t, proxytest.Loopback(t), proxy.Options{Backend: b}, proxytest.Insecure)
	p := g.Dial()
	p.Login("alice", "secret")
	var commands strings.Builder
	for i := range n {
		fmt.Fprintf(&commands, "DELE %d\r\n", i+1)
	}
	p.Write(commands.String() + "STAT\r\nQUIT\r\n")
	for i := range n {
		if got := p.Line(); got != fmt.Sprintf("+OK message %d deleted", i+1) {
			t.Fatalf("reply %d: %q", i+1, got)
		}
	}
	p.Expect("+OK 0 0")
	p.Expect("+OK bye, 10000 messages removed")
	p.Closed()
	if left := len(b.Messages("alice")); left != 0 {
		t.Errorf("%d messages are left", left)
	}
}

// TestPipelinedRETR shows P-PIPE-1 and P-SESS-4: 100 RETR before any reply is
// read, with more octets than all buffers hold.
func TestPipelinedRETR(t *testing.T) {
	const n = 100
	messages := generated(n, 100_000)
	g := proxytest.Serve(t, proxytest.Loopback(t), proxy.Options{Backend: memory(messages...)}, proxytest.Insecure)
	p := g.Dial()
	p.Login("alice", "secret")
	var commands strings.Builder
	for i := range n {
		fmt.Fprintf(&commands, "RETR %d\r\n", i+1)
	}
	p.Write(commands.String())
	for i, m := range messages {
		p.Expect(fmt.Sprintf("+OK %d octets", len(m.Body)))
		if p.Body() != string(m.Body) {
			t.Fatalf("message %d differs", i+1)
		}
	}
	p.Do("QUIT", "+OK bye")
}

// TestPanic shows that a panic ends only its own session: it is logged with its
// stack, the session's lock and maildrop are released, and other sessions
// continue.
func TestPanic(t *testing.T) {
	for _, method := range []string{"login", "open", "uniqueids", "read", "top", "retrieved", "close"} {
		synctest.Test(t, func(t *testing.T) {
			b := memory(generated(1, 10)...)
			log := new(proxytest.Log)
			g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b, Logger: log.Logger()}, proxytest.Insecure)
			other := g.Dial()
			other.Greeting()
			b.SetFaults(proxytest.Faults{Panic: method})
			p := g.Dial()
			p.Write("USER alice\r\nPASS secret\r\nUIDL\r\nTOP 1 0\r\nRETR 1\r\nNOOP\r\n")
			synctest.Wait()
			_ = p.Conn.Close()
			synctest.Wait()
			if n := g.Sessions(); n != 1 {
				t.Errorf("%s: %d sessions, want 1", method, n)
			}
			if got := log.String(); !strings.Contains(got, "fault of "+method) || !strings.Contains(got, "stack=") {
				t.Errorf("%s: log: %s", method, got)
			}
			b.SetFaults(proxytest.Faults{})
			other.Do("USER alice", "+OK")
			other.Do("PASS secret", "+OK maildrop has 1")
			other.Do("QUIT", "+OK")
			synctest.Wait()
		})
	}
}

// TestWriteStall shows P-SESS-8: a client that accepts nothing for 300 s is
// disconnected; the autologout timer stops while a reply is being sent.
func TestWriteStall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(proxytest.Log)
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: memory(generated(1, 2<<20)...), Logger: log.Logger()}, proxytest.Insecure)
		p := g.Dial()
		p.Login("alice", "secret")
		p.Do("DELE 1", "+OK")
		p.Do("RSET", "+OK")
		p.Send("RETR 1")
		piece := make([]byte, 40_000)
		_ = p.Conn.SetReadDeadline(time.Time{})
		for range 30 { // far longer than the autologout, but never 300 s without progress
			<-time.After(4 * time.Minute)
			if _, err := p.Reader.Read(piece); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		began := time.Now()
		<-time.After(299 * time.Second)
		if g.Sessions() != 1 {
			t.Error("disconnected before 300 s")
		}
		<-time.After(36 * time.Second)
		synctest.Wait()
		if g.Sessions() != 0 {
			t.Errorf("still connected after %v", time.Since(began))
		}
		if got := log.String(); !strings.Contains(got, "reason=stalled") {
			t.Errorf("log: %s", got)
		}
	})
}

// TestBackPressure shows P-RETR-5: of a message that the client does not read, no
// more is read from the upstream than fits in the transport and in one buffer.
func TestBackPressure(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const chunk, transport, buffer = 4096, 256 << 10, 64 << 10
		b := memory(proxytest.Stored{Body: make([]byte, 4<<20), Listed: 4 << 20})
		pieces := 0
		b.SetFaults(proxytest.Faults{Chunk: chunk, OnWrite: func() { pieces++ }})
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b}, proxytest.Insecure)
		p := g.Dial()
		p.Login("alice", "secret")
		p.Send("RETR 1")
		synctest.Wait()
		if got := pieces * chunk; got < transport || got > transport+2*buffer {
			t.Errorf("%d octets read from the upstream", got)
		}
	})
}

// TestCut shows P-RETR-7, P-RESP-3 and P-SESS-5 (RFC 1939 §3): when the upstream
// fails in mid-body and a part of the reply has been sent, the connection is closed
// without the final line, no later command is executed, and nothing is removed.
// While all of it is in the buffer, the answer is -ERR, and the session goes on.
func TestCut(t *testing.T) {
	for _, tt := range []struct {
		name     string
		cut      int
		answered bool
	}{
		{"before the first octet", 0, true},
		{"in the buffer", 60 << 10, true},
		{"beyond the buffer", 64 << 10, false},
		{"in the second half", 100_000, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := memory(generated(2, 128<<10)...)
				b.SetFaults(proxytest.Faults{Cut: map[uint64]int{1: tt.cut}, Chunk: 1000, OnRetrieved: func(uint64) { t.Error("retrieved") }})
				o := new(proxytest.Observer)
				g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b, Observer: o}, proxytest.Insecure)
				p := g.Dial()
				p.Login("alice", "secret")
				p.OK("DELE 2")
				p.Send("RETR 1", "QUIT")
				removed, record := 0, fmt.Sprintf("retr 0, top 0, dele 1, octets %d,", tt.cut)
				status := "RETR +OK"
				if tt.answered {
					removed, record, status = 1, "retr 0, top 0, dele 1, octets 0,", "RETR -ERR"
					p.Expect("-ERR [SYS/TEMP] message cannot be read, try again later")
					p.Expect("+OK")
				} else {
					p.Expect("+OK")
					got, _ := io.ReadAll(p.Reader)
					if len(got) < tt.cut || bytes.HasSuffix(got, []byte("\r\n.\r\n")) {
						t.Errorf("%d octets, to %q", len(got), got[len(got)-10:])
					}
				}
				p.Closed()
				synctest.Wait()
				if got := b.Removed("alice"); len(got) != removed {
					t.Errorf("removed: %v", got)
				}
				events := strings.Join(o.Events(), "\n")
				if !strings.Contains(events, status) || !strings.Contains(events, record) {
					t.Errorf("no %q and %q in\n%s", status, record, events)
				}
			})
		})
	}
}

// TestSTLSInjection shows P-STLS-3: commands injected after STLS make the
// handshake fail, and none reaches the Backend.
func TestSTLSInjection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory()
		opts := proxytest.Insecure
		opts.Mode, opts.TLS = proxy.TLSStartTLS, serverTLS(t)
		log := new(proxytest.Log)
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b, Logger: log.Logger()}, opts)
		p := g.Dial()
		p.Greeting()
		p.Write("STLS\r\nUSER alice\r\nPASS secret\r\n")
		p.Expect("+OK begin TLS")
		synctest.Wait()
		if n := b.Counts().Logins; n != 0 {
			t.Errorf("%d logins reached the Backend", n)
		}
		if got := log.String(); !strings.Contains(got, "reason=handshake") {
			t.Errorf("log: %s", got)
		}
	})
}

// TestDropDuringRETR shows P-SESS-5: when a client disconnects in the middle of a
// message, its session ends at once, and the message is not retrieved.
func TestDropDuringRETR(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory(generated(2, 1<<20)...)
		b.SetFaults(proxytest.Faults{OnRetrieved: func(uid uint64) { t.Errorf("message %d retrieved", uid) }})
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b}, proxytest.Insecure)
		p := g.Dial()
		p.Login("alice", "secret")
		p.Do("DELE 2", "+OK")
		p.Do("RETR 1", "+OK")
		_ = p.Conn.Close()
		synctest.Wait()
		if g.Sessions() != 0 || b.Open() != 0 {
			t.Error("the session continues")
		}
		if left := len(b.Messages("alice")); left != 2 {
			t.Errorf("%d messages are left, want 2", left)
		}
	})
}

// TestRetrievedBeforeUpdate shows the condition of I-FLAG-1: a message sent whole
// is reported to the maildrop before UPDATE, also when RETR and QUIT are
// pipelined.
func TestRetrievedBeforeUpdate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory(generated(1, 10)...)
		var order []string
		b.SetFaults(proxytest.Faults{
			OnRetrieved: func(uid uint64) { order = append(order, fmt.Sprint("retrieved ", uid)) },
			OnUpdate:    func() { order = append(order, "update") },
		})
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b}, proxytest.Insecure)
		p := g.Dial()
		p.Login("alice", "secret")
		p.Write("RETR 1\r\nQUIT\r\n")
		p.Expect("+OK")
		p.Body()
		p.Expect("+OK bye")
		p.Closed()
		synctest.Wait()
		if got := strings.Join(order, ", "); got != "retrieved 1, update" {
			t.Errorf("order: %s", got)
		}
	})
}

// TestSessionRecord shows O-LOG-2, and the mismatches of I-SIZE-2.
func TestSessionRecord(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory(generated(3, 10)...)
		b.Add("alice", proxytest.Stored{Body: []byte("a: b\r\n"), Listed: 99})
		opts := proxytest.Insecure
		opts.Mode, opts.TLS = proxy.TLSStartTLS, serverTLS(t)
		log := new(proxytest.Log)
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b, Logger: log.Logger()}, opts)
		p := g.Dial()
		p.Greeting()
		p.Do("STLS", "+OK")
		p.StartTLS(&tls.Config{ServerName: "pop.example"})
		p.Do("USER alice", "+OK")
		p.Do("PASS wrong", "-ERR [AUTH]")
		p.Do("USER Alice", "+OK")
		p.Do("PASS secret", "+OK")
		p.Do("TOP 1 0", "+OK")
		p.Body()
		for _, n := range []int{1, 4} {
			p.Do(fmt.Sprintf("RETR %d", n), "+OK")
			p.Body()
		}
		p.Do("DELE 1", "+OK")
		p.Do("DELE 2", "+OK")
		p.Do("QUIT", "+OK")
		p.Closed()
		synctest.Wait()
		pattern := `level=INFO msg=session session=[0-9a-f]{16} client=198\.51\.100\.7:40000 listener=192\.0\.2\.1:110 ` +
			`tls="TLS 1\.3" suite=TLS_\S+ sni=pop\.example user=alice upstream=memory retr=2 top=1 dele=2 octets=46 ` +
			`removed=2 remaining=2 size_mismatches=1 failed_logins=1 sent=[0-9]+ reason=quit duration=\S+\n`
		if got := log.String(); len(regexp.MustCompile(pattern).FindAllString(got, -1)) != 1 {
			t.Errorf("no single record like %s in\n%s", pattern, got)
		}
	})
}
