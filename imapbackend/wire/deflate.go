package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"

	"github.com/klauspost/compress/flate"
)

// deflateBuffer is how many compressed octets are read at a time.
const deflateBuffer = 4 << 10

// Compress puts DEFLATE under the stream, both ways (RFC 4978). It is called
// right behind the upstream's OK to COMPRESS: all that follows is compressed,
// and so is what has been received beyond that line.
//
// It costs some 45 KiB of memory until the connection ends, most of it the
// window of 32 KiB into which compressed data may refer back. Sending keeps no
// state: each command is compressed by itself.
func (c *Conn) Compress() {
	var ahead []byte
	if c.buf != nil {
		ahead = bytes.Clone(c.buf[c.r:c.w])
	}
	c.drop()
	conn := newDeflated(c.Conn, ahead)
	c.mu.Lock()
	c.Conn, c.reader.conn = conn, conn
	c.mu.Unlock()
}

// deflated is a connection with DEFLATE on it. Reading yields what is asked
// for and no more, so that however much a few octets unfold to meets the limits
// of the stream above before it takes memory.
type deflated struct {
	net.Conn
	in io.Reader
}

// newDeflated returns the compressed connection on conn, of which ahead has
// been read already.
func newDeflated(conn net.Conn, ahead []byte) *deflated {
	compressed := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(ahead), conn), deflateBuffer)
	// Some servers flush without the empty stored block that ends at an octet
	// (RFC 1951 §3.2.4): what a block holds is due when that block ends.
	return &deflated{conn, flate.NewReaderOpts(compressed, flate.WithPartialBlock())}
}

// Read implements net.Conn. Data that is not DEFLATE is a *ProtocolError.
func (d *deflated) Read(p []byte) (int, error) {
	n, err := d.in.Read(p)
	var corrupt flate.CorruptInputError
	var internal flate.InternalError
	if errors.As(err, &corrupt) || errors.As(err, &internal) {
		err = violation("COMPRESS: %v", err)
	}
	return n, err
}

// Write implements net.Conn: what it is given arrives whole.
func (d *deflated) Write(p []byte) (int, error) {
	var out bytes.Buffer
	if err := flate.StatelessDeflate(&out, p, false, nil); err != nil {
		return 0, err
	}
	if _, err := d.Conn.Write(out.Bytes()); err != nil {
		return 0, err
	}
	return len(p), nil
}
