package imapbackend

import (
	"bytes"
	"hash/maphash"
	"io"
)

// replay is a writer that passes octets on. After again, it expects the same
// octets once more and skips them.
type replay struct {
	w       io.Writer
	written int64
	sum     maphash.Hash // of what has been written
	skip    int64        // octets still to be skipped
	seen    maphash.Hash // of those skipped so far
}

func newReplay(w io.Writer) *replay {
	r := &replay{w: w}
	r.seen.SetSeed(r.sum.Seed())
	return r
}

func (r *replay) again() {
	r.skip = r.written
	r.seen.Reset()
}

// Write implements io.Writer. It fails with errChanged if the octets are not
// the same.
func (r *replay) Write(p []byte) (int, error) {
	k := int(min(int64(len(p)), r.skip))
	if k > 0 {
		r.seen.Write(p[:k])
		if r.skip -= int64(k); r.skip == 0 && r.seen.Sum64() != r.sum.Sum64() {
			return 0, errChanged
		}
		if k == len(p) {
			return k, nil
		}
	}
	n, err := r.w.Write(p[k:])
	r.sum.Write(p[k : k+n])
	r.written += int64(n)
	return k + n, err
}

// topWriter is a writer that passes on a message up to the end of a number of
// lines of its text, then returns errTopDone. It finds the end of the header,
// unless startText announces it.
type topWriter struct {
	w          io.Writer
	written    int64
	left       uint64 // lines of text to come
	headerOnly bool   // header and text are written separately
	inText     bool
	col        int  // octets of the current line, 2 for 2 or more
	cr         bool // the current line is one CR
	emptyLine  bool // the last line was empty
	lastCR     bool // the last octet was a CR
	cut        bool // the header lacked its last LF
}

// endHeader is called after a header that was written separately. It writes the LF
// of a header that ends with CR: of a message without an empty line Courier sends
// the header without its last octet, and that CR once more as the text.
func (t *topWriter) endHeader() error {
	if !t.lastCR {
		return nil
	}
	t.cut = true
	_, err := t.Write([]byte{'\n'})
	return err
}

// isStray reports whether text is the CR of a cut header.
func (t *topWriter) isStray(text []byte) bool { return t.cut && string(text) == "\r" }

// startText announces that a piece of n octets of text follows. It ends the
// header with an empty line if it has none (requirement I-TOP-2).
func (t *topWriter) startText(n int64) error {
	if t.inText || n == 0 {
		return nil
	}
	t.headerOnly, t.inText = false, true
	if t.emptyLine && t.col == 0 {
		return nil
	}
	sep := "\r\n"
	if t.col > 0 {
		sep = "\r\n\r\n"
	}
	t.col = 0
	k, err := io.WriteString(t.w, sep)
	t.written += int64(k)
	return err
}

// Write implements io.Writer.
func (t *topWriter) Write(p []byte) (int, error) {
	end, done := t.scan(p)
	n, err := t.w.Write(p[:end])
	t.written += int64(n)
	if n > 0 {
		t.lastCR = p[n-1] == '\r'
	}
	switch {
	case err != nil:
		return n, err
	case done:
		return n, errTopDone
	}
	return n, nil
}

// scan returns how many octets of p belong to the top; done reports whether the
// top ends there.
func (t *topWriter) scan(p []byte) (end int, done bool) {
	for end < len(p) {
		i := bytes.IndexByte(p[end:], '\n')
		if i < 0 {
			t.column(p[end:])
			return len(p), false
		}
		t.column(p[end : end+i])
		end += i + 1
		t.emptyLine = t.col == 0 || t.col == 1 && t.cr
		t.col, t.cr = 0, false
		switch {
		case t.inText:
			t.left--
		case t.emptyLine && !t.headerOnly:
			t.inText = true
		default:
			continue
		}
		if t.left == 0 {
			return end, true
		}
	}
	return end, false
}

// column counts octets of the current line.
func (t *topWriter) column(p []byte) {
	if len(p) == 0 {
		return
	}
	t.cr = t.col == 0 && len(p) == 1 && p[0] == '\r'
	t.col = min(t.col+len(p), 2)
}
