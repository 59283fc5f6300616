package imapbackend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"popgate/imapbackend/upstream"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// TOP reads the text in pieces. The first has lineGuess octets for each line,
// in multiples of pieceUnit, and at most firstPiece; each further one has
// twice as many as the one before it, up to lastPiece (requirement I-TOP-1).
const (
	lineGuess  = 128
	pieceUnit  = 1 << 10
	firstPiece = 64 << 10
	lastPiece  = 1 << 20
)

var (
	// errTopDone stops the reading of a message whose top has been written.
	errTopDone = errors.New("imap: top is complete")

	// errNoOrigin is a piece of text that does not say where it begins: it may be
	// the piece that was asked for, or all of the text. So does one that is refused.
	errNoOrigin = errors.New("imap: the piece has no origin")
)

// top is the top of a message being read.
type top struct {
	*fetch
	lines uint64
	size  int64      // of the message in octets, as announced
	items string     // what is asked for at first
	piece int64      // octets of text to ask for at a time, 0: whole message
	whole *message   // the message, where all of it is read
	body  wire.Event // the body of the header
	text  []byte     // a piece of text that came before the header
	lost  bool       // it was too large to be kept
	bare  bool       // the header is empty, as far as it has come
	some  bool       // a response has had a header or a text, if only an empty one
	kept  []byte     // the message or its header, from the read-ahead
	out   topWriter
}

// Top implements proxy.Maildrop.
func (m *maildrop) Top(ctx context.Context, uid uint64, lines uint64) (proxy.Body, error) {
	m.answerBy = time.Now().Add(answerTime)
	if err := m.checkHeader(ctx, uid); err != nil {
		return nil, err
	}
	f, err := m.newFetch(ctx, uid)
	if err != nil {
		return nil, err
	}
	defer m.releaseOnPanic(f.giveBack)
	t := &top{fetch: f, lines: lines, size: m.octets(uid)}
	if err = t.begin(); err != nil {
		if err = t.replaceConn(err); err == nil {
			err = t.begin()
		}
	}
	if err == nil {
		err = m.valid()
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

const headerItem = "BODY.PEEK[HEADER]"

// begin reads up to the first octets of the top.
func (t *top) begin() (err error) {
	t.restart()
	switch {
	case t.lines > uint64(t.size)/2:
		// Probably the whole message, as RETR would read it.
		t.whole, err = t.fetch.message()
		return err
	case t.lines == 0:
		return t.openHeader()
	case !t.m.u.TakesPartialFetch():
		return t.openWhole()
	}
	t.piece = firstPiece
	if t.lines < firstPiece/lineGuess {
		t.piece = (int64(t.lines)*lineGuess + pieceUnit - 1) / pieceUnit * pieceUnit
	}
	t.items = fmt.Sprintf("%s BODY.PEEK[TEXT]<0.%d>", headerItem, t.piece)
	t.m.readAhead.awaited = part{}
	if err := t.send(t.items); err != nil {
		return t.m.u.Lost(upstream.AtRead, err)
	}
	return t.awaitHeader()
}

// restart forgets what has been read.
func (t *top) restart() {
	*t = top{fetch: t.fetch, lines: t.lines, size: t.size, out: topWriter{left: t.lines}}
}

// openHeader begins to read the header alone: from the message or the header
// where these are kept or on their way, else by its own command.
func (t *top) openHeader() error {
	f, a := t.fetch, t.m.readAhead
	whole, header := part{uid: f.uid}, part{f.uid, true}
	if number, coming := a.flight[whole]; coming && t.size <= a.limit/2 {
		// It is kept, as RETR will probably want it soon.
		f.join(number, "BODY.PEEK[]")
		if err := t.awaitKept(whole); err != nil {
			return err
		}
	}
	var ok bool
	if t.kept, ok = a.get(whole, false); ok {
		f.done = true
		return nil
	}
	if t.kept, ok = a.get(header, true); ok {
		f.done, t.out.headerOnly = true, true
	} else if number, coming := a.flight[header]; coming {
		f.join(number, headerItem)
	} else if err := f.send(headerItem); err != nil {
		return t.m.u.Lost(upstream.AtRead, err)
	}
	a.advance(header)
	if ok {
		t.m.u.Wire.Flush() // a loss shows at the next command that needs it
		return nil
	}
	t.items, a.awaited = headerItem, header
	return t.awaitHeader()
}

// awaitKept reads until p is no longer on its way.
func (t *top) awaitKept(p part) error {
	f, a := t.fetch, t.m.readAhead
	for {
		if _, coming := a.flight[p]; !coming && a.pending == nil {
			return nil
		}
		ev, err := t.m.u.Wire.Next()
		if err == nil {
			err = a.absorb(f.ctx, ev)
		}
		if err != nil {
			return t.m.u.Lost(upstream.AtRead, fmt.Errorf("imap: %s: %w", f.cmd, err))
		}
	}
}

// awaitHeader reads up to the data of the header. Text that comes before it is
// kept, at most one piece. A header that is empty counts only with a text: some
// upstreams send neither of a message that they cannot read.
func (t *top) awaitHeader() error {
	for {
		ev, ok, err := t.next()
		if err != nil {
			return t.m.u.Lost(upstream.AtRead, fmt.Errorf("imap: %s: %w", t.cmd, err))
		}
		if t.piece == 0 {
			var isKept bool
			if t.kept, isKept = t.m.readAhead.get(part{t.uid, true}, true); isKept {
				t.out.headerOnly = true
				return nil
			}
		}
		t.some = t.some || ok && (ev.Section == "HEADER" || ev.Section == "TEXT")
		switch {
		case !ok && t.own:
			if again, err := t.askAgain(t.items); err != nil {
				return t.m.u.Lost(upstream.AtRead, err)
			} else if !again {
				return t.instead()
			}
			t.text, t.lost, t.bare = nil, false, false
		case !ok: // the read-ahead did not bring it: ask for it alone
			if err := t.send(headerItem); err != nil {
				return t.m.u.Lost(upstream.AtRead, err)
			}
		case ev.Section == "TEXT" && ev.Origin <= 0 && t.text == nil && t.piece > 0:
			if err := t.keepText(ev); err != nil {
				return t.m.u.Lost(upstream.AtRead, err)
			}
			if t.bare && (t.lost || len(t.text) > 0) {
				return nil
			}
		case ev.Section != "HEADER" || ev.Origin >= 0:
		case (ev.Nil || ev.Octets == 0 && !t.lost && len(t.text) == 0) && t.size > 0:
			// Empty, unless a text follows.
			t.empty, t.bare, t.body = true, !ev.Nil, ev
		default:
			t.body = ev
			return nil
		}
	}
}

// instead is what is done without a header. Where the upstream has sent neither a
// header nor a text, the message may be one of those that it cannot divide: maddy
// sends nothing of a message without an empty line, where a piece of text is asked
// for too. Where it has answered BAD, it may not know pieces at all. Then the
// message is read as a whole.
func (t *top) instead() error {
	status := t.m.u.Wire.ResultOf(t.number)
	bad := status.Type == "BAD"
	if t.piece == 0 || !bad && (t.some || !status.OK()) {
		return t.outcome()
	}
	err := t.openWhole()
	if err == nil && bad {
		t.m.u.PartialFetchRefused(t.ctx, status)
	}
	return err
}

// openWhole begins to read the message, of which only the top is wanted.
func (t *top) openWhole() (err error) {
	t.restart()
	t.alone = true
	t.whole, err = t.fetch.message()
	return err
}

// keepText reads a piece of text that is needed before it can be written, unless
// it is too large.
func (t *top) keepText(ev wire.Event) error {
	if ev.Octets > lastPiece {
		if !t.lost {
			t.m.u.Wire.Grant(ev.Octets)
		}
		t.lost = true
		return nil
	}
	t.lost = false
	buf := bytes.NewBuffer(make([]byte, 0, ev.Octets+1))
	_, err := t.m.u.Wire.BodyTo(buf)
	t.text = buf.Bytes()
	return err
}

// Octets implements proxy.Body.
func (t *top) Octets() int64 { return -1 }

// Close implements proxy.Body.
func (t *top) Close() error {
	t.close()
	return nil
}

// WriteTo implements proxy.Body. If the connection is lost on the way,
// everything is read again on another, except that what has been written is
// skipped; and so is the whole message, if a piece has no origin.
func (t *top) WriteTo(w io.Writer) (int64, error) {
	if t.whole == nil {
		w = t.m.detectPlaceholder(t.uid, w)
	}
	out := newReplay(w)
	err := t.writeTo(out)
	if t.isLoss(err) {
		if err = t.replaceConn(err); err == nil {
			err = t.begin()
		}
		if err == nil {
			err = t.rewrite(out)
		}
	}
	if err == errNoOrigin {
		if err = t.openWhole(); err == nil {
			err = t.rewrite(out)
		}
	}
	if err == nil {
		err = t.confirmShort(out.written)
	}
	if err == nil {
		err = t.complete()
	}
	return out.written, t.classify(err)
}

// rewrite writes what has been written once more, and what follows it.
func (t *top) rewrite(out *replay) error {
	out.again()
	err := t.writeTo(out)
	if err == nil && out.skip > 0 {
		err = errChanged
	}
	return err
}

func (t *top) writeTo(w io.Writer) error {
	t.out.w = w
	if err := t.write(); err != errTopDone {
		return err
	}
	return nil
}

func (t *top) write() error {
	conn := t.m.u.Wire
	switch {
	case t.whole != nil:
		_, err := t.whole.WriteTo(&t.out)
		if err == errTopDone && t.whole.kept == nil {
			return t.verified(t.whole.body, err)
		}
		return err
	case t.kept != nil:
		_, err := t.out.Write(t.kept)
		if err == nil && t.out.headerOnly {
			err = t.out.endHeader()
		}
		return err
	}
	t.flow()
	t.out.headerOnly = true
	if !t.bare {
		if _, err := conn.BodyTo(&t.out); err != nil {
			return err
		}
		if err := t.out.endHeader(); err != nil {
			return err
		}
	}
	if t.lines == 0 {
		return t.verify(t.body)
	}
	header := t.out.written
	if t.lost {
		if err := t.askText(0); err != nil {
			return err
		}
	}
	return t.writeText(header)
}

// writeText writes lines of the text until there are enough or the message
// ends. header is the number of octets in front of the text.
func (t *top) writeText(header int64) error {
	var offset int64
	for {
		n, err := t.writePiece(offset)
		if err != nil {
			return err
		}
		offset += n
		// A short piece need not be the last, unless the message ends
		// with it as announced (requirement I-TOP-3).
		if n == 0 || n < t.piece && header+offset >= t.size {
			return nil
		}
		t.piece = min(2*t.piece, lastPiece)
		if err := t.askText(offset); err != nil {
			return err
		}
	}
}

// askText asks for the piece of text at offset, alone.
func (t *top) askText(offset int64) error {
	t.await()
	if err := t.finish(); err != nil {
		return err
	}
	if err := t.refused(); err != nil {
		return err
	}
	return t.send(fmt.Sprintf("BODY.PEEK[TEXT]<%d.%d>", offset, t.piece))
}

// writePiece writes the piece of text at offset, which has been asked for, and
// returns its octets. The header and the first piece are in one response, whose
// UID may follow both.
func (t *top) writePiece(offset int64) (int64, error) {
	if t.text != nil {
		text := t.text
		t.text = nil
		if t.out.isStray(text) {
			text = nil
		}
		err := t.out.startText(int64(len(text)))
		if err == nil {
			_, err = t.out.Write(text)
		}
		return int64(len(text)), t.verified(t.body, err)
	}
	for {
		ev, ok, err := t.next()
		switch {
		case err != nil:
			return 0, err
		case !ok && t.m.u.Wire.ResultOf(t.number).Type == "BAD":
			return 0, errNoOrigin
		case !ok:
			return 0, fmt.Errorf("imap: %s: no text: %s", t.cmd, t.m.u.Clean(t.m.u.Wire.Result().String()))
		case ev.Section != "TEXT" || ev.Origin >= 0 && ev.Origin != offset:
			continue
		case ev.Origin < 0 && offset > 0 && ev.Octets > 0:
			t.m.u.Wire.Grant(ev.Octets)
			return 0, errNoOrigin
		case ev.Nil:
			return 0, fmt.Errorf("imap: %s: the text is NIL", t.cmd)
		}
		if ev.Origin >= 0 {
			t.m.u.PartialFetched()
		}
		var n int64
		if t.out.cut && ev.Octets == 1 && offset == 0 && t.text == nil {
			if err := t.keepText(ev); err != nil {
				return 0, err
			}
			return t.writePiece(0)
		}
		if err = t.out.startText(ev.Octets); err == nil {
			t.m.u.Wire.Grant(ev.Octets) // more than was asked for, where an upstream knows no pieces
			n, err = t.m.u.Wire.BodyTo(&t.out)
		}
		if offset == 0 && t.body.UID == 0 {
			err = t.verified(t.body, err)
		}
		return n, t.verified(ev, err)
	}
}

// verified is verify for a body that was written, with the error err.
func (t *top) verified(body wire.Event, err error) error {
	if err == nil || err == errTopDone {
		if e := t.verify(body); e != nil {
			return e
		}
	}
	return err
}
