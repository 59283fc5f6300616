package proxytest

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

// Client is a Conversation for a test: when a method fails, the test ends with a
// log of the conversation. Only the test's goroutine may use it.
type Client struct {
	*Conversation
	t testing.TB
}

// NewClient returns a Client over conn, which is closed at the end of the test.
func NewClient(t testing.TB, conn net.Conn) *Client {
	c := &Client{NewConversation(conn), t}
	t.Cleanup(func() { _ = c.Conn.Close() })
	return c
}

// Dial connects to a server by TCP.
func Dial(t testing.TB, addr string) *Client {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, Patience)
	if err != nil {
		t.Fatal(err)
	}
	return NewClient(t, conn)
}

// must ends the test if err is not nil.
func (c *Client) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatalf("%v; the conversation:\n%s", err, c.Conversation)
	}
}

// Write sends data unchanged.
func (c *Client) Write(data string) {
	c.t.Helper()
	c.must(c.Conversation.Write(data))
}

// Send sends lines, each with CRLF, in one write.
func (c *Client) Send(lines ...string) {
	c.t.Helper()
	c.must(c.Conversation.Send(lines...))
}

// Line reads a line and returns it without its CRLF.
func (c *Client) Line() string {
	c.t.Helper()
	line, err := c.Conversation.Line()
	c.must(err)
	return line
}

// Expect reads a line, which must begin with prefix.
func (c *Client) Expect(prefix string) string {
	c.t.Helper()
	line := c.Line()
	if !strings.HasPrefix(line, prefix) {
		c.t.Fatalf("got %q, want %q; the conversation:\n%s", line, prefix, c.Conversation)
	}
	return line
}

// Do sends a command, whose reply must begin with prefix.
func (c *Client) Do(command, prefix string) string {
	c.t.Helper()
	c.Send(command)
	return c.Expect(prefix)
}

// OK sends commands one at a time. Each must be answered +OK.
func (c *Client) OK(commands ...string) {
	c.t.Helper()
	c.must(c.Conversation.OK(commands...))
}

// Greeting reads the first line of a session.
func (c *Client) Greeting() {
	c.t.Helper()
	c.must(c.Conversation.Greeting())
}

// Login reads the greeting and logs in by USER and PASS.
func (c *Client) Login(user, password string) {
	c.t.Helper()
	c.must(c.Conversation.Login(user, password))
}

// Body reads the rest of a multi-line reply, without byte-stuffing.
func (c *Client) Body() string {
	c.t.Helper()
	body, err := c.Conversation.Body()
	c.must(err)
	return string(body)
}

// Discard reads the rest of a multi-line reply.
func (c *Client) Discard() {
	c.t.Helper()
	c.must(c.Conversation.Discard())
}

// Fetch sends a command and returns its multi-line reply.
func (c *Client) Fetch(command string) string {
	c.t.Helper()
	body, err := c.Conversation.Fetch(command)
	c.must(err)
	return string(body)
}

// StartTLS does a handshake, after which the conversation continues under TLS.
// The certificate is verified only if config has RootCAs.
func (c *Client) StartTLS(config *tls.Config) {
	c.t.Helper()
	if config.RootCAs == nil {
		config = config.Clone()
		config.InsecureSkipVerify = true
	}
	conn := tls.Client(c.Conn, config)
	c.must(conn.SetDeadline(c.deadline()))
	c.must(conn.Handshake())
	c.Use(conn)
}

// Closed expects the end of the connection, with no further input.
func (c *Client) Closed() {
	c.t.Helper()
	if err := c.Conn.SetReadDeadline(c.deadline()); err != nil && !errors.Is(err, net.ErrClosed) {
		c.must(err)
	}
	if rest, err := io.ReadAll(c.Reader); err != nil || len(rest) > 0 {
		c.t.Errorf("at the end: %q, %v; the conversation:\n%s", rest, err, c.Conversation)
	}
}
