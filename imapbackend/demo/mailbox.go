package demo

import (
	"slices"
	"sync"
	"time"

	"github.com/emersion/go-imap"
)

// message is one message of a mailbox. Its content never changes, and flags is
// replaced, never modified: a copy of a message may be read without the lock.
type message struct {
	uid uint32
	content
	flags []string // sorted, without duplicates
	date  time.Time
}

func (m *message) has(flag string) bool {
	_, ok := slices.BinarySearch(m.flags, flag)
	return ok
}

// mailbox is the store of one mailbox, shared by all its sessions. It is safe
// for concurrent use.
type mailbox struct {
	uidValidity uint32

	mu      sync.Mutex
	uidNext uint32
	msgs    []message // by ascending UID
}

func newMailbox(uidValidity uint32) *mailbox {
	return &mailbox{uidValidity: uidValidity, uidNext: 1}
}

// append adds a message and returns its UID.
func (m *mailbox) append(c content, flags []string, date time.Time) uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	uid := m.uidNext
	m.uidNext++
	m.msgs = append(m.msgs, message{
		uid: uid, content: c, flags: withFlags(nil, imap.SetFlags, flags), date: date,
	})
	return uid
}

// uids returns the UIDs of all messages and the UID of the next one.
func (m *mailbox) uids() (uids []uint32, next uint32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	uids = make([]uint32, len(m.msgs))
	for i := range m.msgs {
		uids[i] = m.msgs[i].uid
	}
	return uids, m.uidNext
}

// messages returns all messages, by ascending UID.
func (m *mailbox) messages() []Message {
	m.mu.Lock()
	defer m.mu.Unlock()
	all := make([]Message, len(m.msgs))
	for i, msg := range m.msgs {
		octets, _ := read(msg.content, 0, msg.octets()) // fails only for files, which tests do not change
		all[i] = Message{UID: msg.uid, Flags: slices.Clone(msg.flags), Octets: octets}
	}
	return all
}

// find returns the message with this UID, nil if it is gone. The caller holds
// m.mu.
func (m *mailbox) find(uid uint32) *message {
	i, ok := slices.BinarySearchFunc(m.msgs, uid, func(msg message, uid uint32) int {
		return int(int64(msg.uid) - int64(uid))
	})
	if !ok {
		return nil
	}
	return &m.msgs[i]
}

// get returns a copy of the message with this UID; ok is false if it is gone.
func (m *mailbox) get(uid uint32) (msg message, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.find(uid)
	if p == nil {
		return message{}, false
	}
	return *p, true
}

// markSeen sets \Seen and does what get does. It also reports whether the flags
// have changed.
func (m *mailbox) markSeen(uid uint32) (msg message, changed, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.find(uid)
	if p == nil {
		return message{}, false, false
	}
	if !p.has(imap.SeenFlag) {
		p.flags = withFlags(p.flags, imap.AddFlags, []string{imap.SeenFlag})
		changed = true
	}
	return *p, changed, true
}

// store changes the flags of the messages with these UIDs. It ignores those that
// are gone.
func (m *mailbox) store(uids []uint32, op imap.FlagsOp, flags []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, uid := range uids {
		if p := m.find(uid); p != nil {
			p.flags = withFlags(p.flags, op, flags)
		}
	}
}

// expunge removes the messages flagged \Deleted for which in returns true.
func (m *mailbox) expunge(in func(uid uint32) bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.msgs = slices.DeleteFunc(m.msgs, func(msg message) bool {
		return msg.has(imap.DeletedFlag) && in(msg.uid)
	})
}

// withFlags applies op to current and returns the result as a new slice. A
// client cannot set \Recent (RFC 3501 §2.3.2).
func withFlags(current []string, op imap.FlagsOp, flags []string) []string {
	var set []string
	if op != imap.SetFlags {
		set = slices.Clone(current)
	}
	for _, f := range flags {
		f = imap.CanonicalFlag(f)
		i, found := slices.BinarySearch(set, f)
		switch {
		case f == imap.RecentFlag:
		case op == imap.RemoveFlags && found:
			set = slices.Delete(set, i, i+1)
		case op != imap.RemoveFlags && !found:
			set = slices.Insert(set, i, f)
		}
	}
	return set
}
