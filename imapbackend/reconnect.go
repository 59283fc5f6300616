package imapbackend

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"popgate/imapbackend/upstream"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

const (
	// keepAlive is the idle time after which the upstream gets a NOOP: well
	// below the 30 minutes of RFC 9051 §5.4 and the timeouts of address
	// translators.
	keepAlive = 4 * time.Minute

	// reconnectJitter bounds the random wait before a lost connection is
	// replaced, so that the sessions of a restarted upstream do not all
	// return at once.
	reconnectJitter = 250 * time.Millisecond

	// probeAfter is the idle time after which UPDATE first checks whether
	// the upstream is alive, and probeTimeout how long that may take. To
	// find out by the commands of UPDATE, which may take long, would leave
	// no time to repeat them.
	probeAfter   = 30 * time.Second
	probeTimeout = 20 * time.Second

	// detourAfter is how long a command waits for data in front of its
	// answer that nobody wants, before another connection is opened.
	detourAfter = 4 * time.Second
)

// textRebuilt is the public text where the snapshot is no longer valid.
const textRebuilt = "mailbox was rebuilt, reconnect"

var (
	errHung    = errors.New("imap: the upstream did not answer NOOP before the end of the session")
	errRebuilt = errors.New("imap: UIDVALIDITY or mailbox-id has changed during the session")
	errDetour  = errors.New("imap: data on their way would have held up a command for longer than a login")
)

// link is a maildrop's connection to its mailbox. A lost connection is replaced
// when it is next needed, as long as the mailbox is the one of the snapshot
// (requirement I-CONC-4).
type link struct {
	// busy is full while the upstream connection is in use: by the
	// session's goroutine, during a call or while a Body is open, or by
	// the keep-alive timer. It guards the fields below.
	busy      chan struct{}
	u         *upstream.Conn
	id        proxy.Identity
	again     verifier
	ticket    *ticket   // of the connection u
	used      time.Time // when the connection was last given back
	called    time.Time // when it was last given back by a call
	timer     *time.Timer
	closed    bool
	rebuilt   bool // the mailbox is no longer that of the snapshot
	flooded   bool // the upstream has sent more than was asked for
	confirmed bool // it has been selected again for QUIT, and is
	identity

	// The connection ends with ctx, which is openCtx until cancel;
	// unwatchCtx stops that.
	ctx        context.Context
	cancel     context.CancelCauseFunc
	openCtx    context.Context // of Open, and usually of all calls
	unwatchCtx func() bool

	answerBy    time.Time       // when a call of Read or Top gives up; zero for other calls
	callCtx     context.Context // of the current call
	unwatchCall func() bool     // nil where callCtx is openCtx
	tried       bool            // the current call has tried to replace the connection
	spare       *login          // that replaces the connection, made by a detour; usually nil
}

// startLink takes over the connection of l, on which the mailbox is selected.
func (m *maildrop) startLink(ctx context.Context, l *login) {
	m.busy = make(chan struct{}, 1)
	m.busy <- struct{}{}
	m.id, m.again, m.openCtx = l.id, l.again, ctx
	m.ctx, m.cancel = context.WithCancelCause(ctx)
	m.adopt(l)
	m.used = time.Now()
	m.called = m.used
	m.timer = time.AfterFunc(keepAlive, m.keepAlive)
	<-m.busy
}

// adopt makes the connection of l that of the maildrop.
func (m *maildrop) adopt(l *login) {
	m.u, m.ticket, l.u = l.u, l.ticket, nil
	m.u.Retire()
	m.unwatchCtx = m.u.Watch(m.ctx)
	m.u.Wire.Until(m.answerBy)
	if m.unwatchCall != nil {
		m.unwatchCall()
		m.unwatchCall = m.u.Watch(m.callCtx)
	}
}

// acquire takes the upstream connection for one call and returns the function
// that releases it. A lost connection is replaced. The error says why that
// failed, or that the mailbox was rebuilt.
func (m *maildrop) acquire(ctx context.Context, ph upstream.Phase) (release func(), err error) {
	if ctx.Err() != nil {
		return nil, upstream.TempError(context.Cause(ctx))
	}
	select {
	case m.busy <- struct{}{}:
	case <-ctx.Done():
		return nil, upstream.TempError(context.Cause(ctx))
	}
	m.callCtx, m.tried = ctx, false
	if ph != upstream.AtRead {
		m.answerBy = time.Time{}
	}
	if ctx != m.openCtx { // openCtx is always watched
		m.unwatchCall = m.u.Watch(ctx)
	}
	release = func() {
		if m.unwatchCall != nil {
			m.unwatchCall()
		}
		m.callCtx, m.unwatchCall = nil, nil
		if m.spare != nil {
			m.spare.Close()
			m.spare = nil
		}
		m.used = time.Now()
		m.called = m.used
		<-m.busy
	}
	defer m.releaseOnPanic(release)
	if err = m.usable(ph); err != nil {
		err = m.renew(ph, err)
	}
	if err == nil && ph == upstream.AtUpdate {
		if err = m.ensureAlive(ctx); err != nil {
			err = m.replace(ph, m.u.Lost(ph, err))
		}
	}
	if err != nil {
		release()
		return nil, err
	}
	return release, nil
}

// releaseOnPanic, deferred, ends the connection and releases it if the function
// that holds it is left by a panic, so that Close does not wait for it.
func (m *maildrop) releaseOnPanic(release func()) {
	if p := recover(); p != nil {
		m.u.Wire.Fail(fmt.Errorf("panic: %v", p))
		release()
		panic(p)
	}
}

// ensureAlive reads what is on its way, and checks that the upstream is alive
// if the connection has been idle for probeAfter.
func (m *maildrop) ensureAlive(ctx context.Context) error {
	if err := m.drain(ctx); err != nil || time.Since(m.used) < probeAfter || m.tried {
		return err
	}
	defer m.u.Wire.SetProgress(m.u.Wire.SetProgress(probeTimeout))
	_, err := m.u.Noop(ctx)
	return err
}

// valid returns an error if the mailbox is no longer that of the snapshot, as far
// as the upstream has announced it.
func (m *maildrop) valid() error {
	m.rebuilt = m.rebuilt || m.u.Wire.Mailbox().Rebuilt
	if m.rebuilt {
		return &proxy.Error{Code: proxy.CodeSysTemp, Text: textRebuilt, Err: errRebuilt}
	}
	return nil
}

// usable returns an error if the upstream connection cannot serve the snapshot.
func (m *maildrop) usable(ph upstream.Phase) error {
	if err := m.valid(); err != nil {
		return err
	}
	if err := m.u.Wire.Err(); err != nil {
		return m.u.Lost(ph, fmt.Errorf("imap: connection lost: %w", err))
	}
	return nil
}

// replace replaces a connection that this call has lost with the error err. It
// returns nil, or what to answer: err itself where the connection is not lost,
// or the upstream broke the protocol and would do so again.
func (m *maildrop) replace(ph upstream.Phase, err error) error {
	if _, broken := errors.AsType[*wire.ProtocolError](m.u.Wire.Err()); broken {
		return err
	}
	return m.renew(ph, err)
}

// renew is replace for a connection that may have been lost before this call. A
// call tries this once (requirement I-FETCH-5).
func (m *maildrop) renew(ph upstream.Phase, err error) error {
	loss := m.u.Wire.Err()
	m.flooded = m.flooded || m.u.Floods()
	switch {
	case loss == nil, m.tried, m.rebuilt, m.callCtx.Err() != nil, m.ctx.Err() != nil:
		return err
	case !m.replaceable():
		return err
	}
	m.tried = true
	log := proxy.Logger(m.callCtx).With("upstream", m.id.Upstream, "cause", m.u.CleanError(loss))
	began := time.Now()
	failure := m.reconnect(ph)
	m.u.Report(proxy.UpstreamReplaced, failure, time.Since(began))
	if failure != nil {
		log.WarnContext(m.callCtx, "upstream connection lost and not replaced", "error", failure)
		if proxy.AsError(failure).Text != upstream.TextTemp {
			err = failure // it says more than the loss
		}
		return err
	}
	log.InfoContext(m.callCtx, "upstream connection lost and replaced")
	return nil
}

// replaceable reports whether the user can be logged in again, on a connection
// on which the UIDs are those of the snapshot (I-UIDV-2). An upstream that floods
// does not get the credential again (I-CONN-8).
func (m *maildrop) replaceable() bool { return m.again.logIn != nil && m.lasting && !m.flooded }

// reconnect logs in, unless a detour has, and selects the mailbox again, within the
// time of a login. On failure the lost connection stays, and the next call may try
// again.
func (m *maildrop) reconnect(ph upstream.Phase) error {
	at := upstream.NewAttempt()
	at.Start(m.callCtx)
	defer at.Stop()
	bound, unbound := at.Bound(m.callCtx)
	defer unbound()
	ctx, cancel := context.WithCancel(bound)
	defer cancel()
	if !m.answerBy.IsZero() {
		var late context.CancelFunc
		ctx, late = context.WithDeadline(ctx, m.answerBy)
		defer late()
	}
	defer context.AfterFunc(m.ctx, cancel)()
	l := m.spare
	m.spare = nil
	if l == nil {
		select {
		case <-time.After(rand.N(reconnectJitter)):
		case <-ctx.Done():
			return upstream.TempError(context.Cause(ctx))
		}
		var err error
		if l, err = m.b.connect(ctx, at, nil, m.again); err != nil {
			return reconnectError(err)
		}
	}
	if err := m.selectOn(ctx, l); err != nil {
		l.Close()
		return reconnectError(err)
	}
	m.unwatchCtx()
	m.u.Close()
	m.adopt(l)
	m.readAhead.restart()
	m.timer.Reset(keepAlive)
	return m.usable(ph)
}

// selectOn is selectAgain for a connection that the maildrop does not have yet.
func (m *maildrop) selectOn(ctx context.Context, l *login) error {
	defer closeOnPanic(l.u)
	return m.selectAgain(ctx, l)
}

// selectAgain selects the mailbox on the connection of l. If it has another
// UIDVALIDITY or mailbox-id, the snapshot is never valid again (requirements
// I-UIDV-1, I-CONC-5).
func (m *maildrop) selectAgain(ctx context.Context, l *login) error {
	defer l.u.Watch(ctx)()
	m.order = nil // messages may be missing now
	status, err := l.u.SelectAfterLogin(ctx)
	if err != nil || !status.OK() {
		return l.u.Failed(upstream.AtSelect, "SELECT", status, err)
	}
	mb := l.u.Wire.Mailbox()
	if mb.UIDValidity != m.uidValidity || mb.UIDNotSticky ||
		differ(mb.MailboxID, m.id.MailboxID) || differ(l.id.MailboxID, m.id.MailboxID) {
		m.rebuilt = true
		return m.usable(upstream.AtSelect)
	}
	return nil
}

// drain reads what the read-ahead has on its way, for a command that cannot be
// sent before, on a detour if that takes too long.
func (m *maildrop) drain(ctx context.Context) error {
	stop := m.detour(ctx)
	err := m.readAhead.drain(ctx)
	if stop(); err == nil {
		err = m.u.Wire.Err()
	}
	return err
}

// discardable is how many octets of an abandoned message are read to keep the
// connection: as many as come within aheadTime, where it can be replaced.
func (m *maildrop) discardable() int64 {
	if octets, known := m.readAhead.speed.Within(aheadTime); known && m.replaceable() {
		return min(octets, drainLimit)
	}
	return drainLimit
}

// detour logs in again if the wait of the caller for data that nobody wants takes
// longer than detourAfter (requirement I-FETCH-8). If the wait lasts until that
// has succeeded, it ends the connection, and the new one replaces it as after a
// loss. The caller calls stop when the wait has ended, in whichever way.
func (m *maildrop) detour(ctx context.Context) (stop func()) {
	if m.readAhead.coming == 0 || m.tried || m.rebuilt || !m.replaceable() {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	unwatch := context.AfterFunc(m.ctx, cancel)
	var (
		spare    *login
		decided  atomic.Bool // by the end of the wait, or by that of the login
		done     = make(chan struct{})
		u, again = m.u, m.again
	)
	timer := time.AfterFunc(detourAfter, func() {
		defer close(done)
		defer func() {
			if p := recover(); p != nil {
				logPanic(ctx, p)
			}
		}()
		l, err := m.b.logIn(ctx, upstream.NewAttempt(), nil, again)
		switch {
		case err != nil:
			proxy.Logger(ctx).DebugContext(ctx, "no detour", "error", err)
		case decided.CompareAndSwap(false, true):
			l.at.Stop()
			spare = l
			u.Abandon(errDetour)
		default:
			l.at.Stop()
			l.u.Dismiss()
		}
	})
	return func() {
		decided.CompareAndSwap(false, true)
		unwatch()
		cancel()
		if !timer.Stop() {
			<-done
		}
		m.spare = spare
	}
}

// reselect selects the mailbox again, once, before QUIT changes anything in it: it
// may have been deleted and created again, and a server that has not noticed
// would remove other messages with the same UIDs (requirements I-DEL-1,
// I-CONC-5). INBOX can be neither deleted nor renamed away (RFC 3501 §6.3.4,
// §6.3.5). Where UIDs do not last, another SELECT may assign them to other
// messages.
func (m *maildrop) reselect(ctx context.Context) error {
	if m.tried || m.confirmed || !m.lasting || strings.EqualFold(m.opts.Mailbox, "INBOX") {
		return nil
	}
	if err := m.selectAgain(ctx, &login{u: m.u, id: m.id}); err != nil {
		return reconnectError(err)
	}
	m.confirmed = true
	return nil
}

// reconnectError returns the error of a command whose connection cannot be
// replaced. The user has logged in before, so it blames neither the credentials
// nor a lock (requirement M-1).
func reconnectError(err error) error {
	e := proxy.AsError(err)
	if e.Code == proxy.CodeAuth || e.Code == proxy.CodeInUse {
		return upstream.TempError(e.Err)
	}
	return e
}

// keepAlive runs when the upstream has been idle for a while. A failure shows
// at the next command that needs the connection.
func (m *maildrop) keepAlive() {
	select {
	case m.busy <- struct{}{}:
	default: // in use, hence not idle
		m.timer.Reset(keepAlive)
		return
	}
	defer func() {
		if p := recover(); p != nil {
			m.u.Wire.Fail(logPanic(m.ctx, p))
		}
		<-m.busy
	}()
	if m.closed || m.u.Wire.Err() != nil {
		return
	}
	if left := keepAlive - time.Since(m.used); left > 0 {
		m.timer.Reset(left)
		return
	}
	// A command of the client must not wait for long.
	m.u.Wire.Until(time.Now().Add(probeTimeout))
	defer m.u.Wire.Until(time.Time{})
	if m.readAhead.drain(context.Background()) != nil {
		return
	}
	status, err := m.u.Noop(context.Background())
	m.u.Retire()
	if err == nil && status.Type != "BAD" {
		m.used = time.Now()
		m.timer.Reset(keepAlive)
	}
}

// takeOver takes the connection for Close. It ends a NOOP of keepAlive that an
// upstream does not answer.
func (m *maildrop) takeOver() (giveBack func()) {
	timeout := time.AfterFunc(upstream.LogoutTimeout, func() { m.cancel(errHung) })
	m.busy <- struct{}{}
	timeout.Stop()
	return func() { <-m.busy }
}
