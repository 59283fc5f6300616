package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// imapTimeout bounds a whole session on the upstream: seeding the largest
// mailbox takes minutes on a slow disk.
const imapTimeout = 10 * time.Minute

// imapConn is a minimal IMAP client, for seeding mailboxes and looking at them.
// It trusts the server. One goroutine at a time may use it.
type imapConn struct {
	conn net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
	tag  int
}

// loginIMAP connects, without TLS, and logs user in.
func loginIMAP(addr, user string) (*imapConn, error) {
	conn, err := net.DialTimeout("tcp", addr, 30*time.Second)
	if err != nil {
		return nil, err
	}
	c := &imapConn{conn: conn, r: bufio.NewReaderSize(conn, 256<<10), w: bufio.NewWriterSize(conn, 256<<10)}
	if err := conn.SetDeadline(time.Now().Add(imapTimeout)); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if _, err := c.r.ReadString('\n'); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if _, err := c.cmd("LOGIN %s %s", user, password); err != nil {
		return nil, errors.Join(fmt.Errorf("imap: %s: %w", user, err), conn.Close())
	}
	return c, nil
}

// logout ends the session.
func (c *imapConn) logout() error {
	_, err := c.cmd("LOGOUT")
	return errors.Join(err, c.conn.Close())
}

// begin writes the start of a command and returns its tag.
func (c *imapConn) begin(format string, args ...any) string {
	c.tag++
	tag := "a" + strconv.Itoa(c.tag)
	fmt.Fprintf(c.w, "%s "+format, append([]any{tag}, args...)...)
	return tag
}

// flush ends the line of a command and sends what is buffered.
func (c *imapConn) flush() error {
	_, err := c.w.WriteString("\r\n")
	return errors.Join(err, c.w.Flush())
}

// end sends the command and returns its untagged lines, each with the literals
// in it.
func (c *imapConn) end(tag string) ([]string, error) {
	if err := c.flush(); err != nil {
		return nil, err
	}
	var lines []string
	for {
		line, err := c.line()
		if err != nil {
			return nil, err
		}
		if rest, ok := strings.CutPrefix(line, tag+" "); ok {
			if !strings.HasPrefix(rest, "OK") {
				return nil, fmt.Errorf("imap: %s", rest)
			}
			return lines, nil
		}
		lines = append(lines, line)
	}
}

func (c *imapConn) line() (string, error) {
	var b strings.Builder
	for {
		s, err := c.r.ReadString('\n')
		if err != nil {
			return "", err
		}
		s = strings.TrimRight(s, "\r\n")
		b.WriteString(s)
		n, ok := literal(s)
		if !ok {
			return b.String(), nil
		}
		if _, err := io.CopyN(&b, c.r, n); err != nil {
			return "", err
		}
	}
}

// literal returns the octets of the literal announced at the end of a line
// (RFC 3501 §4.3).
func literal(line string) (octets int64, ok bool) {
	i := strings.LastIndexByte(line, '{')
	if i < 0 || !strings.HasSuffix(line, "}") {
		return 0, false
	}
	n, err := strconv.ParseInt(line[i+1:len(line)-1], 10, 64)
	return n, err == nil
}

// cmd runs one command without literals.
func (c *imapConn) cmd(format string, args ...any) ([]string, error) {
	return c.end(c.begin(format, args...))
}

// selectInbox opens INBOX and returns its number of messages.
func (c *imapConn) selectInbox() (int, error) {
	lines, err := c.cmd("SELECT INBOX")
	if err != nil {
		return 0, err
	}
	for _, l := range lines {
		if number, ok := strings.CutSuffix(strings.TrimPrefix(l, "* "), " EXISTS"); ok {
			return strconv.Atoi(number)
		}
	}
	return 0, errors.New("imap: SELECT without EXISTS")
}

// copyMessage reads message number n of INBOX from the socket and discards it:
// no gateway can be faster. It returns the number of octets, and the time from
// the command to the first octet and to the end.
func (c *imapConn) copyMessage(n int) (octets int64, first, took time.Duration, err error) {
	if _, err := c.selectInbox(); err != nil {
		return 0, 0, 0, err
	}
	start := time.Now()
	tag := c.begin("FETCH %d (BODY.PEEK[])", n)
	if err := c.flush(); err != nil {
		return 0, 0, 0, err
	}
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return 0, 0, 0, err
		}
		line = strings.TrimRight(line, "\r\n")
		if rest, ok := strings.CutPrefix(line, tag+" "); ok {
			if octets == 0 || !strings.HasPrefix(rest, "OK") {
				return 0, 0, 0, fmt.Errorf("imap: FETCH %d: %s", n, rest)
			}
			return octets, first, time.Since(start), nil
		}
		size, ok := literal(line)
		if !ok {
			continue
		}
		if _, err := c.r.Peek(1); err != nil {
			return 0, 0, 0, err
		}
		first = time.Since(start)
		n, err := c.r.Discard(int(size))
		if err != nil {
			return 0, 0, 0, err
		}
		octets += int64(n)
	}
}

// countMessages returns the number of messages that the upstream has for user.
func countMessages(addr, user string) (n int, err error) {
	c, err := loginIMAP(addr, user)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.logout()) }()
	return c.selectInbox()
}
