package imapbackend

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
)

// popSession is a POP3 client that takes down what it has been told. It is
// never impatient. Once the connection is lost its commands do nothing.
type popSession struct {
	conn net.Conn
	r    *bufio.Reader

	uidOf    map[int]uint32    // by message-number, as UIDL told
	got      map[uint32]string // messages that RETR has brought, ended by the dot
	marked   map[uint32]bool
	refused  []string // commands that were answered -ERR, with the answer
	unsteady []string // listings that have changed
	lost     bool     // the server ended the session before its time
	quit     bool     // QUIT has been sent
	quitOK   bool

	log strings.Builder
}

// begin reads the greeting, logs in and asks for the unique-ids. visible are the
// UIDs of the maildrop, for a gateway that cannot tell them.
func begin(conn net.Conn, visible []uint32) *popSession {
	c := &popSession{conn: conn, r: bufio.NewReader(conn),
		uidOf: make(map[int]uint32), got: make(map[uint32]string), marked: make(map[uint32]bool)}
	c.line()
	c.do("USER joe")
	if !c.do("PASS secret") {
		return c
	}
	if c.do("UIDL") {
		for _, line := range c.lines() {
			number, id, _ := strings.Cut(line, " ")
			n, _ := strconv.Atoi(number)
			c.uidOf[n] = visible[min(n, len(visible))-1]
			if _, uid, told := strings.Cut(id, "."); told { // else it is a hash
				u, _ := strconv.ParseUint(uid, 10, 32)
				c.uidOf[n] = uint32(u)
			}
		}
	}
	return c
}

func (c *popSession) send(commands ...string) {
	text := strings.Join(commands, "\r\n") + "\r\n"
	fmt.Fprintf(&c.log, "C: %q\n", text)
	if _, err := io.WriteString(c.conn, text); err != nil {
		c.end(err)
	}
}

func (c *popSession) end(err error) {
	if !c.lost {
		fmt.Fprintf(&c.log, "lost: %v\n", err)
	}
	c.lost = true
}

func (c *popSession) line() string {
	if c.lost {
		return ""
	}
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.end(err)
		return ""
	}
	return strings.TrimSuffix(line, "\r\n")
}

// lines reads to the final dot and takes the byte-stuffing off.
func (c *popSession) lines() []string {
	var all []string
	for {
		line := c.line()
		if c.lost || line == "." {
			return all
		}
		all = append(all, strings.TrimPrefix(line, "."))
	}
}

// reply reads the status of a command.
func (c *popSession) reply(command string) bool {
	line := c.line()
	if c.lost {
		return false
	}
	fmt.Fprintf(&c.log, "S: %s\n", line)
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

// body reads the answer to RETR n and reports whether the message came whole.
func (c *popSession) body(n int) bool {
	if !c.reply("RETR " + strconv.Itoa(n)) {
		return false
	}
	lines := c.lines()
	if c.lost {
		return false
	}
	text := strings.Join(lines, "\r\n")
	if len(lines) > 0 {
		text += "\r\n"
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
		c.lines()
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
	c.conn.Close()
}
