package imapbackend

import (
	"context"
	"net"
	"sync/atomic"

	"popgate/imapbackend/store"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// maildrop is a selected mailbox with its snapshot.
type maildrop struct {
	*snapshot
	link
	b         *Backend
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
		o := l.newOpening()
		if status, ok := l.selectKept(ctx, o); ok {
			return l.maildrop(ctx, o, status)
		}
		if err := l.replace(ctx); err != nil {
			return nil, err
		}
		defer l.u.watch(ctx)()
	}
	o := l.newOpening()
	status, err := l.u.enter(ctx, o.searchCmd, o.fetchCmd)
	if err != nil || !status.OK() {
		return nil, l.u.failed(atSelect, "SELECT", status, err)
	}
	return l.maildrop(ctx, o, status)
}

// maildrop takes the snapshot of the mailbox that has been selected.
func (l *login) maildrop(ctx context.Context, o *opening, status wire.Status) (proxy.Maildrop, error) {
	snap, err := o.takeSnapshot(ctx)
	if err != nil {
		return nil, err
	}
	mb := l.u.conn.Mailbox()
	opts := &l.b.opts
	m := &maildrop{
		snapshot: snap,
		b:        l.b,
		key:      o.key,
		opts:     opts,
		readOnly: status.Code == "READ-ONLY" || mb.PermanentFlags && !mb.Deletable && !opts.plan(l.u.can).moves,
	}
	m.ahead = newAhead(m, l.b.readAhead)
	m.begin(ctx, l)
	return m, nil
}

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
			status, err = m.u.storeFlags(ctx, set.text, `+FLAGS.SILENT (\Seen)`)
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
	giveBack := m.takeOver()
	defer giveBack()
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
	if !keep || !m.b.pool.put(m.u, m.ticket) {
		m.u.logout(context.Background())
	}
	m.end(net.ErrClosed)
	return nil
}

// settle reads what is on its way, as long as that is little, so that the
// connection can be kept. Whatever is then left shows in wire.Conn.Settled.
func (m *maildrop) settle() {
	if m.u.conn.Err() != nil || !m.u.conn.Pending() || m.ahead.coming > settleLimit || m.u.conn.BodyLeft() > settleLimit {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), logoutTimeout)
	defer cancel()
	defer m.u.watch(ctx)()
	m.u.conn.Drain() // an error is in conn.Err
}
