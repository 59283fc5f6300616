package upstream

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"popgate/imapbackend/dialect"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// What a login may cost, from the client's credential to the answer (requirement
// I-KEEP-2).
const (
	// LoginLimit is the time for all connections together. With LogoutTimeout it
	// is the minute within which a client gets its answer.
	LoginLimit = 60*time.Second - LogoutTimeout

	// Silence is the longest wait for the next octet of an answer to a form that
	// has never succeeded. Servers that take it answer a wrong password late, but
	// a second connection costs little.
	Silence = 5 * time.Second

	// maxConnections bounds the connections of a login, one that was opened ahead
	// included.
	maxConnections = 4

	// enough is how many new messages, sizes or identities must arrive in every
	// Silence for a login to go on after LoginLimit.
	enough = 100
)

// carefulForms are not used again in a login that has met with silence.
const carefulForms = dialect.IDFlight | dialect.LoginFlight | dialect.SelectFlight | dialect.InitialResponse

// loginForms are those of which a login that has succeeded says something.
const loginForms = dialect.IDFlight | dialect.LoginFlight | dialect.ID | dialect.Authenticate | dialect.InitialResponse

const searchForms = dialect.SearchReturn | dialect.SearchPlain

var errLate = fmt.Errorf("imap: the login has not ended within %v", LoginLimit)

// Attempt is one login, on as many connections as it takes: its time, and what is
// not tried again. One goroutine at a time may use it; Arrived may be called by
// another.
type Attempt struct {
	ended   context.Context // at the limit
	end     context.CancelCauseFunc
	timer   *time.Timer
	started bool
	arrived atomic.Int64

	mu      sync.Mutex
	next    time.Time // of tick
	paused  bool
	late    bool // the next tick is at the limit, or after it
	counted int64

	made     int          // connections
	avoids   dialect.Form // forms that are not used again
	suspects dialect.Form // of them, those that may have been at fault
	accused  *learned     // the kind of server that was suspected to fail at them
	cause    error        // of the first suspicion
	silence  bool         // a connection was given up, and careful forms are used
	replaced bool         // a lost connection has been replaced
	again    bool         // another connection is to be tried
}

// NewAttempt returns an Attempt whose time has not begun. Stop ends it.
func NewAttempt() *Attempt {
	a := new(Attempt)
	a.ended, a.end = context.WithCancelCause(context.Background())
	a.timer = time.AfterFunc(time.Hour, a.tick)
	a.timer.Stop()
	return a
}

// begunKey is the key in a context of when a login began.
type begunKey struct{}

// Begun returns a context for a login that began at that time, before the upstream
// was known.
func Begun(ctx context.Context, at time.Time) context.Context {
	return context.WithValue(ctx, begunKey{}, at)
}

// Start begins the time, unless it has begun: at the time that Begun has put into ctx,
// if any, else now.
func (a *Attempt) Start(ctx context.Context) {
	if a.started {
		return
	}
	a.started = true
	var passed time.Duration
	if began, ok := ctx.Value(begunKey{}).(time.Time); ok {
		passed = time.Since(began)
	}
	a.mu.Lock()
	a.wait(max(LoginLimit-Silence-passed, 0))
	a.mu.Unlock()
}

// wait has tick run after d, with mu held.
func (a *Attempt) wait(d time.Duration) {
	a.next = time.Now().Add(d)
	a.timer.Reset(d)
}

// Pause has the time stand still until resume is called: the client is asked.
func (a *Attempt) Pause() (resume func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.paused = true
	a.timer.Stop()
	left := time.Until(a.next)
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		a.paused = false
		a.wait(left)
	}
}

// Stop ends the Attempt. Contexts of Bound do not end then.
func (a *Attempt) Stop() { a.timer.Stop() }

// tick runs once before the limit, to count, and then as long as enough arrives.
func (a *Attempt) tick() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.paused {
		return
	}
	n := a.arrived.Load()
	if a.late && n-a.counted < enough {
		a.end(errLate)
		return
	}
	a.late, a.counted = true, n
	a.wait(Silence)
}

// Arrived reports that n messages, sizes or identities have arrived that had not
// before.
func (a *Attempt) Arrived(n int) { a.arrived.Add(int64(n)) }

// Bound returns a context that ends with ctx, and when the login takes too long.
func (a *Attempt) Bound(ctx context.Context) (bound context.Context, stop func()) {
	bound, cancel := context.WithCancelCause(ctx)
	unlink := context.AfterFunc(a.ended, func() { cancel(context.Cause(a.ended)) })
	return bound, func() {
		unlink()
		cancel(nil)
	}
}

// Again reports whether the login is to be tried on another connection: the last
// one, given to Judge, has failed so that this may help.
func (a *Attempt) Again() bool { return a.again }

// Judge finds out why a login on c has failed. A connection that was lost is
// replaced once, unless an answer to a challenge would be sent again, or a
// credential to a server that has judged it. If forms were used that have never
// succeeded, they are not used again. Neither is a search at which two connections
// were lost, or one that was never answered, by the next login.
func (a *Attempt) Judge(ctx context.Context, c *Conn) {
	loss := c.Wire.Err()
	said, bye := errors.AsType[*wire.ByeError](loss)
	if bye && c.stale && statusError(AtLogin, said.Status, nil).Code == proxy.CodeSysTemp {
		bye = false // it was closing before it got the credential
	}
	broken, isBroken := errors.AsType[*wire.ProtocolError](loss)
	timeout := errors.Is(loss, wire.ErrTimeout)
	a.again = false
	if c.daring == 0 && c.lostAt.doubtful() && (timeout || errors.Is(context.Cause(ctx), errLate)) {
		c.doubtSearch(ctx)
	}
	switch {
	case loss == nil, ctx.Err() != nil, c.Challenged, c.final, a.made >= maxConnections:
	case bye && (c.judging || !c.greeted), isBroken && broken.Flood:
	case (timeout || isBroken) && c.daring == 0:
	case timeout || isBroken:
		a.beCareful(c)
	case c.stale: // the server had closed it
		a.again = true
	case c.daring&searchForms != 0 && a.suspects&searchForms == 0:
		a.suspect(c, searchForms)
	case c.daring != 0:
		a.suspects &^= searchForms // the connection was lost without them too
		a.beCareful(c)
	case a.mayReplace(ctx):
		a.again = true
	case c.lostAt.doubtful() && a.suspects&searchForms == 0:
		a.suspect(c, searchForms) // lost once more
	}
}

// mayReplace reports whether a connection that was lost is to be replaced, and counts
// that.
func (a *Attempt) mayReplace(ctx context.Context) bool {
	if a.replaced || ctx.Err() != nil || a.made >= maxConnections {
		return false
	}
	a.replaced = true
	return true
}

// beCareful has the rest of the login use the most careful forms. Where commands
// shared a flight, that is more likely at fault than one of them.
func (a *Attempt) beCareful(c *Conn) {
	a.silence = true
	a.avoids |= carefulForms | c.daring
	if c.daring&^searchForms != 0 {
		c.daring &^= searchForms
	}
	a.suspect(c, c.daring&^c.learned.Facts().Works)
}

func (a *Attempt) suspect(c *Conn, f dialect.Form) {
	a.avoids |= f
	if a.accused != c.learned { // the success of one server says nothing about another
		a.accused, a.suspects, a.cause = c.learned, 0, nil
	}
	a.suspects |= f
	if a.cause == nil {
		a.cause = c.loss()
	}
	a.again = true
}
