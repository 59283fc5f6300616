package wire

import "bytes"

// searchItem reads the next range of a SEARCH or ESEARCH response; at its end
// it returns an empty Data event.
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
			c.search.open = false
			return Event{Kind: Data, Name: "SEARCH"}, c.endLine()
		case '0' <= b && b <= '9':
			return c.searchRange()
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

// searchRange reads n or n:m.
func (c *Conn) searchRange() (Event, error) {
	low, err := c.number32()
	if err != nil {
		return Event{}, err
	}
	high := low
	if b, err := c.peek(); err == nil && b == ':' {
		c.r++
		if high, err = c.number32(); err != nil {
			return Event{}, err
		}
	}
	return Event{Kind: Search, Low: min(low, high), High: max(low, high)}, nil
}

// searchOption reads what an ESEARCH response contains besides the set
// (RFC 4731 §3.1): the correlator, UID, and items other than ALL with their
// values. The set itself follows ALL.
func (c *Conn) searchOption() error {
	b, err := c.peek()
	if err != nil {
		return err
	}
	if b == '(' {
		return c.skipValue()
	}
	word, err := c.word(c.scratch[:0])
	if err != nil {
		return err
	}
	c.scratch = word
	switch {
	case len(word) == 0:
		return violation("%q in a search result", b)
	case bytes.Equal(word, []byte("ALL")), bytes.Equal(word, []byte("UID")):
		return nil
	}
	if err := c.expect(' '); err != nil {
		return err
	}
	return c.skipValue()
}
