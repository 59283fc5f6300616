package proxy_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// TestOptions shows which options NewServer refuses, such as an autologout below
// ten minutes (P-SESS-7).
func TestOptions(t *testing.T) {
	b := memory()
	for _, tt := range []struct {
		opts proxy.Options
		want string
	}{
		{proxy.Options{Backend: b}, ""},
		{proxy.Options{Backend: b, Autologout: 10 * time.Minute, Mechanisms: []string{}}, ""},
		{proxy.Options{}, "no Backend"},
		{proxy.Options{Backend: b, Autologout: 10*time.Minute - 1}, "below the 10m0s"},
		{proxy.Options{Backend: b, Autologout: -1}, "below the 10m0s"},
		{proxy.Options{Backend: b, LoginAttempts: -1}, "-1 login attempts"},
		{proxy.Options{Backend: b, Mechanisms: []string{"CRAM-MD5", "SCRAM-SHA-1"}, UTF8: true}, ""},
		{proxy.Options{Backend: b, Mechanisms: []string{"DIGEST-MD5"}}, `"DIGEST-MD5"`},
		{proxy.Options{Backend: new(recorder), Mechanisms: []string{"LOGIN"}}, ""},
		{proxy.Options{Backend: new(recorder), Mechanisms: []string{"SCRAM-SHA-1"}}, "SCRAM-SHA-1 needs a Backend that is an Exchanger"},
	} {
		srv, err := proxy.NewServer(tt.opts)
		if tt.want == "" {
			if err != nil {
				t.Errorf("%+v: %v", tt.opts, err)
			} else if err := srv.Close(); err != nil {
				t.Errorf("Close: %v", err)
			}
		} else if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.opts, err, tt.want)
		}
	}
}

// TestServeRefuses shows that Serve refuses listener options that cannot work,
// and fails after Shutdown.
func TestServeRefuses(t *testing.T) {
	srv, err := proxy.NewServer(proxy.Options{Backend: memory()})
	if err != nil {
		t.Fatal(err)
	}
	for _, opts := range []proxy.ListenerOptions{{}, {Mode: "ssl"}, {Mode: proxy.TLSStartTLS}, {Mode: proxy.TLSImplicit}} {
		l := proxytest.Listen()
		if err := srv.Serve(l, opts); err == nil || errors.Is(err, proxy.ErrServerClosed) {
			t.Errorf("mode %q without certificate: %v", opts.Mode, err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the listener is still open: %v", err)
		}
	}
	if err := srv.Shutdown(context.Background()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if err := srv.Serve(proxytest.Listen(), proxytest.Insecure); !errors.Is(err, proxy.ErrServerClosed) {
		t.Errorf("Serve after Shutdown: %v", err)
	}
	if err := srv.Close(); err != nil {
		t.Errorf("Close after Shutdown: %v", err)
	}
}

// failingListener returns errs before the first connection, and records when
// Accept was called.
type failingListener struct {
	*proxytest.Listener
	errs []error
	at   []time.Time
}

func (l *failingListener) Accept() (net.Conn, error) {
	l.at = append(l.at, time.Now())
	if len(l.errs) > 0 {
		err := l.errs[0]
		l.errs = l.errs[1:]
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept", err)}
	}
	return l.Listener.Accept()
}

// TestAcceptBackOff shows that Serve waits when descriptors are lacking, longer
// each time, and that other errors end it.
func TestAcceptBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &failingListener{Listener: proxytest.Listen()}
		for range 12 {
			l.errs = append(l.errs, syscall.EMFILE)
		}
		g := proxytest.Serve(t, l, proxy.Options{Backend: memory()}, proxytest.Insecure)
		p := g.Dial()
		p.Greeting()
		synctest.Wait()
		if first := l.at[1].Sub(l.at[0]); first != 5*time.Millisecond {
			t.Errorf("first wait %v, want 5ms", first)
		}
		if last := l.at[12].Sub(l.at[11]); last != time.Second {
			t.Errorf("last wait %v, want 1s", last)
		}
	})

	l := &failingListener{Listener: proxytest.Listen(), errs: []error{syscall.EBADF}}
	srv, err := proxy.NewServer(proxy.Options{Backend: memory(), Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Serve(l, proxytest.Insecure); !errors.Is(err, syscall.EBADF) {
		t.Errorf("Serve: %v, want EBADF", err)
	}
	_ = srv.Close()
}

// TestShutdownWhileBackingOff shows P-SESS-9: a shutdown ends the wait of Serve.
func TestShutdownWhileBackingOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &failingListener{Listener: proxytest.Listen()}
		for range 100 {
			l.errs = append(l.errs, syscall.ENFILE)
		}
		g := proxytest.Serve(t, l, proxy.Options{Backend: memory()}, proxytest.Insecure)
		<-time.After(5 * time.Second)
		synctest.Wait()
		began := time.Now()
		if err := g.Shutdown(t.Context()); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("Shutdown took %v", took)
		}
	})
}

// keptAlive is a connection that reports its keep-alive configuration.
type keptAlive struct {
	net.Conn
	config chan net.KeepAliveConfig
}

func (c keptAlive) SetKeepAliveConfig(config net.KeepAliveConfig) error {
	c.config <- config
	return nil
}

// keepAliveListener is a Listener of keptAlive connections.
type keepAliveListener struct {
	*proxytest.Listener
	config chan net.KeepAliveConfig
}

func (l keepAliveListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return keptAlive{conn, l.config}, err
}

// TestKeepAlive shows O-LOCK-3: after 60 s of silence TCP probes the client.
func TestKeepAlive(t *testing.T) {
	l := keepAliveListener{proxytest.Listen(), make(chan net.KeepAliveConfig, 1)}
	g := proxytest.Serve(t, l, proxy.Options{Backend: memory()}, proxytest.Insecure)
	g.Dial().Greeting()
	if config := <-l.config; !config.Enable || config.Idle != time.Minute {
		t.Errorf("keepalive %+v", config)
	}
}

// TestInsecureLoginFrom shows P-USER-3 and O-PP-5: an IPv4 address is the same
// when it is mapped into IPv6.
func TestInsecureLoginFrom(t *testing.T) {
	for _, tt := range []struct {
		network, client, want string
	}{
		{"127.0.0.0/8", "127.0.0.1", "+OK"},
		{"127.0.0.0/8", "::ffff:127.0.0.1", "+OK"},
		{"::ffff:127.0.0.0/104", "127.0.0.1", "+OK"},
		{"::/0", "127.0.0.1", "-ERR"},
		{"127.0.0.0/8", "192.0.2.1", "-ERR"},
		{"fe80::/10", "fe80::1%eth0", "+OK"},
		{"2001:db8::/32", "2001:db9::1", "-ERR"},
	} {
		synctest.Test(t, func(t *testing.T) {
			g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: memory()}, proxy.ListenerOptions{
				Mode: proxy.TLSNone, InsecureLoginFrom: []netip.Prefix{netip.MustParsePrefix(tt.network)},
			})
			p := g.DialFrom(netip.AddrPortFrom(netip.MustParseAddr(tt.client), 1).String())
			p.Greeting()
			p.Send("USER alice")
			if got := p.Line(); !strings.HasPrefix(got, tt.want) {
				t.Errorf("%s from %s: %q, want %s", tt.network, tt.client, got, tt.want)
			}
		})
	}
}

// TestListenerWarning shows P-USER-3: the log warns of a listener that accepts
// logins without TLS.
func TestListenerWarning(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(proxytest.Log)
		proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: memory(), Logger: log.Logger()}, proxytest.Insecure)
		synctest.Wait()
		if got := log.String(); !strings.Contains(got, "level=WARN") || !strings.Contains(got, "listener=192.0.2.1:110") {
			t.Errorf("log: %s", got)
		}
	})
}

// TestShutdownGrace shows P-SESS-9 over TCP: Shutdown returns the error of its
// context when it had to cut off a session whose client does not read.
func TestShutdownGrace(t *testing.T) {
	b := memory(proxytest.Stored{Body: make([]byte, 64<<20), Listed: 64 << 20})
	g := proxytest.Serve(t, proxytest.Loopback(t), proxy.Options{Backend: b}, proxytest.Insecure)
	idle, busy := g.Dial(), g.Dial()
	idle.Greeting()
	busy.Login("alice", "secret")
	busy.Do("RETR 1", "+OK") // and reads no further
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := g.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown: %v", err)
	}
	idle.Closed()
	if n := g.Sessions(); n != 0 {
		t.Errorf("%d sessions after Shutdown", n)
	}
	if n := b.Open(); n != 0 {
		t.Errorf("%d maildrops are still open", n)
	}
}

// TestClose shows P-SESS-9: Close cancels a login in progress.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory()
		b.SetFaults(proxytest.Faults{LoginDelay: time.Hour})
		log := new(proxytest.Log)
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b, Logger: log.Logger()}, proxytest.Insecure)
		p := g.Dial()
		p.Greeting()
		p.Do("USER alice", "+OK")
		p.Send("PASS secret")
		synctest.Wait()
		began := time.Now()
		if err := g.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("Close took %v", took)
		}
		p.Closed()
		if got := log.String(); !strings.Contains(got, "reason=shutdown") || strings.Contains(got, "level=ERROR") {
			t.Errorf("log: %s", got)
		}
	})
}

// TestManySessions shows that of 1,000 sessions at once over TCP nothing is left:
// no goroutines (TestMain) and no descriptors.
func TestManySessions(t *testing.T) {
	const sessions = 1000
	before, _ := descriptors(t)
	b := proxytest.NewBackend()
	for i := range sessions {
		user := fmt.Sprintf("user%d", i)
		b.AddAccount(user, "secret", false)
		b.Add(user, generated(2, 3000)...)
	}
	g := proxytest.Serve(t, proxytest.Loopback(t), proxy.Options{Backend: b}, proxytest.Insecure)
	var wg, allIn sync.WaitGroup
	allIn.Add(sessions)
	for i := range sessions {
		wg.Go(func() {
			if err := oneOfMany(g.Addr(), i, &allIn); err != nil {
				t.Errorf("session %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if err := g.Shutdown(context.Background()); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	if g.Sessions() != 0 || b.Open() != 0 {
		t.Errorf("%d sessions and %d maildrops are left", g.Sessions(), b.Open())
	}
	for i := range sessions {
		if n := len(b.Removed(fmt.Sprintf("user%d", i))); n != 1 {
			t.Errorf("user%d: %d messages removed, want 1", i, n)
		}
	}
	if after, ok := descriptors(t); !ok {
		t.Logf("descriptors not counted: %s does not show them", runtime.GOOS)
	} else if after > before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// oneOfMany runs one session, which waits in the middle until all others have got
// there.
func oneOfMany(addr string, i int, allIn *sync.WaitGroup) error {
	arrive := sync.OnceFunc(allIn.Done)
	defer arrive()
	c, err := proxytest.DialConversation(addr)
	if err != nil {
		return err
	}
	defer c.Conn.Close()
	c.Timeout = 2 * proxytest.Patience // the others may need the first half
	if err := c.Send(fmt.Sprint("USER user", i), "PASS secret", "RETR 1"); err != nil {
		return err
	}
	for _, want := range []string{"+OK POP3 server ready", "+OK send PASS"} {
		if got, err := c.Line(); err != nil || got != want {
			return fmt.Errorf("got %q, %v", got, err)
		}
	}
	arrive()
	allIn.Wait()
	if err := c.Send("DELE 1", "QUIT"); err != nil {
		return err
	}
	for _, command := range []string{"PASS", "RETR"} {
		if _, err := c.Reply(command); err != nil {
			return err
		}
	}
	if err := c.Discard(); err != nil {
		return err
	}
	rest, err := io.ReadAll(c.Reader)
	if err != nil || string(rest) != "+OK message 1 deleted\r\n+OK bye, 1 messages removed\r\n" {
		return fmt.Errorf("got %q, %v; the conversation:\n%s", rest, err, c)
	}
	return nil
}

// descriptors returns the number of open files of this process. ok is false if
// the system does not show it.
func descriptors(t *testing.T) (n int, ok bool) {
	t.Helper()
	if runtime.GOOS != "linux" {
		return 0, false
	}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries), true
}

// TestTLSRecords shows P-RESP-2: the final line of a message is in the same TLS
// record as the CRLF before it, whatever the length of the message. A Read of
// crypto/tls returns data of one record.
func TestTLSRecords(t *testing.T) {
	var messages []proxytest.Stored
	for octets := 16384 - 60; octets < 16384+10; octets++ {
		messages = append(messages, proxytest.Stored{Body: proxytest.Generate(1, octets)})
	}
	g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: memory(messages...)}, proxy.ListenerOptions{
		Mode: proxy.TLSImplicit, TLS: serverTLS(t),
	})
	p := g.Dial()
	p.StartTLS(new(tls.Config))
	p.Login("alice", "secret")
	buf := make([]byte, 1<<15)
	for i := range messages {
		p.Write(fmt.Sprintf("RETR %d\r\n", i+1))
		var last string
		for !strings.HasSuffix(last, ".\r\n") || strings.HasPrefix(last, "+OK") && len(last) < 100 {
			_ = p.Conn.SetReadDeadline(time.Now().Add(proxytest.Patience))
			n, err := p.Conn.Read(buf)
			if err != nil {
				t.Fatalf("message %d: %v", i+1, err)
			}
			last = string(buf[:n])
		}
		if !strings.HasSuffix(last, "\r\n.\r\n") {
			t.Errorf("message %d ends in a record of %q", i+1, last)
		}
	}
}
