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
const (
	// placeholderHead is how much of a message is scanned, in octets.
	placeholderHead = 4 << 10

	// exchangeGreeting is in the greeting of Exchange and of Microsoft 365.
	exchangeGreeting = "The Microsoft Exchange IMAP4 service is ready"

	// subjectItem asks for what distinguishes a placeholder; its command is
	// subjectMore octets longer than uidset.Frame.
	subjectItem = "BODY.PEEK[HEADER.FIELDS (SUBJECT)]"
	subjectMore = 16
)

// placeholderText begins the Subject of a placeholder, and a line of its text.
var placeholderText = []byte("Retrieval using the IMAP4 protocol failed")

// scanner looks for a placeholder in the first octets of a message, in pieces
// of any size.
type scanner struct {
	left   int       // octets still to scan
	start  [128]byte // how the current line begins
	n      int       // octets of start
	skip   bool      // the rest of the line does not matter
	header bool      // the whole header has been scanned, or placeholderHead of it
	found  bool
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
		if beginsPlaceholder(s.start[:s.n]) {
			s.found, s.left = true, 0
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
	case 'R', 'S', 's':
		return
	case '\r', '\n':
		s.header = true
	}
	s.skip = true
}

var subjectName = []byte("Subject:")

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

// placeholderDetector is the writer of a body that records a placeholder.
type placeholderDetector struct {
	scanner
	m   *maildrop
	uid uint64
	w   io.Writer
}

// detectPlaceholder returns a writer to w that scans the message uid, which is
// written to it from its first octet on.
func (m *maildrop) detectPlaceholder(uid uint64, w io.Writer) io.Writer {
	return &placeholderDetector{scanner: newScanner(), m: m, uid: uid, w: w}
}

func (i *placeholderDetector) Write(p []byte) (int, error) {
	if i.left > 0 {
		before := i.header
		i.scan(p)
		if i.found {
			i.m.placeholders = append(i.m.placeholders, i.uid)
		}
		if i.header && !before && i.m.isExchange {
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
	if m.isExchange {
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
	for _, set := range m.setsFor(unread, subjectMore) {
		good, err := r.withSubject(ctx, set)
		if err == nil {
			err = m.usable(upstream.AtUpdate)
		}
		if err != nil {
			return err
		}
		for _, uid := range set.UIDs {
			if good[uid] {
				m.inspected = append(m.inspected, uid)
			} else {
				m.placeholders = append(m.placeholders, uid)
			}
		}
	}
	return nil
}

// withSubject returns those of set whose Subject the upstream gives and that
// are no placeholder by it.
func (r *removal) withSubject(ctx context.Context, set uidset.Set) (map[uint64]bool, error) {
	u := r.m.u
	good := make(map[uint64]bool)
	var subject scanner
	got := false
	cmd := fmt.Sprintf("UID FETCH %s (UID %s)", set.Text, subjectItem)
	_, err := u.Collect(ctx, cmd, func(ev wire.Event) {
		switch {
		case ev.Kind == wire.Body && strings.HasPrefix(ev.Section, "HEADER.FIELDS") && !ev.Nil:
			subject, got = newScanner(), true
			_, _ = u.Wire.BodyTo(writerFunc(subject.scan)) // a loss shows at the next event
		case ev.Kind == wire.Fetch: // the end of the response, which has the UID
			if got && !subject.found {
				good[ev.UID] = true
			}
			got = false
		}
	})
	if err != nil {
		return nil, u.Failed(upstream.AtUpdate, cmd, wire.Status{}, err)
	}
	return good, nil
}

// writerFunc is a function as an io.Writer that never fails.
type writerFunc func(p []byte)

func (f writerFunc) Write(p []byte) (int, error) {
	f(p)
	return len(p), nil
}
