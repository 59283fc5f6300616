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

// Patience is the default timeout of each read and write of a Conversation. It is
// far more than a gateway under test needs.
const Patience = time.Minute

// ErrRefused is wrapped by the error of a reply other than +OK. The session
// continues after it.
var ErrRefused = errors.New("refused")

// Conversation is the client's end of a POP3 session, which records what is
// said. It works over any connection: in memory and in fake time, over TCP, under
// TLS. Its methods return errors; those of Client fail a test instead. One
// goroutine at a time may use it. Every read and write has a deadline.
type Conversation struct {
	// Conn is the connection and Reader its input. A test may use both for
	// what no method does.
	Conn   net.Conn
	Reader *bufio.Reader

	// Timeout replaces Patience, if it is not zero.
	Timeout time.Duration

	said []byte // with "C: " or "S: " in front of each line
	out  []byte // what was sent last
}

// NewConversation returns a Conversation over conn, which the caller closes.
func NewConversation(conn net.Conn) *Conversation {
	c := &Conversation{Conn: conn}
	c.Buffer(4 << 10)
	return c
}

// Buffer replaces Reader by one with a buffer of n octets, before the first read.
func (c *Conversation) Buffer(n int) { c.Reader = bufio.NewReaderSize(input{c}, n) }

// input reads from the connection of a Conversation, under its deadline.
type input struct{ c *Conversation }

func (in input) Read(p []byte) (int, error) {
	if err := in.c.Conn.SetReadDeadline(in.c.deadline()); err != nil {
		return 0, err
	}
	return in.c.Conn.Read(p)
}

// DialConversation connects to a server by TCP.
func DialConversation(addr string) (*Conversation, error) {
	conn, err := net.DialTimeout("tcp", addr, Patience)
	if err != nil {
		return nil, err
	}
	return NewConversation(conn), nil
}

// Limits of what String returns, in octets.
const (
	saidLine  = 200      // of one line
	saidTotal = 32 << 10 // in total; the older half is dropped if there are more
)

// String returns the conversation, each line with its direction. Long lines are
// cut, and a long conversation lacks its beginning.
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

// failed records an error, and returns it.
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

// Write sends data unchanged, in one write.
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

// slice reads a line and returns it with its line end, valid until the next read.
// A line longer than the buffer of c.Reader is returned in pieces, of which only
// the last ends in LF.
func (c *Conversation) slice() ([]byte, error) {
	line, err := c.Reader.ReadSlice('\n')
	if err == bufio.ErrBufferFull { // not wrapped, and errors.Is is slow here
		err = nil
	}
	return line, err
}

// whole reads a line of any length and returns it with its line end.
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

// line is Line, but its result is valid until the next read only.
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

// reply is Reply, but its result is valid until the next read only.
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

// Reply reads a status line. An error names command, and wraps ErrRefused if the
// reply is not +OK.
func (c *Conversation) Reply(command string) (string, error) {
	line, err := c.reply(command)
	return string(line), err
}

// Greeting reads the first line of a session.
func (c *Conversation) Greeting() error {
	_, err := c.reply("greeting")
	return err
}

// Do sends a command and returns its status line. Errors are those of Reply.
func (c *Conversation) Do(command string) (string, error) {
	if err := c.Send(command); err != nil {
		return "", fmt.Errorf("%s: %w", command, err)
	}
	return c.Reply(command)
}

// OK sends commands one at a time, each of which must be answered +OK. It
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

// Body reads the rest of a multi-line reply and returns it without the final line
// and without byte-stuffing, otherwise unchanged (RFC 1939 §3).
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

// Discard reads the rest of a multi-line reply. It allocates nothing.
func (c *Conversation) Discard() error {
	return c.eachLine(func([]byte, bool) {})
}

// eachLine reads up to the final line and calls f for each line, or for each
// piece of a long one, with its line end. begins says whether a line begins.
func (c *Conversation) eachLine(f func(line []byte, begins bool)) error {
	octets, begins := 0, true
	for {
		line, err := c.slice()
		if err != nil {
			c.noteOctets(octets + len(line))
			return c.failed(err)
		}
		if begins && line[0] == '.' && string(line) == ".\r\n" {
			c.noteOctets(octets)
			c.note("S: ", []byte("."))
			return nil
		}
		octets += len(line)
		f(line, begins)
		begins = line[len(line)-1] == '\n'
	}
}

// noteOctets records the number of octets of a multi-line reply.
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

// Use continues over conn, as after STLS. What is left in Reader is discarded.
func (c *Conversation) Use(conn net.Conn) {
	c.note("   ", []byte("(another connection)"))
	c.Conn = conn
	c.Reader.Reset(input{c})
}
