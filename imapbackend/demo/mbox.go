package demo

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Mail is messages that stay in the files in which they are. It is safe for
// concurrent use.
type Mail struct {
	messages []*inFile
	mbox     *os.File // nil for a maildir
}

// OpenMail opens a file in the mbox format, or a maildir, and reads through it. Each
// message is read again, from where it is, whenever it is asked for, so memory does
// not depend on the size of mailbox or messages. Nothing is changed. An error names
// the line, or the file of the maildir.
//
// In an mbox (RFC 4155, Appendix A, variants mboxo and mboxrd) a line "From ", a
// sender and a date starts a message if it is the first line or an empty line
// precedes it; both lines are part of the format, not of a message. One ">" is
// removed from lines of the form ">From ", ">>From " and so on. A bare LF becomes
// CRLF, since both formats have the line ends of the machine. Lines may have any
// length. An empty file has no messages.
func OpenMail(name string) (*Mail, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	if fi, err := f.Stat(); err == nil && fi.IsDir() {
		_ = f.Close() // nothing was written
		return openMaildir(name)
	}
	spans, err := readMbox(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	m := &Mail{mbox: f}
	for _, s := range spans {
		m.messages = append(m.messages, &inFile{span: s, mbox: f})
	}
	return m, nil
}

// Len returns the number of messages.
func (m *Mail) Len() int { return len(m.messages) }

// Close closes the mbox. Messages of m cannot be read afterwards.
func (m *Mail) Close() error {
	if m.mbox == nil {
		return nil
	}
	return m.mbox.Close()
}

// fromLine begins a message of an mbox. The date is as in ctime, or as in mail; a
// zone may be in front of the year or after it.
var fromLine = regexp.MustCompile(`^From .*(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? +` +
	`(?:(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +\d{1,2} +\d{1,2}:\d\d(?::\d\d)?(?: +[-+\w]+)? +\d{4}` +
	`|\d{1,2} +(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) +\d{4} +\d{1,2}:\d\d)`)

// fromLimit is the most octets of a line that are examined for a date.
const fromLimit = 1 << 10

// readMbox returns where the messages of an mbox are.
func readMbox(r io.Reader) ([]span, error) {
	var (
		in    = newPieces(r)
		found []span
		msg   *span
		at    int64
		line  = 0
		empty = true  // the line before was empty, or there was none
		head  = false // the line is one that begins a message
	)
	end := func() {
		if msg != nil {
			msg.finish(true)
			found = append(found, *msg)
		}
	}
	for {
		piece, first, err := in.next()
		if err != nil && err != io.EOF {
			return nil, fmt.Errorf("mbox: line %d: %w", line+1, err)
		}
		if first {
			line++
			head = len(piece) > 0 && empty && fromLine.Match(piece[:min(len(piece), fromLimit)])
		}
		at += int64(len(piece))
		switch {
		case len(piece) == 0:
		case head && first:
			end()
			msg = &span{start: at, end: at}
		case head: // the rest of a long line
			msg.start, msg.end = at, at
		case msg != nil:
			msg.add(piece, first, true)
		case !isBlank(piece):
			return nil, fmt.Errorf(`mbox: line %d: not an mbox file: %.40q is not "From ", a sender and a date`, line, piece)
		}
		empty = first && isBlank(piece)
		if err == io.EOF {
			end()
			return found, nil
		}
	}
}

// openMaildir opens a maildir: the messages in new and cur, in the order of their
// delivery, which their names begin with.
func openMaildir(name string) (*Mail, error) {
	m := new(Mail)
	for _, sub := range []string{"new", "cur"} {
		entries, err := os.ReadDir(filepath.Join(name, sub))
		if errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("%s: not a maildir: it has no folders new and cur", name)
		}
		if err != nil {
			return nil, err
		}
		for _, e := range entries {
			msg := &inFile{path: filepath.Join(name, sub, e.Name())}
			if fi, err := os.Stat(msg.path); strings.HasPrefix(e.Name(), ".") || err == nil && !fi.Mode().IsRegular() {
				continue // a named pipe would never end
			}
			if err := msg.measure(); err != nil {
				return nil, fmt.Errorf("maildir: %w", err)
			}
			m.messages = append(m.messages, msg)
		}
	}
	slices.SortStableFunc(m.messages, func(a, b *inFile) int { return bytes.Compare(deliveryOf(a.path), deliveryOf(b.path)) })
	return m, nil
}

// deliveryOf returns a key by which the files of a maildir are in the order of their
// delivery: the seconds at the start of the name, as ten digits, and the name.
func deliveryOf(path string) []byte {
	name := filepath.Base(path)
	seconds, _, _ := strings.Cut(name, ".")
	return fmt.Appendf(nil, "%10s %s", seconds, name)
}

// measure reads through a message that has a file of its own.
func (f *inFile) measure() error {
	file, err := os.Open(f.path)
	if err != nil {
		return err
	}
	defer file.Close()
	in := newPieces(file)
	for {
		piece, first, err := in.next()
		if err != nil && err != io.EOF {
			return err
		}
		f.add(piece, first && len(piece) > 0, false)
		if err == io.EOF {
			f.finish(false)
			return nil
		}
	}
}
