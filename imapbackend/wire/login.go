package wire

import (
	"strconv"
	"strings"
)

// StartAuthenticate is Start for AUTHENTICATE with a mechanism that has one
// response, in base64. With initial set it goes with the command (RFC 4959
// §3), else it waits for the server's word. A refusal in between ends the
// command; Drain returns it.
func (c *Conn) StartAuthenticate(mechanism, response string, initial bool) error {
	c.queue(c.tag() + " AUTHENTICATE " + mechanism)
	if initial {
		c.queue(" ")
	} else {
		c.queue("\r\n")
		if asked, err := c.await(c.started); !asked {
			return err
		}
	}
	c.queue(response + "\r\n")
	return c.Err()
}

// await reads up to the continuation request of the command with that number;
// asked is false if it has ended without one.
func (c *Conn) await(number int) (asked bool, err error) {
	c.continuations = 1
	for {
		ev, err := c.Next()
		if err != nil || ev.Kind == Done && ev.Command == number {
			return false, err
		}
		if ev.Kind == Continue {
			return true, nil
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
		if asked, err := c.await(number); !asked {
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
