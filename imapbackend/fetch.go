package imapbackend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"popgate/imapbackend/upstream"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// drainLimit is how many octets of an abandoned message are read and discarded
// to keep the connection, at most; where more are left the connection is ended.
const drainLimit = 1 << 20

const (
	// answerTime is how long RETR or TOP waits for the first octet, all attempts
	// together; retryTime is what is left of it for another connection, where the
	// first one does not answer (requirement I-KEEP-2).
	answerTime = 60 * time.Second
	retryTime  = 20 * time.Second

	// stallTimeout is how long a message that has begun may stop before the
	// connection counts as lost, and resumeTime how long it may take then to
	// resume it on another. Together they are less than the 75 s of requirement
	// P-RETR-7, as the session ends only after them.
	stallTimeout = 45 * time.Second
	resumeTime   = 25 * time.Second

	// closeTime is how long the end of a message, or what is left of an
	// abandoned one, is waited for.
	closeTime = 20 * time.Second
)

var (
	errOther     = errors.New("imap: the upstream sent a message other than the one asked for")
	errAbandoned = errors.New("imap: message abandoned before its end")
	errNoContent = errors.New("imap: the upstream gives no content of an existing message")
)

// fetch is the reading of one message. It holds the maildrop's connection until
// it is closed. The message comes by a command for it alone, or by one of the
// read-ahead.
type fetch struct {
	m       *maildrop
	ctx     context.Context
	release func()
	uid     uint64
	cmd     string
	number  int         // of the command that is to bring the body
	own     bool        // it was sent for this message alone
	alone   bool        // nothing is to be read ahead after the message
	done    bool        // its status has been read, or it is not waited for
	status  wire.Status // of the command for this message alone, when it has been read

	begun   bool // what goes to the client has begun to come
	flowing bool // and has not been interrupted since; see flow

	unsee bool // \Seen is to be cleared when the message has been read

	open   bool              // the end of a response with a body of the message has not come
	uidOf  map[uint32]uint64 // by sequence number, from responses without a body
	empty  bool              // a response named the message, without its content
	missed bool              // a body was dropped before its UID came
}

// newFetch acquires the connection to read the message uid.
func (m *maildrop) newFetch(ctx context.Context, uid uint64) (*fetch, error) {
	release, err := m.acquire(ctx, upstream.AtRead)
	if err != nil {
		return nil, err
	}
	// A connection that can be replaced has to answer in time for that.
	by := m.answerBy
	if first := by.Add(-retryTime); !m.tried && m.replaceable() && time.Now().Before(first) {
		by = first
	}
	m.u.Wire.Until(by)
	if err := m.confirmAfterPause(ctx); err != nil {
		m.u.Wire.Until(time.Time{})
		release()
		return nil, err
	}
	return &fetch{m: m, ctx: ctx, release: release, uid: uid}, nil
}

// flow is called when the upstream has begun to deliver what goes to the client:
// from then on that may take as long as it makes progress.
func (f *fetch) flow() {
	f.flowing, f.begun = true, true
	f.m.u.Wire.SetProgress(stallTimeout)
	f.m.u.Wire.Flow()
	f.m.u.Wire.Grant(f.m.u.Wire.BodyLeft())
}

// await is called before a wait for the upstream: while the client was slow, time
// has passed for which the upstream is not to blame.
func (f *fetch) await() {
	if f.flowing {
		f.m.u.Wire.Flow()
	}
}

// replaceConn replaces a connection that was lost while f waited, so that the
// message can be asked for again. It returns nil, or what to answer: err, by
// which the wait ended, or what prevents a new connection.
func (f *fetch) replaceConn(err error) error {
	f.done, f.open, f.uidOf, f.status = true, false, nil, wire.Status{}
	if f.flowing {
		f.flowing = false
		f.m.answerBy = time.Now().Add(resumeTime)
	}
	return f.m.replace(upstream.AtRead, err)
}

func (f *fetch) send(items string) error {
	f.done, f.empty, f.own, f.missed = false, false, true, false
	f.status = wire.Status{}
	f.cmd = "UID FETCH " + strconv.FormatUint(f.uid, 10) + " (UID " + f.m.sizeItem() + items + ")"
	f.await()
	err := f.m.u.Wire.Start(f.cmd)
	f.number = f.m.u.Wire.Started()
	return err
}

// join waits for a body that is on its way.
func (f *fetch) join(number int, items string) {
	f.done, f.number, f.cmd = false, number, "UID FETCH (UID "+items+") ahead"
}

// next reads up to the next body of the message, or to the end of the command:
// then ok is false. Bodies of the read-ahead that come before it are kept, and so
// is the message where that shows only after its body: then next returns early.
func (f *fetch) next() (ev wire.Event, ok bool, err error) {
	ahead := f.m.readAhead
	if (f.own || ahead.jumped) && !f.done && ahead.isBefore(f.number, f.uid) {
		defer f.m.detour(f.ctx)()
	}
	for !f.done {
		if ev, ok, err = f.step(); ok || err != nil {
			return ev, ok, err
		}
		if _, isKept := ahead.kept[ahead.awaited]; isKept && ev.Kind == wire.Fetch {
			break
		}
	}
	return wire.Event{}, false, nil
}

// step reads one event; ok reports whether it is a body of the message. The UID of
// such an event is 0 if it has not come yet: then verify has to follow.
func (f *fetch) step() (ev wire.Event, ok bool, err error) {
	conn, ahead := f.m.u.Wire, f.m.readAhead
	if ev, err = conn.Next(); err != nil {
		f.done = true
		f.m.u.Trace(f.ctx, f.cmd, wire.Status{}, err)
		return ev, false, err
	}
	f.open = f.open && ev.Kind != wire.Fetch
	switch {
	case ev.Kind == wire.Done && ev.Command == f.number:
		f.done = true
		if f.own {
			f.status = conn.ResultOf(f.number)
			f.m.u.Trace(f.ctx, f.cmd, f.status, nil)
		}
	case ev.Kind == wire.Data && ev.Name == "EXPUNGE":
		f.uidOf = nil // sequence numbers have moved
	case ev.Kind == wire.Fetch && ev.UID != 0:
		f.recordNumber(ev)
		f.empty = f.empty || ev.UID == f.uid
	case ev.Kind == wire.Body:
		if ev.UID == 0 {
			ev.UID = f.uidOf[ev.Seq]
		}
		if f.isBody(ev) {
			if p, ok := partOf(ev); ok {
				p.uid = f.uid
				ahead.arrives(p)
			}
			f.open = true
			return ev, true, nil
		}
	}
	if ev.Kind == wire.Body && ev.UID == 0 && ev.Octets > 0 && f.own && f.m.uidAt(ev.Seq) == 0 {
		f.missed = true // unless it is kept, which ends the wait
	}
	return ev, false, ahead.absorb(f.ctx, ev)
}

// maxNumbered is how many sequence numbers of responses without a body are kept for
// the bodies that follow them. No upstream sends such responses for more messages.
const maxNumbered = 4096

// recordNumber records the UID of a sequence number.
func (f *fetch) recordNumber(ev wire.Event) {
	if f.uidOf == nil {
		f.uidOf = make(map[uint32]uint64, 1)
	}
	if len(f.uidOf) < maxNumbered || ev.UID == f.uid {
		f.uidOf[ev.Seq] = ev.UID
	} else {
		delete(f.uidOf, ev.Seq)
	}
}

// isBody reports whether a body is one of the message, as far as that shows before
// it is read: by its UID, by its sequence number, or because no other can come.
func (f *fetch) isBody(ev wire.Event) bool {
	if ev.UID != 0 {
		return ev.UID == f.uid
	}
	if uid := f.m.uidAt(ev.Seq); uid != 0 {
		return uid == f.uid
	}
	return f.own && len(f.m.readAhead.flight) == 0
}

// verify makes sure that a body that has been read was that of the message: the
// UID may follow it, or the sequence number proves it.
func (f *fetch) verify(body wire.Event) error {
	uid := body.UID
	f.await()
	for uid == 0 && !f.done {
		ev, _, err := f.step()
		if err != nil {
			return err
		}
		uid = f.uidOf[body.Seq]
		if !f.own && ev.Kind == wire.Fetch {
			break // the command brings other messages too
		}
	}
	if uid == 0 {
		uid = f.m.uidAt(body.Seq)
		f.m.byNumber = true
	}
	if uid != f.uid {
		return errOther
	}
	return nil
}

// complete makes sure, before the final line is sent, that a message that has been
// read is one of the snapshot, and that the command for it alone did not end in NO
// or BAD: a server that cannot send all of what it has announced has no other way
// to say so. The end of that command is waited for only where nothing else is on
// its way, as close does, and a loss in front of it does not matter.
func (f *fetch) complete() error {
	conn := f.m.u.Wire
	if f.own && !f.done && len(f.m.readAhead.flight) == 0 && conn.BodyLeft() == 0 {
		conn.Until(time.Now().Add(closeTime))
		for !f.done && conn.BodyLeft() == 0 {
			f.next() // an error ends it
		}
	}
	for f.m.compares() && f.open && !f.done && conn.BodyLeft() == 0 {
		f.step() // to the end of the response, not of the command; an error ends it
	}
	if f.m.differs {
		if err := f.drain(); err != nil {
			return f.m.u.Lost(upstream.AtRead, err)
		}
		if err := f.m.confirm(f.ctx); err != nil {
			return err
		}
	}
	return f.refused()
}

// drain reads all that is on its way, the end of the command for the message too.
func (f *fetch) drain() error {
	if err := f.m.drain(f.ctx); err != nil {
		return err
	}
	if f.own && !f.done {
		f.status = f.m.u.Wire.ResultOf(f.number)
		f.m.u.Trace(f.ctx, f.cmd, f.status, nil)
	}
	f.done, f.open = true, false
	return nil
}

// finish reads the current command to its end.
func (f *fetch) finish() error {
	for !f.done {
		if _, _, err := f.next(); err != nil {
			return err
		}
	}
	return nil
}

// refused returns an error if the mailbox is no longer that of the snapshot, or the
// command for the message alone is known to have ended in NO or BAD.
func (f *fetch) refused() error {
	if err := f.m.valid(); err != nil {
		return err
	}
	if f.own && f.status.Type != "" && !f.status.OK() {
		return f.m.u.Failed(upstream.AtRead, f.cmd, f.status, nil)
	}
	return nil
}

// askAgain asks for items again where the answer has come, but had to be dropped:
// the UID was after it, and it was too large to be kept until then. Nothing else
// is on its way then, or asked for ahead from then on.
func (f *fetch) askAgain(items string) (again bool, err error) {
	if !f.missed {
		return false, nil
	}
	if err := f.m.drain(f.ctx); err != nil {
		return false, err
	}
	f.m.readAhead.refusals = maxRefusals
	return true, f.send(items)
}

// isLoss reports whether err is the loss of the connection, and not an error of
// a writer.
func (f *fetch) isLoss(err error) bool {
	loss := f.m.u.Wire.Err()
	return err != nil && loss != nil && errors.Is(err, loss)
}

// classify returns the error of a body being written: a loss as the client may
// see it, anything else, such as an error of the writer, as it is.
func (f *fetch) classify(err error) error {
	if f.isLoss(err) {
		return f.m.u.Lost(upstream.AtRead, fmt.Errorf("imap: %s: %w", f.cmd, err))
	}
	return err
}

// outcome says why a command brought no body (requirement I-FETCH-5).
func (f *fetch) outcome() error {
	u := f.m.u
	status := u.Wire.ResultOf(f.number)
	cause := fmt.Errorf("imap: %s: %s", f.cmd, u.Clean(status.String()))
	switch {
	case status.Type == "BAD":
		return u.Failed(upstream.AtRead, f.cmd, status, nil)
	case status.OK() && !f.empty:
		return f.gone(cause)
	}
	found, err := f.search()
	switch {
	case err != nil:
		return err
	case len(found) == 0:
		return f.gone(cause)
	case status.OK():
		return upstream.TempError(fmt.Errorf("%w: %s", errNoContent, f.cmd))
	}
	return u.Failed(upstream.AtRead, f.cmd, status, nil)
}

// search returns the UID of the message if it is in the mailbox now. It reads all
// that is on its way.
func (f *fetch) search() ([]uint64, error) {
	u := f.m.u
	for f.own && !f.done {
		if _, _, err := f.next(); err != nil {
			return nil, u.Lost(upstream.AtRead, err)
		}
	}
	err := f.drain()
	if err == nil {
		_, err = u.Noop(f.ctx)
	}
	if err != nil {
		return nil, u.Lost(upstream.AtRead, err)
	}
	return u.SearchAmong(f.ctx, upstream.AtRead, []uint64{f.uid}, upstream.Any)
}

// gone returns the error for a message that does not exist. Perhaps it never
// did and the upstream listed it by mistake: the next login lists everything
// again.
func (f *fetch) gone(cause error) error {
	f.m.b.store.DropListing(f.m.key)
	return upstream.WithCause(proxy.ErrGone, cause)
}

// close discards the rest of the message, ends the connection where that would
// take too long, and releases the maildrop. With nothing else on its way it
// reads the command to its end.
func (f *fetch) close() {
	defer f.giveBack()
	conn := f.m.u.Wire
	if by := time.Now().Add(closeTime); f.begun || f.m.answerBy.After(by) {
		conn.Until(by)
	} else {
		conn.Until(f.m.answerBy)
	}
	f.flowing = false
	f.m.readAhead.awaited = part{}
	limit := f.m.discardable()
	if conn.BodyLeft() > limit {
		conn.Fail(errAbandoned)
	}
	if len(f.m.readAhead.flight) == 0 {
		for f.own && !f.done && conn.BodyLeft() <= limit {
			f.next()
		}
		if conn.Err() == nil {
			f.m.readAhead.drain(f.ctx) // an error is in conn.Err
		}
	}
	if f.unsee {
		f.clearSeen()
	}
	f.m.u.Wire.Until(time.Time{})
	f.m.u.Wire.SetProgress(upstream.ProgressTimeout)
}

// giveBack releases the connection, once.
func (f *fetch) giveBack() {
	if release := f.release; release != nil {
		f.release = nil
		release()
	}
}

// index returns the position of uid in the snapshot.
func (s *snapshot) index(uid uint64) (int, bool) {
	return slices.BinarySearchFunc(s.messages, uid, func(m proxy.Message, uid uint64) int {
		return cmp.Compare(m.UID, uid)
	})
}

// octets returns the announced size of a message of the snapshot.
func (s *snapshot) octets(uid uint64) int64 {
	if i, ok := s.index(uid); ok {
		return s.messages[i].Octets
	}
	return 0
}
