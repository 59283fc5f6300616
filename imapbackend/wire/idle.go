package wire

import "time"

// idleState is the state of a connection between two sessions.
type idleState struct {
	left   int    // number of the UNSELECT that is not answered yet
	probe  int    // number of the NOOP that is not answered yet
	before []byte // to be sent right before go-imap's command
}

// Settled reports whether the connection is usable, no command is in flight, and
// nothing that the upstream has sent is buffered, so that the next session finds
// no trace of this one.
func (c *Conn) Settled() bool {
	return c.Err() == nil && len(c.pending)+len(c.queued)+len(c.trailing) == 0 &&
		!c.fetch.open && !c.search.open && c.buf == nil
}

// Leave sends UNSELECT (RFC 3691) and does not wait for its answer, which is read
// with those of the next commands. What the upstream says about a mailbox before
// that answer does not concern the mailbox that is selected next.
func (c *Conn) Leave() error {
	c.queue(c.tag() + " UNSELECT\r\n")
	c.idle.left = c.started
	return c.Flush()
}

// Probe sends a NOOP with go-imap's next command, before it and in the same
// flight. Until the NOOP is answered, limit is the longest wait for the next
// octet: so a server that is gone is noticed earlier than one that is slow to
// execute the command. If that command is SELECT, what arrives before the answer
// concerns another mailbox.
func (c *Conn) Probe(limit time.Duration) {
	c.idle.before = append(c.idle.before, c.tag()+" NOOP\r\n"...)
	c.idle.probe = c.started
	c.limit = limit
}

// answered records that the command with this number has been answered.
func (c *Conn) answered(number int) {
	if number == 0 {
		return // go-imap's
	}
	if number == c.idle.left {
		c.idle.left, c.mailbox = 0, Mailbox{}
	}
	if number == c.idle.probe {
		c.idle.probe, c.limit = 0, 0
		if c.control { // what follows belongs to go-imap's command
			c.mailbox = Mailbox{}
		}
	}
}
