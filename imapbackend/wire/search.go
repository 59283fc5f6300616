package wire

import "bytes"

// searchItem reads the next range of a SEARCH or ESEARCH response, and then its
// end. Of an ESEARCH response for another command it returns nothing but a Data
// event.
func (c *Conn) searchItem() (Event, error) {
	for {
		b, err := c.peek()
		if err != nil {
			return Event{}, err
		}
		switch {
		case b == ' ' || b == ',':
			c.r++
		case b == '\r' || b == '\n':
			s := &c.search
			s.open = false
			if s.foreign {
				return Event{Kind: Data, Name: "ESEARCH"}, c.endLine()
			}
			return Event{Kind: Searched, Whole: s.all || !s.some}, c.endLine()
		case '0' <= b && b <= '9':
			ev, ok, err := c.searchRange()
			if err != nil || ok && !c.search.foreign {
				return ev, err
			}
		case c.search.extended:
			if err := c.searchOption(); err != nil {
				return Event{}, err
			}
		case b == '(':
			// (MODSEQ n) after the numbers, RFC 7162 §3.1.5.
			if err := c.skipValue(); err != nil {
				return Event{}, err
			}
		default:
			return Event{}, violation("%q in a search result", b)
		}
	}
}

// searchRange reads n or n:m, without UID 0; ok is false if nothing else is in it.
func (c *Conn) searchRange() (ev Event, ok bool, err error) {
	low, err := c.uid()
	if err != nil {
		return Event{}, false, err
	}
	high := low
	if b, err := c.peek(); err == nil && b == ':' {
		c.r++
		if high, err = c.uid(); err != nil {
			return Event{}, false, err
		}
	}
	if err := c.count(); err != nil {
		return Event{}, false, err
	}
	low, high = min(low, high), max(low, high)
	if low == 0 {
		c.mailbox.UIDZero = true
		low = 1
	}
	return Event{Kind: Search, Low: low, High: high}, high != 0, nil
}

// searchOption reads what an ESEARCH response contains besides the set
// (RFC 4731 §3.1): the correlator, UID, and items other than ALL with their
// values. The set itself follows ALL, which an empty result does not have: that is
// empty, or has COUNT 0.
func (c *Conn) searchOption() error {
	b, err := c.peek()
	if err != nil {
		return err
	}
	if b == '(' {
		return c.correlator()
	}
	word, err := c.word(c.scratch[:0])
	if err != nil {
		return err
	}
	c.scratch = word
	switch {
	case len(word) == 0:
		return violation("%q in a search result", b)
	case bytes.Equal(word, []byte("ALL")):
		c.search.all = true
		return nil
	case bytes.Equal(word, []byte("UID")):
		return nil
	}
	isCount := bytes.Equal(word, []byte("COUNT"))
	if err := c.expect(' '); err != nil {
		return err
	}
	if b, err = c.peek(); err == nil && isCount && b == '0' {
		n, err := c.number()
		c.search.some = c.search.some || n > 0
		return err
	}
	c.search.some = true
	return c.skipValue()
}

// correlator reads a list with the tag of the command that an ESEARCH response is
// for, as a quoted string.
func (c *Conn) correlator() error {
	c.r++ // its parenthesis
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
		case b == '"':
			tag, err := c.quoted(c.scratch[:0])
			if err != nil {
				return err
			}
			c.scratch = tag
			c.search.foreign = c.inFlight(tag) < 0
		default:
			if err := c.skipValue(); err != nil {
				return err
			}
		}
	}
}
