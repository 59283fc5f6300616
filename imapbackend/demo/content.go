package demo

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
)

// content is the octets of a message, in memory or in a file. They never change.
type content interface {
	octets() int64 // how many
	text() int64   // where the text begins

	// open returns a reader of at most n octets from the octet from on.
	open(from, n int64) io.Reader
}

// inMemory is a message in memory.
type inMemory []byte

func (b inMemory) octets() int64 { return int64(len(b)) }
func (b inMemory) text() int64   { return int64(textStart(b)) }
func (b inMemory) open(from, n int64) io.Reader {
	return bytes.NewReader(b[from:min(from+n, int64(len(b)))])
}

// read returns n octets of c from the octet from on.
func read(c content, from, n int64) ([]byte, error) {
	if b, ok := c.(inMemory); ok {
		return b[from : from+n], nil
	}
	return io.ReadAll(c.open(from, n))
}

// inFile is a message in a file, with the line ends of the machine. It is converted
// while it is read, so that no message is ever whole in memory.
type inFile struct {
	span
	mbox *os.File // with other messages; nil: the message has a file of its own
	path string   // of that file
}

func (f *inFile) octets() int64 { return f.size }
func (f *inFile) text() int64   { return f.header }

func (f *inFile) open(from, n int64) io.Reader {
	return &fileReader{message: f, skip: from, left: n}
}

// fileReader reads an inFile. It opens the file when it is first used, and closes
// it when nothing is left.
type fileReader struct {
	message *inFile
	skip    int64 // octets still to be left out
	left    int64 // octets still to be read after them
	own     *os.File
	in      *pieces
	buf     []byte // the last piece, converted
	ready   []byte // what is left of it
}

func (r *fileReader) Read(p []byte) (int, error) {
	if r.left <= 0 {
		return 0, io.EOF
	}
	if r.in == nil {
		source := r.message.mbox
		if source == nil {
			var err error
			if r.own, err = os.Open(r.message.path); err != nil {
				return 0, err
			}
			source = r.own
		}
		r.in = newPieces(io.NewSectionReader(source, r.message.start, r.message.end-r.message.start))
	}
	for len(r.ready) == 0 {
		piece, first, err := r.in.next()
		r.buf = convert(r.buf[:0], piece, first && r.message.mbox != nil)
		skipped := min(r.skip, int64(len(r.buf)))
		r.ready, r.skip = r.buf[skipped:], r.skip-skipped
		if len(r.ready) == 0 && err != nil {
			r.end()
			return 0, err
		}
	}
	n := copy(p, r.ready[:min(int64(len(r.ready)), r.left)])
	r.ready = r.ready[n:]
	if r.left -= int64(n); r.left == 0 {
		r.end()
	}
	return n, nil
}

// end closes the file, if it is the reader's own.
func (r *fileReader) end() {
	r.left = 0
	if r.own != nil {
		_ = r.own.Close() // it was only read
	}
}

// span is a message in a file: where it is, and how long it becomes.
type span struct {
	start, end   int64 // in the file
	size, header int64 // in the form that IMAP gives
	headerEnded  bool
	blank        int64 // octets in the file of the last line, if it is empty and belongs to the text
}

// add adds a piece of a line to the span; quoted is as in convert.
func (s *span) add(piece []byte, first, quoted bool) {
	s.end += int64(len(piece))
	s.size += converted(piece, first && quoted)
	s.blank = 0
	switch {
	case !first || !isBlank(piece):
	case s.headerEnded:
		s.blank = int64(len(piece))
	default:
		s.headerEnded, s.header = true, s.size
	}
}

// finish ends the span. In an mbox an empty line ends a message and is not part of
// it, except where it also ends the header.
func (s *span) finish(mbox bool) {
	if mbox && s.blank > 0 {
		s.end -= s.blank
		s.size -= int64(len("\r\n"))
	}
	if !s.headerEnded {
		s.header = s.size
	}
}

// pieceLimit is the most octets of a line that are in memory at a time.
const pieceLimit = 64 << 10

// pieces reads lines of any length, in pieces of at most pieceLimit octets.
type pieces struct {
	in  *bufio.Reader
	mid bool // the last piece was not the end of its line
}

func newPieces(r io.Reader) *pieces { return &pieces{in: bufio.NewReaderSize(r, pieceLimit)} }

// next returns the next piece, which is valid until the call after, and whether it
// begins a line. CR and LF are never in two pieces. An error may come with a piece.
func (p *pieces) next() (piece []byte, first bool, err error) {
	first = !p.mid
	piece, err = p.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		err = nil
		if piece[len(piece)-1] == '\r' {
			piece = piece[:len(piece)-1]
			_ = p.in.UnreadByte() // cannot fail after a read
		}
	}
	p.mid = err == nil && !bytes.HasSuffix(piece, []byte("\n"))
	return piece, first, err
}

// isQuoted reports whether the line of an mbox that begins with piece is quoted.
func isQuoted(piece []byte) bool {
	return len(piece) > 0 && piece[0] == '>' && bytes.HasPrefix(bytes.TrimLeft(piece, ">"), []byte("From "))
}

// converted returns how many octets convert makes of piece.
func converted(piece []byte, quoted bool) int64 {
	n := int64(len(piece))
	if quoted && isQuoted(piece) {
		n--
	}
	if bytes.HasSuffix(piece, []byte("\n")) && !bytes.HasSuffix(piece, []byte("\r\n")) {
		n++
	}
	return n
}

// convert appends piece to dst in the form that IMAP gives: with CRLF as line end
// and, if it begins a line of an mbox, without its quoting.
func convert(dst, piece []byte, quoted bool) []byte {
	if quoted && isQuoted(piece) {
		piece = piece[1:]
	}
	text, ended := bytes.CutSuffix(piece, []byte("\n"))
	if !ended {
		return append(dst, piece...)
	}
	text = bytes.TrimSuffix(text, []byte("\r"))
	return append(append(dst, text...), "\r\n"...)
}
