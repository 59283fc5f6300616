package store

import (
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"popgate/proxy"
)

// I-SNAP-7: records are kept across restarts, each kind of record and each
// mailbox by itself.
func TestDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, _ := openStore(t, path, Options{})
	samples := map[Key]sample{key("a"): newSample(3000), key("b"): newSample(1), inUTF8(key("c")): newSample(64)}
	for k, m := range samples {
		m.put(t, s, k)
	}
	s.PutListing(key("empty"), Listing{UIDValidity: 1, UIDNext: 1})
	s.PutListing(key("gone"), listing(5))
	s.PutListing(key("edge"), Listing{UIDValidity: math.MaxUint32, UIDNext: math.MaxUint32,
		Messages: []proxy.Message{{UID: 1, Octets: 0}, {UID: 1024, Octets: 1 << 62}, {UID: math.MaxUint32 - 1, Octets: math.MaxInt64}}})
	wide := Listing{UIDValidity: math.MaxUint64, UIDNext: math.MaxUint64,
		Messages: []proxy.Message{{UID: math.MaxUint32, Octets: 1}, {UID: 1 << 42, Octets: 2}, {UID: math.MaxUint64 - 1, Octets: 3}}}
	s.PutListing(key("wide"), wide)
	s.PutSizes(key("wide"), math.MaxUint64, map[uint64]int64{math.MaxUint32: 2, math.MaxUint64: 3})
	s.PutIdentities(key("wide"), math.MaxUint64, "emailid", []Identity{{7, "M"}, {1 << 38, "N"}, {math.MaxUint64, "O"}})
	if err := s.PutUniqueIDs(key("wide"), UniqueIDs{UIDValidity: math.MaxUint64,
		Shown: []Shown{{7, "M", "x.7"}, {math.MaxUint64 - 64, "N", "x.8"}, {math.MaxUint64, "O", "x.9"}}, Gone: []Gone{{"P", "x.6", 1}}}); err != nil {
		t.Error(err)
	}
	s.DropListing(key("gone"))
	closeStore(t, s)

	s, log := openStore(t, path, Options{})
	for k, m := range samples {
		m.check(t, s, k) // from the disk
		m.check(t, s, k) // from memory
	}
	if _, ok := s.Listing(key("gone")); ok {
		t.Error("a dropped listing is back")
	}
	if l, ok := s.Listing(key("empty")); !ok || len(l.Messages) != 0 || l.UIDNext != 1 {
		t.Errorf("the empty mailbox: %v %v", l, ok)
	}
	if l, ok := s.Listing(key("edge")); !ok || len(l.Messages) != 3 || l.Messages[1].Octets != 1<<62 {
		t.Errorf("the mailbox of large numbers: %v %v", l, ok)
	}
	l, _ := s.Listing(key("wide"))
	u, _ := s.UniqueIDs(key("wide"))
	sizes, ids := s.Sizes(key("wide"), math.MaxUint64), s.Identities(key("wide"), math.MaxUint64, "emailid")
	if !cmp.Equal(l, wide) || sizes[math.MaxUint32] != 2 || sizes[math.MaxUint64] != 3 ||
		len(ids) != 3 || ids[2] != (Identity{math.MaxUint64, "O"}) ||
		u.UIDValidity != math.MaxUint64 || len(u.Shown) != 3 || u.Shown[2] != (Shown{math.MaxUint64, "O", "x.9"}) || len(u.Gone) != 1 {
		t.Errorf("numbers of 64 bits: %+v, %v, %v, %+v", l, sizes, ids, u)
	}
	if s.Sizes(key("wide"), math.MaxUint32) != nil {
		t.Error("the sizes of another UIDVALIDITY")
	}
	if s.Sizes(key("c"), 7) != nil {
		t.Error("P-EXT-6: a listing is the same in and out of UTF8 mode")
	}
	if log.String() != "" {
		t.Errorf("log: %s", log)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}

// A record can be read even if it is evicted from memory before it is written,
// and of one that shrinks nothing else is left.
func TestEvictedFromMemory(t *testing.T) {
	s, _ := openStore(t, filepath.Join(t.TempDir(), "store.db"), Options{Memory: 64 << 10})
	for i := range 40 { // each a tenth of the memory
		s.PutListing(key(fmt.Sprint(i)), listing(400))
		if i%8 == 0 {
			_ = s.PutUniqueIDs(key("flush"), UniqueIDs{}) // makes the writer write its queue
		}
		if l, ok := s.Listing(key(fmt.Sprint(i))); !ok || len(l.Messages) != 400 {
			t.Fatalf("%d: %d messages, %v", i, len(l.Messages), ok)
		}
	}
	s.PutListing(key("0"), listing(3))
	_ = s.PutUniqueIDs(key("flush"), UniqueIDs{})
	s.cache = newCache(64 << 10)
	if l, _ := s.Listing(key("0")); len(l.Messages) != 3 {
		t.Errorf("%d messages of 3", len(l.Messages))
	}
}

// Changes are written about a second after the first of them.
func TestWriteDelay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	synctest.Test(t, func(t *testing.T) {
		s, _ := openStore(t, path, Options{})
		s.PutListing(key("a"), listing(3))
		time.Sleep(writeDelay / 2)
		synctest.Wait()
		if s.writer.disk.octets.Load() != 0 {
			t.Error("written at once")
		}
		time.Sleep(writeDelay)
		synctest.Wait()
		if s.writer.disk.octets.Load() == 0 {
			t.Error("not written")
		}
		closeStore(t, s)
	})
}

// pagesOf returns the octets of pages that bbolt has written so far.
func pagesOf(s *Store) int64 {
	stats := s.writer.disk.db.Stats()
	return stats.TxStats.GetPageAlloc()
}

// For ten new messages in a mailbox of 100,000 only their chunks are written.
func TestOctetsWritten(t *testing.T) {
	s, _ := openStore(t, filepath.Join(t.TempDir(), "store.db"), Options{})
	flush := func() { // writes the queue too
		if err := s.PutUniqueIDs(key("other"), UniqueIDs{}); err != nil {
			t.Fatal(err)
		}
	}
	m := newSample(100_000)
	m.put(t, s, key("a"))
	flush()
	whole := s.writer.disk.octets.Load()
	more := newSample(100_010)
	pages := pagesOf(s)
	s.PutListing(key("a"), more.listing)
	flush()
	listing := s.writer.disk.octets.Load() - whole
	s.PutIdentities(key("a"), 7, "emailid", more.ids)
	if err := s.PutUniqueIDs(key("a"), more.unique); err != nil {
		t.Fatal(err)
	}
	all := s.writer.disk.octets.Load() - whole
	pages = pagesOf(s) - pages
	t.Logf("%d octets for 100,000 messages; for ten more %d for the listing, %d in all, %d with bbolt's pages", whole, listing, all, pages)
	if listing > 4<<10 || all > 16<<10 || pages > 256<<10 {
		t.Errorf("ten messages: %d octets for the listing, %d in all, %d with bbolt's pages", listing, all, pages)
	}
	before := s.writer.disk.octets.Load()
	l, _ := s.Listing(key("a"))
	s.PutListing(key("a"), l)
	s.PutListing(key("a"), Listing{l.UIDValidity, l.UIDNext, append([]proxy.Message(nil), l.Messages...)})
	flush()
	if now := s.writer.disk.octets.Load(); now != before {
		t.Errorf("%d octets written for an unchanged listing", now-before)
	}
}

// The file stays within its limit, and recently used mailboxes stay in it;
// unique-ids are evicted last.
func TestMaxSize(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	const limit = 4 << 20
	s, log := openStore(t, path, Options{MaxSize: limit, Memory: 1 << 20})
	u, m, big := newSample(20).unique, newSample(4000), newSample(100_000)
	for i := range 300 {
		s.PutListing(key(fmt.Sprint(i)), m.listing)
		s.PutIdentities(key(fmt.Sprint(i)), 7, "emailid", m.ids[:1000])
		if err := s.PutUniqueIDs(key(fmt.Sprint(i)), u); err != nil {
			t.Fatalf("%d: %v", i, err)
		}
	}
	closeStore(t, s)
	fi, err := os.Stat(path)
	if err != nil || fi.Size() > limit || fi.Size() < limit/2 {
		t.Errorf("%d octets of %d, %v", fi.Size(), limit, err)
	}
	s, _ = openStore(t, path, Options{MaxSize: limit})
	listings, unique := 0, 0
	for i := range 300 {
		if _, ok := s.Listing(key(fmt.Sprint(i))); ok {
			listings++
		}
		if _, ok := s.UniqueIDs(key(fmt.Sprint(i))); ok {
			unique++
		}
	}
	if listings < 5 || listings > 280 || unique != 300 {
		t.Errorf("%d listings, unique-ids of %d mailboxes", listings, unique)
	}
	if !strings.Contains(log.String(), "store is full") || strings.Contains(log.String(), "unique-ids are forgotten") {
		t.Error(log)
	}
	if err := s.PutUniqueIDs(key("big"), big.unique); err == nil {
		t.Error("a record above a quarter of the store is accepted")
	}
	s.PutListing(key("big"), big.listing)
	closeStore(t, s)
}

// When nothing else is left, unique-ids are evicted too, the least recently used
// first.
func TestMaxSizeUniqueIDs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	synctest.Test(t, func(t *testing.T) {
		s, log := openStore(t, path, Options{MaxSize: MinMaxSize})
		u := newSample(300).unique
		for i := range 120 {
			if err := s.PutUniqueIDs(key(fmt.Sprint(i)), u); err != nil {
				t.Fatalf("%d: %v", i, err)
			}
			if _, ok := s.UniqueIDs(key("0")); !ok {
				t.Fatal("unique-ids in use are evicted")
			}
			time.Sleep(time.Hour)
		}
		s.cache = newCache(0)
		var known []int
		for i := range 120 {
			if _, ok := s.UniqueIDs(key(fmt.Sprint(i))); ok {
				known = append(known, i)
			}
		}
		if n := len(known); n < 10 || n > 110 || known[0] != 0 || known[1] != 120-n+1 {
			t.Errorf("known: %d", known)
		}
		if !strings.Contains(log.String(), "unique-ids are forgotten") {
			t.Error(log)
		}
		closeStore(t, s)
	})
}

// A closed store answers from memory, and makes no session wait.
func TestClosed(t *testing.T) {
	s, _ := openStore(t, filepath.Join(t.TempDir(), "store.db"), Options{})
	s.PutListing(key("a"), listing(3))
	closeStore(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.PutUniqueIDs(key("a"), UniqueIDs{}); err == nil {
		t.Error("PutUniqueIDs after Close: no error")
	}
	s.PutListing(key("b"), listing(3))
	if _, ok := s.Listing(key("b")); !ok {
		t.Error("unique-ids are not in memory after Close")
	}
	if _, ok := s.Listing(key("c")); ok {
		t.Error("an unknown mailbox has unique-ids")
	}
}

// Sessions of many users at once, for the race detector.
func TestConcurrent(t *testing.T) {
	s, _ := openStore(t, filepath.Join(t.TempDir(), "store.db"), Options{Memory: 64 << 10, MaxSize: 2 << 20})
	var all sync.WaitGroup
	for g := range 8 {
		all.Go(func() {
			for i := range 40 {
				k := key(fmt.Sprint((g + i) % 10))
				m := newSample(50 + i)
				s.PutListing(k, m.listing)
				s.PutSizes(k, 7, m.sizes)
				s.Listing(k)
				if err := s.PutUniqueIDs(k, m.unique); err != nil {
					t.Error(err)
				}
				s.UniqueIDs(k)
				s.Sizes(k, 7)
			}
		})
	}
	all.Wait()
}

// FuzzDecode checks that a record is in order whatever is on the disk, in a chunk
// whose checksum is right.
func FuzzDecode(f *testing.F) {
	kinds := []kind{kindListing, kindSizes, kindIdentities, kindUniqueIDs, kindFlagged}
	for i, r := range []record{newSample(70).listing, sizes{1, newSample(70).sizes}, identities{1, newSample(70).ids}, newSample(70).unique, newSample(70).flagged} {
		for _, c := range r.chunks() {
			f.Add(byte(i), c.suffix, c.body)
		}
	}
	f.Fuzz(func(t *testing.T, which byte, suffix string, body []byte) {
		id := recordID{kind: kinds[int(which)%len(kinds)]}
		for _, count := range []uint64{0, 1, 2, uint64(len(body) / 2)} {
			all := headed([]chunk{{suffix, body}}, [4]uint64{1, 1 << 20, count})
			d := newDecoder(id)
			for _, c := range []chunk{all[1], all[0]} {
				d.add(c.suffix, addChecksum(nil, c.body), nil)
			}
			if r, _ := d.record(); r != nil && !valid(r) {
				t.Errorf("%v", r)
			}
		}
	})
}
