package imapbackend

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"popgate/imapbackend/internal/uidset"
	"popgate/imapbackend/upstream"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// Microsoft Exchange delivers a message that it cannot convert to MIME as a
// placeholder, which says so. A client that takes it for the message and
// removes it would lose mail, so such a message is never removed.
//
// Anybody can send a message with that text. But each server on the way of a
// message adds a Received field (RFC 5321 §4.4), and Exchange writes a placeholder
// when it is asked for, without any: a message that has one is no placeholder. Other
// servers (dialect.Dialect.Placeholders) deliver none.
const (
	// placeholderHead is how much of a message is scanned, in octets.
	placeholderHead = 4 << 10

	// subjectItem and receivedItem ask for what distinguishes a placeholder; their
	// commands are at most itemMore octets longer than uidset.Frame.
	subjectItem  = "BODY.PEEK[HEADER.FIELDS (SUBJECT)]"
	receivedItem = "BODY.PEEK[HEADER.FIELDS (RECEIVED)]"
	itemMore     = 17
)

// placeholderText begins the Subject of a placeholder, and a line of its text.
var placeholderText = []byte("Retrieval using the IMAP4 protocol failed")

// scanner looks for a placeholder in the first octets of a message, in pieces
// of any size.
type scanner struct {
	left     int       // octets still to scan
	start    [128]byte // how the current line begins
	n        int       // octets of start
	skip     bool      // the rest of the line does not matter
	header   bool      // the whole header has been scanned, or placeholderHead of it
	text     bool      // the text of a placeholder has been found
	received bool      // a Received field has been found
}

func newScanner() scanner { return scanner{left: placeholderHead} }

func (s *scanner) scan(p []byte) {
	p = p[:min(len(p), s.left)]
	s.left -= len(p)
	if len(p) == placeholderHead && !bytes.Contains(p, placeholderText) {
		s.header = true // the usual case
		return
	}
	for len(p) > 0 {
		if s.n == 0 && !s.skip {
			s.startLine(p[0])
		}
		line := p
		end := bytes.IndexByte(p, '\n') + 1
		if end > 0 {
			line = p[:end]
		}
		p = p[len(line):]
		if s.skip {
			s.skip = end == 0
			continue
		}
		s.n += copy(s.start[s.n:], line)
		s.text = s.text || beginsPlaceholder(s.start[:s.n])
		if s.received = s.received || !s.header && isReceived(s.start[:s.n]); s.received || s.text && s.header {
			s.left = 0
			return
		}
		// A Subject that is folded at its start continues on the next
		// line.
		if end > 0 && !isSubject(s.start[:s.n]) {
			s.n = 0
		}
	}
}

// startLine decides by the first octet whether to scan a line: most are
// skipped.
func (s *scanner) startLine(first byte) {
	switch first {
	case 'R', 'r', 'S', 's':
		return
	case '\r', '\n':
		s.header = true
	}
	s.skip = true
}

var (
	subjectName  = []byte("Subject:")
	receivedName = []byte("Received:")
)

// isReceived reports whether a line that starts like this is a Received field.
func isReceived(line []byte) bool {
	return len(line) >= len(receivedName) && bytes.EqualFold(line[:len(receivedName)], receivedName)
}

// beginsPlaceholder reports whether a line that starts like this is one of a
// placeholder.
func beginsPlaceholder(line []byte) bool {
	if n := len(subjectName); len(line) > n && bytes.EqualFold(line[:n], subjectName) {
		line = bytes.TrimLeft(line[n:], " \t\r\n")
	}
	return bytes.HasPrefix(line, placeholderText)
}

// isSubject reports whether line is the name of the Subject field and no more.
func isSubject(line []byte) bool { return bytes.EqualFold(bytes.TrimSpace(line), subjectName) }

// placeholderDetector is the writer of a body that records what it has found in it.
type placeholderDetector struct {
	scanner
	m   *maildrop
	uid uint64
	w   io.Writer
}

// detectPlaceholder returns a writer to w that scans the message uid, which is
// written to it from its first octet on.
func (m *maildrop) detectPlaceholder(uid uint64, w io.Writer) io.Writer {
	if !m.u.Dialect().Placeholders {
		return w
	}
	return &placeholderDetector{scanner: newScanner(), m: m, uid: uid, w: w}
}

func (i *placeholderDetector) Write(p []byte) (int, error) {
	if i.left > 0 {
		text, header := i.text, i.header
		i.scan(p)
		if i.text && !text {
			i.m.placeholders = append(i.m.placeholders, i.uid)
		}
		if i.received {
			i.m.placeholders = slices.DeleteFunc(i.m.placeholders, func(uid uint64) bool { return uid == i.uid })
		}
		if (i.header || i.received) && !header {
			i.m.inspected = append(i.m.inspected, i.uid)
		}
	}
	return i.w.Write(p)
}

// sparePlaceholders excludes placeholders from removal: those that this
// session has read, and on Exchange those that it has not. There a message
// whose Subject the upstream does not give is excluded too.
func (r *removal) sparePlaceholders(ctx context.Context) error {
	m := r.m
	if m.u.Dialect().Placeholders {
		if err := r.askSubjects(ctx); err != nil {
			return err
		}
	}
	slices.Sort(m.placeholders)
	r.targets = slices.DeleteFunc(slices.Clone(r.marked), func(uid uint64) bool {
		if !uidset.Contains(m.placeholders, uid) {
			return false
		}
		proxy.Logger(ctx).WarnContext(ctx, "message is not removed: the upstream delivered a placeholder for it, or did not give its Subject", "uid", uid)
		return true
	})
	return nil
}

// askSubjects checks the Subject of the marked messages that this session has
// not read.
func (r *removal) askSubjects(ctx context.Context) error {
	m := r.m
	slices.Sort(m.inspected)
	unread := slices.DeleteFunc(slices.Clone(r.marked), func(uid uint64) bool { return uidset.Contains(m.inspected, uid) })
	var like []uint64 // those with the Subject of a placeholder
	for _, set := range m.setsFor(unread, itemMore) {
		subjects, err := r.scanHeaders(ctx, set, subjectItem)
		if err != nil {
			return err
		}
		for _, uid := range set.UIDs {
			switch subject, given := subjects[uid]; {
			case given && !subject.text:
				m.inspected = append(m.inspected, uid)
			case given:
				like = append(like, uid)
			default:
				m.placeholders = append(m.placeholders, uid)
			}
		}
	}
	for _, set := range m.setsFor(like, itemMore) {
		fields, err := r.scanHeaders(ctx, set, receivedItem)
		if err != nil {
			return err
		}
		for _, uid := range set.UIDs {
			if fields[uid].received {
				m.inspected = append(m.inspected, uid)
			} else {
				m.placeholders = append(m.placeholders, uid)
			}
		}
	}
	return nil
}

// scanHeaders asks for a part of the headers of set, and returns what is in those
// that the upstream gives.
func (r *removal) scanHeaders(ctx context.Context, set uidset.Set, item string) (map[uint64]scanner, error) {
	u := r.m.u
	given := make(map[uint64]scanner)
	var part scanner
	got := false
	cmd := fmt.Sprintf("UID FETCH %s (UID %s)", set.Text, item)
	_, err := u.Collect(ctx, cmd, func(ev wire.Event) {
		switch {
		case ev.Kind == wire.Body && strings.HasPrefix(ev.Section, "HEADER.FIELDS") && !ev.Nil:
			part, got = newScanner(), true
			_, _ = u.Wire.BodyTo(writerFunc(part.scan)) // a loss shows at the next event
		case ev.Kind == wire.Fetch: // the end of the response, which has the UID
			if got && uidset.Contains(set.UIDs, ev.UID) {
				given[ev.UID] = part
			}
			got = false
		}
	})
	if err != nil {
		return nil, u.Failed(upstream.AtUpdate, cmd, wire.Status{}, err)
	}
	return given, r.m.usable(upstream.AtUpdate)
}

// writerFunc is a function as an io.Writer that never fails.
type writerFunc func(p []byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}

// maxNotice is the length in octets up to which a top may be that of a notice in place
// of a message. That of Courier has 129 octets, 77 of them in its header.
const maxNotice = 512

// confirmShort makes sure that a short top, of written octets, is not that of a notice
// in place of a message that another client has removed (requirement P-RETR-8). The
// notice has another size. It is so short that nothing of it has gone to the client.
func (t *top) confirmShort(written int64) error {
	m := t.m
	announced := m.reportedOctets(t.uid)
	if !m.u.Dialect().Substitutes || written > maxNotice || written == announced || m.u.Wire.BodyLeft() > maxNotice {
		return nil
	}
	if err := t.drain(); err != nil {
		return m.u.Lost(upstream.AtRead, err)
	}
	octets, cmd := int64(-1), fmt.Sprintf("UID FETCH %d (UID RFC822.SIZE)", t.uid)
	status, err := m.u.Collect(t.ctx, cmd, func(ev wire.Event) {
		if ev.Kind == wire.Fetch && ev.UID == t.uid && ev.Octets >= 0 {
			octets = ev.Octets
		}
	})
	switch {
	case err != nil:
		return m.u.Failed(upstream.AtRead, cmd, status, err)
	case octets == announced:
		return nil
	}
	found, err := t.search()
	if err == nil && len(found) == 0 {
		err = t.gone(fmt.Errorf("imap: %s: %d octets of a message of %d", cmd, octets, announced))
	}
	return err
}
