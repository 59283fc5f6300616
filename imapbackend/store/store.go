// Package store remembers, between sessions, what mailboxes held: the UIDs and
// sizes that a listing has told, sizes found to be true, what identifies
// messages beyond their UIDs, and the unique-ids that were shown for them. All
// but the last is a cache. Losing it costs speed only, and what it says is
// trusted only as far as the upstream proves it current.
package store

import (
	"cmp"
	"errors"
	"maps"
	"slices"
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

// Identity is what tells a message apart beyond its UID: an EMAILID, an
// X-GM-MSGID, or a hash of its header.
type Identity struct {
	UID uint32
	ID  string
}

// UniqueIDs is the memory of the unique-ids that were shown for a mailbox.
type UniqueIDs struct {
	UIDValidity uint32
	Shown       []Shown // ascending by UID; shared, never changed
	Gone        []Gone  // shared, never changed
}

// Shown is the unique-id of a message of the mailbox.
type Shown struct {
	UID    uint32
	ID     string // its identity
	String string // the unique-id
}

// Gone is the unique-id of a message that is no longer in the mailbox.
type Gone struct {
	ID     string // its identity
	String string // the unique-id
	Day    int32  // since when, in days since 1970
}

// errOrder is what a caller has done wrong who may not be ignored.
var errOrder = errors.New("store: unique-ids not in ascending order of UID")

// Store is a memory of limited size. When it is full the record goes that has
// not been used for longest; one that would fill more than half of it is not
// kept. What it returns is shared and never changed, what it is given must not
// be changed any more. It is safe for concurrent use.
type Store struct {
	merging sync.Mutex // PutSizes: from reading to writing

	mu    sync.Mutex
	cache *cache
}

// NewMemory returns an empty store of at most limit octets that ends with the
// process. It need not be closed.
func NewMemory(limit int64) *Store {
	return &Store{cache: newCache(limit)}
}

// Close ends the use of the store.
func (s *Store) Close() error { return nil }

// Listing returns the listing that is remembered of a mailbox.
func (s *Store) Listing(key Key) (Listing, bool) {
	l, ok := s.get(recordID{Key: key, kind: kindListing}).(Listing)
	return l, ok
}

// PutListing remembers l in place of what was known of the mailbox.
func (s *Store) PutListing(key Key, l Listing) {
	s.put(recordID{Key: key, kind: kindListing}, l)
}

// DropListing forgets the listing of a mailbox.
func (s *Store) DropListing(key Key) {
	s.drop(recordID{Key: key, kind: kindListing})
}

// Sizes returns the true sizes that are known, in octets by UID; nil if there
// are none. Those of another UIDVALIDITY are forgotten: the mailbox they were
// of is no more (requirement I-UIDV-3).
func (s *Store) Sizes(key Key, uidValidity uint32) map[uint32]int64 {
	id := recordID{Key: key, kind: kindSizes}
	known, ok := s.get(id).(sizes)
	switch {
	case !ok:
		return nil
	case known.uidValidity != uidValidity:
		s.drop(id)
		return nil
	}
	return known.octets
}

// PutSizes adds true sizes to those known under the same UIDVALIDITY, and
// replaces those of another.
func (s *Store) PutSizes(key Key, uidValidity uint32, octets map[uint32]int64) {
	s.merging.Lock()
	defer s.merging.Unlock()
	merged := maps.Clone(s.Sizes(key, uidValidity))
	if merged == nil {
		merged = make(map[uint32]int64, len(octets))
	}
	maps.Copy(merged, octets)
	s.put(recordID{Key: key, kind: kindSizes}, sizes{uidValidity, merged})
}

// Identities returns the identities from one source, such as "emailid", that
// are known, in ascending order of UID.
func (s *Store) Identities(key Key, uidValidity uint32, source string) []Identity {
	known, ok := s.get(recordID{Key: key, kind: kindIdentities, source: source}).(identities)
	if !ok || known.uidValidity != uidValidity {
		return nil
	}
	return known.ids
}

// PutIdentities remembers ids, in ascending order of UID, in place of all that
// were known from the source.
func (s *Store) PutIdentities(key Key, uidValidity uint32, source string, ids []Identity) {
	s.put(recordID{Key: key, kind: kindIdentities, source: source}, identities{uidValidity, ids})
}

// UniqueIDs returns the unique-ids that are remembered of a mailbox, in or out
// of UTF8 mode.
func (s *Store) UniqueIDs(key Key) (UniqueIDs, bool) {
	key.UTF8 = false
	u, ok := s.get(recordID{Key: key, kind: kindUniqueIDs}).(UniqueIDs)
	return u, ok
}

// PutUniqueIDs remembers u in place of what was remembered of the mailbox.
func (s *Store) PutUniqueIDs(key Key, u UniqueIDs) error {
	if !slices.IsSortedFunc(u.Shown, func(a, b Shown) int { return cmp.Compare(a.UID, b.UID) }) {
		return errOrder
	}
	key.UTF8 = false
	s.put(recordID{Key: key, kind: kindUniqueIDs}, u)
	return nil
}

func (s *Store) get(id recordID) record {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cache.get(id)
}

func (s *Store) put(id recordID, r record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cache.put(id, r)
}

func (s *Store) drop(id recordID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cache.drop(id)
}
