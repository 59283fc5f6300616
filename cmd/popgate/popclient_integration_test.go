//go:build integration

package main_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"popgate/imapbackend/dovecottest"
)

const replyTimeout = time.Minute

// popClient is a plain POP3 client. Those of its methods that begin with
// "must" fail the test, the others may run in any goroutine.
type popClient struct {
	conn net.Conn
	br   *bufio.Reader
}

// dialPOP connects to a gateway and reads its greeting.
func dialPOP(addr string) (*popClient, error) {
	return dialPOPFrom(nil, addr)
}

// dialPOPFrom is dialPOP from an address of the client's own.
func dialPOPFrom(local net.Addr, addr string) (*popClient, error) {
	conn, err := (&net.Dialer{LocalAddr: local}).Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c := &popClient{conn: conn, br: bufio.NewReaderSize(conn, 64<<10)}
	if reply, err := c.readLine(); err != nil || !strings.HasPrefix(reply, "+OK") {
		conn.Close()
		return nil, fmt.Errorf("greeting %q: %w", reply, err)
	}
	return c, nil
}

// readLine reads one line and returns it without its CRLF.
func (c *popClient) readLine() (string, error) {
	if err := c.conn.SetDeadline(time.Now().Add(replyTimeout)); err != nil {
		return "", err
	}
	line, err := c.br.ReadString('\n')
	return strings.TrimSuffix(line, "\r\n"), err
}

// send sends lines in one write.
func (c *popClient) send(lines ...string) error {
	_, err := c.conn.Write([]byte(strings.Join(lines, "\r\n") + "\r\n"))
	return err
}

// ask sends one command and returns the status line.
func (c *popClient) ask(command string) (string, error) {
	if err := c.send(command); err != nil {
		return "", err
	}
	return c.readLine()
}

// ok sends commands one after the other, each of which must be answered +OK.
func (c *popClient) ok(commands ...string) error {
	for _, command := range commands {
		reply, err := c.ask(command)
		if err != nil {
			return fmt.Errorf("%s: %w", command, err)
		}
		if !strings.HasPrefix(reply, "+OK") {
			return fmt.Errorf("%s: %s", command, reply)
		}
	}
	return nil
}

// lines reads the rest of a multi-line reply and returns it with byte-stuffing
// undone, to the octet.
func (c *popClient) lines() ([]byte, error) {
	var body []byte
	for {
		if err := c.conn.SetDeadline(time.Now().Add(replyTimeout)); err != nil {
			return body, err
		}
		line, err := c.br.ReadBytes('\n')
		if err != nil {
			return body, err
		}
		if string(line) == ".\r\n" {
			return body, nil
		}
		body = append(body, bytes.TrimPrefix(line, []byte("."))...)
	}
}

// fetch sends a command with a multi-line reply and returns that.
func (c *popClient) fetch(command string) ([]byte, error) {
	if err := c.ok(command); err != nil {
		return nil, err
	}
	return c.lines()
}

func (c *popClient) login(user string) error {
	return c.ok("USER "+user, "PASS "+dovecottest.Password)
}

// loginPOP returns a client that user has logged in with. It is closed at the
// end of the test, without QUIT.
func loginPOP(t testing.TB, addr, user string) *popClient {
	t.Helper()
	c, err := dialPOP(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.conn.Close() })
	if err := c.login(user); err != nil {
		t.Fatal(err)
	}
	return c
}

// mustOK is ok for a test.
func (c *popClient) mustOK(t testing.TB, commands ...string) {
	t.Helper()
	if err := c.ok(commands...); err != nil {
		t.Fatal(err)
	}
}

// mustReply sends a command whose reply must begin with want.
func (c *popClient) mustReply(t testing.TB, command, want string) {
	t.Helper()
	reply, err := c.ask(command)
	if err != nil {
		t.Fatalf("%s: %v", command, err)
	}
	if !strings.HasPrefix(reply, want) {
		t.Fatalf("%s: %q, want %q", command, reply, want)
	}
}
