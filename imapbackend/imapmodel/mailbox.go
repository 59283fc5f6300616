package imapmodel

import (
	"cmp"
	"slices"
)

// Mailbox is a mailbox of a Model. Its methods do what other clients could do to
// it. They are safe for concurrent use.
type Mailbox struct {
	m           *Model
	owner, name string
	id          string // MAILBOXID
	uidValidity uint64
	uidNext     uint64
	messages    []Message // ascending by UID; never changed in place
	readOnly    bool
	trash       bool
}

// Message is one message of a Mailbox.
type Message struct {
	UID   uint64
	Body  string
	Size  int64    // RFC822.SIZE in octets; 0: the length of Body
	Flags []string // never changed in place
	Email string   // EMAILID and, if it consists of digits, X-GM-MSGID
}

// Deleted reports whether the message is flagged \Deleted.
func (msg Message) Deleted() bool { return slices.Contains(msg.Flags, `\Deleted`) }

func (msg Message) octets() int64 { return cmp.Or(msg.Size, int64(len(msg.Body))) }

// Messages returns the messages of the mailbox in ascending order of UID. The
// slice is shared and must not be changed.
func (b *Mailbox) Messages() []Message {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	return b.messages
}

// UIDValidity returns the mailbox's UIDVALIDITY.
func (b *Mailbox) UIDValidity() uint64 {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	return b.uidValidity
}

// SetUIDValidity sets the mailbox's UIDVALIDITY, which may be one of those above 32
// bits that some servers have. No connection may have selected the mailbox.
func (b *Mailbox) SetUIDValidity(v uint64) *Mailbox {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	b.uidValidity = v
	return b
}

// SetUIDNext sets the UID of the next message, which may be one of those above 32
// bits that some servers have. It must be above all earlier ones.
func (b *Mailbox) SetUIDNext(uid uint64) *Mailbox {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	b.uidNext = uid
	return b
}

// Add appends a message and returns its UID.
func (b *Mailbox) Add(body string) uint64 { return b.AddMessage(Message{Body: body}) }

// AddMessage appends msg, with a UID of the mailbox, and returns that UID.
func (b *Mailbox) AddMessage(msg Message) uint64 {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	return b.append(msg)
}

func (b *Mailbox) append(msg Message) uint64 {
	msg.UID = b.uidNext
	b.uidNext++
	b.messages = append(b.messages, msg)
	return msg.UID
}

// Remove expunges a message. It reports whether the message existed and could be
// expunged.
func (b *Mailbox) Remove(uid uint64) bool {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	if b.m.Style == Kept {
		for c := range b.m.conns {
			if _, seen := slices.BinarySearch(c.view, uid); seen && c.box == b {
				return false
			}
		}
	}
	return b.expunge(func(msg Message) bool { return msg.UID == uid }) > 0
}

// expunge removes the messages that match and returns their number.
func (b *Mailbox) expunge(match func(Message) bool) int {
	kept := make([]Message, 0, len(b.messages))
	for _, msg := range b.messages {
		if !match(msg) {
			kept = append(kept, msg)
			continue
		}
		for c := range b.m.conns {
			if _, seen := slices.BinarySearch(c.view, msg.UID); seen && c.box == b {
				c.expunged[msg.UID] = msg
			}
		}
	}
	n := len(b.messages) - len(kept)
	b.messages = kept
	return n
}

// SetFlag sets or clears a flag of a message.
func (b *Mailbox) SetFlag(uid uint64, flag string, on bool) {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	b.setFlags(func(u uint64) bool { return u == uid }, func(old []string) []string { return changed(old, []string{flag}, on) })
}

// setFlags changes the flags of the messages that match, which each connection
// announces.
func (b *Mailbox) setFlags(match func(uid uint64) bool, change func(old []string) []string) {
	b.messages = slices.Clone(b.messages)
	for i, msg := range b.messages {
		if !match(msg.UID) {
			continue
		}
		b.messages[i].Flags = change(msg.Flags)
		for c := range b.m.conns {
			if c.box == b {
				c.changed = append(c.changed, msg.UID)
			}
		}
	}
}

func changed(old, flags []string, on bool) []string {
	out := slices.DeleteFunc(slices.Clone(old), func(f string) bool { return slices.Contains(flags, f) })
	if on {
		out = append(out, flags...)
	}
	return out
}

// Rebuild gives the mailbox another UIDVALIDITY, and its messages, in reverse
// order, other UIDs. Most of these UIDs belonged to another message before.
func (b *Mailbox) Rebuild() {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	b.uidValidity += 100
	messages := slices.Clone(b.messages)
	slices.Reverse(messages)
	for i := range messages {
		messages[i].UID = uint64(i + 1)
	}
	b.messages, b.uidNext = messages, max(b.uidNext, uint64(len(messages)+1))
	b.makeStale()
}

// Clear gives the mailbox another UIDVALIDITY, removes all messages, and starts
// again with UID 1.
func (b *Mailbox) Clear() {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	b.uidValidity += 100
	b.messages, b.uidNext = nil, 1
	b.makeStale()
}

// makeStale makes the view of each connection stale.
func (b *Mailbox) makeStale() {
	for c := range b.m.conns {
		c.stale = c.stale || c.box == b
	}
}

// Rename gives the mailbox another name. Connections that have selected it
// continue.
func (b *Mailbox) Rename(name string) {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	b.name = name
}

// SetReadOnly makes the mailbox read-only, or ends that: STORE fails at once,
// SELECT of later sessions announces it.
func (b *Mailbox) SetReadOnly(on bool) {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	b.readOnly = on
}

// SetTrash gives the mailbox the attribute \Trash (RFC 6154 §2).
func (b *Mailbox) SetTrash() *Mailbox {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	b.trash = true
	return b
}

// Replace gives a message another body, which an IMAP server must not do.
func (b *Mailbox) Replace(uid uint64, body string) {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	b.messages = slices.Clone(b.messages) // Messages has returned it
	for i := range b.messages {
		if b.messages[i].UID == uid {
			b.messages[i].Body = body
		}
	}
}
