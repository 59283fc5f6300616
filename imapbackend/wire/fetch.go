package wire

import (
	"bytes"
	"io"
	"strings"
)

// fetchState is the FETCH response being read.
type fetchState struct {
	open      bool // its closing parenthesis has not been read
	unknown   bool // an item has a name that is not one of IMAP's
	seq       uint32
	uid       uint64
	uidZero   bool // UID 0: the response is about no message
	octets    int64
	flags     bool   // FLAGS has been read
	deleted   bool   // \Deleted was among them
	seen      bool   // and so was \Seen
	object    string // EMAILID
	gmail     uint64 // X-GM-MSGID
	left      int64  // octets of the current body's literal not read yet
	following Event  // what follows the last body, read with it
	isRead    bool   // following has not been returned yet
	quoted    []byte // rest of a body that is a quoted string
}

// startFetch reads up to the first event of a FETCH response, or of a UIDFETCH
// response, which has the UID in place of the sequence number (RFC 9586 §3.3).
func (c *Conn) startFetch(number uint64, byUID bool) (Event, error) {
	c.fetch = fetchState{open: true, octets: -1, quoted: c.fetch.quoted[:0]}
	if byUID {
		c.setUID(number)
	} else {
		c.fetch.seq = uint32(number)
	}
	err := c.skipSpaces()
	if err == nil {
		err = c.expect('(')
	}
	if err != nil {
		return Event{}, err
	}
	return c.fetchItem()
}

// fetchItem reads items up to a body or the end of the response.
func (c *Conn) fetchItem() (Event, error) {
	f := &c.fetch
	if f.isRead {
		f.isRead, f.open = false, f.following.Kind == Body
		return f.following, nil
	}
	if err := c.discard(f.left); err != nil {
		return Event{}, err
	}
	f.left, f.quoted = 0, f.quoted[:0]
	for {
		b, err := c.peek()
		if err != nil {
			return Event{}, err
		}
		switch b {
		case ' ':
			c.r++
			continue
		case '\r':
			if err := c.emptyLine(); err != nil {
				return Event{}, err
			}
			continue
		case ')':
			c.r++
			f.open = false
			return c.fetched(), c.endLine()
		}
		name, err := c.word(c.scratch[:0])
		if err != nil {
			return Event{}, err
		}
		c.scratch = name
		if len(name) == 0 {
			return Event{}, violation("%q instead of a FETCH item", b)
		}
		if string(name) == "BODY" {
			ev, isBody, err := c.body()
			if err != nil {
				return Event{}, err
			}
			if isBody && !f.uidZero {
				return ev, nil
			}
			if err := c.discard(f.left); err != nil {
				return Event{}, err
			}
			f.left, f.quoted = 0, f.quoted[:0]
			continue
		}
		if err := c.fetchValue(name); err != nil {
			return Event{}, err
		}
	}
}

// fetched returns the event of a response that has been read.
func (c *Conn) fetched() Event {
	f := &c.fetch
	later := c.mailbox.Counted && f.seq > c.mailbox.Remaining
	if f.uidZero {
		return Event{Kind: Fetch, Seq: f.seq, Octets: -1, UIDZero: true, Later: later}
	}
	return Event{Kind: Fetch, Seq: f.seq, UID: f.uid, Octets: f.octets, EmailID: f.object, GmailID: f.gmail,
		Flags: f.flags, Deleted: f.deleted, Seen: f.seen, Later: later}
}

// fetchValue reads the value of an item other than a body, or skips it.
func (c *Conn) fetchValue(name []byte) error {
	f := &c.fetch
	switch string(name) {
	case "UID", "RFC822.SIZE", "FLAGS", "EMAILID", "X-GM-MSGID":
	case "INTERNALDATE", "MODSEQ", "ENVELOPE", "BODYSTRUCTURE":
		return c.skipItem()
	default:
		f.unknown = true
		return c.skipItem()
	}
	err := c.skipSpaces()
	if err != nil {
		return err
	}
	switch string(name) {
	case "UID":
		var uid uint64
		if uid, err = c.uid(); err == nil {
			c.setUID(uid)
		}
	case "RFC822.SIZE":
		f.octets, err = c.sizeOrNil()
	case "FLAGS":
		f.flags = true
		err = c.readFlags()
	case "EMAILID":
		f.object, err = c.objectID()
	case "X-GM-MSGID":
		f.gmail, err = c.number64()
	}
	return err
}

// setUID records the UID of the response. One without a UID could be attributed to
// a message; one with UID 0 must not be.
func (c *Conn) setUID(uid uint64) {
	f := &c.fetch
	f.uid, f.uidZero = uid, uid == 0
	c.mailbox.UIDZero = c.mailbox.UIDZero || f.uidZero
}

// sizeOrNil reads a size. It returns -1 for NIL, which some servers send if they
// have none.
func (c *Conn) sizeOrNil() (int64, error) {
	if b, err := c.peek(); err == nil && (b == 'N' || b == 'n') {
		return -1, c.skipAtom()
	}
	return c.number()
}

// readFlags reads a list of flags and records whether \Deleted and \Seen are among
// them, in any case: some servers change it. Flags may contain any octets.
func (c *Conn) readFlags() error {
	const deleted, seen = `\Deleted`, `\Seen`
	f := &c.fetch
	f.deleted, f.seen = false, false
	if b, err := c.peek(); err != nil || b != '(' {
		if err == nil {
			err = c.skipValue()
		}
		return err
	}
	c.r++
	for {
		b, err := c.peek()
		switch {
		case err != nil:
			return err
		case b == ')':
			c.r++
			return nil
		case b == ' ':
			c.r++
			continue
		case b == '"' || b == '(':
			if err := c.skipValue(); err != nil {
				return err
			}
			continue
		}
		word := c.scratch[:0]
		for ; err == nil && b != ' ' && b != '(' && b != ')' && b != '\r' && b != '\n'; b, err = c.peek() {
			if c.r++; len(word) <= len(deleted) {
				word = append(word, b)
			}
		}
		c.scratch = word
		f.deleted = f.deleted || strings.EqualFold(string(word), deleted)
		f.seen = f.seen || strings.EqualFold(string(word), seen)
		if b == '\r' || b == '\n' {
			if err := c.flagLiteral(word); err != nil {
				return err
			}
		}
	}
}

// flagLiteral skips the literal that word announces at the end of a line.
func (c *Conn) flagLiteral(word []byte) error {
	n, ok := trailingLiteral(word)
	if !ok || word[0] != '{' {
		return violation("line end within a list of flags")
	}
	if err := c.endLine(); err != nil {
		return err
	}
	return c.discard(n)
}

// objectID reads an object id in its parentheses (RFC 8474 §4). It returns "" for
// NIL, which a server may send if it has no such ids.
func (c *Conn) objectID() (string, error) {
	if b, err := c.peek(); err != nil || b != '(' {
		if err == nil {
			err = c.skipValue()
		}
		return "", err
	}
	c.r++
	id := c.scratch[:0]
	for {
		b, err := c.next()
		switch {
		case err != nil:
			return "", err
		case b == ')':
			c.scratch = id
			return string(id), nil
		case b == '\r' || b == '\n' || b == '(' || len(id) >= 255:
			return "", violation("object id %.40q", id)
		}
		id = append(id, b)
	}
}

// skipItem skips section, origin and value of an item that was not requested.
func (c *Conn) skipItem() error {
	if b, err := c.peek(); err == nil && b == '[' {
		if _, _, err := c.section(); err != nil {
			return err
		}
	}
	if err := c.skipSpaces(); err != nil {
		return err
	}
	return c.skipValue()
}

// skipSpaces consumes any spaces. Some servers leave out the one in front of a
// literal, a quoted string or a list.
func (c *Conn) skipSpaces() error {
	for {
		b, err := c.peek()
		if err != nil || b != ' ' {
			return err
		}
		c.r++
	}
}

// emptyLine reads a line end in front of the closing parenthesis, where some
// servers send one. After an item with an unknown name that may be the end of a
// body that is longer than announced.
func (c *Conn) emptyLine() error {
	if err := c.endLine(); err != nil {
		return err
	}
	b, err := c.peek()
	if err == nil && (b != ')' || c.fetch.unknown) {
		err = violation("%q after a line end within a FETCH response", b)
	}
	return err
}

// body reads what follows the word BODY. Without a section that is a body
// structure, which is skipped.
func (c *Conn) body() (ev Event, isBody bool, err error) {
	if b, err := c.peek(); err != nil || b != '[' {
		if err == nil {
			err = c.skipItem()
		}
		return ev, false, err
	}
	ev = Event{Kind: Body, Seq: c.fetch.seq, UID: c.fetch.uid}
	if ev.Section, ev.Origin, err = c.section(); err != nil {
		return ev, true, err
	}
	if err = c.skipSpaces(); err != nil {
		return ev, true, err
	}
	b, err := c.peek()
	switch {
	case err != nil:
	case b == '{':
		c.fetch.left, err = c.literal()
		ev.Octets = c.fetch.left
	case b == '"':
		c.fetch.quoted, err = c.quoted(c.fetch.quoted[:0])
		ev.Octets = int64(len(c.fetch.quoted))
	case b == 'N' || b == 'n':
		ev.Nil = true
		err = c.skipAtom()
	default:
		err = violation("%q instead of the data of a BODY", b)
	}
	return ev, true, err
}

// section reads "[section]" and, if there is one, "<origin>", also in the form
// "<origin.count>" of a request. The origin is -1 if there is none.
func (c *Conn) section() (string, int64, error) {
	section := c.scratch[:0]
	for depth := 0; ; {
		b, err := c.next()
		if err != nil {
			return "", 0, err
		}
		if b == '\r' || b == '\n' || len(section) > 1024 {
			return "", 0, violation("section %.40q", section)
		}
		section = append(section, b)
		if b == '[' {
			depth++
		} else if b == ']' {
			if depth--; depth == 0 {
				break
			}
		}
	}
	c.scratch = section
	name := ""
	switch inner := section[1 : len(section)-1]; {
	case len(inner) == 0:
	case bytes.EqualFold(inner, []byte("HEADER")):
		name = "HEADER"
	case bytes.EqualFold(inner, []byte("TEXT")):
		name = "TEXT"
	default:
		name = strings.ToUpper(string(inner))
	}
	if b, err := c.peek(); err != nil || b != '<' {
		return name, -1, err
	}
	c.r++
	origin, err := c.number()
	if err != nil {
		return name, origin, err
	}
	if b, err := c.peek(); err == nil && b == '.' {
		c.r++
		if _, err := c.number(); err != nil {
			return name, origin, err
		}
	}
	return name, origin, c.expect('>')
}

// BodyTo writes the unread rest of the current body to w and returns the number
// of octets written. After an error of w the connection is still usable; any
// other error is the cause of its loss.
func (c *Conn) BodyTo(w io.Writer) (int64, error) {
	f := &c.fetch
	var total int64
	if f.left == 0 && len(f.quoted) == 0 {
		return 0, nil
	}
	defer c.endData()
	if len(f.quoted) > 0 {
		n, err := w.Write(f.quoted)
		f.quoted = f.quoted[:0]
		return int64(n), err
	}
	for f.left > 0 {
		if c.r == c.w {
			c.inData = true
			if err := c.fill(); err != nil {
				return total, c.Fail(err)
			}
		}
		k := int(min(f.left, int64(c.w-c.r)))
		n, err := w.Write(c.buf[c.r : c.r+k])
		c.r += k
		f.left -= int64(k)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	c.endData()
	return total, c.bodyEnd()
}

// endData is called when what is read are no longer the data of a body.
func (c *Conn) endData() {
	c.inData = false
	if c.flow {
		c.Flow()
	}
}

// bodyEnd reads up to the next body or the end of the response. It finds an
// announced length that is not that of the body: a body that is not whole must
// not be taken for whole. Only the last line end of a body looks like an empty
// line in front of the closing parenthesis.
func (c *Conn) bodyEnd() error {
	b, err := c.peek()
	if err == nil && b != ' ' && b != ')' && b != '\r' {
		err = violation("%q after the octets of a body", b)
	}
	f := &c.fetch
	if err == nil {
		f.following, err = c.fetchItem()
	}
	if err != nil {
		return c.Fail(err)
	}
	f.open, f.isRead = true, true
	return nil
}

// BodyLeft returns the number of unread octets of the current body.
func (c *Conn) BodyLeft() int64 { return c.fetch.left }

func (c *Conn) skipFetch() error {
	for c.fetch.open {
		if _, err := c.fetchItem(); err != nil {
			return err
		}
	}
	return nil
}
