package proxy_test

import (
	"context"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"popgate/proxy"
	"popgate/proxy/lock"
	"popgate/proxy/proxytest"
)

// fragile is a Backend, a Preparer and a Locker of which one method panics, once.
// It counts the logins, maildrops and prepared connections that are open.
type fragile struct {
	*proxytest.Backend
	locks    lock.Local
	panics   atomic.Pointer[string]
	acquired int
	open     atomic.Int64 // prepared connections
}

func (f *fragile) at(method string) {
	if p := f.panics.Load(); p != nil && *p == method {
		f.panics.Store(nil)
		panic("fault of " + method)
	}
}

func (f *fragile) Acquire(ctx context.Context, key, holder string) (lock.Lock, error) {
	if f.acquired++; f.acquired == 2 {
		f.at("second Acquire")
	}
	f.at("Acquire")
	l, err := f.locks.Acquire(ctx, key, holder)
	return &fragileLock{l, f}, err
}

type fragileLock struct {
	lock.Lock
	f *fragile
}

func (l *fragileLock) Lost() <-chan struct{} { l.f.at("Lost"); return l.Lock.Lost() }
func (l *fragileLock) Release()              { l.Lock.Release(); l.f.at("Release") }

func (f *fragile) Offers(mechanism string, c proxy.Caller) bool {
	f.at("Offers")
	return f.Backend.Offers(mechanism, c)
}

func (f *fragile) Login(ctx context.Context, cred proxy.Credential) (proxy.Login, error) {
	f.at("Login")
	l, err := f.Backend.Login(ctx, cred)
	if err != nil {
		return nil, err
	}
	return fragileLogin{l, f}, nil
}

func (f *fragile) Prepare(context.Context, proxy.Caller) proxy.Prepared {
	f.at("Prepare")
	f.open.Add(1)
	return fragilePrepared{f}
}

type fragilePrepared struct{ f *fragile }

func (p fragilePrepared) Login(ctx context.Context, cred proxy.Credential) (proxy.Login, error) {
	p.f.open.Add(-1)
	return p.f.Login(ctx, cred)
}

func (p fragilePrepared) Close() { p.f.open.Add(-1); p.f.at("Prepared.Close") }

type fragileLogin struct {
	proxy.Login
	f *fragile
}

func (l fragileLogin) Identity() proxy.Identity {
	l.f.at("Identity")
	id := l.Login.Identity()
	id.MailboxID = uuid
	return id
}

func (l fragileLogin) Open(ctx context.Context) (proxy.Maildrop, error) {
	l.f.at("Open")
	d, err := l.Login.Open(ctx)
	if err != nil {
		return nil, err
	}
	return fragileMaildrop{d, l.f}, nil
}

func (l fragileLogin) Close() error {
	defer l.f.at("Login.Close")
	return l.Login.Close()
}

type fragileMaildrop struct {
	proxy.Maildrop
	f *fragile
}

func (d fragileMaildrop) Messages() []proxy.Message {
	d.f.at("Messages")
	return d.Maildrop.Messages()
}

func (d fragileMaildrop) UniqueIDs() (func([]byte, uint64) []byte, error) {
	d.f.at("UniqueIDs")
	return d.Maildrop.UniqueIDs()
}

func (d fragileMaildrop) ReadOnly() bool {
	d.f.at("ReadOnly")
	return d.Maildrop.ReadOnly()
}

func (d fragileMaildrop) Read(ctx context.Context, uid uint64) (proxy.Body, error) {
	d.f.at("Read")
	b, err := d.Maildrop.Read(ctx, uid)
	return fragileBody{b, d.f}, err
}

func (d fragileMaildrop) Top(ctx context.Context, uid, lines uint64) (proxy.Body, error) {
	d.f.at("Top")
	b, err := d.Maildrop.Top(ctx, uid, lines)
	return fragileBody{b, d.f}, err
}

func (d fragileMaildrop) Retrieved(ctx context.Context, uid uint64, octets int64) {
	d.f.at("Retrieved")
	d.Maildrop.Retrieved(ctx, uid, octets)
}

func (d fragileMaildrop) Update(ctx context.Context, marked []uint64) error {
	d.f.at("Update")
	return d.Maildrop.Update(ctx, marked)
}

func (d fragileMaildrop) Expect([]uint64) { d.f.at("Expect") }

func (d fragileMaildrop) Retains() bool { d.f.at("Retains"); return false }

func (d fragileMaildrop) Close() error {
	defer d.f.at("Close")
	return d.Maildrop.Close()
}

type fragileBody struct {
	proxy.Body
	f *fragile
}

func (b fragileBody) Octets() int64 { b.f.at("Octets"); return b.Body.Octets() }

func (b fragileBody) WriteTo(w io.Writer) (int64, error) {
	b.f.at("WriteTo")
	return b.Body.WriteTo(w)
}

func (b fragileBody) Close() error {
	defer b.f.at("Body.Close")
	return b.Body.Close()
}

// fragileObserver panics when a session ends.
type fragileObserver struct {
	proxy.Observer
	f *fragile
}

func (o fragileObserver) SessionEnded(r *proxy.Record) {
	o.f.at("SessionEnded")
	o.Observer.SessionEnded(r)
}

// TestPanics shows P-SESS-13: a panic in any method that a session calls ends
// that session and leaves neither a lock nor a connection held.
func TestPanics(t *testing.T) {
	const login = "USER alice\r\nPASS secret\r\n"
	for method, input := range map[string]string{
		"Prepare": login, "Prepared.Close": "USER alice\r\nQUIT\r\n", "Login": login, "Identity": login,
		"Acquire": login, "second Acquire": login, "Lost": login, "Open": login, "Messages": login,
		"Offers":     "AUTH CRAM-MD5\r\n",
		"Release":    login + "QUIT\r\n",
		"UniqueIDs":  login + "UIDL\r\n",
		"ReadOnly":   login + "DELE 1\r\n",
		"Read":       login + "RETR 1\r\n",
		"Top":        login + "TOP 1 0\r\n",
		"Octets":     login + "RETR 1\r\n",
		"WriteTo":    login + "RETR 1\r\n",
		"Body.Close": login + "RETR 1\r\n", "Expect": login + "RETR 1\r\nRETR 2\r\nRETR 1\r\n",
		"Retrieved":    login + "RETR 1\r\nQUIT\r\n",
		"Update":       login + "DELE 1\r\nQUIT\r\n",
		"Retains":      login + "DELE 1\r\nQUIT\r\n",
		"Close":        login + "QUIT\r\n",
		"SessionEnded": login + "QUIT\r\n",
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fragile{Backend: memory(generated(2, 100)...)}
			f.panics.Store(&method)
			var log proxytest.Log
			g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: f, Locker: f, Logger: log.Logger(),
				Observer: fragileObserver{new(proxytest.Observer), f}, Mechanisms: []string{"PLAIN", "CRAM-MD5"}}, proxytest.Insecure)
			p := g.Dial()
			p.Greeting()
			p.Write(input)
			_, _ = io.Copy(io.Discard, p.Reader) // up to the end of the session
			synctest.Wait()
			if f.panics.Load() != nil {
				t.Fatalf("%s was not called", method)
			}
			if n := len(log.Lines("level=ERROR", "stack=", "fault of "+method)); n != 1 {
				t.Errorf("%s: %d records of the panic in\n%s", method, n, log.String())
			}
			if g.Sessions() != 0 || f.Open() != 0 || f.open.Load() != 0 {
				t.Errorf("%s: %d sessions, %d maildrops and %d prepared connections are left",
					method, g.Sessions(), f.Open(), f.open.Load())
			}
			next := g.Dial()
			next.Login("alice", "secret")
			if strings.Contains(log.String(), "IN-USE") {
				t.Errorf("%s: the lock is left held", method)
			}
			next.OK("QUIT")
		})
	}
}
