package imapbackend

import (
	"context"
	"sync"
	"time"

	"popgate/imapbackend/internal/logins"
	"popgate/imapbackend/upstream"
	"popgate/proxy"
)

const (
	// maxPrepared bounds the connections that wait for a login, so that
	// clients which only say USER cannot exhaust the upstream.
	maxPrepared = 64

	// preparedTimeout is how long one waits.
	preparedTimeout = 30 * time.Second

	// failureValid is how long a connection that could not be made decides a
	// login; the upstream may be back after that.
	failureValid = 2 * time.Second
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
	done   chan struct{} // closed when u, err and failed are set
	at     *upstream.Attempt
	u      *upstream.Conn
	err    error
	failed time.Time // when err was found
	expiry *time.Timer
	place  *logins.Ahead

	mu    sync.Mutex
	taken bool // by Login or Close
}

// Prepare implements proxy.Preparer. It prepares nothing while logins find kept
// connections, nor where that would take the place of a login, among those for the
// maildrop too; a login that needs the place later ends the connection.
func (b *Backend) Prepare(ctx context.Context, c proxy.Caller) proxy.Prepared {
	if b.pool.found.Load() {
		return nil
	}
	select {
	case b.waiting <- struct{}{}:
	default:
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	p := &prepared{b: b, at: upstream.NewAttempt(), cancel: cancel, done: make(chan struct{})}
	p.mu.Lock() // others call Close as soon as it has a place
	defer p.mu.Unlock()
	if p.place = b.gate.Ahead(who(ctx, b.userKey("", c.Username)), p.Close); p.place == nil {
		p.taken = true // also for a call of Close that has begun already
		cancel()
		<-b.waiting
		return nil
	}
	go func() {
		defer close(p.done)
		defer func() { p.failed = time.Now() }()
		defer func() {
			if v := recover(); v != nil {
				p.err = upstream.TempError(logPanic(ctx, v))
			}
		}()
		p.u, p.err = b.server.Connect(ctx, p.at)
	}()
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
	if l := p.b.resume(ctx, cred, p.drop); l != nil {
		return l, nil
	}
	return p.logIn(ctx, p.b.authenticate(cred))
}

// Exchange implements proxy.PreparedExchanger.
func (p *prepared) Exchange(ctx context.Context, ex *proxy.Exchange) (proxy.Login, error) {
	if err := p.b.waitsFor(ex); err != nil {
		p.Close()
		return nil, err
	}
	return p.logIn(ctx, p.b.exchange(ex))
}

// logIn logs in by verify, on the connection if it can be used.
func (p *prepared) logIn(ctx context.Context, verify verifier) (proxy.Login, error) {
	leave := func() {}
	if verify.user != "" {
		leave = p.place.EnterMaildrop(who(ctx, verify.user))
	}
	var ahead *claimed
	if leave != nil {
		ahead = p.take(verify.asks)
	}
	if ahead == nil {
		if leave != nil {
			leave()
		}
		p.Close()
		return asLogin(p.b.inTurn(ctx, verify))
	}
	p.at.Start(ctx)
	p.await(ctx)
	if p.err != nil && !p.at.Again() && time.Since(p.failed) <= failureValid {
		p.at.Stop()
		ahead.leave()
		leave()
		return nil, p.err
	}
	if ahead.u = p.u; p.u != nil {
		p.u.HasWaited()
	}
	return asLogin(p.b.logInAs(ctx, leave, p.at, ahead, verify))
}

// take claims the connection for a login; nil if it cannot be used.
func (p *prepared) take(asks bool) *claimed {
	if !p.claim() {
		return nil
	}
	leave := p.place.Claim(asks)
	if leave == nil {
		p.end()
		return nil
	}
	return &claimed{leave: leave}
}

// await waits until the connection is open or has failed, as long as ctx and the
// attempt last.
func (p *prepared) await(ctx context.Context) {
	select {
	case <-p.done:
		return
	default:
	}
	bound, unbound := p.at.Bound(ctx)
	defer unbound()
	defer context.AfterFunc(bound, p.cancel)()
	<-p.done
}

// drop closes the connection, and returns the attempt in which it counts.
func (p *prepared) drop() *upstream.Attempt {
	p.Close()
	<-p.done
	return p.at
}

// Close implements proxy.Prepared.
func (p *prepared) Close() {
	if p.claim() {
		p.end()
	}
}

// end closes the connection, which the caller has claimed.
func (p *prepared) end() {
	p.cancel()
	<-p.done
	if p.u != nil {
		p.u.Close()
	}
	p.place.Leave()
}
