package wire

import "time"

// idleState is what the stream remembers of a connection between two sessions.
type idleState struct {
	left   int    // number of the UNSELECT whose answer has not come
	probe  int    // number of the NOOP whose answer has not come
	before []byte // to be sent right before go-imap's command
}

// Settled reports whether the connection stands, no command is in flight, and
// nothing that the upstream has sent is held here, so that the next session
// finds no trace of this one.
func (c *Conn) Settled() bool {
	return c.Err() == nil && len(c.pending)+len(c.queued)+len(c.trailing) == 0 &&
		!c.fetch.open && !c.search.open && c.buf == nil
}

// Leave sends UNSELECT (RFC 3691) and does not wait for its answer, which is
// read with those of the next commands. What the upstream tells of a mailbox
// up to that answer is not of the one selected next.
func (c *Conn) Leave() error {
	c.queue(c.tag() + " UNSELECT\r\n")
	c.idle.left = c.started
	return c.Flush()
}

// Probe has a NOOP precede go-imap's next command, in the same flight. Until it
// is answered, patience is the longest wait for the next octet: a server that
// takes its time over the command itself is told from one that is gone. If that
// command is SELECT, what comes before the answer is of another mailbox.
func (c *Conn) Probe(patience time.Duration) {
	c.idle.before = append(c.idle.before, c.tag()+" NOOP\r\n"...)
	c.idle.probe = c.started
	c.limit = patience
}

// answered takes note of the answer to our command with that number.
func (c *Conn) answered(number int) {
	if number == 0 {
		return // go-imap's
	}
	if number == c.idle.left {
		c.idle.left, c.mailbox = 0, Mailbox{}
	}
	if number == c.idle.probe {
		c.idle.probe, c.limit = 0, 0
		if c.control { // what follows is of go-imap's command
			c.mailbox = Mailbox{}
		}
	}
}
