// Package store remembers, between sessions, what mailboxes held: the UIDs and
// sizes that a listing has told, sizes found to be true, what identifies
// messages beyond their UIDs, and the unique-ids that were shown for them. All
// but the last is a cache. Losing it costs speed only, and what it says is
// trusted only as far as the upstream proves it current.
package store

import (
	"errors"
	"maps"
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

// What is wrong with unique-ids that cannot be kept.
var (
	errInvalid  = errors.New("store: unique-ids out of order, or too long")
	errTooLarge = errors.New("store: unique-ids of one mailbox take more than a quarter of the store")
)

// Store is a memory of limited size. When it is full the record goes that has
// not been used for longest; one that would fill more than half of it is not
// kept. What it returns is shared and never changed, what it is given must not
// be changed any more. It is safe for concurrent use.
type Store struct {
	merging sync.Mutex // PutSizes: from reading to writing

	writer *writer // nil: in memory only

	mu    sync.Mutex
	cache *cache
	puts  int // counts changes, for who reads the disk meanwhile
}

// NewMemory returns an empty store of at most limit octets that ends with the
// process. It need not be closed.
func NewMemory(limit int64) *Store {
	return &Store{cache: newCache(limit)}
}

// Close writes what is not on the disk yet and gives the file back. The store
// goes on in memory, for who still has it.
func (s *Store) Close() error {
	if s.writer == nil {
		return nil
	}
	return s.writer.close()
}

// Listing returns the listing that is remembered of a mailbox.
func (s *Store) Listing(key Key) (Listing, bool) {
	l, ok := s.get(recordID{Key: key, kind: kindListing}).(Listing)
	return l, ok
}

// PutListing remembers l in place of what was known of the mailbox. It costs
// next to nothing where that is what Listing has returned.
func (s *Store) PutListing(key Key, l Listing) {
	id := recordID{Key: key, kind: kindListing}
	s.mu.Lock()
	known, ok := s.cache.get(id).(Listing)
	s.mu.Unlock()
	if !ok || !known.same(l) {
		s.put(id, l)
	}
}

// same reports whether two listings are one and the same.
func (l Listing) same(other Listing) bool {
	n := len(l.Messages)
	return l.UIDValidity == other.UIDValidity && l.UIDNext == other.UIDNext &&
		n == len(other.Messages) && (n == 0 || &l.Messages[0] == &other.Messages[0])
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

// PutUniqueIDs remembers u in place of what was remembered of the mailbox. A
// store on disk has it there when it returns; an error means that it may not
// outlive the process.
func (s *Store) PutUniqueIDs(key Key, u UniqueIDs) error {
	key.UTF8 = false
	switch {
	case !valid(u):
		return errInvalid
	case s.writer != nil && !s.writer.fits(u):
		return errTooLarge
	}
	id := recordID{Key: key, kind: kindUniqueIDs}
	if s.writer == nil {
		s.put(id, u)
		return nil
	}
	s.mu.Lock()
	s.putLocked(id, u)
	written := s.writer.confirm()
	s.mu.Unlock()
	return <-written
}

// get returns a record from memory or disk, nil where there is none.
func (s *Store) get(id recordID) record {
	s.mu.Lock()
	r, known := s.cache.get(id), true
	if r == nil && s.writer != nil {
		r, known = s.writer.pending(id)
	}
	if s.writer != nil {
		s.writer.use(id.Key)
	}
	before := s.puts
	s.mu.Unlock()
	if known {
		return r
	}
	r, invalid, err := s.writer.disk.read(id)
	if err != nil {
		return nil // the writer deals with it
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.puts != before {
		return r
	}
	if invalid {
		s.writer.disk.log.Warn("part of the store is damaged and forgotten", "path", s.writer.disk.path, "kind", string(id.kind))
		s.writer.enqueue(id, r)
	}
	if r != nil {
		s.cache.put(id, r)
	}
	return r
}

func (s *Store) put(id recordID, r record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.putLocked(id, r)
}

func (s *Store) putLocked(id recordID, r record) {
	s.puts++
	s.cache.put(id, r)
	if s.writer != nil {
		s.writer.enqueue(id, r)
	}
}

func (s *Store) drop(id recordID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.puts++
	s.cache.drop(id)
	if s.writer != nil {
		s.writer.enqueue(id, nil)
	}
}
