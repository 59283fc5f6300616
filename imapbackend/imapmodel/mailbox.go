package imapmodel

import (
	"cmp"
	"slices"
)

// Mailbox is a mailbox of a Model. Its methods are what other clients do to it;
// they are safe for concurrent use.
type Mailbox struct {
	m           *Model
	owner, name string
	id          string // MAILBOXID
	uidValidity uint32
	uidNext     uint32
	messages    []Message // ascending by UID; a slice handed out is never changed
	readOnly    bool
	trash       bool
}

// Message is one message of a Mailbox.
type Message struct {
	UID   uint32
	Body  string
	Size  int64    // what RFC822.SIZE tells, in octets; 0: the truth
	Flags []string // never changed in place
	Email string   // EMAILID, and with digits only X-GM-MSGID
}

// Deleted reports whether the message is flagged \Deleted.
func (msg Message) Deleted() bool { return slices.Contains(msg.Flags, `\Deleted`) }

func (msg Message) octets() int64 { return cmp.Or(msg.Size, int64(len(msg.Body))) }

// Messages returns what is in the mailbox, in ascending order of UID.
func (b *Mailbox) Messages() []Message {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	return b.messages
}

// UIDValidity returns the mailbox's UIDVALIDITY.
func (b *Mailbox) UIDValidity() uint32 {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	return b.uidValidity
}

// Add appends a message and returns its UID.
func (b *Mailbox) Add(body string) uint32 { return b.AddMessage(Message{Body: body}) }

// AddMessage is Add with all that there is to a message, but its UID.
func (b *Mailbox) AddMessage(msg Message) uint32 {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	return b.append(msg)
}

func (b *Mailbox) append(msg Message) uint32 {
	msg.UID = b.uidNext
	b.uidNext++
	b.messages = append(b.messages, msg)
	return msg.UID
}

// Remove expunges a message and reports whether it has been there, and could
// be expunged.
func (b *Mailbox) Remove(uid uint32) bool {
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

// expunge removes the messages that match and returns how many there were.
func (b *Mailbox) expunge(match func(Message) bool) int {
	kept := make([]Message, 0, len(b.messages))
	for _, msg := range b.messages {
		if !match(msg) {
			kept = append(kept, msg)
			continue
		}
		for c := range b.m.conns {
			if _, seen := slices.BinarySearch(c.view, msg.UID); seen && c.box == b {
				c.ghosts[msg.UID] = msg
			}
		}
	}
	n := len(b.messages) - len(kept)
	b.messages = kept
	return n
}

// SetFlag sets or clears a flag of a message.
func (b *Mailbox) SetFlag(uid uint32, flag string, on bool) {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	b.setFlags(func(u uint32) bool { return u == uid }, func(old []string) []string { return changed(old, []string{flag}, on) })
}

// setFlags changes the flags of the messages that match; each connection is
// told.
func (b *Mailbox) setFlags(match func(uid uint32) bool, change func(old []string) []string) {
	b.messages = slices.Clone(b.messages)
	for i, msg := range b.messages {
		if !match(msg.UID) {
			continue
		}
		b.messages[i].Flags = change(msg.Flags)
		for c := range b.m.conns {
			if c.box == b {
				c.news = append(c.news, msg.UID)
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

// Rebuild gives the mailbox another UIDVALIDITY and its messages, in reverse
// order, other UIDs: most of them then name another message than before.
func (b *Mailbox) Rebuild() {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	b.uidValidity += 100
	messages := slices.Clone(b.messages)
	slices.Reverse(messages)
	for i := range messages {
		messages[i].UID = uint32(i + 1)
	}
	b.messages, b.uidNext = messages, max(b.uidNext, uint32(len(messages)+1))
	b.disown()
}

// Clear is Rebuild of a mailbox that has lost all its messages, with UIDs that
// begin again.
func (b *Mailbox) Clear() {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	b.uidValidity += 100
	b.messages, b.uidNext = nil, 1
	b.disown()
}

// disown makes the view of each connection stale.
func (b *Mailbox) disown() {
	for c := range b.m.conns {
		c.stale = c.stale || c.box == b
	}
}

// Rename gives the mailbox another name. Connections that have it open go on.
func (b *Mailbox) Rename(name string) {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	b.name = name
}

// SetReadOnly makes later sessions, and STORE at once, meet a mailbox that
// cannot be changed.
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

// Replace gives a message another body, which no IMAP server does.
func (b *Mailbox) Replace(uid uint32, body string) {
	b.m.mu.Lock()
	defer b.m.mu.Unlock()
	b.messages = slices.Clone(b.messages) // Messages has given it away
	for i := range b.messages {
		if b.messages[i].UID == uid {
			b.messages[i].Body = body
		}
	}
}
