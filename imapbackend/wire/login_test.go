package wire

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// I-CONN-5: LOGIN with strings that cannot be quoted, for each kind of server,
// which may send other responses before its continuation request.
func TestStartLogin(t *testing.T) {
	long := strings.Repeat("\xFF", 4097)
	for _, tt := range []struct {
		name           string
		user, password string
		lit            Literals
		in             string
		wrote, result  string
	}{
		{"quoted", `a "b\`, "x y", NoLiterals, "P1 OK in\n", "P1 LOGIN \"a \\\"b\\\\\" \"x y\"\n", "OK in"},
		{"empty", "", "", NoLiterals, "P1 OK in\n", "P1 LOGIN \"\" \"\"\n", "OK in"},
		{"injection", "\"\r\nA2 DELETE x", "p", AnyLiterals, "P1 OK in\n", "P1 LOGIN {14+}\n\"\r\nA2 DELETE x \"p\"\n", "OK in"},
		{"injection, synchronising", "\"\r\nA2 DELETE x", "p", NoLiterals, "+ go\nP1 OK in\n", "P1 LOGIN {14}\n\"\r\nA2 DELETE x \"p\"\n", "OK in"},
		{"both", "ä", "ö", NoLiterals, "+ go\n+ \nP1 OK in\n", "P1 LOGIN {2}\nä {2}\nö\n", "OK in"},
		{"chatter before the request", "ä", "p", NoLiterals, "* OK [ALERT] x\n* 1 EXISTS\n+ go\nP1 OK in\n", "P1 LOGIN {2}\nä \"p\"\n", "OK in"},
		{"first refused", "ä", "ö", NoLiterals, "* NO [LIMIT] x\nP1 NO no\n", "P1 LOGIN {2}\n", "NO [LIMIT] no (untagged: x)"},
		{"second refused", "ä", "ö", NoLiterals, "+ go\nP1 BAD no\n", "P1 LOGIN {2}\nä {2}\n", "BAD no"},
		{"LITERAL- short", long[:4096], "p", ShortLiterals, "P1 OK in\n", "P1 LOGIN {4096+}\n" + long[:4096] + " \"p\"\n", "OK in"},
		{"LITERAL- long", long, "p", ShortLiterals, "+ go\nP1 OK in\n", "P1 LOGIN {4097}\n" + long + " \"p\"\n", "OK in"},
		{"LITERAL+ long", long, "p", AnyLiterals, "P1 OK in\n", "P1 LOGIN {4097+}\n" + long + " \"p\"\n", "OK in"},
		{"lost", "ä", "p", NoLiterals, "* BYE x\n", "P1 LOGIN {2}\n", "lost: imap: upstream closed: BYE x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &stream{in: crlf(tt.in), step: 1 << 10}
			c := New(s, time.Minute)
			defer c.Close()
			err := c.StartLogin(tt.user, tt.password, tt.lit)
			var status Status
			if err == nil {
				status, err = c.Drain()
			}
			result := status.String()
			if err != nil {
				result = fmt.Sprint("lost: ", err)
			}
			if result != tt.result {
				t.Errorf("result %q, want %q", result, tt.result)
			}
			got := strings.ReplaceAll(s.wrote.String(), "\r\n", "\n")
			if want := strings.ReplaceAll(tt.wrote, "\r\n", "\n"); got != want {
				t.Errorf("wrote %.300q, want %.300q", got, want)
			}
		})
	}
}

// go-imap closes the connection at BYE; the tagged status after it would be lost
// (requirement M-1).
func TestByeBeforeStatus(t *testing.T) {
	c := New(&stream{in: crlf("* BYE [LIMIT] x\nabc NO [AUTHENTICATIONFAILED] no\n"), step: 7}, time.Minute)
	defer c.Close()
	c.Begin()
	io.WriteString(c, "abc NOOP\r\n")
	p := make([]byte, 100)
	n, err := c.Read(p)
	if got := string(p[:n]); got != "abc NO -\r\n" || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
	if r := c.Result().String(); r != "NO [AUTHENTICATIONFAILED] no (untagged: x)" {
		t.Errorf("result %q", r)
	}
}

// P-SASL-5, P-SASL-6: AUTHENTICATE in several steps, with servers that send other
// responses in between, refuse, break off, or send an invalid challenge.
func TestChallenge(t *testing.T) {
	for _, tt := range []struct {
		name          string
		start         func(c *Conn) error
		in            string
		wrote, result string
	}{
		{"the server begins", func(c *Conn) error { return c.Start("AUTHENTICATE CRAM-MD5") },
			"+ Yw==\nP1 OK in\n", "P1 AUTHENTICATE CRAM-MD5\ncg==\n", "[c] OK in"},
		{"the client begins", func(c *Conn) error { return c.StartAuthenticate("X", "aQ==", true) },
			"+ Yw==\n+ \nP1 OK in\n", "P1 AUTHENTICATE X aQ==\ncg==\ncg==\n", "[c][] OK in"},
		{"after a request", func(c *Conn) error { return c.StartAuthenticate("X", "aQ==", false) },
			"+ go ahead\n+ Yw==\nP1 OK in\n", "P1 AUTHENTICATE X\naQ==\ncg==\n", "[c] OK in"},
		{"refused before the request", func(c *Conn) error { return c.StartAuthenticate("X", "aQ==", false) },
			"P1 NO x\n", "P1 AUTHENTICATE X\n", " NO x"},
		{"after another command", func(c *Conn) error {
			return errors.Join(c.Start("ID NIL"), c.StartAuthenticate("X", "aQ==", true))
		}, "* ID NIL\nP1 OK x\n* OK [ALERT] y\n+ Yw==\n* BAD y\nP2 NO z\n", "P1 ID NIL\nP2 AUTHENTICATE X aQ==\ncg==\n", "[c] NO z"},
		{"not base64", func(c *Conn) error { return c.Start("AUTHENTICATE X") },
			"+ Yw\n", "P1 AUTHENTICATE X\n", " lost: imap: protocol violation: a challenge that is not base64"},
		{"lost", func(c *Conn) error { return c.Start("AUTHENTICATE X") },
			"+ Yw==\n* BYE x\n", "P1 AUTHENTICATE X\ncg==\n", "[c] lost: imap: upstream closed: BYE x"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := &stream{in: crlf(tt.in), step: 3}
			c := New(s, time.Minute)
			defer c.Close()
			err := tt.start(c)
			result := ""
			for err == nil {
				data, more, failed := c.Challenge()
				if err = failed; !more {
					break
				}
				result += "[" + data + "]"
				err = c.Respond("r")
			}
			var status Status
			if err == nil {
				status, err = c.Drain()
			}
			if result += " " + status.String(); err != nil {
				result += fmt.Sprint("lost: ", err)
			}
			if result != tt.result {
				t.Errorf("result %q, want %q", result, tt.result)
			}
			if got := strings.ReplaceAll(s.wrote.String(), "\r\n", "\n"); got != tt.wrote {
				t.Errorf("wrote %q, want %q", got, tt.wrote)
			}
		})
	}
}

// P-AUTH-4: Cancel sends "*".
func TestCancel(t *testing.T) {
	s := &stream{in: crlf("+ Yw==\nP1 BAD cancelled\n"), step: 7}
	c := New(s, time.Minute)
	defer c.Close()
	_, more, err := "", false, c.Start("AUTHENTICATE X")
	if err == nil {
		_, more, err = c.Challenge()
	}
	if !more || err != nil {
		t.Fatalf("challenge: %v, %v", more, err)
	}
	if err := c.Cancel(); err != nil {
		t.Fatal(err)
	}
	status, err := c.Drain()
	if status.Type != "BAD" || err != nil || s.wrote.String() != "P1 AUTHENTICATE X\r\n*\r\n" {
		t.Errorf("%v, %v, wrote %q", status, err, s.wrote.String())
	}
}
