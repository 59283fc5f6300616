package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
)

const (
	// maxLine limits, in octets, a response line that is kept in memory,
	// including its literals (requirement I-CONN-3).
	maxLine = 64 << 10

	// maxDepth limits the nesting of parentheses.
	maxDepth = 32

	// maxAlerts limits the number of alerts that are kept.
	maxAlerts = 8

	// bufferSize is the size, in octets, of the buffer that all data pass
	// through.
	bufferSize = 64 << 10

	// writeTimeout limits how long sending a command may take.
	writeTimeout = 30 * time.Second
)

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

// ErrTimeout is the cause of a loss because the upstream made no progress.
var ErrTimeout = errors.New("imap: upstream made no progress")

// errLate is the cause of a loss because the time for an answer was up.
var errLate = errors.New("imap: upstream did not answer in time")

// reader is the buffered socket. It takes the buffer from a pool when there is
// something to read, and release returns it.
type reader struct {
	budget
	conn     net.Conn
	tap      Tap // nil: none
	buf      *[bufferSize]byte
	r, w     int
	progress time.Duration // longest wait for the next octet, 0: no limit
	limit    time.Duration // replaces progress while it is not 0
	until    time.Time     // end of all waiting, zero: none; see Until and Flow
	flow     bool          // until does not concern the data of a body
	inData   bool          // what is read are such data
}

// fill reads more octets into an empty buffer. Only here is the upstream timed:
// it is not to blame while the consumer of a body is slow.
func (b *reader) fill() error {
	if b.buf == nil {
		b.buf = buffers.Get().(*[bufferSize]byte)
	}
	var deadline time.Time
	patience := b.progress
	if b.limit > 0 {
		patience = b.limit
	}
	if patience > 0 {
		deadline = time.Now().Add(patience)
	}
	inAll := !b.until.IsZero() && !(b.flow && b.inData) && (deadline.IsZero() || b.until.Before(deadline))
	if inAll {
		deadline = b.until
	}
	b.conn.SetReadDeadline(deadline) // if this fails, so does Read
	n, err := b.conn.Read(b.buf[:])
	for empty := 0; n == 0 && err == nil && empty < 100; empty++ {
		n, err = b.conn.Read(b.buf[:])
	}
	b.r, b.w = 0, n
	if n > 0 {
		if b.tap != nil {
			b.tap.Received(b.buf[:n])
		}
		if b.read += int64(n); b.read > b.most {
			return flood("more than %d octets that were not requested", maxUnasked)
		}
		return nil
	}
	switch {
	case err == nil:
		return io.ErrNoProgress
	case err == io.EOF:
		return io.ErrUnexpectedEOF
	case errors.Is(err, os.ErrDeadlineExceeded) && inAll:
		return errLate
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w for %v", ErrTimeout, patience)
	}
	return err
}

// release returns the buffer to the pool if nothing is left in it.
func (b *reader) release() {
	if b.buf != nil && b.r == b.w {
		buffers.Put(b.buf)
		b.buf, b.r, b.w = nil, 0, 0
	}
}

// drop discards what is buffered.
func (b *reader) drop() {
	b.r, b.w = 0, 0
	b.release()
}

func (b *reader) peek() (byte, error) {
	if b.r == b.w {
		if err := b.fill(); err != nil {
			return 0, err
		}
	}
	return b.buf[b.r], nil
}

func (b *reader) next() (byte, error) {
	if b.r == b.w {
		if err := b.fill(); err != nil {
			return 0, err
		}
	}
	c := b.buf[b.r]
	b.r++
	return c, nil
}

// expect consumes c.
func (b *reader) expect(c byte) error {
	got, err := b.next()
	if err != nil {
		return err
	}
	if got != c {
		return violation("%q instead of %q", got, c)
	}
	return nil
}

// endLine consumes the end of a line. It tolerates spaces in front of it, and a
// bare LF.
func (b *reader) endLine() error {
	for {
		c, err := b.next()
		if err != nil {
			return err
		}
		switch c {
		case ' ':
		case '\n':
			return nil
		case '\r':
			return b.expect('\n')
		default:
			return violation("%q instead of the line end", c)
		}
	}
}

// decimal reads a decimal number that fits the given number of bits, 1 to 64. A
// larger one is an error, with name in its text.
func (b *reader) decimal(name string, bits int) (uint64, error) {
	limit := uint64(1)<<bits - 1
	var n uint64
	for digits := 0; ; digits++ {
		if b.r == b.w { // peek, which costs a call for each digit
			if err := b.fill(); err != nil {
				return 0, err
			}
		}
		c := b.buf[b.r]
		if c < '0' || c > '9' {
			if digits == 0 {
				return 0, violation("%q instead of a %s", c, name)
			}
			return n, nil
		}
		d := uint64(c - '0')
		if n > (limit-d)/10 {
			return 0, violation("%s above %d bits", name, bits)
		}
		n = n*10 + d
		b.r++
	}
}

// number reads a number of octets.
func (b *reader) number() (int64, error) {
	n, err := b.decimal("number", 63)
	return int64(n), err
}

// uid reads a UID. RFC 3501 §2.3.1.1 gives it 32 bits; some servers use more. One
// above 64 bits would name another message if it were cut.
func (b *reader) uid() (uint64, error) { return b.decimal("UID", 64) }

// number64 reads a number of up to 64 bits.
func (b *reader) number64() (uint64, error) { return b.decimal("number", 64) }

// word appends to dst, in upper case, the octets up to the next space,
// parenthesis, bracket, quote, brace or line end, which it does not read.
func (b *reader) word(dst []byte) ([]byte, error) {
	for {
		if b.r == b.w { // as in decimal
			if err := b.fill(); err != nil {
				return dst, err
			}
		}
		c := b.buf[b.r]
		switch c {
		case ' ', '(', ')', '[', ']', '"', '{', '\r', '\n':
			return dst, nil
		}
		if len(dst) >= 256 {
			return dst, violation("a word of more than 256 octets")
		}
		if 'a' <= c && c <= 'z' {
			c -= 'a' - 'A'
		}
		dst = append(dst, c)
		b.r++
	}
}

// literal reads the length of a literal, from its brace to the line end. Its
// octets follow.
func (b *reader) literal() (int64, error) {
	if err := b.expect('{'); err != nil {
		return 0, err
	}
	n, err := b.number()
	if err != nil {
		return 0, err
	}
	if c, err := b.peek(); err == nil && c == '+' {
		b.r++
	}
	if err := b.expect('}'); err != nil {
		return 0, err
	}
	c, err := b.next()
	if err == nil && c == '\r' {
		c, err = b.next()
	}
	if err == nil && c != '\n' {
		err = violation("%q after the length of a literal", c)
	}
	return n, err
}

// quoted appends to dst the content of a quoted string.
func (b *reader) quoted(dst []byte) ([]byte, error) {
	if err := b.expect('"'); err != nil {
		return dst, err
	}
	for {
		c, err := b.next()
		if err != nil {
			return dst, err
		}
		switch c {
		case '"':
			return dst, nil
		case '\r', '\n':
			return dst, violation("line end in a quoted string")
		case '\\':
			if c, err = b.next(); err != nil {
				return dst, err
			}
		}
		if len(dst) >= maxLine {
			return dst, violation("quoted string above %d octets", maxLine)
		}
		dst = append(dst, c)
	}
}

// discard skips n octets.
func (b *reader) discard(n int64) error {
	for n > 0 {
		if b.r == b.w {
			if err := b.fill(); err != nil {
				return err
			}
		}
		k := min(n, int64(b.w-b.r))
		b.r += int(k)
		n -= k
	}
	return nil
}

// skipValue skips one value of any kind: number, atom, string, literal, or a list
// of these.
func (b *reader) skipValue() error {
	depth := 0
	for {
		c, err := b.peek()
		if err != nil {
			return err
		}
		switch c {
		case '(':
			b.r++
			if depth++; depth > maxDepth {
				return violation("lists nested above %d", maxDepth)
			}
		case ')':
			if depth == 0 {
				return nil // an empty value: the caller's list ends here
			}
			b.r++
			depth--
		case '"':
			if err := b.skipQuoted(); err != nil {
				return err
			}
		case '{':
			n, err := b.literal()
			if err != nil {
				return err
			}
			if err := b.discard(n); err != nil {
				return err
			}
		case ' ':
			b.r++
			continue
		case '\r', '\n':
			return violation("line end within a list")
		default:
			if err := b.skipAtom(); err != nil {
				return err
			}
		}
		if depth == 0 {
			return nil
		}
	}
}

func (b *reader) skipQuoted() error {
	b.r++
	for {
		c, err := b.next()
		if err == nil && c == '\\' {
			_, err = b.next()
			c = 0
		}
		switch {
		case err != nil:
			return err
		case c == '"':
			return nil
		case c == '\r' || c == '\n':
			return violation("line end in a quoted string")
		}
	}
}

func (b *reader) skipAtom() error {
	for {
		c, err := b.peek()
		if err != nil {
			return err
		}
		switch c {
		case ' ', '(', ')', '\r', '\n':
			return nil
		}
		b.r++
	}
}

// line appends to dst the rest of the line without its end. If literals is set, a
// literal announced at the end of the line belongs to it, and so does the line
// after the literal. A status response ends in free text, where "{5}" has no
// meaning.
func (b *reader) line(dst []byte, literals bool) ([]byte, error) {
	start := len(dst)
	for {
		c, err := b.next()
		if err != nil {
			return dst, err
		}
		if c != '\n' {
			if len(dst)-start >= maxLine {
				return dst, violation("line above %d octets", maxLine)
			}
			dst = append(dst, c)
			continue
		}
		if n := len(dst); n > start && dst[n-1] == '\r' {
			dst = dst[:n-1]
		}
		n, ok := trailingLiteral(dst[start:])
		if !literals || !ok {
			return dst, nil
		}
		if int64(len(dst)-start)+n > maxLine {
			return dst, violation("line with a literal of %d octets", n)
		}
		dst = append(dst, '\r', '\n')
		for ; n > 0; n-- {
			c, err := b.next()
			if err != nil {
				return dst, err
			}
			dst = append(dst, c)
		}
	}
}

// trailingLiteral returns the length of the literal announced at the end of a
// line.
func trailingLiteral(line []byte) (int64, bool) {
	i := len(line) - 1
	if i < 2 || line[i] != '}' {
		return 0, false
	}
	if i--; line[i] == '+' {
		i--
	}
	var n, scale int64 = 0, 1
	for ; i >= 0 && line[i] >= '0' && line[i] <= '9'; i-- {
		if scale > maxLine {
			return maxLine + 1, true
		}
		n += int64(line[i]-'0') * scale
		scale *= 10
	}
	return n, i >= 0 && line[i] == '{' && scale > 1
}
