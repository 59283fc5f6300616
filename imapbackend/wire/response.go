package wire

import (
	"bytes"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Kind is the kind of an Event.
type Kind int

// The kinds of events.
const (
	// Done is the tagged status of a command; Conn.Result has it.
	Done Kind = iota + 1

	// Fetch is the end of a FETCH response: Seq, and UID, Octets
	// (RFC822.SIZE), Flags, EmailID and GmailID as far as it contained them.
	Fetch

	// Body is a BODY[...] item within a FETCH response. BodyTo reads its
	// octets before the next call of Next, which skips them. UID is 0 if it
	// has not been read yet.
	Body

	// Search is a range of results of SEARCH or ESEARCH: Low to High.
	Search

	// Searched is the end of a SEARCH response, or of an ESEARCH response to a
	// command in flight: Whole.
	Searched

	// continuation is a continuation request: Text.
	continuation

	// Notice is an untagged status response.
	Notice

	// Data is any other untagged response: Name, and Seq or Text.
	Data
)

// Event is a response of the upstream, or a part of one.
type Event struct {
	Kind    Kind
	Command int // of Done: the command's number, counted from 1 by Start
	Seq     uint32
	UID     uint64 // 0: not given

	// Octets is RFC822.SIZE for Fetch, -1 if it was not given, and the length
	// of the data for Body.
	Octets int64

	EmailID string // of Fetch: EMAILID (RFC 8474 §5.1); "": not given
	GmailID uint64 // of Fetch: X-GM-MSGID; 0: not given
	Later   bool   // of Fetch: the sequence number is one of a message that came after SELECT
	UIDZero bool   // of Fetch: the UID is 0, which no message has; nothing else is given

	Section string // of Body, in upper case: "", "HEADER", "TEXT", ...
	Origin  int64  // of Body: first octet of a partial one, else -1
	Nil     bool   // Body is NIL

	Flags   bool // Fetch contained FLAGS
	Deleted bool // \Deleted was among them
	Seen    bool // and so was \Seen

	Low, High uint64 // of Search
	Whole     bool   // of Searched: the ranges before it are all of the result

	Name, Text string
}

// searchState is the SEARCH or ESEARCH response being read.
type searchState struct {
	open     bool
	extended bool
	foreign  bool // it is for a command that is not in flight
	all      bool // it contains ALL
	some     bool // it contains something else that an empty result has not
}

// Next reads the next event of the commands in flight. After an error the
// connection is lost; the error is the cause.
func (c *Conn) Next() (Event, error) {
	if err := c.Flush(); err != nil {
		return Event{}, err
	}
	if c.excess != nil {
		return Event{}, c.excess
	}
	ev, err := c.event()
	if err == nil && ev.Kind == continuation && c.initial != "" {
		ev, err = c.repeatInitial()
	}
	if err != nil {
		return Event{}, c.Fail(err)
	}
	if ev.Kind == Done && len(c.pending) == 0 {
		c.release()
	}
	return ev, nil
}

func (c *Conn) event() (Event, error) {
	switch {
	case c.fetch.open:
		return c.fetchItem()
	case c.search.open:
		return c.searchItem()
	}
	return c.response()
}

// response reads the start of a response, or all of one that is a single event.
func (c *Conn) response() (Event, error) {
	if err := c.skipEmptyLines(); err != nil {
		return Event{}, err
	}
	word, err := c.first()
	if err != nil {
		return Event{}, err
	}
	switch string(word) {
	case "*":
		return c.untagged()
	case "+":
		if c.continuations--; c.continuations < 0 {
			return Event{}, violation("a continuation request that was not expected")
		}
		c.text, err = c.line(c.text[:0], false)
		return Event{Kind: continuation, Text: string(bytes.TrimSpace(c.text))}, err
	}
	number, err := c.checkTag(word)
	if err != nil {
		return Event{}, err
	}
	c.answered(number)
	tag := string(word)
	if word, err = c.word(c.scratch[:0]); err != nil {
		return Event{}, err
	}
	if !isStatus(word) {
		return Event{}, violation("status %q", word)
	}
	if c.status, err = c.readStatus(tag, string(word)); err == nil && number > 0 {
		c.keepResult(number)
	}
	c.renew()
	return Event{Kind: Done, Command: number}, err
}

// skipEmptyLines skips empty lines in front of a response.
func (c *Conn) skipEmptyLines() error {
	for {
		b, err := c.peek()
		if err != nil || b != '\r' && b != '\n' {
			return err
		}
		if err = c.endLine(); err == nil {
			err = c.count()
		}
		if err != nil {
			return err
		}
	}
}

// first reads the first word of a response, unchanged, and the space after it.
func (c *Conn) first() ([]byte, error) {
	word := c.scratch[:0]
	for {
		b, err := c.peek()
		if err != nil {
			return nil, err
		}
		if b == '\r' || b == '\n' {
			break
		}
		c.r++
		if b == ' ' {
			break
		}
		if len(word) >= 64 {
			return nil, violation("a response that starts with %q", word)
		}
		word = append(word, b)
	}
	c.scratch = word
	return word, nil
}

func (c *Conn) untagged() (Event, error) {
	err := c.count()
	if err != nil {
		return Event{}, err
	}
	b, err := c.peek()
	if err != nil {
		return Event{}, err
	}
	var number uint64
	numbered := '0' <= b && b <= '9'
	if numbered {
		if number, err = c.number64(); err == nil {
			err = c.expect(' ')
		}
		if err != nil {
			return Event{}, err
		}
	}
	word, err := c.word(c.scratch[:0])
	if err != nil {
		return Event{}, err
	}
	c.scratch = word
	if numbered && (string(word) == "FETCH" || string(word) == "UIDFETCH") {
		byUID := len(word) == len("UIDFETCH")
		if number > math.MaxUint32 && !byUID {
			return Event{}, violation("sequence number above 32 bits")
		}
		return c.startFetch(number, byUID)
	}
	switch name := string(word); {
	case numbered:
		return c.numbered(number, name)
	case isStatus(word):
		_, err := c.readStatus("*", name)
		return Event{Kind: Notice}, err
	case name == "SEARCH" || name == "ESEARCH":
		c.search = searchState{open: true, extended: name == "ESEARCH"}
		return c.searchItem()
	default:
		return c.data(name)
	}
}

// numbered reads the rest of a response such as "5 EXISTS".
func (c *Conn) numbered(number uint64, name string) (Event, error) {
	if number > math.MaxUint32 {
		return Event{}, violation("number above 32 bits")
	}
	seq := uint32(number)
	var err error
	if c.text, err = c.line(c.text[:0], true); err != nil {
		return Event{}, err
	}
	switch name {
	case "EXISTS":
		if seq > maxMessages {
			return Event{}, violation("%d EXISTS, more than %d messages", seq, maxMessages)
		}
		c.mailbox.exist(seq)
		c.raise()
	case "EXPUNGE":
		c.mailbox.expunge(seq)
	}
	return Event{Kind: Data, Name: name, Seq: seq}, nil
}

// data reads the rest of any other response.
func (c *Conn) data(name string) (Event, error) {
	var err error
	if c.text, err = c.line(c.text[:0], true); err != nil {
		return Event{}, err
	}
	text := string(bytes.TrimSpace(c.text))
	switch name {
	case "CAPABILITY":
		c.caps = capabilities(text)
	case "VANISHED":
		c.mailbox.Expunged, c.mailbox.Vanished = true, true
	}
	return Event{Kind: Data, Name: name, Text: text}, nil
}

// exist records EXISTS.
func (m *Mailbox) exist(n uint32) {
	m.Expunged = m.Expunged || n < m.Exists
	m.Exists = n
	m.Counted = m.Counted || !m.selected
	if !m.selected {
		m.announced = n
	}
	if !m.selected || n < m.Remaining {
		m.Remaining = n
	}
}

// expunge records EXPUNGE of a sequence number.
func (m *Mailbox) expunge(seq uint32) {
	m.Expunged = true
	if m.Exists > 0 {
		m.Exists--
	}
	if 0 < seq && seq <= m.Remaining {
		m.Remaining--
	}
}

// readStatus reads the rest of a status response and records it.
func (c *Conn) readStatus(tag, word string) (Status, error) {
	var err error
	if c.text, err = c.line(c.text[:0], false); err != nil {
		return Status{}, err
	}
	s := parseStatus(tag, word, c.text)
	if tag == "*" && (word == "NO" || word == "BYE") {
		c.notice = s
	}
	if tag == "*" && word == "BYE" {
		c.mu.Lock()
		c.bye = &ByeError{s}
		c.mu.Unlock()
	}
	if s.Code == "ALERT" || s.Code == "CONTACTADMIN" && word == "OK" {
		if len(c.alerts) < maxAlerts {
			c.alerts = append(c.alerts, s)
		}
	}
	return s, c.recordCode(s)
}

// ByeError is the loss of a connection that the upstream has announced.
type ByeError struct{ Status Status }

func (e *ByeError) Error() string { return "imap: upstream closed: " + e.Status.String() }

// recordCode records what a response code says about server and mailbox. A
// UIDVALIDITY that is not a number of 64 bits is an error: whatever took its place
// could be that of another mailbox. A UIDNEXT that is none counts as not given.
func (c *Conn) recordCode(s Status) error {
	m := &c.mailbox
	switch s.Code {
	case "CAPABILITY":
		c.caps = capabilities(s.Args)
	case "CLOSED":
		// What came before concerned another mailbox (RFC 7162 §3.2.11).
		*m = Mailbox{}
	case "UIDVALIDITY":
		n, err := strconv.ParseUint(s.Args, 10, 64)
		switch {
		case err != nil:
			return violation("UIDVALIDITY %.40q is not a number of 64 bits", s.Args)
		case m.UIDValidity != 0 && n != m.UIDValidity:
			m.Rebuilt = true
		default:
			m.UIDValidity = n
		}
	case "UIDNEXT":
		if n, err := strconv.ParseUint(s.Args, 10, 64); err == nil && m.UIDNext == 0 {
			m.UIDNext = n
		}
	case "UIDNOTSTICKY":
		m.UIDNotSticky = true
	case "PERMANENTFLAGS":
		m.SessionDeleted = !slices.ContainsFunc(strings.Fields(strings.Trim(s.Args, "()")), func(flag string) bool {
			return flag == `\*` || strings.EqualFold(flag, `\Deleted`)
		})
	case "MAILBOXID":
		if len(s.Args) <= maxID {
			m.MailboxID = strings.Trim(s.Args, "()")
		}
	}
	return nil
}

func (c *Conn) skipSearch() error {
	for c.search.open {
		if _, err := c.searchItem(); err != nil {
			return err
		}
	}
	return nil
}
