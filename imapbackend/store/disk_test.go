package store

import (
	"bytes"
	"fmt"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"popgate/proxy"
)

// logBuffer collects a log that several goroutines write.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func openStore(t testing.TB, path string, o Options) (*Store, *logBuffer) {
	t.Helper()
	log := &logBuffer{}
	o.Log = slog.New(slog.NewTextHandler(log, nil))
	s, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s, log
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// sample is a mailbox of n messages with everything about it.
type sample struct {
	listing Listing
	sizes   map[uint32]int64
	ids     []Identity
	unique  UniqueIDs
}

func newSample(n int) sample {
	s := sample{listing: Listing{UIDValidity: 7, UIDNext: uint32(3*n + 5)}, sizes: map[uint32]int64{}, unique: UniqueIDs{UIDValidity: 7}}
	for i := range n {
		uid := uint32(3*i + 1)
		s.listing.Messages = append(s.listing.Messages, proxy.Message{UID: uid, Octets: int64(i) * 977 % 100_000})
		if i%10 == 0 {
			s.sizes[uid] = int64(i)
		}
		s.ids = append(s.ids, Identity{uid, fmt.Sprintf("M%d", i*i)})
		s.unique.Shown = append(s.unique.Shown, Shown{uid, fmt.Sprintf("M%d", i*i), fmt.Sprintf("7.%d", uid)})
		s.unique.Gone = append(s.unique.Gone, Gone{fmt.Sprintf("G%d", i), fmt.Sprintf("6.%d", uid), int32(20_000 + i/100)})
	}
	return s
}

func (m sample) put(t testing.TB, s *Store, k Key) {
	t.Helper()
	s.PutListing(k, m.listing)
	s.PutSizes(k, 7, m.sizes)
	s.PutIdentities(k, 7, "emailid", m.ids)
	if err := s.PutUniqueIDs(k, m.unique); err != nil {
		t.Fatal(err)
	}
}

// check wants all of m in s; absent is what may be missing.
func (m sample) check(t testing.TB, s *Store, k Key) {
	t.Helper()
	l, _ := s.Listing(k)
	u, _ := s.UniqueIDs(k)
	got := sample{l, s.Sizes(k, 7), s.Identities(k, 7, "emailid"), u}
	if diff := cmp.Diff(m, got, cmp.AllowUnexported(sample{})); diff != "" {
		t.Errorf("%v: %s", k, diff)
	}
}

// I-SNAP-7: what is remembered outlives the process, each kind of record and
// each mailbox by itself.
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
	s.DropListing(key("gone"))
	closeStore(t, s)

	s, log := openStore(t, path, Options{})
	for k, m := range samples {
		m.check(t, s, k) // from the disk
		m.check(t, s, k) // from memory
	}
	if _, ok := s.Listing(key("gone")); ok {
		t.Error("a listing that was dropped is back")
	}
	if l, ok := s.Listing(key("empty")); !ok || len(l.Messages) != 0 || l.UIDNext != 1 {
		t.Errorf("the empty mailbox: %v %v", l, ok)
	}
	if l, ok := s.Listing(key("edge")); !ok || len(l.Messages) != 3 || l.Messages[1].Octets != 1<<62 {
		t.Errorf("the mailbox of large numbers: %v %v", l, ok)
	}
	if s.Sizes(key("c"), 7) != nil {
		t.Error("P-EXT-6: sizes of UTF8 mode are those of the other")
	}
	if log.String() != "" {
		t.Errorf("log: %s", log)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", fi.Mode(), err)
	}
}

// A record that is read or evicted before it is written is there all the same,
// and one that shrinks leaves nothing behind.
func TestDiskBehindMemory(t *testing.T) {
	s, _ := openStore(t, filepath.Join(t.TempDir(), "store.db"), Options{Memory: 64 << 10})
	for i := range 40 { // each a tenth of the memory
		s.PutListing(key(fmt.Sprint(i)), listing(400))
		if i%8 == 0 {
			_ = s.PutUniqueIDs(key("flush"), UniqueIDs{}) // to have the queue written
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

// Writing waits for about a second, and then for more to come no longer.
func TestWriteBehind(t *testing.T) {
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

// Ten new messages in a mailbox of 100,000 cost the chunks that they are in.
func TestOctetsWritten(t *testing.T) {
	s, _ := openStore(t, filepath.Join(t.TempDir(), "store.db"), Options{})
	flush := func() { // the queue is written along
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
	t.Logf("%d octets for 100,000 messages; ten more: %d for the listing, %d in all, %d with bbolt's pages", whole, listing, all, pages)
	if listing > 4<<10 || all > 16<<10 || pages > 256<<10 {
		t.Errorf("ten messages: %d octets for the listing, %d in all, %d with bbolt's pages", listing, all, pages)
	}
	before := s.writer.disk.octets.Load()
	l, _ := s.Listing(key("a"))
	s.PutListing(key("a"), l)
	s.PutListing(key("a"), Listing{l.UIDValidity, l.UIDNext, append([]proxy.Message(nil), l.Messages...)})
	flush()
	if now := s.writer.disk.octets.Load(); now != before {
		t.Errorf("an unchanged listing costs %d octets", now-before)
	}
}

// The file stays within its limit, and what has been used lately stays in it;
// unique-ids go last.
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
		t.Error("a record above a quarter of the store is taken")
	}
	s.PutListing(key("big"), big.listing)
	closeStore(t, s)
}

// Where nothing else is left, unique-ids go too, those not used for longest
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
				t.Fatal("those in use are forgotten")
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

// The file belongs to one process.
func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	openStore(t, path, Options{})
	before := time.Now()
	_, err := Open(path, Options{})
	if err == nil || !strings.Contains(err.Error(), "another popgate uses it") || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	if d := time.Since(before); d > 5*time.Second {
		t.Errorf("after %v", d)
	}
}

// What an operator can mend stops the start.
func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"not a regular file":        dir,
		"no such file or directory": filepath.Join(dir, "missing", "store.db"),
		"not a directory":           filepath.Join(dir, "file", "store.db"),
	} {
		if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(filepath.Join(dir, "x"), Options{MaxSize: 100}); err == nil {
		t.Error("a limit of 100 octets is taken")
	}
}

const filledMailboxes = 12

// filled makes a store with some mailboxes in it and returns its octets.
func filled(t testing.TB) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store.db")
	s, _ := openStore(t, path, Options{})
	for i := range filledMailboxes {
		newSample(500).put(t, s, key(fmt.Sprint(i)))
	}
	closeStore(t, s)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// checkKnown wants nothing in s that is not in m.
func (m sample) checkKnown(t testing.TB, s *Store, k Key) {
	t.Helper()
	if l, ok := s.Listing(k); ok && !cmp.Equal(l, m.listing) {
		t.Errorf("%v: a mangled listing", k)
	}
	for uid, octets := range s.Sizes(k, 7) {
		if m.sizes[uid] != octets {
			t.Errorf("%v: size %d of UID %d", k, octets, uid)
		}
	}
	if ids := s.Identities(k, 7, "emailid"); ids != nil && !cmp.Equal(ids, m.ids) {
		t.Errorf("%v: mangled identities", k)
	}
	shown := make(map[Shown]bool)
	for _, s := range m.unique.Shown {
		shown[s] = true
	}
	u, _ := s.UniqueIDs(k)
	for _, s := range u.Shown {
		if !shown[s] {
			t.Errorf("%v: a mangled unique-id: %v", k, s)
		}
	}
}

// useDamaged opens the store in path, which filled has made, reads and writes
// all that is in it, and does so again, with check to look at what was written.
// It returns the log.
func useDamaged(t *testing.T, path string, check func(sample, testing.TB, *Store, Key)) string {
	t.Helper()
	s, log := openStore(t, path, Options{})
	old, more := newSample(500), newSample(600)
	for i := range filledMailboxes {
		old.checkKnown(t, s, key(fmt.Sprint(i)))
	}
	for i := range filledMailboxes {
		more.put(t, s, key(fmt.Sprint(i)))
	}
	closeStore(t, s)
	s, _ = openStore(t, path, Options{})
	for i := range filledMailboxes {
		check(more, t, s, key(fmt.Sprint(i)))
	}
	closeStore(t, s)
	return log.String()
}

// A damaged or foreign file is set aside, and costs no more than what was in
// it: no session, and no start.
func TestDamaged(t *testing.T) {
	good := filled(t)
	page := os.Getpagesize()
	foreign := func(fill func(tx *bolt.Tx) error) []byte {
		path := filepath.Join(t.TempDir(), "foreign")
		db, err := bolt.Open(path, 0o600, nil)
		if err == nil {
			err = db.Update(fill)
		}
		if err != nil {
			t.Fatal(err)
		}
		db.Close()
		b, _ := os.ReadFile(path)
		return b
	}
	at := func(offset int, with []byte) []byte {
		b := bytes.Clone(good)
		copy(b[offset:], with)
		return b
	}
	noise := make([]byte, page)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	for name, content := range map[string][]byte{
		"text":              []byte("hello\nworld\n"),
		"a page of text":    bytes.Repeat([]byte("hello\n"), page),
		"zeros":             make([]byte, 8*page),
		"half":              good[:len(good)/2],
		"two pages":         good[:2*page],
		"one page":          good[:page],
		"a few octets":      good[:100],
		"both metas":        at(0, bytes.Repeat(noise, 2)),
		"another program's": foreign(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("x")); return err }),
		"a later format": foreign(func(tx *bolt.Tx) error {
			b, err := tx.CreateBucket(bucketMeta)
			if err == nil {
				err = b.Put(keyFormat, []byte("popgate store 9"))
			}
			return err
		}),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			log := useDamaged(t, path, sample.check)
			kept, _ := filepath.Glob(path + ".damaged-*")
			if len(kept) != 1 {
				t.Fatalf("kept: %v", kept)
			}
			if b, err := os.ReadFile(kept[0]); err != nil || !bytes.Equal(b, content) {
				t.Errorf("what was set aside is not what was there: %v", err)
			}
			if strings.Count(log, "\n") != 1 || !strings.Contains(log, "store is set aside") || !strings.Contains(log, kept[0]) {
				t.Error(log)
			}
		})
	}
	for name, content := range map[string][]byte{"nothing": {}, "one meta": at(0, noise), "nothing in it": foreign(func(*bolt.Tx) error { return nil })} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			useDamaged(t, path, sample.check)
		})
	}
}

// Any damage of any page is met without a crash and without a wrong answer.
func TestDamagedPages(t *testing.T) {
	good := filled(t)
	page := os.Getpagesize()
	seed := rand.Uint64()
	rnd := rand.New(rand.NewPCG(seed, 1))
	t.Logf("seed %d", seed)
	const rounds = 16
	for i := range rounds {
		b := bytes.Clone(good)
		for range 1 + rnd.IntN(8) {
			at := rnd.IntN(len(b) / page)
			one := b[at*page : (at+1)*page]
			switch i % 4 {
			case 0: // noise
				for j := range one {
					one[j] = byte(rnd.Uint32())
				}
			case 1: // another page
				from := rnd.IntN(len(b) / page)
				copy(one, good[from*page:(from+1)*page])
			case 2: // some octets behind the header, where numbers of elements stand
				for range 8 {
					one[16+rnd.IntN(256)] = byte(rnd.Uint32())
				}
			case 3: // zeros
				clear(one)
			}
		}
		path := filepath.Join(t.TempDir(), "store.db")
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		useDamaged(t, path, sample.checkKnown)
		if t.Failed() {
			t.Fatalf("round %d of seed %d", i, seed)
		}
	}
}

// Few of the files that were set aside are kept, the latest.
func TestSetAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	for i := range keptDamaged + 3 {
		if err := os.WriteFile(path, fmt.Appendf(nil, "number %d", i), 0o600); err != nil {
			t.Fatal(err)
		}
		s, _ := openStore(t, path, Options{})
		closeStore(t, s)
	}
	kept, _ := filepath.Glob(path + ".damaged-*")
	var contents []string
	for _, name := range kept {
		b, _ := os.ReadFile(name)
		contents = append(contents, string(b))
	}
	if diff := cmp.Diff([]string{"number 3", "number 4", "number 5", "number 6", "number 7"}, contents); diff != "" {
		t.Error(diff)
	}
}

// A file that is cut or lost while it is in use costs what was in it.
func TestDamagedInUse(t *testing.T) {
	for name, spoil := range map[string]func(path string) error{
		"cut to nothing": func(path string) error { return os.Truncate(path, 0) },
		"cut in half":    func(path string) error { return os.Truncate(path, 64<<10) },
		"overwritten": func(path string) error {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err == nil {
				_, err = f.WriteAt(bytes.Repeat([]byte{0xA5}, 512<<10), 0)
				f.Close()
			}
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			s, log := openStore(t, path, Options{Memory: 100 << 10})
			for i := range 20 {
				newSample(500).put(t, s, key(fmt.Sprint(i)))
			}
			if err := spoil(path); err != nil {
				t.Fatal(err)
			}
			var readers sync.WaitGroup
			for i := range 20 {
				readers.Go(func() {
					s.Listing(key(fmt.Sprint(i)))
					s.UniqueIDs(key(fmt.Sprint(i)))
				})
			}
			readers.Wait()
			m := newSample(10)
			for i := range 20 {
				m.put(t, s, key(fmt.Sprint("new ", i)))
			}
			m.check(t, s, key("new 3"))
			closeStore(t, s)
			if !strings.Contains(log.String(), "store is set aside") {
				t.Error(log)
			}
			s, _ = openStore(t, path, Options{})
			m.check(t, s, key("new 19"))
		})
	}
}

// A store that is closed answers what it has in memory, and keeps no session
// waiting.
func TestClosed(t *testing.T) {
	s, _ := openStore(t, filepath.Join(t.TempDir(), "store.db"), Options{})
	s.PutListing(key("a"), listing(3))
	closeStore(t, s)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := s.PutUniqueIDs(key("a"), UniqueIDs{}); err == nil {
		t.Error("unique-ids are on no disk, and no error")
	}
	s.PutListing(key("b"), listing(3))
	if _, ok := s.Listing(key("b")); !ok {
		t.Error("the memory is gone")
	}
	if _, ok := s.Listing(key("c")); ok {
		t.Error("known from nowhere")
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

// FuzzDecode shows that no value makes a record that is out of order, whatever
// stands on the disk.
func FuzzDecode(f *testing.F) {
	for _, r := range []record{newSample(70).listing, newSample(70).unique, identities{1, newSample(70).ids}, sizes{1, newSample(70).sizes}} {
		for _, c := range r.chunks() {
			f.Add(byte(0), c.suffix, c.body)
		}
	}
	kinds := []kind{kindListing, kindSizes, kindIdentities, kindUniqueIDs}
	f.Fuzz(func(t *testing.T, which byte, suffix string, body []byte) {
		for _, count := range []uint64{0, 1, 2, uint64(len(body) / 2)} {
			d := decoder{id: recordID{kind: kinds[int(which)%len(kinds)]}}
			d.add("", headOf(1, 1<<20, count).body)
			if !d.add(suffix, body) {
				continue
			}
			if r := d.record(); r != nil && !valid(r) {
				t.Errorf("%v", r)
			}
		}
	})
}
