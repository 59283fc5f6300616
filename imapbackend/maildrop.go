package imapbackend

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"time"

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

	// wrongSizes is how many messages were found to be there, or gone, after they
	// came with another size than announced.
	wrongSizes int

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

// identity is what RFC822.SIZE says about whether a mailbox is still that of the
// snapshot. A mailbox other than INBOX may be deleted and created again, and some
// servers go on with the other one as if nothing had happened: its messages would
// be sent under unique-ids of the old ones (requirement I-CONC-5). So their sizes
// are asked for with them, and compared with those of the listing.
type identity struct {
	differs  bool // a size was another than in the listing, and the mailbox is not confirmed yet
	varies   bool // sizes differ although the mailbox is the same: they say nothing
	byNumber bool // messages come without UIDs: after another SELECT nothing would prove them
}

// canBeAnother reports whether the mailbox may be deleted and created again, and can
// be selected again to find out.
func (m *maildrop) canBeAnother() bool {
	return m.lasting && !m.byNumber && !strings.EqualFold(m.opts.Mailbox, "INBOX")
}

// compares reports whether sizes are asked for with messages.
func (m *maildrop) compares() bool { return m.canBeAnother() && !m.varies }

// sizeItem is what is asked for in front of the parts of messages.
func (m *maildrop) sizeItem() string {
	if m.compares() {
		return "RFC822.SIZE "
	}
	return ""
}

// compare looks at the size in a FETCH response. An upstream that leaves it out
// gives no reason for doubt.
func (m *maildrop) compare(ev wire.Event) {
	if ev.UID == 0 || ev.Octets < 0 || !m.compares() {
		return
	}
	if _, shown := m.index(ev.UID); shown && ev.Octets != m.reportedOctets(ev.UID) {
		m.differs = true
	}
}

// confirm selects the mailbox again. If it is the same, sizes are not compared any
// more once they have differed: some servers count header fields that they add.
func (m *maildrop) confirm(ctx context.Context) error {
	if err := m.drain(ctx); err != nil {
		return m.u.Lost(upstream.AtRead, err)
	}
	if err := m.selectAgain(ctx, &login{u: m.u, id: m.id}); err != nil {
		return reconnectError(err)
	}
	m.varies = m.varies || m.differs
	m.differs = false
	return nil
}

// confirmAfterPause confirms the mailbox if the client has been idle for probeAfter.
func (m *maildrop) confirmAfterPause(ctx context.Context) error {
	if m.tried || !m.canBeAnother() || time.Since(m.called) < probeAfter {
		return nil
	}
	err := m.confirm(ctx)
	if err != nil {
		err = m.replace(upstream.AtRead, err)
	}
	return err
}
