package imapbackend

import (
	"context"
	"sync"
	"time"

	"popgate/imapbackend/upstream"
	"popgate/proxy"
)

const (
	// maxPrepared bounds the connections that wait for a login, so that
	// clients which only say USER cannot exhaust the upstream.
	maxPrepared = 64

	// preparedTimeout is how long one waits.
	preparedTimeout = 30 * time.Second
)

var (
	_ proxy.Preparer          = (*Backend)(nil)
	_ proxy.PreparedExchanger = (*prepared)(nil)
)

// prepared is a connection that is opened while the client still sends its
// password.
type prepared struct {
	b      *Backend
	cancel context.CancelFunc
	done   chan struct{} // closed when u and err are set
	u      *upstream.Conn
	err    error
	expiry *time.Timer

	mu    sync.Mutex
	taken bool // by Login or Close
}

// Prepare implements proxy.Preparer. It prepares nothing while logins find kept
// connections.
func (b *Backend) Prepare(ctx context.Context, _ proxy.Caller) proxy.Prepared {
	if b.pool.found.Load() {
		return nil
	}
	select {
	case b.waiting <- struct{}{}:
	default:
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &prepared{b: b, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer close(p.done)
		p.u, p.err = b.server.Connect(ctx)
	}()
	p.mu.Lock() // the timer's goroutine reads expiry too
	defer p.mu.Unlock()
	p.expiry = time.AfterFunc(preparedTimeout, p.Close)
	return p
}

// claim makes the connection the caller's; ok is false if Login or Close has
// claimed it before.
func (p *prepared) claim() (ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken {
		return false
	}
	p.taken = true
	p.expiry.Stop()
	<-p.b.waiting
	return true
}

// Login implements proxy.Prepared.
func (p *prepared) Login(ctx context.Context, cred proxy.Credential) (proxy.Login, error) {
	if err := p.b.waits(cred); err != nil {
		p.Close()
		return nil, err
	}
	if l := p.b.resume(ctx, cred); l != nil {
		p.Close()
		return l, nil
	}
	return p.logIn(ctx,
		func(u *upstream.Conn) (*login, error) { return p.b.authenticate(ctx, u, cred) },
		func() (proxy.Login, error) { return p.b.Login(ctx, cred) })
}

// Exchange implements proxy.PreparedExchanger.
func (p *prepared) Exchange(ctx context.Context, ex *proxy.Exchange) (proxy.Login, error) {
	if err := p.b.waitsFor(ex); err != nil {
		p.Close()
		return nil, err
	}
	return p.logIn(ctx,
		func(u *upstream.Conn) (*login, error) { return p.b.exchange(ctx, u, ex) },
		func() (proxy.Login, error) { return p.b.Exchange(ctx, ex) })
}

// logIn logs in on the connection by first. If the upstream has closed it by
// then, logIn calls again, which opens another, unless the client has been
// sent a challenge: its answer is valid on that connection only.
func (p *prepared) logIn(ctx context.Context, first func(*upstream.Conn) (*login, error), again func() (proxy.Login, error)) (proxy.Login, error) {
	if !p.claim() {
		return again()
	}
	stop := context.AfterFunc(ctx, p.cancel)
	<-p.done
	stop()
	if p.err != nil {
		return nil, p.err
	}
	l, err := first(p.u)
	if err == nil {
		l.source = proxy.SourcePrepared
		return l, nil
	}
	lost := p.u.Wire.Err() != nil && !p.u.Challenged
	p.u.Logout(ctx)
	if lost && ctx.Err() == nil {
		return again()
	}
	return nil, err
}

// Close implements proxy.Prepared.
func (p *prepared) Close() {
	if !p.claim() {
		return
	}
	p.cancel()
	<-p.done
	if p.u != nil {
		p.u.Close()
	}
}
