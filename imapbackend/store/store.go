// Package store remembers the content of mailboxes between sessions: UIDs and
// sizes from a listing, sizes found to be true, identities of messages that do
// not depend on their UIDs, the unique-ids that were shown for them, and which
// messages a removal has flagged. All but the last two is a cache: losing it costs
// only speed, and it is used only as far as the upstream proves it current.
package store

import (
	"context"
	"errors"
	"maps"
	"sync"

	"popgate/proxy"
)

// Key names one mailbox of one user, in or out of UTF8 mode: sizes may differ
// (RFC 6855 §3).
type Key struct {
	Upstream, User, Mailbox string
	UTF8                    bool
}

// Listing is all messages of a mailbox with a UID below UIDNext, including those
// that no maildrop shows.
type Listing struct {
	UIDValidity uint64
	UIDNext     uint64
	Messages    []proxy.Message // ascending by UID; shared, must not be changed
}

// Identity identifies a message whatever its UID: by an EMAILID, an X-GM-MSGID,
// or a hash of its header.
type Identity struct {
	UID uint64
	ID  string
}

// UniqueIDs is the memory of the unique-ids that were shown for a mailbox.
type UniqueIDs struct {
	UIDValidity uint64
	Shown       []Shown // ascending by UID; shared, must not be changed
	Gone        []Gone  // shared, must not be changed
}

// Shown is the unique-id of a message of the mailbox.
type Shown struct {
	UID    uint64
	ID     string // its identity
	String string // the unique-id
}

// Gone is the unique-id of a message that is no longer in the mailbox.
type Gone struct {
	ID     string // its identity
	String string // the unique-id
	Day    int32  // when it was found missing, in days since 1970
}

// Why unique-ids cannot be stored.
var (
	errInvalid  = errors.New("store: unique-ids out of order, or too long")
	errTooLarge = errors.New("store: unique-ids of one mailbox take more than a quarter of the store")
)

// Store holds records, in a limited amount of memory. When it is full, the least
// recently used record is evicted; a record that would fill more than half of it
// is not stored. What it returns is shared and must not be changed, nor what was
// given to it. It is safe for concurrent use.
type Store struct {
	merging sync.Mutex // held by PutSizes and PutFact from reading to writing

	writer *writer // nil: in memory only

	mu    sync.Mutex
	cache *cache
	puts  int // number of changes, to notice those during a read from the disk
}

// NewMemory returns an empty store of at most limit octets in memory. It need not
// be closed.
func NewMemory(limit int64) *Store {
	return &Store{cache: newCache(limit)}
}

// Close writes what is not on the disk yet and closes the file. The store can
// still be used, in memory only.
func (s *Store) Close() error {
	if s.writer == nil {
		return nil
	}
	return s.writer.close()
}

// Listing returns the stored listing of a mailbox.
func (s *Store) Listing(key Key) (Listing, bool) {
	l, ok := s.get(recordID{Key: key, kind: kindListing}).(Listing)
	return l, ok
}

// PutListing replaces the listing of a mailbox by l. It is cheap if l is what
// Listing has returned. A listing that does not ascend, or that has UIDs from
// UIDNext on, is of no use: the mailbox is then without one.
func (s *Store) PutListing(key Key, l Listing) {
	id := recordID{Key: key, kind: kindListing}
	s.mu.Lock()
	known, ok := s.cache.get(id).(Listing)
	s.mu.Unlock()
	switch {
	case ok && known.same(l):
	case valid(l):
		s.put(id, l)
	default:
		s.drop(id)
	}
}

// same reports whether two listings share their messages and have the same
// numbers.
func (l Listing) same(other Listing) bool {
	n := len(l.Messages)
	return l.UIDValidity == other.UIDValidity && l.UIDNext == other.UIDNext &&
		n == len(other.Messages) && (n == 0 || &l.Messages[0] == &other.Messages[0])
}

// DropListing deletes the listing of a mailbox.
func (s *Store) DropListing(key Key) {
	s.drop(recordID{Key: key, kind: kindListing})
}

// Sizes returns the true sizes that are known, in octets by UID; nil if there are
// none. It deletes those of another UIDVALIDITY: their mailbox no longer exists
// (requirement I-UIDV-3).
func (s *Store) Sizes(key Key, uidValidity uint64) map[uint64]int64 {
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

// PutSizes adds true sizes to those known for the same UIDVALIDITY, and replaces
// those of another.
func (s *Store) PutSizes(key Key, uidValidity uint64, octets map[uint64]int64) {
	s.merging.Lock()
	defer s.merging.Unlock()
	merged := maps.Clone(s.Sizes(key, uidValidity))
	if merged == nil {
		merged = make(map[uint64]int64, len(octets))
	}
	maps.Copy(merged, octets)
	s.put(recordID{Key: key, kind: kindSizes}, sizes{uidValidity, merged})
}

// Identities returns the known identities from one source, such as "emailid", in
// ascending order of UID.
func (s *Store) Identities(key Key, uidValidity uint64, source string) []Identity {
	known, ok := s.get(recordID{Key: key, kind: kindIdentities, source: source}).(identities)
	if !ok || known.uidValidity != uidValidity {
		return nil
	}
	return known.ids
}

// PutIdentities replaces all identities from the source by ids, which are in
// ascending order of UID.
func (s *Store) PutIdentities(key Key, uidValidity uint64, source string, ids []Identity) {
	s.put(recordID{Key: key, kind: kindIdentities, source: source}, identities{uidValidity, ids})
}

// UniqueIDs returns the stored unique-ids of a mailbox, which are the same in and
// out of UTF8 mode.
func (s *Store) UniqueIDs(key Key) (UniqueIDs, bool) {
	key.UTF8 = false
	u, ok := s.get(recordID{Key: key, kind: kindUniqueIDs}).(UniqueIDs)
	return u, ok
}

// PutUniqueIDs replaces the unique-ids of a mailbox by u. When it returns, a
// store with a file has written them; an error means that they may be lost at
// the end of the process.
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

// Sync waits until all that was put before is on the disk, if the store has a file,
// or until ctx ends. An error of the disk is logged by the store too.
func (s *Store) Sync(ctx context.Context) error {
	if s.writer == nil {
		return nil
	}
	s.mu.Lock()
	written := s.writer.confirm()
	s.mu.Unlock()
	select {
	case err := <-written:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// get returns a record from memory or disk, nil if there is none.
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
		return nil // the writer handles the error
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
