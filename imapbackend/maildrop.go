package imapbackend

import (
	"context"
	"net"
	"sync/atomic"

	"popgate/imapbackend/store"
	"popgate/imapbackend/upstream"
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
	source    proxy.Source // of its first connection
	readOnly  bool
	retrieved []uint64         // retrieved messages to flag \Seen at QUIT
	learnt    map[uint64]int64 // true octets of retrieved messages, where not as announced
	stored    int              // how many of them are in the store
	done      atomic.Bool      // UPDATE has succeeded

	// placeholders are messages that are never removed; inspected are those
	// whose header has been scanned on Exchange (see placeholder.go).
	placeholders []uint64
	inspected    []uint64

	readAhead *readAhead
	// order are all messages by sequence number, from 1, as far as those have not
	// changed (wire.Mailbox.Expunged). It is nil where a connection was replaced,
	// or the listing does not have all.
	order []proxy.Message
}

var (
	_ proxy.Maildrop = (*maildrop)(nil)
	_ proxy.Expecter = (*maildrop)(nil)
	_ proxy.Retainer = (*maildrop)(nil)
	_ proxy.Sourced  = (*maildrop)(nil)
)

// Messages implements proxy.Maildrop.
func (m *maildrop) Messages() []proxy.Message { return m.messages }

// uidAt returns the UID of the message with a sequence number on the current
// connection, or 0 if nothing proves it.
func (m *maildrop) uidAt(seq uint32) uint64 {
	mb := m.u.Wire.Mailbox()
	if seq == 0 || uint64(seq) > uint64(len(m.order)) || mb.Expunged || mb.UIDZero || m.u.Dialect().IgnoresNumbers {
		return 0
	}
	return m.order[seq-1].UID
}

// ReadOnly implements proxy.Maildrop.
func (m *maildrop) ReadOnly() bool { return m.readOnly }

// Source implements proxy.Sourced.
func (m *maildrop) Source() proxy.Source { return m.source }

// Expect implements proxy.Expecter.
func (m *maildrop) Expect(uids []uint64) { m.readAhead.expected = uids }

// Retrieved implements proxy.Maildrop: it records the true size (requirement
// I-SIZE-3) and applies the policy for \Seen. A failure to set \Seen is only
// logged (I-FLAG-1).
func (m *maildrop) Retrieved(ctx context.Context, uid uint64, octets int64) {
	m.learnSize(uid, octets)
	switch m.opts.Seen {
	case SeenOnQuit:
		m.retrieved = append(m.retrieved, uid)
	case SeenOnRetr:
		m.flagSeen(ctx, []uint64{uid}, false)
	}
}

// flagSeen sets \Seen; at QUIT only in a mailbox that is confirmed to be that of
// the snapshot, as there may have been hours since it was read.
func (m *maildrop) flagSeen(ctx context.Context, uids []uint64, atQuit bool) {
	if len(uids) == 0 {
		return
	}
	release, err := m.acquire(ctx, upstream.AtUpdate)
	if err == nil {
		defer release()
		if atQuit {
			err = m.reselect(ctx)
		}
		for _, set := range m.sets(uids) {
			if err != nil {
				break
			}
			var status wire.Status
			status, err = m.u.UIDCommand(ctx, "STORE", set.Text+` +FLAGS.SILENT (\Seen)`)
			if err != nil || !status.OK() {
				err = m.u.Failed(upstream.AtUpdate, "STORE", status, err)
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
	defer closeOnPanic(m.u)
	m.timer.Stop()
	m.rememberSizes()
	// Without QUIT, or after the end of ctx, the connection is not kept.
	keep := m.unwatchCtx() && m.done.Load()
	if keep {
		m.drainIfLittle()
	}
	m.readAhead.close()
	if !keep || !m.b.pool.put(m.u, m.ticket) {
		m.u.Logout(context.Background())
	}
	m.cancel(net.ErrClosed)
	return nil
}

// drainIfLittle reads what is on its way, up to settleLimit, so that the
// connection can be kept. wire.Conn.Settled reports whether anything is left.
func (m *maildrop) drainIfLittle() {
	if m.u.Wire.Err() != nil || !m.u.Wire.Pending() || m.readAhead.coming > settleLimit || m.u.Wire.BodyLeft() > settleLimit {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), upstream.LogoutTimeout)
	defer cancel()
	defer m.u.Watch(ctx)()
	m.u.Wire.Drain() // an error is in Wire.Err
}
