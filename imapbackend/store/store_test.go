package store

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"popgate/proxy"
)

func listing(n int) Listing {
	l := Listing{UIDValidity: 1, UIDNext: uint32(n) + 1}
	for i := range n {
		l.Messages = append(l.Messages, proxy.Message{UID: uint32(i) + 1, Octets: 100})
	}
	return l
}

func key(user string) Key { return Key{Upstream: "up", User: user, Mailbox: "INBOX"} }

func TestMemory(t *testing.T) {
	m := NewMemory(1 << 20)
	if _, ok := m.Get(key("a")); ok {
		t.Error("an empty store knows a mailbox")
	}
	m.Put(key("a"), listing(3))
	m.Put(key("b"), listing(5))
	m.Put(key("a"), listing(4))
	got, ok := m.Get(key("a"))
	if diff := cmp.Diff(listing(4), got); !ok || diff != "" {
		t.Errorf("%v: %s", ok, diff)
	}
	if _, ok := m.Get(Key{Upstream: "up", User: "a", Mailbox: "Other"}); ok {
		t.Error("another mailbox of the user is known")
	}
	if _, ok := m.Get(Key{Upstream: "up", User: "a", Mailbox: "INBOX", UTF8: true}); ok {
		t.Error("P-EXT-6: sizes of UTF8 mode are those of the other")
	}
	m.Drop(key("a"))
	if _, ok := m.Get(key("a")); ok {
		t.Error("a dropped mailbox is known")
	}
	if _, ok := m.Get(key("b")); !ok {
		t.Error("another mailbox was dropped too")
	}
}

// The store is bounded: what has not been used for longest goes, and nothing
// is kept that would push out most of the rest.
func TestMemoryBound(t *testing.T) {
	m := NewMemory(16 * 10 * (mailboxCost + 100))
	for i := range 30 {
		m.Put(key(fmt.Sprint(i)), listing(100))
		m.Get(key("0"))
		if m.used > m.limit {
			t.Fatalf("%d used of %d", m.used, m.limit)
		}
	}
	known := 0
	for i := range 30 {
		if _, ok := m.Get(key(fmt.Sprint(i))); ok {
			known++
		}
	}
	if _, ok := m.Get(key("0")); known != 10 || !ok {
		t.Errorf("%d mailboxes known, the one in use: %v", known, ok)
	}
	m.Put(key("big"), listing(10*(mailboxCost+100)/2+1))
	if _, ok := m.Get(key("big")); ok {
		t.Error("a listing above half of the store is kept")
	}
	for i := range 30 {
		m.Drop(key(fmt.Sprint(i)))
	}
	if m.used != 0 || len(m.entries) != 0 || m.recent.Len() != 0 {
		t.Errorf("%d used, %d entries after all was dropped", m.used, len(m.entries))
	}
}
