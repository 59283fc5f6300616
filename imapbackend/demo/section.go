package demo

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/emersion/go-imap"
)

// checkItem returns an error if FETCH does not offer item.
func checkItem(item imap.FetchItem) error {
	switch item {
	case imap.FetchFlags, imap.FetchInternalDate, imap.FetchRFC822Size, imap.FetchUid:
		return nil
	}
	name, err := imap.ParseBodySectionName(item)
	if err != nil {
		return fmt.Errorf("the demo server does not fetch %s", item)
	}
	if len(name.Path) > 0 || name.Specifier == imap.MIMESpecifier {
		return fmt.Errorf("the demo server does not fetch MIME parts")
	}
	if p := name.Partial; p != nil && (len(p) != 2 || p[0] < 0 || p[1] <= 0) {
		return fmt.Errorf("partial must be <origin.octets>")
	}
	return nil
}

// section returns the part of msg that name selects. Header and text together are
// the whole message (RFC 3501 §6.4.5). The selection of fields is made in memory,
// all else is read while it is sent. abort ends
// the session if it cannot be read.
func section(msg content, name *imap.BodySectionName, abort func()) imap.Literal {
	from, n := int64(0), msg.octets()
	switch name.Specifier {
	case imap.HeaderSpecifier:
		n = msg.text()
		if len(name.Fields) > 0 {
			header, err := read(msg, 0, n)
			if err != nil {
				return &literal{Reader: failing{err}, left: 1, abort: abort}
			}
			msg = inMemory(headerFields(header, name.Fields, name.NotFields))
			n = msg.octets()
		}
	case imap.TextSpecifier:
		from = msg.text()
		n -= from
	}
	if p := name.Partial; p != nil {
		skip := min(int64(p[0]), n)
		from, n = from+skip, min(int64(p[1]), n-skip)
	}
	return &literal{Reader: msg.open(from, n), left: int(n), abort: abort}
}

// failing is a reader of what cannot be read.
type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// literal is an imap.Literal. go-imap sends whatever follows a literal also if that
// was too short, and a client would take it for the message: abort prevents it.
type literal struct {
	io.Reader
	left  int
	abort func()
}

// Len returns the octets that have not been read yet.
func (l *literal) Len() int { return l.left }

func (l *literal) Read(p []byte) (int, error) {
	n, err := l.Reader.Read(p)
	l.left -= n
	if err != nil && l.left > 0 {
		l.abort()
	}
	return n, err
}

// textStart returns the index at which the text begins: after the first empty
// line, which may end in a bare LF. A message without an empty line is all
// header.
func textStart(msg []byte) int {
	for at := 0; ; {
		line, ok := cutLine(msg[at:])
		at += len(line)
		if !ok || isBlank(line) {
			return at
		}
	}
}

// cutLine returns the first line of b including its end; ok is false if it has
// no end.
func cutLine(b []byte) (line []byte, ok bool) {
	if i := bytes.IndexByte(b, '\n'); i >= 0 {
		return b[:i+1], true
	}
	return b, false
}

func isBlank(line []byte) bool {
	return string(line) == "\r\n" || string(line) == "\n"
}

// headerFields returns the fields of header whose name is in names or, if not is
// true, the others. They are unchanged and followed by an empty line.
func headerFields(header []byte, names []string, not bool) []byte {
	var part []byte
	take := false
	for len(header) > 0 {
		line, _ := cutLine(header)
		header = header[len(line):]
		if isBlank(line) {
			break
		}
		if line[0] != ' ' && line[0] != '\t' {
			name := fieldName(line)
			take = slices.ContainsFunc(names, func(n string) bool {
				return strings.EqualFold(n, name)
			}) != not
		}
		if take {
			part = append(part, line...)
		}
	}
	return append(part, "\r\n"...)
}

// fieldName returns the name of the field that starts in line, "" if there is
// none.
func fieldName(line []byte) string {
	name, _, ok := bytes.Cut(line, []byte(":"))
	if !ok {
		return ""
	}
	return string(bytes.TrimRight(name, " \t"))
}
