package proxy

import (
	"bytes"
	"errors"
	"io"
	"sync"
)

// Limits of the lines a client may send, in octets, line end included.
const (
	commandLimit     = 255       // RFC 2449 §4
	longCommandLimit = 16384     // commands with a password or a token
	saslLimit        = 65536 + 2 // a SASL response (RFC 5034 §4 sets no limit)
	endlessLine      = 1 << 20   // a longer line ends the session
)

const (
	idleBuffer = 512          // of a session that waits for input
	lineBuffer = 64<<10 + 512 // fits a whole SASL response, or pipelined commands
)

// lineBuffers has the buffers for sessions with more input than idleBuffer.
var lineBuffers = newBufferPool(lineBuffer)

// errEndlessLine is a line longer than endlessLine.
var errEndlessLine = errors.New("line without end")

// lineKind is a kind of line with its own limit.
type lineKind int

const (
	commandLine lineKind = iota
	saslLine
)

// allows reports whether a line that begins with head may have n octets.
func (k lineKind) allows(n int, head []byte) bool {
	switch {
	case k == saslLine:
		return n <= saslLimit
	case n <= commandLimit:
		return true
	}
	verb, _, found := bytes.Cut(head, []byte(" "))
	if !found || n > longCommandLimit {
		return false
	}
	cmd := findCommand(string(verb))
	return cmd != nil && cmd.has(longLine)
}

// lineReader splits the client's octets into lines. It reads from src only when
// no complete line is buffered, so the input of a client that does not read its
// replies stays bounded.
type lineReader struct {
	src        io.Reader
	small      [idleBuffer]byte
	big        *[]byte // borrowed from lineBuffers, or nil
	buf        []byte  // small[:] or *big
	start, end int     // buf[start:end] has been read from src but not returned
	total      int64   // octets read from src
}

// next returns the next line without its line end. The slice is valid until the
// next call. errLineTooLong, errLongRequest and errBadLine concern this line only,
// which has been consumed; any other error ends the input.
func (r *lineReader) next(kind lineKind) ([]byte, error) {
	scanned, dropped := 0, 0
	var tooLong error
	for {
		have := r.buf[r.start:r.end]
		if i := bytes.IndexByte(have[scanned:], '\n'); i >= 0 {
			line := have[:scanned+i+1]
			r.start += len(line)
			if dropped == 0 && kind.allows(len(line), line) {
				return trimLine(line)
			}
			if dropped == 0 {
				tooLong = longLineError(kind, line)
			}
			return nil, tooLong
		}
		scanned = len(have)
		if dropped > 0 || !kind.allows(scanned+1, have) {
			if dropped == 0 {
				tooLong = longLineError(kind, have)
			}
			dropped += scanned
			scanned, r.start = 0, r.end
			if dropped > endlessLine {
				return nil, errEndlessLine
			}
		}
		if err := r.fill(); err != nil {
			return nil, err
		}
	}
}

// trimLine removes the line end. Departure from RFC 1939 §3: a bare LF ends a
// line too. A bare CR or a NUL makes the line invalid.
func trimLine(line []byte) ([]byte, error) {
	line = line[:len(line)-1]
	line = bytes.TrimSuffix(line, []byte("\r"))
	if bytes.IndexByte(line, '\r') >= 0 || bytes.IndexByte(line, 0) >= 0 {
		return nil, errBadLine
	}
	return line, nil
}

// pending reports whether a complete line is buffered.
func (r *lineReader) pending() bool {
	return bytes.IndexByte(r.buffered(), '\n') >= 0
}

// buffered returns the input that next has not returned yet. It is valid until
// the next call of next.
func (r *lineReader) buffered() []byte { return r.buf[r.start:r.end] }

// hasRoom reports whether fill may be called before next needs it: no line is
// complete, and the current buffer is not full.
func (r *lineReader) hasRoom() bool {
	return r.start == r.end || r.end < len(r.buf) && !r.pending()
}

// fill reads once from src. It first returns a big buffer that is empty to the
// pool, because the read may wait long.
func (r *lineReader) fill() error {
	switch {
	case r.start == r.end:
		r.release()
	case r.end == len(r.buf) && r.big == nil:
		r.grow()
	case r.end == len(r.buf):
		r.end = copy(r.buf, r.buf[r.start:r.end])
		r.start = 0
	}
	n, err := r.src.Read(r.buf[r.end:])
	r.end += n
	r.total += int64(n)
	if n > 0 {
		return nil // the next Read returns the error again
	}
	return err
}

func (r *lineReader) grow() {
	r.big = lineBuffers.take()
	r.end = copy(*r.big, r.buf[r.start:r.end])
	r.start = 0
	r.buf = *r.big
}

// release discards what is buffered and returns the big buffer to the pool.
func (r *lineReader) release() {
	if r.big != nil {
		clear((*r.big)[:r.end]) // it may have held a password
		lineBuffers.give(r.big)
		r.big = nil
	}
	r.buf, r.start, r.end = r.small[:], 0, 0
}

// takeBuffered returns a copy of what is buffered and discards it.
func (r *lineReader) takeBuffered() []byte {
	rest := bytes.Clone(r.buf[r.start:r.end])
	r.release()
	return rest
}

// bufferPool is a pool of buffers of one length.
type bufferPool struct{ pool sync.Pool }

func newBufferPool(octets int) *bufferPool {
	return &bufferPool{sync.Pool{New: func() any {
		b := make([]byte, octets)
		return &b
	}}}
}

func (p *bufferPool) take() *[]byte  { return p.pool.Get().(*[]byte) }
func (p *bufferPool) give(b *[]byte) { p.pool.Put(b) }
