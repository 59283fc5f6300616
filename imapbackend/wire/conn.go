package wire

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Conn is the client's end of one IMAP connection. It is a net.Conn for
// go-imap's client.New; see the package comment for who may call what when.
// Close, Fail, Err and the addresses are safe for concurrent use.
type Conn struct {
	reader
	net.Conn

	pending  []int    // numbers of our own commands in flight, oldest first
	started  int      // number of the last one
	base     int      // number of the command of results[0]
	results  []Status // of our own commands since none was in flight
	queued   []byte   // of our own commands, not sent yet
	trailing []byte   // to be sent right after go-imap's command

	status  Status   // the last tagged status
	notice  Status   // the last untagged NO or BYE since the command began
	alerts  []Status // not taken yet
	caps    []string // as last announced
	mailbox Mailbox
	fetch   fetchState
	search  searchState
	initial string // an initial response that the server may request again
	ignored bool   // it has
	idle    idleState
	text    []byte // the current line
	scratch []byte // the current word

	begin         chan struct{} // wakes the goroutine in Read
	detach        chan struct{} // closed to end go-imap's client
	control       bool          // a command of go-imap's is in flight
	continuations int           // continuation requests that may still come
	out           []byte        // rewritten responses for go-imap

	done chan struct{}
	once sync.Once

	mu         sync.Mutex
	err        error  // first cause of the loss
	bye        error  // the upstream's BYE before it
	controlTag string // of go-imap's command; "" until it is written
}

// Mailbox is what the upstream has said about the selected mailbox.
type Mailbox struct {
	Exists       uint32
	UIDValidity  uint64 // as sent, also above 32 bits; 0: not given
	UIDNext      uint64 // as sent, also above 32 bits; 0: not given, or unusable
	UIDNotSticky bool
	MailboxID    string

	// SessionDeleted reports that PERMANENTFLAGS has neither \Deleted nor \*:
	// \Deleted may be forgotten when the session ends (RFC 3501 §7.1).
	SessionDeleted bool

	// Remaining is the number of messages that EXISTS of SELECT counted and
	// that have not been expunged since. Their sequence numbers are 1 to
	// Remaining; higher ones belong to messages that came after SELECT.
	Remaining uint32

	// UIDZero is set when a message has been reported with UID 0, which no
	// message can have. Such reports are skipped.
	UIDZero bool

	// Expunged is set when messages have been expunged since SELECT: sequence
	// numbers have changed.
	Expunged bool

	// Vanished is set when VANISHED has come: some of Remaining may be gone.
	Vanished bool

	// Rebuilt is set when UIDVALIDITY is announced again with another value.
	Rebuilt bool

	// Counted is set when the answer to SELECT had EXISTS. Without it neither
	// Exists nor Remaining says anything.
	Counted bool

	selected  bool   // SELECT has been answered
	announced uint32 // EXISTS of SELECT
}

// Empty reports whether the mailbox is known to have no messages.
func (m Mailbox) Empty() bool { return m.Counted && m.Exists == 0 }

// New returns a Conn over conn, which it then owns. Nothing may have been read
// from conn. progress is the longest wait for the next octet of an answer.
func New(conn net.Conn, progress time.Duration) *Conn {
	c := &Conn{
		reader: reader{conn: conn, progress: progress},
		Conn:   conn,
		begin:  make(chan struct{}, 1),
		done:   make(chan struct{}),
	}
	c.renew()
	return c
}

// SetProgress sets the longest wait for the next octet of an answer and
// returns the former one.
func (c *Conn) SetProgress(d time.Duration) time.Duration {
	old := c.progress
	if c.Err() == nil { // else go-imap's goroutine may still be reading
		c.progress = d
	}
	return old
}

// Until ends all waiting for the upstream at t, whatever has arrived by then. Zero
// t: only progress is required.
func (c *Conn) Until(t time.Time) {
	if c.Err() == nil { // as in SetProgress
		c.until, c.flow = t, false
	}
}

// Flow is Until for one that reads bodies: their data may take as long as there is
// progress, and all else must come within the time for progress, counted from now
// and again from the end of the data that BodyTo has read.
func (c *Conn) Flow() {
	if c.Err() == nil {
		c.until, c.flow = time.Now().Add(c.progress), true
	}
}

// Mailbox returns what is known of the selected mailbox.
func (c *Conn) Mailbox() Mailbox { return c.mailbox }

// ResetMailbox forgets what is known of it, before another SELECT.
func (c *Conn) ResetMailbox() { c.mailbox = Mailbox{} }

// Capabilities returns the capabilities that the upstream has last announced, in
// upper case; nil if it has announced none since ForgetCapabilities.
func (c *Conn) Capabilities() []string { return c.caps }

// ForgetCapabilities forgets the capabilities, as is necessary after STARTTLS or
// a login (RFC 9051 §6.2.1).
func (c *Conn) ForgetCapabilities() { c.caps = nil }

// Has reports whether the capability has been announced.
func (c *Conn) Has(capability string) bool { return slices.Contains(c.caps, capability) }

// Result returns the status of the last command, with its response code or, if
// it has none, with that of the last untagged NO or BYE before it.
func (c *Conn) Result() Status {
	s := c.status
	if s.Type != "OK" {
		s.Untagged = c.notice.Text
	}
	if s.Code == "" {
		s.Code, s.Args = c.notice.Code, c.notice.Args
	}
	return s
}

// TakeAlerts returns the statuses since the last call that are meant for people:
// those with the code ALERT, and OK with CONTACTADMIN.
func (c *Conn) TakeAlerts() []Status {
	alerts := c.alerts
	c.alerts = nil
	return alerts
}

// Greeting reads the greeting.
func (c *Conn) Greeting() (Status, error) {
	word, err := c.first()
	if err != nil {
		return Status{}, c.Fail(err)
	}
	if string(word) != "*" {
		return Status{}, c.Fail(violation("greeting starts with %q", word))
	}
	if word, err = c.word(c.scratch[:0]); err == nil && !isStatus(word) {
		err = violation("greeting %q", word)
	}
	if err != nil {
		return Status{}, c.Fail(err)
	}
	s, err := c.readStatus("*", string(word))
	if err == nil && s.Type != "OK" && s.Type != "PREAUTH" && s.Type != "BYE" {
		err = violation("greeting %s", s.Type)
	}
	if err != nil {
		return s, c.Fail(err)
	}
	c.release()
	return s, nil
}

// Upgrade replaces the underlying connection by the one that handshake returns,
// for STARTTLS. What the server has sent earlier is discarded unread
// (RFC 9051 §6.2.1).
func (c *Conn) Upgrade(handshake func(net.Conn) (net.Conn, error)) error {
	c.drop()
	conn, err := handshake(c.Conn)
	if err != nil {
		return c.Fail(err)
	}
	c.mu.Lock()
	c.Conn, c.reader.conn = conn, conn
	c.mu.Unlock()
	c.caps = nil
	return nil
}

// Start queues a command, given without its tag and line end. The next call of
// Next sends it, so that commands which need not wait for each other's answers
// share a flight. cmd must not contain user input that has not been made safe.
func (c *Conn) Start(cmd string) error {
	c.queue(c.tag() + " " + cmd + "\r\n")
	return c.Err()
}

// Started returns the number of the last command that was started, counted
// from 1. Commands of go-imap's have no number.
func (c *Conn) Started() int { return c.started }

// ResultOf returns the status of the command with this number, as Result does:
// the zero Status if it has not arrived, or belongs to an earlier flight.
func (c *Conn) ResultOf(number int) Status {
	if i := number - c.base; i >= 0 && i < len(c.results) {
		return c.results[i]
	}
	return Status{}
}

// Pending reports whether commands with a number are in flight.
func (c *Conn) Pending() bool { return len(c.pending) > 0 }

// tag returns the tag of a new command in flight: P and its number.
func (c *Conn) tag() string {
	c.started++
	if len(c.pending) == 0 {
		c.notice, c.texts = Status{}, 0
		c.base, c.results = c.started, c.results[:0]
		c.renew()
	} else {
		c.forgetResults()
	}
	c.continuations, c.initial, c.ignored = 0, "", false
	c.pending = append(c.pending, c.started)
	c.results = append(c.results, Status{})
	return "P" + strconv.Itoa(c.started)
}

func (c *Conn) queue(s string) { c.queued = append(c.queued, s...) }

// Flush sends the commands that are queued.
func (c *Conn) Flush() error {
	if len(c.queued) == 0 {
		return nil
	}
	if err := c.Err(); err != nil {
		return err
	}
	p := c.queued
	c.queued = nil
	return c.write(p)
}

// Run sends a command and reads its answer. It discards all data.
func (c *Conn) Run(cmd string) (Status, error) {
	if err := c.Start(cmd); err != nil {
		return Status{}, err
	}
	return c.Drain()
}

// Drain reads until no command with a number is in flight and returns the result
// of the last one. It discards all data.
func (c *Conn) Drain() (Status, error) {
	for len(c.pending) > 0 {
		if _, err := c.Next(); err != nil {
			return Status{}, err
		}
	}
	return c.Result(), nil
}

// write sends all of p, or returns an error.
func (c *Conn) write(p []byte) error {
	deadline := time.Now().Add(writeTimeout)
	if !c.until.IsZero() && c.until.Before(deadline) {
		deadline = c.until
	}
	c.Conn.SetWriteDeadline(deadline) // if this fails, so does Write
	if c.reader.tap != nil {
		c.reader.tap.Sent(p)
	}
	if _, err := c.Conn.Write(p); err != nil {
		return c.Fail(fmt.Errorf("imap: send command: %w", err))
	}
	return nil
}

// Fail ends the connection because of err and returns the first cause, which
// may be an earlier one.
func (c *Conn) Fail(err error) error {
	c.mu.Lock()
	if c.err == nil {
		if c.err = err; c.bye != nil {
			c.err = c.bye
		}
	}
	err = c.err
	conn := c.Conn
	c.mu.Unlock()
	c.once.Do(func() {
		close(c.done)
		conn.Close()
	})
	return err
}

// Err returns the first cause of the loss of the connection, nil while it is
// usable. After Close it is net.ErrClosed or an earlier cause.
func (c *Conn) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Close ends the connection. It sends nothing.
func (c *Conn) Close() error {
	c.Fail(net.ErrClosed)
	return nil
}

// SetDeadline and the other two do nothing: this package sets deadlines, and
// go-imap would clear them with each command.
func (c *Conn) SetDeadline(time.Time) error      { return nil }
func (c *Conn) SetReadDeadline(time.Time) error  { return nil }
func (c *Conn) SetWriteDeadline(time.Time) error { return nil }

// checkTag checks that tag is that of a command in flight and returns the
// command's number, 0 for go-imap's.
func (c *Conn) checkTag(tag []byte) (int, error) {
	if i := c.inFlight(tag); i >= 0 {
		number := c.pending[i]
		c.pending = slices.Delete(c.pending, i, i+1)
		return number, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.control && c.controlTag == string(tag) {
		return 0, nil
	}
	return 0, violation("a response that starts with %q", tag)
}

// inFlight returns the index in pending of the command with a tag, or -1.
func (c *Conn) inFlight(tag []byte) int {
	return slices.IndexFunc(c.pending, func(number int) bool { return string(tag) == "P"+strconv.Itoa(number) })
}
