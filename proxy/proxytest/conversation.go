package proxytest

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"
)

// Patience bounds each wait of a Conversation for the other end, unless its
// Timeout says otherwise. It is far more than a gateway under test needs.
const Patience = time.Minute

// ErrRefused is what an error wraps that comes from a reply other than +OK.
// The session goes on after it.
var ErrRefused = errors.New("refused")

// Conversation is what a POP3 client and its server say. It works over any
// connection: in memory and in fake time, over TCP, under TLS. Its methods
// return errors and may be called in any goroutine, by one at a time; a Client
// is the same for a test. Every read and every write has a deadline.
type Conversation struct {
	// Conn is the connection, and Reader what has come from it. A test may
	// use both for what has no method.
	Conn   net.Conn
	Reader *bufio.Reader

	// Timeout replaces Patience, where it is not zero.
	Timeout time.Duration

	said []byte // with "C: " or "S: " in front of each line
	out  []byte // sent last
}

// NewConversation returns a Conversation over conn, which the caller closes.
func NewConversation(conn net.Conn) *Conversation {
	return &Conversation{Conn: conn, Reader: bufio.NewReader(conn)}
}

// DialConversation connects to a server by TCP.
func DialConversation(addr string) (*Conversation, error) {
	conn, err := net.DialTimeout("tcp", addr, Patience)
	if err != nil {
		return nil, err
	}
	return NewConversation(conn), nil
}

// How much of what is said String returns.
const (
	saidLine  = 200      // octets of one line
	saidTotal = 32 << 10 // octets; the oldest half goes when there are more
)

// String returns what has been said, a line each with its direction. Long
// lines are cut, and a long conversation lacks its beginning.
func (c *Conversation) String() string { return string(c.said) }

func (c *Conversation) note(direction string, text []byte) {
	if len(c.said) > saidTotal {
		half := c.said[len(c.said)-saidTotal/2:]
		half = half[bytes.IndexByte(half, '\n')+1:]
		c.said = append(append(c.said[:0], "...\n"...), half...)
	}
	if c.said == nil {
		c.said = make([]byte, 0, 512)
	}
	c.said = append(c.said, direction...)
	short := text[:min(len(text), saidLine)]
	if bytes.ContainsFunc(short, func(r rune) bool { return r < ' ' || r > '~' }) {
		c.said = strconv.AppendQuote(c.said, string(short))
	} else {
		c.said = append(c.said, short...)
	}
	if len(text) > len(short) {
		c.said = append(c.said, "... ("...)
		c.said = strconv.AppendInt(c.said, int64(len(text)), 10)
		c.said = append(c.said, " octets)"...)
	}
	c.said = append(c.said, '\n')
}

// failed records why the conversation does not go on.
func (c *Conversation) failed(err error) error {
	c.note("   ", fmt.Appendf(nil, "(%v)", err))
	return err
}

func (c *Conversation) deadline() time.Time {
	if c.Timeout != 0 {
		return time.Now().Add(c.Timeout)
	}
	return time.Now().Add(Patience)
}

// Write sends data as it is, in one write.
func (c *Conversation) Write(data string) error {
	c.out = append(c.out[:0], data...)
	return c.send()
}

// Send sends lines, each with CRLF, in one write.
func (c *Conversation) Send(lines ...string) error {
	c.out = c.out[:0]
	for _, line := range lines {
		c.out = append(append(c.out, line...), "\r\n"...)
	}
	return c.send()
}

func (c *Conversation) send() error {
	for rest := c.out; len(rest) > 0; {
		var line []byte
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		c.note("C: ", line)
	}
	if err := c.Conn.SetWriteDeadline(c.deadline()); err != nil {
		return c.failed(err)
	}
	if _, err := c.Conn.Write(c.out); err != nil {
		return c.failed(err)
	}
	return nil
}

// slice reads a line with its end; it is valid until the next read. A line
// longer than the buffer of c.Reader is returned in pieces, of which only the
// last ends in LF.
func (c *Conversation) slice() ([]byte, error) {
	here, err := c.Reader.Peek(c.Reader.Buffered())
	if err == nil && bytes.IndexByte(here, '\n') < 0 {
		err = c.Conn.SetReadDeadline(c.deadline())
	}
	if err != nil {
		return nil, err
	}
	line, err := c.Reader.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		err = nil
	}
	return line, err
}

// whole reads a line with its end.
func (c *Conversation) whole() ([]byte, error) {
	line, err := c.slice()
	if err != nil || bytes.HasSuffix(line, []byte("\n")) {
		return line, err
	}
	all := bytes.Clone(line)
	for !bytes.HasSuffix(all, []byte("\n")) {
		if line, err = c.slice(); err != nil {
			return append(all, line...), err
		}
		all = append(all, line...)
	}
	return all, nil
}

// line is Line; what it returns is valid until the next read.
func (c *Conversation) line() ([]byte, error) {
	line, err := c.whole()
	text, ended := bytes.CutSuffix(line, []byte("\r\n"))
	if err == nil || len(line) > 0 {
		c.note("S: ", text)
	}
	if err == nil && !ended {
		err = fmt.Errorf("line without CRLF: %q", line)
	}
	if err != nil {
		return text, c.failed(err)
	}
	return text, nil
}

// Line reads a line and returns it without its CRLF. A line that ends in LF
// alone is an error.
func (c *Conversation) Line() (string, error) {
	line, err := c.line()
	return string(line), err
}

// reply is Reply; what it returns is valid until the next read.
func (c *Conversation) reply(command string) ([]byte, error) {
	line, err := c.line()
	if err != nil {
		return line, fmt.Errorf("%s: %w", command, err)
	}
	if !bytes.Equal(line, []byte("+OK")) && !bytes.HasPrefix(line, []byte("+OK ")) {
		return line, fmt.Errorf("%s: %s: %w", command, line, ErrRefused)
	}
	return line, nil
}

// Reply reads the status line of command, which only errors show. Any but
// +OK is ErrRefused.
func (c *Conversation) Reply(command string) (string, error) {
	line, err := c.reply(command)
	return string(line), err
}

// Greeting reads the first line of a session.
func (c *Conversation) Greeting() error {
	_, err := c.reply("greeting")
	return err
}

// Do sends a command and returns its status line. Any but +OK is ErrRefused.
func (c *Conversation) Do(command string) (string, error) {
	if err := c.Send(command); err != nil {
		return "", fmt.Errorf("%s: %w", command, err)
	}
	return c.Reply(command)
}

// OK sends commands one after the other, each of which must be answered +OK. It
// allocates nothing.
func (c *Conversation) OK(commands ...string) error {
	for _, command := range commands {
		if err := c.Send(command); err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		if _, err := c.reply(command); err != nil {
			return err
		}
	}
	return nil
}

// Login reads the greeting and logs in by USER and PASS.
func (c *Conversation) Login(user, password string) error {
	if err := c.Greeting(); err != nil {
		return err
	}
	return c.OK("USER "+user, "PASS "+password)
}

// Body reads the rest of a multi-line reply to the final dot and returns it
// without byte-stuffing, to the octet (RFC 1939 §3).
func (c *Conversation) Body() ([]byte, error) {
	body := []byte{}
	err := c.eachLine(func(line []byte, begins bool) {
		if begins && line[0] == '.' {
			line = line[1:]
		}
		body = append(body, line...)
	})
	return body, err
}

// Discard is Body for one whose octets do not matter; it allocates nothing.
func (c *Conversation) Discard() error {
	return c.eachLine(func([]byte, bool) {})
}

// eachLine reads to the final dot and passes each line, or the pieces of a
// long one, with its line end. begins: it is the beginning of a line.
func (c *Conversation) eachLine(f func(line []byte, begins bool)) error {
	octets, begins := 0, true
	for {
		line, err := c.slice()
		if err != nil {
			c.noteOctets(octets + len(line))
			return c.failed(err)
		}
		if begins && string(line) == ".\r\n" {
			c.noteOctets(octets)
			c.note("S: ", []byte("."))
			return nil
		}
		octets += len(line)
		f(line, begins)
		begins = line[len(line)-1] == '\n'
	}
}

// noteOctets records octets of a multi-line reply without repeating them.
func (c *Conversation) noteOctets(n int) {
	c.said = append(c.said, "S: ("...)
	c.said = strconv.AppendInt(c.said, int64(n), 10)
	c.said = append(c.said, " octets)\n"...)
}

// Fetch sends a command and returns its multi-line reply.
func (c *Conversation) Fetch(command string) ([]byte, error) {
	if _, err := c.Do(command); err != nil {
		return nil, err
	}
	return c.Body()
}

// Use goes on over conn, as after STLS. What has come before and is not read
// is lost.
func (c *Conversation) Use(conn net.Conn) {
	c.note("   ", []byte("(another connection)"))
	c.Conn = conn
	c.Reader.Reset(conn)
}
