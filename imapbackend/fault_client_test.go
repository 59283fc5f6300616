package imapbackend

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"popgate/proxy/proxytest"
)

// popSession is a POP3 client that records the replies. It has no timeouts of
// its own. Once the connection is lost its commands do nothing.
type popSession struct {
	*proxytest.Conversation

	uidOf   map[int]uint64    // by message-number, from UIDL
	got     map[uint64]string // messages that RETR has brought, up to the dot
	marked  map[uint64]bool
	refused []string // commands that were answered -ERR, with the answer
	changed []string // listings that differ from the first one
	lost    bool     // the server ended the session too early
	quit    bool     // QUIT has been sent
	quitOK  bool
	silent  bool // the server was silent for longer than it may be
}

// begin reads the greeting, logs in and asks for the unique-ids. visible are
// the UIDs of the maildrop, for unique-ids that do not contain them, or are not
// given.
func begin(conn net.Conn, visible []uint64) *popSession {
	c := &popSession{Conversation: proxytest.NewConversation(conn),
		uidOf: make(map[int]uint64), got: make(map[uint64]string), marked: make(map[uint64]bool)}
	c.Timeout = 24 * time.Hour
	c.line()
	c.do("USER joe")
	if !c.do("PASS secret") {
		return c
	}
	for i, uid := range visible {
		c.uidOf[i+1] = uid
	}
	if c.do("UIDL") {
		clear(c.uidOf)
		for line := range strings.Lines(c.text()) {
			number, id, _ := strings.Cut(strings.TrimSpace(line), " ")
			n, _ := strconv.Atoi(number)
			c.uidOf[n] = 0
			if len(visible) > 0 { // else a wrong listing is still remembered
				c.uidOf[n] = visible[min(n, len(visible))-1]
			}
			if _, uid, ok := strings.Cut(id, "."); ok { // else it is a hash
				u, _ := strconv.ParseUint(uid, 10, 64)
				c.uidOf[n] = uint64(u)
			}
		}
	}
	return c
}

func (c *popSession) send(commands ...string) { c.end(c.Send(commands...)) }

// end records an error, after which the session is lost.
func (c *popSession) end(err error) {
	c.lost = c.lost || err != nil
	c.silent = c.silent || errors.Is(err, os.ErrDeadlineExceeded)
}

func (c *popSession) line() string {
	if c.lost {
		return ""
	}
	line, err := c.Line()
	c.end(err)
	return line
}

// text reads the rest of a multi-line reply.
func (c *popSession) text() string {
	body, err := c.Body()
	c.end(err)
	return string(body)
}

// reply reads the status of a command.
func (c *popSession) reply(command string) bool {
	line := c.line()
	if c.lost {
		return false
	}
	if strings.HasPrefix(line, "+OK") {
		return true
	}
	c.refused = append(c.refused, command+": "+line)
	return false
}

func (c *popSession) do(command string) bool {
	if !c.lost {
		c.send(command)
	}
	return c.reply(command)
}

// body reads the answer to RETR n and reports whether the message is complete.
func (c *popSession) body(n int) bool {
	if !c.reply("RETR " + strconv.Itoa(n)) {
		return false
	}
	text := c.text()
	if c.lost {
		return false
	}
	c.got[c.uidOf[n]] = text
	return true
}

func (c *popSession) retr(n int) bool {
	if !c.lost {
		c.send("RETR " + strconv.Itoa(n))
	}
	return c.body(n)
}

func (c *popSession) top(n, lines int) {
	if c.do(fmt.Sprintf("TOP %d %d", n, lines)) {
		c.text()
	}
}

func (c *popSession) dele(n int) {
	if c.do("DELE " + strconv.Itoa(n)) {
		c.marked[c.uidOf[n]] = true
	}
}

func (c *popSession) rset() {
	if c.do("RSET") {
		clear(c.marked)
	}
}

// leave sends QUIT, and ends the connection.
func (c *popSession) leave() {
	c.quit = !c.lost
	c.quitOK = c.do("QUIT")
	c.Conn.Close()
}
