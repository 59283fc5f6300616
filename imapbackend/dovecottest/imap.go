//go:build integration

package dovecottest

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

const commandTimeout = 2 * time.Minute

// Client is a minimal IMAP client, for looking at a mailbox and changing it
// without the gateway. It shares no code, and so no mistake, with what is tested.
// It fails its test on any error; only the goroutine of that test may use it.
type Client struct {
	t    testing.TB
	conn net.Conn
	br   *bufio.Reader
	tag  int

	// manyAtOnce has Append send all messages in one command, without
	// waiting for a continuation (RFC 3502, RFC 7888).
	manyAtOnce bool
}

// Dial returns a client of any IMAP server, at the host:port addr, that has read
// the greeting and is not logged in. Its connection is closed at the end of the
// test.
func Dial(t testing.TB, addr string) *Client {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatalf("dovecottest: %v", err)
	}
	t.Cleanup(func() { conn.Close() })
	c := &Client{t: t, conn: conn, br: bufio.NewReaderSize(conn, 64<<10)}
	c.deadline()
	if line := c.response(); !strings.HasPrefix(line.Text, "* OK") {
		t.Fatalf("dovecottest: greeting %q", line.Text)
	}
	return c
}

// Login returns a client that is logged in as user. Its connection is closed
// at the end of the test.
func (s *Server) Login(user string) *Client {
	s.t.Helper()
	c := Dial(s.t, s.Addr)
	c.manyAtOnce = true
	c.Command("LOGIN %q %q", user, Password)
	return c
}

// Response is one response: its text without the final CRLF and without the
// octets of literals, which are in Literals, in order.
type Response struct {
	Text     string
	Literals [][]byte
}

func (c *Client) deadline() {
	if err := c.conn.SetDeadline(time.Now().Add(commandTimeout)); err != nil {
		c.t.Fatalf("dovecottest: %v", err)
	}
}

// response reads one response.
func (c *Client) response() Response {
	c.t.Helper()
	var r Response
	for {
		line, err := c.br.ReadString('\n')
		if err != nil {
			c.t.Fatalf("dovecottest: reading a response: %v", err)
		}
		line = strings.TrimSuffix(line, "\r\n")
		r.Text += line
		m := literalEnd.FindStringSubmatch(line)
		if m == nil {
			return r
		}
		n, err := strconv.Atoi(m[1])
		if err != nil {
			c.t.Fatalf("dovecottest: %q: %v", line, err)
		}
		literal := make([]byte, n)
		if _, err := io.ReadFull(c.br, literal); err != nil {
			c.t.Fatalf("dovecottest: literal of %d octets: %v", n, err)
		}
		r.Literals = append(r.Literals, literal)
	}
}

var literalEnd = regexp.MustCompile(`\{(\d+)\}$`)

// Command sends a command, formatted as by fmt.Sprintf, and returns the untagged
// responses to it. Anything but OK fails the test, except the NO which says that
// another client has expunged some of the messages.
func (c *Client) Command(format string, args ...any) []Response {
	c.t.Helper()
	return c.send([]byte(fmt.Sprintf(format, args...)))
}

// Try is Command for a command that may fail; ok reports whether the answer was
// OK.
func (c *Client) Try(format string, args ...any) (untagged []Response, ok bool) {
	c.t.Helper()
	untagged, status := c.exchange([]byte(fmt.Sprintf(format, args...)))
	return untagged, strings.HasPrefix(status, "OK")
}

func (c *Client) send(command []byte) []Response {
	c.t.Helper()
	untagged, status := c.exchange(command)
	if !strings.HasPrefix(status, "OK") && !strings.HasPrefix(status, "NO [EXPUNGEISSUED]") {
		c.t.Fatalf("dovecottest: %.80q: %s", command, status)
	}
	return untagged
}

// exchange sends a command and returns the untagged responses to it and the text
// of the tagged one. It sends a literal after the first continuation request.
func (c *Client) exchange(command []byte, literal ...byte) (untagged []Response, status string) {
	c.t.Helper()
	c.deadline()
	c.tag++
	tag := fmt.Sprintf("A%d ", c.tag)
	c.write([]byte(tag), command, []byte("\r\n"))
	for {
		r := c.response()
		if status, tagged := strings.CutPrefix(r.Text, tag); tagged {
			return untagged, status
		}
		if literal != nil && strings.HasPrefix(r.Text, "+") {
			c.write(literal, []byte("\r\n"))
			literal = nil
			continue
		}
		untagged = append(untagged, r)
	}
}

func (c *Client) write(parts ...[]byte) {
	c.t.Helper()
	if _, err := c.conn.Write(bytes.Join(parts, nil)); err != nil {
		c.t.Fatalf("dovecottest: %v", err)
	}
}

// Select opens a mailbox to change it.
func (c *Client) Select(mailbox string) { c.t.Helper(); c.Command("SELECT %q", mailbox) }

// Examine opens a mailbox to look at it: not even \Recent changes.
func (c *Client) Examine(mailbox string) { c.t.Helper(); c.Command("EXAMINE %q", mailbox) }

// Store changes flags, for instance Store("1,3:4", `+FLAGS (\Deleted)`).
func (c *Client) Store(uids, change string) { c.t.Helper(); c.Command("UID STORE %s %s", uids, change) }

// Expunge removes the messages flagged \Deleted.
func (c *Client) Expunge() { c.t.Helper(); c.Command("EXPUNGE") }

// Append adds messages to a mailbox.
func (c *Client) Append(mailbox string, messages ...[]byte) {
	c.t.Helper()
	if c.manyAtOnce {
		c.send(appendCommand(mailbox, messages))
		return
	}
	for _, m := range messages {
		if status := c.appendOne(mailbox, m); !strings.HasPrefix(status, "OK") {
			c.t.Fatalf("dovecottest: APPEND %q: %s", mailbox, status)
		}
	}
}

// appendOne waits for a continuation, and returns the text of the tagged response.
func (c *Client) appendOne(mailbox string, message []byte) string {
	c.t.Helper()
	_, status := c.exchange(fmt.Appendf(nil, "APPEND %q {%d}", mailbox, len(message)), message...)
	return status
}

// TryAppend is Append for messages that may be refused. It reports whether they
// were accepted. A client of Login adds all or none.
func (c *Client) TryAppend(mailbox string, messages ...[]byte) bool {
	c.t.Helper()
	if c.manyAtOnce {
		_, status := c.exchange(appendCommand(mailbox, messages))
		return strings.HasPrefix(status, "OK")
	}
	for _, m := range messages {
		if !strings.HasPrefix(c.appendOne(mailbox, m), "OK") {
			return false
		}
	}
	return true
}

func appendCommand(mailbox string, messages [][]byte) []byte {
	command := fmt.Appendf(nil, "APPEND %q", mailbox)
	for _, m := range messages {
		command = fmt.Appendf(command, " {%d+}\r\n", len(m))
		command = append(command, m...)
	}
	return command
}

// Message is a message in the upstream's mailbox.
type Message struct {
	UID    uint64
	Flags  string // in brackets as sent, without \Recent, which any SELECT clears
	Octets []byte // BODY.PEEK[], nil unless requested
}

// Fetch returns the messages of the open mailbox in the order of their UIDs, with
// their octets only if bodies is set.
func (c *Client) Fetch(bodies bool) []Message {
	c.t.Helper()
	items := "(UID FLAGS)"
	if bodies {
		items = "(UID FLAGS BODY.PEEK[])"
	}
	var messages []Message
	for _, r := range c.Command("UID FETCH 1:* %s", items) {
		uidItem, flags := fetchUID.FindStringSubmatch(r.Text), fetchFlags.FindStringSubmatch(r.Text)
		if uidItem == nil || flags == nil {
			continue
		}
		uid, err := strconv.ParseUint(uidItem[1], 10, 32)
		if err != nil || bodies && len(r.Literals) != 1 {
			c.t.Fatalf("dovecottest: %q with %d literals: %v", r.Text, len(r.Literals), err)
		}
		message := Message{UID: uint64(uid), Flags: withoutRecent(flags[1])}
		if bodies {
			message.Octets = r.Literals[0]
		}
		messages = append(messages, message)
	}
	slices.SortFunc(messages, func(a, b Message) int { return cmp.Compare(a.UID, b.UID) })
	return messages
}

// The items of a FETCH response come in any order.
var (
	fetchUID   = regexp.MustCompile(`^\* \d+ FETCH \(.*\bUID (\d+)`)
	fetchFlags = regexp.MustCompile(`^\* \d+ FETCH \(.*\bFLAGS (\([^)]*\))`)
)

func withoutRecent(flags string) string {
	var kept []string
	for _, f := range strings.Fields(strings.Trim(flags, "()")) {
		if f != `\Recent` {
			kept = append(kept, f)
		}
	}
	return "(" + strings.Join(kept, " ") + ")"
}

// Logout ends the session, and returns when the server has ended it too.
func (c *Client) Logout() {
	c.t.Helper()
	c.Command("LOGOUT")
	_, _ = io.Copy(io.Discard, c.br) // the server closes the connection, or resets it
	c.conn.Close()
}
