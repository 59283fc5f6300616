package imapbackend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"time"

	"popgate/imapbackend/upstream"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

const (
	// overlap is the number of octets before a break that are read again,
	// to check that what follows is the same message.
	overlap = 256

	// minProgress is the number of octets of a message that a connection
	// must have delivered to be replaced too when it is lost.
	minProgress = 64 << 10

	// maxSubstitute is the length in octets up to which what comes may be something
	// in place of a message; maxWrongSizes is how many messages of a session may
	// prove to have another size than announced: from then on that means nothing.
	maxSubstitute = 64 << 10
	maxWrongSizes = 3
)

// errChanged is a message that cannot be continued where it broke off.
var errChanged = errors.New("imap: the message has changed since its first part was read")

// message is a whole message being read, from the stream or from memory.
type message struct {
	*fetch
	body wire.Event
	kept []byte
	out  tail

	// replay is what out writes to where the message can only be resumed by
	// reading all of it again; else nil.
	replay *replay
}

// Read implements proxy.Maildrop.
func (m *maildrop) Read(ctx context.Context, uid uint64) (proxy.Body, error) {
	m.answerBy = time.Now().Add(answerTime)
	if err := m.checkHeader(ctx, uid); err != nil {
		return nil, err
	}
	msg, err := m.readMessage(ctx, uid)
	if err != nil {
		return nil, err
	}
	return msg, nil
}

func (m *maildrop) readMessage(ctx context.Context, uid uint64) (*message, error) {
	f, err := m.newFetch(ctx, uid)
	if err != nil {
		return nil, err
	}
	defer m.releaseOnPanic(f.giveBack)
	msg, err := f.genuine()
	if err != nil {
		if err = f.replaceConn(err); err == nil {
			msg, err = f.genuine()
		}
	}
	if errors.Is(err, errNoContent) {
		msg, err = f.messageUnpeeked(err)
	}
	if err == nil {
		err = m.valid()
	}
	if err != nil {
		f.close()
		return nil, err
	}
	return msg, nil
}

// genuine is message, and makes sure that what comes in place of a message that
// another client has removed is not taken for it (requirement P-RETR-8): that has
// another size, as RFC822.SIZE is otherwise right on such an upstream. On others a
// size may be wrong, and SEARCH too (mailutils). It is small,
// so it is read before anything of it goes to the client.
func (f *fetch) genuine() (*message, error) {
	msg, err := f.message()
	if err != nil {
		return nil, err
	}
	octets := msg.Octets()
	if !f.m.u.Dialect().Substitutes || octets > maxSubstitute || f.m.wrongSizes >= maxWrongSizes ||
		octets == f.m.reportedOctets(f.uid) || octets == f.m.octets(f.uid) {
		return msg, nil
	}
	return msg, f.confirm(msg)
}

// confirm makes sure that the message is in the mailbox, and keeps it.
func (f *fetch) confirm(msg *message) error {
	if msg.kept == nil {
		buf := bytes.NewBuffer(make([]byte, 0, msg.body.Octets+1))
		_, err := f.m.u.Wire.BodyTo(buf)
		if err == nil {
			err = f.verify(msg.body)
		}
		if err != nil {
			return f.m.u.Lost(upstream.AtRead, fmt.Errorf("imap: %s: %w", f.cmd, err))
		}
		msg.kept, msg.body = buf.Bytes(), wire.Event{}
	}
	found, err := f.search()
	if err == nil && len(found) == 0 {
		err = f.gone(fmt.Errorf("imap: %s: %d octets of a message of %d", f.cmd, len(msg.kept), f.m.reportedOctets(f.uid)))
	}
	f.m.wrongSizes++
	return err
}

// messageUnpeeked asks for a message by BODY[], where BODY.PEEK[] has brought
// nothing: for some messages iCloud has a content only then. It sets \Seen, which
// close clears, so it is not sent where it is not known whether \Seen was set
// before. If it brings nothing either, failure is returned.
func (f *fetch) messageUnpeeked(failure error) (*message, error) {
	known, seen := false, false
	cmd := fmt.Sprintf("UID FETCH %d (UID FLAGS)", f.uid)
	status, err := f.m.u.Collect(f.ctx, cmd, func(ev wire.Event) {
		if ev.Kind == wire.Fetch && ev.UID == f.uid && ev.Flags {
			known, seen = true, ev.Seen
		}
	})
	if err != nil || !status.OK() || !known {
		return nil, failure
	}
	proxy.Logger(f.ctx).InfoContext(f.ctx, "message is empty by BODY.PEEK[], asking by BODY[]", "uid", f.uid)
	f.m.readAhead.awaited = part{}
	f.unsee = !seen && !f.m.readOnly
	if err := f.send("BODY[]"); err != nil {
		return nil, f.m.u.Lost(upstream.AtRead, err)
	}
	for {
		ev, ok, err := f.next()
		switch {
		case err != nil:
			return nil, f.m.u.Lost(upstream.AtRead, fmt.Errorf("imap: %s: %w", f.cmd, err))
		case !ok:
			return nil, failure
		case ev.Section == "" && ev.Origin < 0 && ev.Octets > 0:
			return &message{fetch: f, body: ev}, nil
		}
	}
}

// clearSeen clears \Seen, which BODY[] has set. A connection that was lost on the
// way is replaced for it.
func (f *fetch) clearSeen() {
	err := f.m.usable(upstream.AtRead)
	if err != nil {
		if f.begun {
			f.m.answerBy = time.Now().Add(closeTime)
		}
		err = f.m.renew(upstream.AtRead, err)
	}
	if err == nil {
		var status wire.Status
		status, err = f.m.u.UIDCommand(f.ctx, "STORE", strconv.FormatUint(f.uid, 10)+` -FLAGS.SILENT (\Seen)`)
		if err == nil && status.OK() {
			return
		}
		err = f.m.u.Failed(upstream.AtRead, "STORE", status, err)
	}
	proxy.Logger(f.ctx).WarnContext(f.ctx, `cannot clear \Seen`, "uid", f.uid, "error", err)
}

// message waits for the message. It asks for it, and for what may be wanted
// next, unless that is kept or on its way.
func (f *fetch) message() (*message, error) {
	const items = "BODY.PEEK[]"
	a, p := f.m.readAhead, part{uid: f.uid}
	kept, isKept := a.get(p, true)
	number, coming := a.flight[p]
	switch {
	case isKept:
		f.done = true
	case coming:
		f.join(number, items)
	default:
		if err := f.send(items); err != nil {
			return nil, f.m.u.Lost(upstream.AtRead, err)
		}
	}
	if !f.alone {
		a.advance(p)
	}
	if isKept {
		f.m.u.Wire.Flush() // a loss shows at the next command that needs it
		return &message{fetch: f, kept: kept}, nil
	}
	a.awaited = p
	for {
		ev, ok, err := f.next()
		if err != nil {
			return nil, f.m.u.Lost(upstream.AtRead, fmt.Errorf("imap: %s: %w", f.cmd, err))
		}
		if kept, isKept = a.get(p, true); isKept {
			return &message{fetch: f, kept: kept}, nil
		}
		switch {
		case !ok && f.own:
			if again, err := f.askAgain(items); err != nil {
				return nil, f.m.u.Lost(upstream.AtRead, err)
			} else if !again {
				return nil, f.outcome()
			}
		case !ok: // the read-ahead did not bring it: ask for it alone
			if err := f.send(items); err != nil {
				return nil, f.m.u.Lost(upstream.AtRead, err)
			}
		case ev.Section != "" || ev.Origin >= 0:
		case (ev.Nil || ev.Octets == 0) && f.m.octets(f.uid) > 0:
			f.empty = true
		default:
			return &message{fetch: f, body: ev}, nil
		}
	}
}

// Octets implements proxy.Body.
func (b *message) Octets() int64 { return b.body.Octets + int64(len(b.kept)) }

// Close implements proxy.Body.
func (b *message) Close() error {
	b.close()
	return nil
}

// WriteTo implements proxy.Body. A lost connection is replaced, as often as
// each brings minProgress, and the message resumes at the octet where it broke
// off (requirements P-RETR-7, I-FETCH-7).
func (b *message) WriteTo(w io.Writer) (int64, error) {
	w = b.m.detectPlaceholder(b.uid, w)
	if b.kept != nil {
		n, err := w.Write(b.kept)
		if err == nil {
			err = b.complete()
		}
		return int64(n), err
	}
	if !b.m.u.TakesPartialFetch() {
		b.replay = newReplay(w)
		w = b.replay
	}
	b.out.w = w
	b.flow()
	_, err := b.m.u.Wire.BodyTo(&b.out)
	if err == nil {
		err = b.verify(b.body)
	}
	for b.isLoss(err) {
		if b.out.written >= b.out.resumed+minProgress {
			b.m.tried = false
		}
		b.out.resumed = b.out.written
		if e := b.replaceConn(err); e != nil {
			return b.out.written, b.classify(e)
		}
		err = b.continueBody()
	}
	if err == nil {
		err = b.complete()
	}
	return b.out.written, b.classify(err)
}

// continueBody writes the rest of the message. The upstream must announce the
// message and its rest with the same octets as before, and repeat the last ones
// that were written, or all of them where it sends no parts of messages.
func (b *message) continueBody() error {
	proxy.Logger(b.ctx).InfoContext(b.ctx, "message resumes where it broke off", "uid", b.uid, "octet", b.out.written, "octets", b.body.Octets)
	size, err := b.announcedSize()
	if err != nil {
		return err
	}
	if size != b.m.reportedOctets(b.uid) {
		return fmt.Errorf("%w: RFC822.SIZE is %d, it was %d", errChanged, size, b.m.reportedOctets(b.uid))
	}
	if b.replay != nil {
		b.replay.again()
		_, err := b.continueWith("BODY.PEEK[]", b.body.Octets, func(origin int64) bool { return origin < 0 }, b.replay)
		b.out.written = b.replay.written
		return err
	}
	offset := b.out.written - int64(b.out.n)
	count := b.body.Octets - offset
	if !b.m.u.Wire.Has("IMAP4REV2") && (offset > math.MaxUint32 || count > math.MaxUint32) {
		return fmt.Errorf("%w: octet %d is beyond what IMAP4rev1 can ask for", errChanged, offset)
	}
	rest := &overlapping{want: bytes.Clone(b.out.last[:b.out.n]), w: &b.out}
	refusal, err := b.continueWith(fmt.Sprintf("BODY.PEEK[]<%d.%d>", offset, max(count, 1)), count,
		func(origin int64) bool { return origin == offset || origin < 0 && offset > 0 }, rest)
	switch {
	case refusal.Type == "BAD": // perhaps it does not take such a command
		_, err = b.continueWith("BODY.PEEK[]", b.body.Octets, func(origin int64) bool { return origin < 0 }, &skipping{offset, rest})
		if err == nil {
			b.m.u.PartialFetchRefused(b.ctx, refusal)
		}
	case err == nil:
		b.m.u.PartialFetched()
	}
	return err
}

// continueWith asks for items and writes the body of count octets that has a right
// origin to w. If none comes, it returns the status of the command with the error.
func (b *message) continueWith(items string, count int64, isRight func(origin int64) bool, w io.Writer) (refusal wire.Status, err error) {
	conn := b.m.u.Wire
	if err := b.send(items); err != nil {
		return wire.Status{}, err
	}
	for {
		ev, ok, err := b.next()
		switch {
		case err != nil:
			return wire.Status{}, err
		case !ok:
			status := conn.ResultOf(b.number)
			return status, fmt.Errorf("%w: %s: no content: %s", errChanged, b.cmd, b.m.u.Clean(status.String()))
		case ev.Section != "" || !isRight(ev.Origin):
			continue
		case ev.Octets != count:
			return wire.Status{}, fmt.Errorf("%w: %s: %d octets", errChanged, b.cmd, ev.Octets)
		}
		b.body.Seq, b.body.UID = ev.Seq, ev.UID
		b.flow()
		if _, err = conn.BodyTo(w); err == nil {
			err = b.verify(ev)
		}
		return wire.Status{}, err
	}
}

// announcedSize asks for the size of the message in octets; it is -1 if the
// upstream does not give it.
func (b *message) announcedSize() (size int64, err error) {
	size = -1
	_, err = b.m.u.Collect(b.ctx, fmt.Sprintf("UID FETCH %d (UID RFC822.SIZE)", b.uid), func(ev wire.Event) {
		if ev.Kind == wire.Fetch && ev.UID == b.uid && ev.Octets >= 0 {
			size = ev.Octets
		}
	})
	return size, err
}

// tail is a writer that passes octets on and remembers the last ones.
type tail struct {
	w       io.Writer
	written int64
	resumed int64 // of written, when the connection was last replaced
	last    [overlap]byte
	n       int // octets of last
}

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	n, err := t.w.Write(p)
	t.written += int64(n)
	p = p[:n]
	if len(p) >= overlap {
		t.n = copy(t.last[:], p[len(p)-overlap:])
		return n, err
	}
	if over := t.n + len(p) - overlap; over > 0 {
		t.n = copy(t.last[:], t.last[over:t.n])
	}
	t.n += copy(t.last[t.n:], p)
	return n, err
}

// overlapping is a writer that passes on what follows the octets want.
type overlapping struct {
	want []byte
	w    io.Writer
}

// Write implements io.Writer. It fails with errChanged if want does not come
// first.
func (o *overlapping) Write(p []byte) (int, error) {
	k := min(len(p), len(o.want))
	if !bytes.Equal(p[:k], o.want[:k]) {
		return 0, errChanged
	}
	o.want = o.want[k:]
	if k == len(p) {
		return k, nil
	}
	n, err := o.w.Write(p[k:])
	return k + n, err
}

// skipping is a writer that passes on what follows the first octets.
type skipping struct {
	left int64
	w    io.Writer
}

// Write implements io.Writer.
func (s *skipping) Write(p []byte) (int, error) {
	k := int(min(int64(len(p)), s.left))
	s.left -= int64(k)
	if k == len(p) {
		return k, nil
	}
	n, err := s.w.Write(p[k:])
	return k + n, err
}
