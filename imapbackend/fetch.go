package imapbackend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"

	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// drainLimit is the number of octets that are read to no end when a message is
// given up, to keep the connection; above it the connection is given up too.
const drainLimit = 1 << 20

var (
	errOther = errors.New("imap: the upstream sent another message than it was asked for")
	errGiven = errors.New("imap: message given up before its end")
)

// fetch is one UID FETCH command for the body of one message. It holds the
// maildrop's connection until it is closed.
type fetch struct {
	m       *maildrop
	ctx     context.Context
	release func()
	uid     uint32
	cmd     string
	done    bool // the tagged status has been read

	uidOf map[uint32]uint32 // by sequence number, from responses without a body
	empty bool              // the message was told of, with nothing in it
}

// startFetch sends a FETCH of items for uid.
func (m *maildrop) startFetch(ctx context.Context, uid uint32, items string) (*fetch, error) {
	release, err := m.acquire(ctx, atRead)
	if err != nil {
		return nil, err
	}
	f := &fetch{m: m, ctx: ctx, release: release, uid: uid}
	if err := f.send(items); err != nil {
		release()
		return nil, m.u.lost(atRead, err)
	}
	return f, nil
}

func (f *fetch) send(items string) error {
	f.done, f.empty = false, false
	f.cmd = "UID FETCH " + strconv.FormatUint(uint64(f.uid), 10) + " (UID " + items + ")"
	return f.m.u.conn.Start(f.cmd)
}

// next reads up to the next body of the message, or to the end of the command:
// then ok is false.
func (f *fetch) next() (ev wire.Event, ok bool, err error) {
	conn := f.m.u.conn
	for !f.done {
		if ev, err = conn.Next(); err != nil {
			f.done = true
			f.m.u.trace(f.ctx, f.cmd, wire.Status{}, err)
			return ev, false, err
		}
		switch {
		case ev.Kind == wire.Done:
			f.done = true
			f.m.u.trace(f.ctx, f.cmd, conn.Result(), nil)
		case ev.Kind == wire.Data && ev.Name == "EXPUNGE":
			f.uidOf = nil // sequence numbers have moved
		case ev.Kind == wire.Fetch && ev.UID != 0:
			if f.uidOf == nil {
				f.uidOf = make(map[uint32]uint32, 1)
			}
			f.uidOf[ev.Seq] = ev.UID
			f.empty = f.empty || ev.UID == f.uid
		case ev.Kind == wire.Body:
			if ev.UID == 0 {
				ev.UID = f.uidOf[ev.Seq]
			}
			if ev.UID == 0 || ev.UID == f.uid {
				return ev, true, nil
			}
		}
	}
	return wire.Event{}, false, nil
}

// verify makes sure, once its octets are read, that the body was that of the
// message: the UID may follow it.
func (f *fetch) verify(body wire.Event) error {
	uid := body.UID
	for uid == 0 && !f.done {
		if _, _, err := f.next(); err != nil {
			return err
		}
		uid = f.uidOf[body.Seq]
	}
	if uid != f.uid {
		return errOther
	}
	return nil
}

// classify returns the error of a body being written: a loss as the client may
// see it, anything else, such as an error of the writer, as it is.
func (f *fetch) classify(err error) error {
	if loss := f.m.u.conn.Err(); err != nil && loss != nil && errors.Is(err, loss) {
		return f.m.u.lost(atRead, fmt.Errorf("imap: %s: %w", f.cmd, err))
	}
	return err
}

// outcome says why a command brought no body (requirement I-FETCH-5).
func (f *fetch) outcome() error {
	u := f.m.u
	status := u.conn.Result()
	cause := fmt.Errorf("imap: %s: %s", f.cmd, u.clean(status.String()))
	switch {
	case status.Type == "BAD":
		return mapStatus(atRead, status, cause)
	case status.OK() && !f.empty:
		return withCause(proxy.ErrGone, cause)
	}
	if err := u.noop(f.ctx); err != nil {
		return u.lost(atRead, err)
	}
	found, err := u.searchAmong(f.ctx, atRead, []uint32{f.uid}, "")
	switch {
	case err != nil:
		return err
	case len(found) == 0:
		return withCause(proxy.ErrGone, cause)
	case status.OK():
		return tempError(fmt.Errorf("imap: %s: the upstream gives no content of an existing message", f.cmd))
	}
	return mapStatus(atRead, status, cause)
}

// close reads the command to its end, or gives up the connection where that
// would take too long, and lets the maildrop go.
func (f *fetch) close() {
	conn := f.m.u.conn
	for !f.done {
		if conn.BodyLeft() > drainLimit {
			conn.Fail(errGiven)
			f.done = true
			break
		}
		f.next()
	}
	f.release()
}

// octets returns the announced size of a message of the snapshot.
func (s *snapshot) octets(uid uint32) int64 {
	i, ok := slices.BinarySearchFunc(s.messages, uid, func(m proxy.Message, uid uint32) int {
		return int(int64(m.UID) - int64(uid))
	})
	if !ok {
		return 0
	}
	return s.messages[i].Octets
}

// message is a whole message being read.
type message struct {
	*fetch
	body wire.Event
}

// Read implements proxy.Maildrop.
func (m *maildrop) Read(ctx context.Context, uid uint32) (proxy.Body, error) {
	if err := m.checkHeader(ctx, uid); err != nil {
		return nil, err
	}
	msg, err := m.read(ctx, uid)
	if err != nil {
		return nil, err
	}
	return msg, nil
}

func (m *maildrop) read(ctx context.Context, uid uint32) (*message, error) {
	f, err := m.startFetch(ctx, uid, "BODY.PEEK[]")
	if err != nil {
		return nil, err
	}
	for {
		ev, ok, err := f.next()
		switch {
		case err != nil:
			err = f.m.u.lost(atRead, fmt.Errorf("imap: %s: %w", f.cmd, err))
		case !ok:
			err = f.outcome()
		case ev.Section != "" || ev.Origin >= 0:
			continue
		case (ev.Nil || ev.Octets == 0) && m.octets(uid) > 0:
			f.empty = true
			continue
		default:
			return &message{f, ev}, nil
		}
		f.close()
		return nil, err
	}
}

// Octets implements proxy.Body.
func (b *message) Octets() int64 { return b.body.Octets }

// WriteTo implements proxy.Body.
func (b *message) WriteTo(w io.Writer) (int64, error) {
	n, err := b.m.u.conn.BodyTo(w)
	if err == nil {
		err = b.verify(b.body)
	}
	return n, b.classify(err)
}

// Close implements proxy.Body.
func (b *message) Close() error {
	b.close()
	return nil
}
