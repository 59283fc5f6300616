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

// Compress compresses the stream with DEFLATE in both directions (RFC 4978). It
// must be called right after the upstream's OK to COMPRESS: all that follows is
// compressed, including what has already been received.
//
// It takes about 45 KiB of memory until the connection ends, most of it the window
// of 32 KiB to which compressed data may refer back. Sending keeps no state: each
// command is compressed by itself.
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

// deflated is a connection with DEFLATE. Read decompresses no more than is
// requested: what a few octets decompress to reaches the limits of the stream
// above before it takes memory.
type deflated struct {
	net.Conn
	in io.Reader
}

// newDeflated returns the compressed connection over conn, from which ahead has
// already been read.
func newDeflated(conn net.Conn, ahead []byte) *deflated {
	compressed := bufio.NewReaderSize(io.MultiReader(bytes.NewReader(ahead), conn), deflateBuffer)
	// Some servers flush without the empty stored block that ends at an octet
	// boundary (RFC 1951 §3.2.4): data are due when their block ends.
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

// Write implements net.Conn. It flushes all of p.
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
