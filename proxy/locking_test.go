package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"popgate/proxy"
	"popgate/proxy/lock"
	"popgate/proxy/lock/locktest"
	"popgate/proxy/proxytest"
)

// aliceKey is the key of alice's maildrop in a proxytest.Backend.
var aliceKey = proxy.Identity{Upstream: "memory", User: "alice", Mailbox: "INBOX"}.Keys()[0]

// lossy is a Backend whose UPDATE succeeds although the lock is lost during it.
type lossy struct {
	*proxytest.Backend
	lose func()
}

func (b lossy) Login(ctx context.Context, cred proxy.Credential) (proxy.Login, error) {
	l, err := b.Backend.Login(ctx, cred)
	return lossyLogin{l, b.lose}, err
}

type lossyLogin struct {
	proxy.Login
	lose func()
}

func (l lossyLogin) Open(ctx context.Context) (proxy.Maildrop, error) {
	d, err := l.Login.Open(ctx)
	return lossyMaildrop{d, l.lose}, err
}

type lossyMaildrop struct {
	proxy.Maildrop
	lose func()
}

func (d lossyMaildrop) Update(ctx context.Context, marked []uint64) error {
	err := d.Maildrop.Update(ctx, marked)
	d.lose()
	<-ctx.Done()
	return err
}

// TestLockLost shows O-LOCK-5: a session that loses its lock ends at once,
// whatever it is doing, and removes nothing more. A QUIT that has already been
// received gets the reply that is true.
func TestLockLost(t *testing.T) {
	for _, tt := range []struct {
		name    string
		faults  func(f *proxytest.Faults, lose func())
		lossy   bool
		drive   func(p *proxytest.Client, lose func())
		removed int
		updates int
	}{
		{name: "waiting", drive: func(p *proxytest.Client, lose func()) {
			p.OK("DELE 1")
			lose()
		}},
		{name: "in a command", faults: func(f *proxytest.Faults, lose func()) {
			f.Chunk = 10
			f.OnWrite = lose
		}, drive: func(p *proxytest.Client, _ func()) {
			p.OK("DELE 1")
			p.Send("RETR 2", "QUIT")
			_, _ = p.Conversation.Body() // is cut off
		}},
		{name: "not reading", drive: func(p *proxytest.Client, lose func()) {
			p.OK("DELE 1")
			go func() { _ = p.Conversation.Write(strings.Repeat("LIST\r\n", 100_000)) }()
			synctest.Wait()
			lose()
			synctest.Wait()
			_ = p.Conn.Close()
		}},
		{name: "before QUIT is executed", faults: func(f *proxytest.Faults, lose func()) {
			f.OnRetrieved = func(uint64) { lose() }
		}, drive: func(p *proxytest.Client, _ func()) {
			p.OK("DELE 1")
			p.Send("RETR 2", "QUIT")
			p.Expect("+OK")
			p.Discard()
			p.Expect("-ERR [SYS/TEMP] some deleted messages not removed")
			p.Closed()
		}},
		{name: "before QUIT, none marked", faults: func(f *proxytest.Faults, lose func()) {
			f.OnRetrieved = func(uint64) { lose() }
		}, drive: func(p *proxytest.Client, _ func()) {
			p.Send("RETR 2", "QUIT")
			p.Expect("+OK")
			p.Discard()
			p.Expect("+OK bye")
			p.Closed()
		}},
		{name: "in UPDATE", faults: func(f *proxytest.Faults, lose func()) {
			f.OnUpdate, f.UpdateDelay = lose, time.Hour
		}, drive: func(p *proxytest.Client, _ func()) {
			p.OK("DELE 1")
			p.Do("QUIT", "-ERR [SYS/TEMP] some deleted messages not removed")
			p.Closed()
		}, updates: 1},
		{name: "in an UPDATE that does not end", faults: func(f *proxytest.Faults, lose func()) {
			f.OnUpdate, f.UpdateLate = lose, 130*time.Second
		}, drive: func(p *proxytest.Client, _ func()) {
			p.OK("DELE 1")
			p.Timeout = 10 * time.Minute
			p.Do("QUIT", "-ERR [SYS/TEMP] some deleted messages not removed")
			p.Closed()
		}, updates: 1},
		{name: "in an UPDATE that succeeds", lossy: true, drive: func(p *proxytest.Client, _ func()) {
			p.OK("DELE 1")
			p.Do("QUIT", "+OK bye, 1 messages removed")
			p.Closed()
		}, updates: 1, removed: 1},
		{name: "in a login", faults: func(f *proxytest.Faults, _ func()) {
			f.OpenDelay = time.Hour
		}, drive: func(_ *proxytest.Client, lose func()) {
			synctest.Wait()
			lose()
		}},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := memory(generated(3, 1000)...)
			var locker locktest.Losable
			lose := func() { locker.Lose(aliceKey) }
			var f proxytest.Faults
			if tt.faults != nil {
				tt.faults(&f, lose)
			}
			b.SetFaults(f)
			var backend proxy.Backend = b
			if tt.lossy {
				backend = lossy{b, lose}
			}
			var log proxytest.Log
			g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: backend, Locker: &locker, Logger: log.Logger()}, proxytest.Insecure)
			p := g.Dial()
			if f.OpenDelay > 0 {
				p.Greeting()
				p.OK("USER alice")
				p.Send("PASS secret")
			} else {
				p.Login("alice", "secret")
			}
			tt.drive(p, lose)
			synctest.Wait()
			if n := g.Sessions(); n != 0 && f.UpdateLate == 0 {
				t.Errorf("%s: %d sessions are left", tt.name, n)
			}
			<-time.After(f.UpdateLate)
			synctest.Wait()
			if b.Open() != 0 {
				t.Errorf("%s: %d maildrops are left open", tt.name, b.Open())
			}
			if got := b.Counts().Updates; got != tt.updates {
				t.Errorf("%s: %d updates, want %d", tt.name, got, tt.updates)
			}
			if got := len(b.Removed("alice")); got != tt.removed {
				t.Errorf("%s: %d messages removed, want %d", tt.name, got, tt.removed)
			}
			if len(log.Lines("level=WARN", "lock of the maildrop lost")) == 0 || len(log.Lines("msg=session", `reason="lock lost"`)) != 1 {
				t.Errorf("%s: log:\n%s", tt.name, log.String())
			}
			b.SetFaults(proxytest.Faults{})
			next := g.Dial()
			next.Login("alice", "secret")
		})
	}
}

// TestLostAfterRelease shows that the loss of a lock that has been released, if
// only just, does not end the session (O-LOCK-5).
func TestLostAfterRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory()
		b.SetFaults(proxytest.Faults{Open: errors.New("no mailbox")})
		var locker lateLoser
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b, Locker: &locker}, proxytest.Insecure)
		p := g.Dial()
		p.Greeting()
		for range 20 { // which of two events is noticed first is random
			p.OK("USER alice")
			p.Do("PASS secret", "-ERR [SYS/TEMP]")
			synctest.Wait()
		}
		p.OK("CAPA")
	})
}

// lateLoser is a Locker whose locks are lost once they are released.
type lateLoser struct{ lost chan struct{} }

func (l *lateLoser) Acquire(context.Context, string, string) (lock.Lock, error) {
	l.lost = make(chan struct{})
	return l, nil
}

func (l *lateLoser) Lost() <-chan struct{} { return l.lost }
func (l *lateLoser) Release()              { close(l.lost) }

// TestInUseLog shows O-LOCK-5: the log names the session that holds the maildrop,
// the reply does not.
func TestInUseLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log proxytest.Log
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: memory(), Logger: log.Logger()}, proxytest.Insecure)
		began := time.Now()
		g.DialFrom("192.0.2.7:40001").Login("alice", "secret")
		<-time.After(time.Minute)
		p := g.DialFrom("192.0.2.8:40002")
		p.Greeting()
		p.OK("USER alice")
		if got := p.Do("PASS secret", "-ERR"); got != "-ERR [IN-USE] maildrop is in use by another session" {
			t.Errorf("reply %q", got)
		}
		_, session, _ := strings.Cut(log.Lines("client=192.0.2.7:40001")[0], "session=")
		want := fmt.Sprintf("held by session %s of 192.0.2.7:40001 since %s", session[:16], began.Format(time.RFC3339))
		if got := log.Lines("level=INFO", `msg="command failed"`, "client=192.0.2.8:40002", "[IN-USE]", want); len(got) != 1 {
			t.Errorf("no record with %q in\n%s", want, log.String())
		}
	})
}

// lateLogin is a Backend that verifies a credential in 57 s.
type lateLogin struct{ *proxytest.Backend }

func (b lateLogin) Login(ctx context.Context, cred proxy.Credential) (proxy.Login, error) {
	<-time.After(57 * time.Second)
	return b.Backend.Login(ctx, cred)
}

// I-LOGIN-8: the wait for the lock counts as part of the minute of a login.
func TestLockWaitAfterSlowLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: lateLogin{memory()}}, proxytest.Insecure)
		g.Dial().Login("alice", "secret")
		p := g.Dial()
		p.Greeting()
		p.OK("USER alice")
		began := time.Now()
		p.Do("PASS secret", "-ERR [IN-USE]")
		if d := time.Since(began); d != 58*time.Second {
			t.Errorf("answered after %v", d)
		}
	})
}

// brokenLocker is a Locker that fails, or never answers if err is nil.
type brokenLocker struct{ err error }

func (l brokenLocker) Acquire(ctx context.Context, _, _ string) (lock.Lock, error) {
	if l.err == nil {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return nil, l.err
}

// TestLockWaitEnds shows that a login which waits for the lock when the server
// closes is not reported as [IN-USE]: nobody knows whether the lock would have
// become free in time. The holder may end first; then the login succeeds.
func TestLockWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := new(proxytest.Observer)
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: memory(), Observer: o}, proxytest.Insecure)
		g.Dial().Login("alice", "secret")
		p := g.Dial()
		p.Greeting()
		p.OK("USER alice")
		p.Send("PASS secret")
		synctest.Wait()
		g.Server.Close()
		var replies []string
		for line, err := p.Conversation.Line(); err == nil; line, err = p.Conversation.Line() {
			replies = append(replies, line)
		}
		synctest.Wait()
		for _, e := range append(replies, o.Events()...) {
			if strings.Contains(e, "IN-USE") {
				t.Errorf("reported: %s", e)
			}
		}
	})
}

// TestLockerFails shows P-RESP-6 and O-LOCK-5: a lock service that fails or does
// not answer is a system fault, not a maildrop in use.
func TestLockerFails(t *testing.T) {
	for _, err := range []error{errors.New("lock service: secret cause"), nil} {
		synctest.Test(t, func(t *testing.T) {
			b := memory()
			g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b, Locker: brokenLocker{err}}, proxytest.Insecure)
			p := g.Dial()
			p.Greeting()
			p.OK("USER alice")
			p.Do("PASS secret", "-ERR [SYS/TEMP] maildrop cannot be locked, try again later")
			p.OK("CAPA")
			if b.Open() != 0 {
				t.Error("a login is left open")
			}
		})
	}
}
