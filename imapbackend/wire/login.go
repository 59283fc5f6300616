package wire

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
)

// StartAuthenticate is Start for AUTHENTICATE with a mechanism in which the
// client speaks first; response is its first response, in base64. If initial is
// set, the response is sent with the command (RFC 4959 §3), else after the
// server's continuation request. If the server refuses instead, the command has
// ended, and Drain returns its result. Challenge reads further challenges; for a
// mechanism in which the server speaks first, it follows Start.
//
// If a server requests the response although it was sent with the command, Next
// sends it again, unless another command has been started since.
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
	if initial {
		c.initial, c.continuations = response, 1
	}
	return c.Err()
}

// InitialIgnored reports whether the server has requested the response of the last
// command, an AUTHENTICATE, although it was sent with the command.
func (c *Conn) InitialIgnored() bool { return c.ignored }

// repeatInitial answers the continuation request of a server that has ignored the
// initial response, and reads the next event.
func (c *Conn) repeatInitial() (Event, error) {
	c.queue(c.initial + "\r\n")
	c.initial, c.ignored = "", true
	if err := c.Flush(); err != nil {
		return Event{}, err
	}
	return c.event()
}

// Challenge reads up to the next challenge of the last command, an AUTHENTICATE,
// and decodes it. more is false if the command has ended; Drain returns its
// result. A challenge that is not base64 ends the connection. An empty challenge
// after an initial response requests that again.
func (c *Conn) Challenge() (data string, more bool, err error) {
	if !slices.Contains(c.pending, c.started) {
		return "", false, c.Err()
	}
	initial := c.initial
	c.initial = ""
	text, more, err := c.await(c.started)
	if text == "=" { // some write an empty challenge like an empty response
		text = ""
	}
	if more && text == "" && initial != "" {
		c.queue(initial + "\r\n")
		c.ignored = true
		text, more, err = c.await(c.started)
	}
	if !more {
		return "", false, err
	}
	decoded, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return "", false, c.Fail(violation("a challenge that is not base64"))
	}
	return string(decoded), true, nil
}

// Respond answers a challenge.
func (c *Conn) Respond(data string) error {
	c.queue(base64.StdEncoding.EncodeToString([]byte(data)) + "\r\n")
	return c.Flush()
}

// Cancel answers a challenge by cancelling the exchange (RFC 9051 §6.2.2).
func (c *Conn) Cancel() error {
	c.queue("*\r\n")
	return c.Flush()
}

// await reads up to the continuation request for the command with this number and
// returns its text; asked is false if the command has ended without one.
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

// StartLogin is Start for LOGIN with strings of any octets except NUL. They are
// quoted if possible, else sent as literals, each after a continuation request
// unless lit makes that unnecessary (RFC 7888). If the server refuses instead, the
// command has ended, and Drain returns its result.
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

// Literals says which literals may be sent without a continuation request
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

// Quotable reports whether s may be a quoted string: printable ASCII of moderate
// length.
func Quotable(s string) bool {
	return len(s) <= 1024 && strings.IndexFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) < 0
}
