package demo

import (
	"bytes"
	"net/mail"
	"strings"
	"time"

	"github.com/emersion/go-imap"
)

// SearchMessages answers SEARCH. Strings are compared with the octets of the
// message, without decoding and ignoring case.
func (v *view) SearchMessages(uid bool, c *imap.SearchCriteria) ([]uint32, error) {
	var ids []uint32
	for i, u := range v.uids {
		msg, ok := v.mailbox.get(u)
		if !ok || !v.matches(i, &msg, c) {
			continue
		}
		if uid {
			ids = append(ids, u)
		} else {
			ids = append(ids, uint32(i+1))
		}
	}
	return ids, nil
}

// matches reports whether the message with index i satisfies all of c.
func (v *view) matches(i int, msg *message, c *imap.SearchCriteria) bool {
	if c.SeqNum != nil && !v.inSet(false, c.SeqNum, i) || c.Uid != nil && !v.inSet(true, c.Uid, i) {
		return false
	}
	for _, f := range c.WithFlags {
		if !msg.has(imap.CanonicalFlag(f)) {
			return false
		}
	}
	for _, f := range c.WithoutFlags {
		if msg.has(imap.CanonicalFlag(f)) {
			return false
		}
	}
	size := uint32(msg.octets())
	if c.Larger > 0 && size <= c.Larger || c.Smaller > 0 && size >= c.Smaller {
		return false
	}
	if !within(msg.date, c.Since, c.Before) || !matchesText(msg.content, c) {
		return false
	}
	for _, not := range c.Not {
		if v.matches(i, msg, not) {
			return false
		}
	}
	for _, or := range c.Or {
		if !v.matches(i, msg, or[0]) && !v.matches(i, msg, or[1]) {
			return false
		}
	}
	return true
}

// inSet reports whether set contains the message with index i.
func (v *view) inSet(uid bool, set *imap.SeqSet, i int) bool {
	id := uint32(i + 1)
	if uid {
		id = v.uids[i]
	}
	// `*` is the last message, and so is a range from a higher number to `*`.
	return set.Contains(id) || i == len(v.uids)-1 && set.Dynamic()
}

// matchesText reports whether the content of a message satisfies c.
func matchesText(msg content, c *imap.SearchCriteria) bool {
	if len(c.Header)+len(c.Body)+len(c.Text) == 0 && c.SentSince.IsZero() && c.SentBefore.IsZero() {
		return true
	}
	octets, err := read(msg, 0, msg.octets())
	if err != nil {
		return false
	}
	text := msg.text()
	for name, values := range c.Header {
		for _, value := range values {
			if !hasField(octets[:text], name, value) {
				return false
			}
		}
	}
	for _, s := range c.Body {
		if !containsFold(octets[text:], s) {
			return false
		}
	}
	for _, s := range c.Text {
		if !containsFold(octets, s) {
			return false
		}
	}
	if c.SentSince.IsZero() && c.SentBefore.IsZero() {
		return true
	}
	_, value, _ := strings.Cut(string(headerFields(octets[:text], []string{"Date"}, false)), ":")
	date, err := mail.ParseDate(strings.TrimSpace(value))
	return err == nil && within(date, c.SentSince, c.SentBefore)
}

// hasField reports whether the field name contains value, which may be empty.
func hasField(header []byte, name, value string) bool {
	fields := headerFields(header, []string{name}, false)
	_, fields, ok := bytes.Cut(fields, []byte(":"))
	return ok && containsFold(fields, value)
}

func containsFold(b []byte, s string) bool {
	return bytes.Contains(bytes.ToLower(b), bytes.ToLower([]byte(s)))
}

// within compares days only, disregarding time zones (RFC 3501 §6.4.4). A zero
// bound is no bound.
func within(t, since, before time.Time) bool {
	day := time.Date(t.Year(), t.Month(), t.Day(), 0, 0, 0, 0, time.UTC)
	return (since.IsZero() || !day.Before(since)) && (before.IsZero() || day.Before(before))
}
