package imapbackend

import (
	"context"
	"net"
	"sync/atomic"

	"github.com/emersion/go-imap"
	"github.com/emersion/go-imap/client"

	"popgate/imapbackend/store"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// maildrop is a selected mailbox with its snapshot.
type maildrop struct {
	*snapshot
	link
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

	ahead *ahead
}

var (
	_ proxy.Maildrop = (*maildrop)(nil)
	_ proxy.Expecter = (*maildrop)(nil)
	_ proxy.Retainer = (*maildrop)(nil)
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
	status, err := u.enter(ctx, f.search, f.fetch)
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
	}
	m.ahead = newAhead(m, u.backend.readAhead)
	m.begin(ctx, l)
	return m, nil
}

// enter selects the mailbox after a login; the commands behind go with SELECT.
func (u *upstream) enter(ctx context.Context, behind ...string) (wire.Status, error) {
	status, err := u.selectMailbox(ctx, behind...)
	if err == nil && status.Type == "NO" && u.conn.Has("ID") {
		// Some providers refuse SELECT until ID has been sent after the login.
		if _, err := u.run(ctx, u.idCommand(ctx)); err != nil {
			return status, err
		}
		status, err = u.selectMailbox(ctx, behind...)
	}
	return status, err
}

// selectMailbox selects the configured mailbox read-write, as EXAMINE does not
// settle UIDVALIDITY on every server, with the commands behind in the same
// flight.
func (u *upstream) selectMailbox(ctx context.Context, behind ...string) (wire.Status, error) {
	u.conn.ResetMailbox()
	defer u.conn.SetProgress(u.conn.SetProgress(selectTimeout))
	name := u.mailboxName()
	cmd := &imap.Command{Name: "SELECT", Arguments: []any{imap.RawString(name)}}
	return u.execute(ctx, "SELECT "+name, func(cl *client.Client) error {
		_, err := cl.Execute(cmd, nil)
		return err
	}, behind...)
}

// mailboxName returns the configured mailbox as it goes into a command.
func (u *upstream) mailboxName() string { return u.quoteMailbox(u.opts.Mailbox) }

// Messages implements proxy.Maildrop.
func (m *maildrop) Messages() []proxy.Message { return m.messages }

// ReadOnly implements proxy.Maildrop.
func (m *maildrop) ReadOnly() bool { return m.readOnly }

// Expect implements proxy.Expecter.
func (m *maildrop) Expect(uids []uint32) { m.ahead.expected = uids }

// Retrieved implements proxy.Maildrop: it learns the true size (requirement
// I-SIZE-3), and carries out the policy for \Seen, whose failure is logged only
// (I-FLAG-1).
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
	unhand := m.seize()
	defer unhand()
	if m.closed {
		return nil
	}
	m.closed = true
	m.timer.Stop()
	m.rememberSizes()
	// Without QUIT, or with a ctx that has ended, it is not kept.
	keep := m.stop() && m.done.Load()
	if keep {
		m.settle()
	}
	m.ahead.close()
	if !keep || !m.u.backend.keeper.park(m.u) {
		m.u.logout(context.Background())
	}
	m.end(net.ErrClosed)
	return nil
}
