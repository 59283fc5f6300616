package imapbackend

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap"
	"github.com/emersion/go-imap/client"

	"popgate/imapbackend/store"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// keepAlive is the idle time after which the upstream gets a NOOP: well below
// the 30 minutes of RFC 9051 §5.4 and the patience of address translators.
const keepAlive = 4 * time.Minute

var errHung = errors.New("imap: the upstream did not answer NOOP before the end of the session")

// maildrop is a selected mailbox with its snapshot.
type maildrop struct {
	*snapshot
	key       store.Key
	opts      *Options
	readOnly  bool
	retrieved []uint32         // retrieved messages to flag \Seen at QUIT
	learnt    map[uint32]int64 // octets of retrieved messages that are not those announced
	stored    int              // how many of them are in the store
	done      atomic.Bool      // UPDATE has gone well

	// placeholders are the messages never to be removed that are known by
	// now, inspected those of Exchange that are known to be none, or have
	// been looked at (see placeholder.go).
	placeholders []uint32
	inspected    []uint32

	// held is full while the upstream connection is in use: by the session's
	// goroutine, for as long as a call or an open Body lasts, or by the
	// keep-alive timer. It guards used, timer and closed, and what u points
	// to.
	held   chan struct{}
	u      *upstream
	ahead  *ahead
	used   time.Time // when the connection was last given back
	timer  *time.Timer
	closed bool

	// ctx is that of Open, most often of all calls. It is watched from then
	// on, and stop ends that.
	ctx  context.Context
	stop func() bool
}

var (
	_ proxy.Maildrop = (*maildrop)(nil)
	_ proxy.Expecter = (*maildrop)(nil)
	_ proxy.Keeper   = (*maildrop)(nil)
)

// Open implements proxy.Login.
func (l *login) Open(ctx context.Context) (proxy.Maildrop, error) {
	defer l.u.watch(ctx)()
	if l.resumed != nil {
		f := l.u.planFlight(l.id)
		if status, ok := l.selectKept(ctx, f); ok {
			return l.maildrop(ctx, f, status)
		}
		if err := l.replace(ctx); err != nil {
			return nil, err
		}
		defer l.u.watch(ctx)()
	}
	u := l.u
	f := u.planFlight(l.id)
	status, err := u.selectMailbox(ctx, f)
	if err == nil && status.Type == "NO" && u.conn.Has("ID") {
		// Some providers refuse SELECT until ID has been sent after the login.
		if _, err := u.run(ctx, u.idCommand(ctx)); err != nil {
			return nil, u.lost(atConnect, err)
		}
		status, err = u.selectMailbox(ctx, f)
	}
	if err != nil || !status.OK() {
		return nil, u.failed(atSelect, "SELECT", status, err)
	}
	return l.maildrop(ctx, f, status)
}

// maildrop takes the snapshot of the mailbox that has been selected.
func (l *login) maildrop(ctx context.Context, f flight, status wire.Status) (proxy.Maildrop, error) {
	u := l.u
	snap, err := u.takeSnapshot(ctx, f)
	if err != nil {
		return nil, err
	}
	mb := u.conn.Mailbox()
	m := &maildrop{
		snapshot: snap,
		key:      f.key,
		opts:     u.opts,
		readOnly: status.Code == "READ-ONLY" || mb.PermanentFlags && !mb.Deletable && !u.plan().moves,
		u:        u,
		held:     make(chan struct{}, 1),
		ctx:      ctx,
		stop:     u.watch(ctx),
		used:     time.Now(),
	}
	m.ahead = newAhead(m)
	u.retire()
	l.u = nil
	m.held <- struct{}{}
	m.timer = time.AfterFunc(keepAlive, m.keepAlive)
	<-m.held
	return m, nil
}

// selectMailbox selects the configured mailbox read-write, as EXAMINE does not
// settle UIDVALIDITY on every server, with the listing in the same flight.
func (u *upstream) selectMailbox(ctx context.Context, f flight) (wire.Status, error) {
	u.conn.ResetMailbox()
	defer u.conn.SetProgress(u.conn.SetProgress(selectTimeout))
	name := u.mailboxName()
	cmd := &imap.Command{Name: "SELECT", Arguments: []any{imap.RawString(name)}}
	return u.execute(ctx, "SELECT "+name, func(cl *client.Client) error {
		_, err := cl.Execute(cmd, nil)
		return err
	}, f.search, f.fetch)
}

// mailboxName returns the configured mailbox as it goes into a command.
func (u *upstream) mailboxName() string { return u.quoteMailbox(u.opts.Mailbox) }

// Messages implements proxy.Maildrop.
func (m *maildrop) Messages() []proxy.Message { return m.messages }

// ReadOnly implements proxy.Maildrop.
func (m *maildrop) ReadOnly() bool { return m.readOnly }

// acquire takes the upstream connection for one call and returns the function
// that gives it back. It fails where the connection or the snapshot is void.
func (m *maildrop) acquire(ctx context.Context, ph phase) (release func(), err error) {
	if ctx.Err() != nil {
		return nil, tempError(context.Cause(ctx))
	}
	select {
	case m.held <- struct{}{}:
	case <-ctx.Done():
		return nil, tempError(context.Cause(ctx))
	}
	if err = m.usable(ph); err != nil {
		<-m.held
		return nil, err
	}
	stop := func() bool { return true }
	if ctx != m.ctx { // which is watched all the time
		stop = m.u.watch(ctx)
	}
	if ph == atUpdate {
		if err := m.ahead.settle(ctx); err != nil {
			stop()
			<-m.held
			return nil, m.u.lost(ph, err)
		}
	}
	return func() {
		stop()
		m.used = time.Now()
		<-m.held
	}, nil
}

// usable reports why the upstream connection cannot serve the snapshot.
func (m *maildrop) usable(ph phase) error {
	if err := m.u.conn.Err(); err != nil {
		return m.u.lost(ph, fmt.Errorf("imap: connection lost: %w", err))
	}
	if m.u.conn.Mailbox().Rebuilt {
		return &proxy.Error{Code: proxy.CodeSysTemp, Text: textRebuilt,
			Err: errors.New("imap: UIDVALIDITY changed during the session")}
	}
	return nil
}

// keepAlive runs when the upstream has been idle for a while. A failure shows
// at the next command that needs the connection.
func (m *maildrop) keepAlive() {
	select {
	case m.held <- struct{}{}:
	default: // in use, hence not idle
		m.timer.Reset(keepAlive)
		return
	}
	defer func() { <-m.held }()
	if m.closed || m.u.conn.Err() != nil {
		return
	}
	if left := keepAlive - time.Since(m.used); left > 0 {
		m.timer.Reset(left)
		return
	}
	if m.ahead.settle(context.Background()) != nil {
		return
	}
	status, err := m.u.execute(context.Background(), "NOOP", (*client.Client).Noop)
	m.u.retire()
	if err == nil && status.Type != "BAD" {
		m.used = time.Now()
		m.timer.Reset(keepAlive)
	}
}

// Expect implements proxy.Expecter.
func (m *maildrop) Expect(uids []uint32) { m.ahead.expected = uids }

// Retrieved implements proxy.Maildrop with the policy for \Seen. A failure is
// logged only (requirement I-FLAG-1).
func (m *maildrop) Retrieved(ctx context.Context, uid uint32, octets int64) {
	m.learn(uid, octets)
	switch m.opts.Seen {
	case SeenOnQuit:
		m.retrieved = append(m.retrieved, uid)
	case SeenOnRetr:
		m.flagSeen(ctx, []uint32{uid})
	}
}

func (m *maildrop) flagSeen(ctx context.Context, uids []uint32) {
	if len(uids) == 0 {
		return
	}
	release, err := m.acquire(ctx, atUpdate)
	if err == nil {
		defer release()
		for _, set := range m.sets(uids) {
			var status wire.Status
			status, err = m.u.store(ctx, set.text, `+FLAGS.SILENT (\Seen)`)
			if err != nil || !status.OK() {
				err = m.u.failed(atUpdate, "STORE", status, err)
				break
			}
		}
	}
	if err != nil {
		proxy.Logger(ctx).WarnContext(ctx, `cannot set \Seen`, "error", err)
	}
}

// Close implements proxy.Maildrop.
func (m *maildrop) Close() error {
	// A NOOP of keepAlive may be waiting for an upstream that hangs.
	impatience := time.AfterFunc(logoutTimeout, func() { m.u.conn.Fail(errHung) })
	m.held <- struct{}{}
	impatience.Stop()
	defer func() { <-m.held }()
	if !m.closed {
		m.closed = true
		m.timer.Stop()
		m.rememberSizes()
		// Without QUIT, or with a ctx that has ended, it is not kept.
		keep := m.stop() && m.done.Load()
		if keep {
			m.settle()
		}
		m.ahead.close()
		if keep && m.u.backend.keeper.park(m.u) {
			return nil
		}
		m.u.logout(context.Background())
	}
	return nil
}
