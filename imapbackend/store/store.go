// Package store remembers, between sessions, what mailboxes held: the UIDs and
// sizes that a listing has told. It is a cache. Losing it costs speed only,
// and what it says is trusted only as far as the upstream proves it current.
package store

import (
	"container/list"
	"sync"

	"popgate/proxy"
)

// Key names one mailbox of one user, as it looks in or out of UTF8 mode: sizes
// may differ (RFC 6855 §3).
type Key struct {
	Upstream, User, Mailbox string
	UTF8                    bool
}

// Listing is all messages of a mailbox with a UID below UIDNext, also those
// that no maildrop shows.
type Listing struct {
	UIDValidity uint32
	UIDNext     uint32
	Messages    []proxy.Message // ascending by UID; shared, never changed
}

// Memory keeps listings in memory, 16 octets a message and a constant for each
// mailbox. When it is full the mailbox goes that has not been used for longest.
// It is safe for concurrent use.
type Memory struct {
	limit int // messages, a mailbox counting for mailboxCost of them besides

	mu      sync.Mutex
	used    int
	entries map[Key]*list.Element
	recent  *list.List // of *entry, the latest first
}

type entry struct {
	key     Key
	listing Listing
}

// mailboxCost is what a mailbox takes besides its messages, counted in
// messages.
const mailboxCost = 32

func (e *entry) cost() int { return mailboxCost + len(e.listing.Messages) }

// NewMemory returns an empty store of at most limit octets.
func NewMemory(limit int64) *Memory {
	return &Memory{
		limit:   int(limit / 16),
		entries: make(map[Key]*list.Element),
		recent:  list.New(),
	}
}

// Get returns what is remembered of a mailbox.
func (m *Memory) Get(key Key) (Listing, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	el, ok := m.entries[key]
	if !ok {
		return Listing{}, false
	}
	m.recent.MoveToFront(el)
	return el.Value.(*entry).listing, true
}

// Put remembers l in place of what was known of the mailbox. A listing that
// would fill more than half of the store is not kept.
func (m *Memory) Put(key Key, l Listing) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(key)
	e := &entry{key, l}
	if e.cost() > m.limit/2 {
		return
	}
	m.entries[key] = m.recent.PushFront(e)
	m.used += e.cost()
	for m.used > m.limit {
		m.drop(m.recent.Back().Value.(*entry).key)
	}
}

// Drop forgets a mailbox.
func (m *Memory) Drop(key Key) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.drop(key)
}

func (m *Memory) drop(key Key) {
	if el, ok := m.entries[key]; ok {
		m.used -= el.Value.(*entry).cost()
		m.recent.Remove(el)
		delete(m.entries, key)
	}
}
