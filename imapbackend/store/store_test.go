package store

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"popgate/proxy"
)

func listing(n int) Listing {
	l := Listing{UIDValidity: 1, UIDNext: uint64(n) + 1}
	for i := range n {
		l.Messages = append(l.Messages, proxy.Message{UID: uint64(i) + 1, Octets: 100})
	}
	return l
}

func key(user string) Key { return Key{Upstream: "up", User: user, Mailbox: "INBOX"} }

func inUTF8(k Key) Key {
	k.UTF8 = true
	return k
}

func TestListing(t *testing.T) {
	s := NewMemory(1 << 20)
	if _, ok := s.Listing(key("a")); ok {
		t.Error("an empty store knows a mailbox")
	}
	s.PutListing(key("a"), listing(3))
	s.PutListing(key("b"), listing(5))
	s.PutListing(key("a"), listing(4))
	got, ok := s.Listing(key("a"))
	if diff := cmp.Diff(listing(4), got); !ok || diff != "" {
		t.Errorf("%v: %s", ok, diff)
	}
	if _, ok := s.Listing(Key{Upstream: "up", User: "a", Mailbox: "Other"}); ok {
		t.Error("another mailbox of the user is known")
	}
	if _, ok := s.Listing(inUTF8(key("a"))); ok {
		t.Error("P-EXT-6: a listing is the same in and out of UTF8 mode")
	}
	s.DropListing(key("a"))
	if _, ok := s.Listing(key("a")); ok {
		t.Error("a dropped listing is known")
	}
	if _, ok := s.Listing(key("b")); !ok {
		t.Error("the listing of another mailbox was dropped too")
	}
}

// I-SIZE-3, I-UIDV-3: true sizes are collected for one UIDVALIDITY, and dropped
// with it.
func TestSizes(t *testing.T) {
	s := NewMemory(1 << 20)
	if got := s.Sizes(key("a"), 1); got != nil {
		t.Errorf("an empty store knows %v", got)
	}
	first := map[uint64]int64{1: 10, 2: 20}
	s.PutSizes(key("a"), 1, first)
	before := s.Sizes(key("a"), 1)
	s.PutSizes(key("a"), 1, map[uint64]int64{2: 21, 3: 30})
	if diff := cmp.Diff(map[uint64]int64{1: 10, 2: 21, 3: 30}, s.Sizes(key("a"), 1)); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(map[uint64]int64{1: 10, 2: 20}, before); diff != "" {
		t.Errorf("a returned map has changed: %s", diff)
	}
	if got := s.Sizes(inUTF8(key("a")), 1); got != nil {
		t.Errorf("P-EXT-6: known in UTF8 mode: %v", got)
	}
	if got := s.Sizes(key("a"), 2); got != nil {
		t.Errorf("known under another UIDVALIDITY: %v", got)
	}
	if got := s.Sizes(key("a"), 1); got != nil {
		t.Errorf("I-UIDV-3: still known: %v", got)
	}
	s.PutSizes(key("a"), 1, first)
	s.PutSizes(key("a"), 2, map[uint64]int64{9: 90})
	if diff := cmp.Diff(map[uint64]int64{9: 90}, s.Sizes(key("a"), 2)); diff != "" {
		t.Error(diff)
	}
}

func TestIdentities(t *testing.T) {
	s := NewMemory(1 << 20)
	ids := []Identity{{1, "M1"}, {7, "M7"}}
	s.PutIdentities(key("a"), 1, "emailid", ids)
	s.PutIdentities(key("a"), 1, "header", ids[:1])
	if diff := cmp.Diff(ids, s.Identities(key("a"), 1, "emailid")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(ids[:1], s.Identities(key("a"), 1, "header")); diff != "" {
		t.Error(diff)
	}
	if got := s.Identities(key("a"), 2, "emailid"); got != nil {
		t.Errorf("known under another UIDVALIDITY: %v", got)
	}
	if got := s.Identities(key("b"), 1, "emailid"); got != nil {
		t.Errorf("known of another user: %v", got)
	}
}

// I-UIDL-5: the unique-ids that were shown are remembered across UIDVALIDITY
// and UTF8 mode.
func TestUniqueIDs(t *testing.T) {
	s := NewMemory(1 << 20)
	if _, ok := s.UniqueIDs(key("a")); ok {
		t.Error("an empty store knows unique-ids")
	}
	u := UniqueIDs{UIDValidity: 9, Shown: []Shown{{1, "M1", "9.1"}, {2, "M2", "9.2"}}, Gone: []Gone{{"M3", "9.3", 20000}}}
	if err := s.PutUniqueIDs(inUTF8(key("a")), u); err != nil {
		t.Fatal(err)
	}
	got, ok := s.UniqueIDs(key("a"))
	if diff := cmp.Diff(u, got); !ok || diff != "" {
		t.Errorf("%v: %s", ok, diff)
	}
	u.Shown = []Shown{{2, "M2", "9.2"}, {1, "M1", "9.1"}}
	if err := s.PutUniqueIDs(key("a"), u); err == nil {
		t.Error("unique-ids out of order are accepted")
	}
}

// The store is bounded: the least recently used record is evicted, and a record
// that would evict most of the rest is not kept.
func TestBound(t *testing.T) {
	const one = recordCost + 16*100
	s := NewMemory(10 * one)
	for i := range 30 {
		s.PutListing(key(fmt.Sprint(i)), listing(100))
		s.Listing(key("0"))
		if s.cache.used > s.cache.limit {
			t.Fatalf("%d used of %d", s.cache.used, s.cache.limit)
		}
	}
	known := 0
	for i := range 30 {
		if _, ok := s.Listing(key(fmt.Sprint(i))); ok {
			known++
		}
	}
	if _, ok := s.Listing(key("0")); known != 10 || !ok {
		t.Errorf("%d mailboxes known, the one in use: %v", known, ok)
	}
	s.PutListing(key("big"), listing(10*one/2/16+1))
	if _, ok := s.Listing(key("big")); ok {
		t.Error("a listing above half of the store is stored")
	}
	for i := range 30 {
		s.DropListing(key(fmt.Sprint(i)))
	}
	if s.cache.used != 0 || len(s.cache.entries) != 0 || s.cache.recent.Len() != 0 {
		t.Errorf("%d used, %d entries after all was dropped", s.cache.used, len(s.cache.entries))
	}
}

// Each kind of record is counted, including its texts.
func TestCost(t *testing.T) {
	const limit = 64 << 10
	long := strings.Repeat("x", 70)
	for name, fill := range map[string]func(s *Store, user string){
		"listings":   func(s *Store, user string) { s.PutListing(key(user), listing(500)) },
		"sizes":      func(s *Store, user string) { s.PutSizes(key(user), 1, map[uint64]int64{1: 1, 2: 2}) },
		"identities": func(s *Store, user string) { s.PutIdentities(key(user), 1, "emailid", []Identity{{1, long}}) },
		"unique-ids": func(s *Store, user string) {
			_ = s.PutUniqueIDs(key(user), UniqueIDs{Shown: []Shown{{1, long, long}}, Gone: []Gone{{long, long, 1}}})
		},
	} {
		s := NewMemory(limit)
		n := 0
		for ; len(s.cache.entries) == n && n < 1000; n++ {
			fill(s, fmt.Sprint(n))
		}
		if n == 1000 || s.cache.used > limit {
			t.Errorf("%s: %d mailboxes in %d octets", name, n, s.cache.used)
		}
	}
}
