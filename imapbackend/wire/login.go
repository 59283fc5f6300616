package wire

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
)

// StartAuthenticate is Start for AUTHENTICATE with a mechanism that the client
// begins, with its first response, in base64. With initial set it goes with the
// command (RFC 4959 §3), else it waits for the server's word. A refusal in
// between ends the command; Drain returns it. Where the mechanism goes on,
// Challenge follows; where the server begins, it follows Start.
func (c *Conn) StartAuthenticate(mechanism, response string, initial bool) error {
	c.queue(c.tag() + " AUTHENTICATE " + mechanism)
	if initial {
		c.queue(" ")
	} else {
		c.queue("\r\n")
		if _, asked, err := c.await(c.started); !asked {
			return err
		}
	}
	c.queue(response + "\r\n")
	return c.Err()
}

// Challenge reads up to the next challenge of the AUTHENTICATE that has been
// begun last, and decodes it; more is false if that command has ended, whose
// result Drain returns. A challenge that is no base64 costs the connection.
func (c *Conn) Challenge() (data string, more bool, err error) {
	if !slices.Contains(c.pending, c.started) {
		return "", false, c.Err()
	}
	text, more, err := c.await(c.started)
	if !more {
		return "", false, err
	}
	decoded, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return "", false, c.Fail(violation("a challenge that is no base64"))
	}
	return string(decoded), true, nil
}

// Respond answers a challenge.
func (c *Conn) Respond(data string) error {
	c.queue(base64.StdEncoding.EncodeToString([]byte(data)) + "\r\n")
	return c.Flush()
}

// Cancel answers a challenge by giving the exchange up (RFC 9051 §6.2.2).
func (c *Conn) Cancel() error {
	c.queue("*\r\n")
	return c.Flush()
}

// await reads up to the continuation request of the command with that number,
// and returns its text; asked is false if it has ended without one.
func (c *Conn) await(number int) (text string, asked bool, err error) {
	c.continuations = 1
	for {
		ev, err := c.Next()
		if err != nil || ev.Kind == Done && ev.Command == number {
			return "", false, err
		}
		if ev.Kind == continuation {
			return ev.Text, true, nil
		}
	}
}

// StartLogin is Start for LOGIN with strings of any octets but NUL: quoted
// where that is possible, else as literals (RFC 7888), each of which waits for
// the server's word unless lit says that it takes them unasked. A refusal in
// between ends the command; Drain returns it.
func (c *Conn) StartLogin(user, password string, lit Literals) error {
	c.queue(c.tag() + " LOGIN")
	number := c.started
	for _, s := range []string{user, password} {
		switch {
		case Quotable(s):
			c.queue(" " + Quote(s))
			continue
		case lit == AnyLiterals || lit == ShortLiterals && len(s) <= 4096:
			c.queue(" {" + strconv.Itoa(len(s)) + "+}\r\n" + s)
			continue
		}
		c.queue(" {" + strconv.Itoa(len(s)) + "}\r\n")
		if _, asked, err := c.await(number); !asked {
			return err
		}
		c.queue(s)
	}
	c.queue("\r\n")
	return c.Err()
}

// Literals says which literals a server takes without being asked first
// (RFC 7888).
type Literals int

// None, those of up to 4096 octets (LITERAL-), or any (LITERAL+).
const (
	NoLiterals Literals = iota
	ShortLiterals
	AnyLiterals
)

var quoteEscape = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// Quote returns s as a quoted string; s must be Quotable.
func Quote(s string) string { return `"` + quoteEscape.Replace(s) + `"` }

// Quotable reports whether s may stand in a quoted string: printable ASCII of
// a moderate length.
func Quotable(s string) bool {
	return len(s) <= 1024 && strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}
