package proxy

import (
	"encoding/base64"
	"io"
)

const (
	statusLimit = 512 // octets of a status line with CRLF (RFC 1939 §3)

	plainBuffer = 64 << 10
	tlsBuffer   = 16 << 10 // the maximum of one TLS record
)

// The buffers of replies. A session borrows one from the first octet of a reply
// until the flush, so a waiting session has none.
var (
	plainBuffers = newBufferPool(plainBuffer)
	tlsBuffers   = newBufferPool(tlsBuffer)
)

const terminator = ".\r\n"

// replyWriter collects replies and writes them in large pieces. It never splits
// a status line, nor the end of a multi-line reply with the CRLF before it: some
// clients look for CRLF.CRLF only at the end of what a single read returns.
// After the first error of dst, which is kept, nothing more is written.
type replyWriter struct {
	dst   io.Writer
	pool  *bufferPool
	lent  *[]byte // borrowed from pool, or nil
	buf   []byte
	begin int    // buf[begin:] is the reply of the last status line; -1: some of it has left buf
	body  int    // buf[body:] belongs to the multi-line reply being written
	last  string // status indicator of the last reply
	err   error
	total int64 // octets accepted by dst
}

// setDst sets the destination. Nothing may be buffered.
func (w *replyWriter) setDst(dst io.Writer, pool *bufferPool) {
	w.dst, w.pool = dst, pool
}

// ok adds a positive status line.
func (w *replyWriter) ok(text string) {
	w.reserve(statusLimit + len(terminator))
	w.last = "+OK"
	w.begin = len(w.buf)
	w.buf = appendStatus(w.buf, w.last, CodeNone, text)
	w.body = len(w.buf)
}

// fail adds the negative status line of e.
func (w *replyWriter) fail(e *Error) {
	w.reserve(statusLimit)
	w.last = "-ERR"
	w.begin = len(w.buf)
	w.buf = appendStatus(w.buf, w.last, e.Code, e.Text)
	w.body = len(w.buf)
}

// retract removes the last reply, as far as it has been written, if nothing of it
// has left the buffer. It reports whether it has.
func (w *replyWriter) retract() bool {
	if w.err != nil || w.lent == nil || w.begin < 0 {
		return false
	}
	w.last = "none"
	w.buf = w.buf[:w.begin]
	w.body = w.begin
	return true
}

// challenge adds a SASL challenge of any length (RFC 5034 §4).
func (w *replyWriter) challenge(data string) {
	line := append([]byte("+ "), make([]byte, base64.StdEncoding.EncodedLen(len(data)))...)
	base64.StdEncoding.Encode(line[2:], []byte(data))
	w.reserve(min(len(line)+2, statusLimit))
	w.body = len(w.buf)
	_, _ = w.Write(append(line, "\r\n"...)) // kept in w.err
	w.body = len(w.buf)
}

// Write adds octets of a multi-line reply unchanged.
func (w *replyWriter) Write(p []byte) (int, error) {
	w.borrow()
	for done := 0; done < len(p); {
		if len(w.buf) == cap(w.buf) {
			w.spill()
		}
		if w.err != nil {
			return done, w.err
		}
		n := copy(w.buf[len(w.buf):cap(w.buf)], p[done:])
		w.buf = w.buf[:len(w.buf)+n]
		done += n
	}
	return len(p), w.err
}

// writeByte is Write for one octet.
func (w *replyWriter) writeByte(c byte) {
	w.room(1)
	w.buf = append(w.buf, c)
}

// line adds one line of a multi-line reply. It must not begin with a dot.
func (w *replyWriter) line(s string) {
	w.room(len(s) + 2)
	w.buf = append(w.buf, s...)
	w.buf = append(w.buf, "\r\n"...)
}

// end adds the final line of a multi-line reply.
func (w *replyWriter) end() {
	w.room(len(terminator))
	w.buf = append(w.buf, terminator...)
	w.body = len(w.buf)
}

// flush writes what is buffered and returns the buffer to the pool.
func (w *replyWriter) flush() error {
	if w.lent == nil {
		return w.err
	}
	w.send(w.buf)
	w.pool.give(w.lent)
	w.lent, w.buf, w.begin, w.body = nil, nil, -1, 0
	return w.err
}

// borrow borrows a buffer, if there is none.
func (w *replyWriter) borrow() {
	if w.lent == nil {
		w.lent = w.pool.take()
		w.buf, w.begin, w.body = (*w.lent)[:0], -1, 0
	}
}

// reserve makes room for the first n octets of a reply.
func (w *replyWriter) reserve(n int) {
	if w.lent != nil && cap(w.buf)-len(w.buf) < n {
		_ = w.flush() // kept in w.err
	}
	w.borrow()
}

// room makes room for n more octets of a multi-line reply; n is small.
func (w *replyWriter) room(n int) {
	w.borrow()
	if cap(w.buf)-len(w.buf) < n {
		w.spill()
	}
}

// spill writes what is buffered of a multi-line reply, except a line end at the
// end: it may turn out to be the one before the final dot.
func (w *replyWriter) spill() {
	n := len(w.buf)
	switch body := w.buf[w.body:]; {
	case len(body) >= 2 && body[len(body)-2] == '\r' && body[len(body)-1] == '\n':
		n -= 2
	case len(body) >= 1 && body[len(body)-1] == '\r':
		n--
	}
	w.send(w.buf[:n])
	rest := copy(w.buf, w.buf[n:])
	w.buf, w.begin, w.body = w.buf[:rest], -1, 0
}

func (w *replyWriter) send(p []byte) {
	if w.err != nil || len(p) == 0 {
		return
	}
	n, err := w.dst.Write(p)
	w.total += int64(n)
	w.err = err
}

// appendStatus appends a status line: at most statusLimit octets of printable
// ASCII, in which only a response code contains "[" (RFC 2449 §3).
func appendStatus(b []byte, indicator string, code Code, text string) []byte {
	limit := len(b) + statusLimit - len("\r\n")
	b = append(b, indicator...)
	if code != CodeNone {
		b = append(b, " ["...)
		b = append(b, code...)
		b = append(b, ']')
	}
	if text != "" {
		b = append(b, ' ')
	}
	for i := 0; i < len(text) && len(b) < limit; i++ {
		c := text[i]
		if c < ' ' || c > '~' || c == '[' {
			c = '?'
		}
		b = append(b, c)
	}
	return append(b, "\r\n"...)
}
