package wire

import "fmt"

// What an upstream may send for one command (requirement I-CONN-8). All that is read
// counts, whatever it is: lines, data that are skipped, empty lines, and what
// compressed data expand to. Only Grant adds to it.
const (
	// maxMessages limits the messages of a mailbox. The listing of so many takes
	// 256 MiB.
	maxMessages = 1 << 23

	// maxUnasked limits the octets, and maxResponses the responses; a range of a
	// search result counts as one.
	maxUnasked   = 16 << 20
	maxResponses = 1 << 17

	// A command may bring this much more for each message of the mailbox: a
	// listing, a search by FETCH, flags that nobody asked for, and all of it
	// twice.
	octetsPerMessage    = 256
	responsesPerMessage = 16

	// maxGrowth is how many messages that come after SELECT the limits grow for.
	maxGrowth = 1 << 16

	// maxCapabilities limits the capabilities that are kept.
	maxCapabilities = 512

	// maxResults limits the results of commands that are kept for ResultOf while
	// others are in flight, and maxTexts the octets of their texts.
	maxResults = 4096
	maxTexts   = 256 << 10

	// maxID limits the octets of an id of a mailbox (RFC 8474 §4).
	maxID = 255

	// spareMessages is how many more messages than twice those of the mailbox an
	// answer may be about.
	spareMessages = 1000
)

// budget is what the upstream may still send.
type budget struct {
	read      int64 // octets so far, of all commands
	most      int64 // of read
	responses int   // that may still come
	messages  int   // of the mailbox, for which these have been raised
	texts     int   // octets of the results since none was in flight
	excess    error // a limit of the consumer's has been exceeded
}

// renew begins the budget of another command. It is called when one is started
// while none is in flight, and when one has been answered.
func (c *Conn) renew() {
	c.messages = c.mailbox.size()
	c.most = c.read + maxUnasked + octetsPerMessage*int64(c.messages)
	c.responses = maxResponses + responsesPerMessage*c.messages
}

// raise adds to the budget what a larger mailbox needs.
func (c *Conn) raise() {
	if more := c.mailbox.size() - c.messages; more > 0 {
		c.messages += more
		c.most += octetsPerMessage * int64(more)
		c.responses += responsesPerMessage * more
	}
}

// Grant allows the upstream so many octets, and a few responses, more in the
// current command: what has come is what was asked for.
func (c *Conn) Grant(octets int64) {
	if c.most += octets; c.most < 0 {
		c.most = 1<<63 - 1
	}
	c.responses += responsesPerMessage
}

// count counts a response.
func (c *Conn) count() error {
	if c.responses--; c.responses < 0 {
		return flood("more than %d responses to one command", maxResponses+responsesPerMessage*c.messages)
	}
	return nil
}

// Exceed ends the connection because an answer has more of something than there can
// be: the next call of Next returns the error. It is called between two calls of
// Next.
func (c *Conn) Exceed(what string) {
	if c.excess == nil {
		c.excess = c.Fail(flood("%s", what))
	}
}

// flood is violation for more than was asked for.
func flood(format string, args ...any) error {
	return &ProtocolError{Text: fmt.Sprintf(format, args...), Flood: true}
}

// size returns the number of messages that answers may be about: those that SELECT
// has announced, and some that have come since.
func (m *Mailbox) size() int {
	n := int(min(m.announced, maxMessages))
	if m.Exists > m.announced {
		n += int(min(m.Exists-m.announced, maxGrowth))
	}
	return n
}

// Bound returns how many messages an answer may be about at most, duplicates not
// counted. It depends on what SELECT has announced; messages that have come since
// then raise it by a limited number.
func (m Mailbox) Bound() int {
	if !m.Counted {
		return maxUncounted
	}
	return 2*m.size() + spareMessages
}

// maxUncounted is Bound for a mailbox without EXISTS.
const maxUncounted = 1 << 20

// keepResult keeps the status of the command with a number for ResultOf. Texts of
// older ones go where there are too many.
func (c *Conn) keepResult(number int) {
	s := c.Result()
	texts := len(s.Text) + len(s.Args) + len(s.Untagged)
	if c.texts += texts; c.texts > maxTexts {
		for i := range c.results {
			c.results[i].Text, c.results[i].Args, c.results[i].Untagged = "", "", ""
		}
		c.texts = texts
	}
	c.results[number-c.base] = s
}

// forgetResults forgets old results while newer commands are in flight.
func (c *Conn) forgetResults() {
	if old := c.pending[0] - c.base - maxResults; old > maxResults {
		c.results = append(c.results[:0], c.results[old:]...)
		clear(c.results[len(c.results):cap(c.results)])
		c.base += old
	}
}
