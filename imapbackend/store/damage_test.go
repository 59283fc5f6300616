package store

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
)

const filledMailboxes = 12

// filled returns the content of a store file with some mailboxes.
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

// checkKnown checks that s contains nothing that is not in m, except records that
// have not been replaced by those of m and are whole.
func (m sample) checkKnown(t testing.TB, s *Store, k Key) {
	t.Helper()
	old := newSample(500)
	if l, ok := s.Listing(k); ok && !cmp.Equal(l, m.listing) && !cmp.Equal(l, old.listing) {
		t.Errorf("%v: a damaged listing: %d messages, UIDNEXT %d; the one put has %d, %d", k, len(l.Messages), l.UIDNext, len(m.listing.Messages), m.listing.UIDNext)
	}
	for uid, octets := range s.Sizes(k, 7) {
		if m.sizes[uid] != octets {
			t.Errorf("%v: size %d of UID %d", k, octets, uid)
		}
	}
	if ids := s.Identities(k, 7, "emailid"); ids != nil && !cmp.Equal(ids, m.ids) && !cmp.Equal(ids, old.ids) {
		t.Errorf("%v: damaged identities", k)
	}
	if f, ok := s.Flagged(k); ok && !cmp.Equal(f, m.flagged) && !cmp.Equal(f, old.flagged) {
		t.Errorf("%v: damaged flagged messages: %d", k, len(f.UIDs))
	}
	shown := make(map[Shown]bool)
	for _, s := range m.unique.Shown {
		shown[s] = true
	}
	u, _ := s.UniqueIDs(k)
	for _, s := range u.Shown {
		if !shown[s] {
			t.Errorf("%v: a damaged unique-id: %v", k, s)
		}
	}
}

// useDamaged opens the store in path, a damaged file from filled, and reads and
// writes all its records. Then it opens it again and calls check for what was
// written. It returns the log.
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

// database returns the content of a database that fill has written.
func database(t *testing.T, fill func(tx *bolt.Tx) error) []byte {
	t.Helper()
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

// A damaged file is set aside. Only its content is lost; sessions and
// the start succeed.
func TestDamaged(t *testing.T) {
	good := filled(t)
	page := os.Getpagesize()
	foreign := func(fill func(tx *bolt.Tx) error) []byte { return database(t, fill) }
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
		"zeros":        make([]byte, 8*page),
		"half":         good[:len(good)/2],
		"two pages":    good[:2*page],
		"one page":     good[:page],
		"a few octets": good[:100],
		"both metas":   at(0, bytes.Repeat(noise, 2)),
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
				t.Errorf("the file set aside is not the original: %v", err)
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

// I-SNAP-7: damage of any page causes no crash and no wrong answer.
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
			case 2: // some octets after the header, such as numbers of elements
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

// Only the last few files that were set aside are kept.
func TestSetAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	for i := range maxDamaged + 3 {
		if err := os.WriteFile(path, fmt.Appendf(nil, "%s%d", formatName, i), 0o600); err != nil {
			t.Fatal(err)
		}
		s, _ := openStore(t, path, Options{})
		closeStore(t, s)
	}
	kept, _ := filepath.Glob(path + ".damaged-*")
	var contents []string
	for _, name := range kept {
		b, _ := os.ReadFile(name)
		contents = append(contents, strings.TrimPrefix(string(b), formatName))
	}
	if diff := cmp.Diff([]string{"3", "4", "5", "6", "7"}, contents); diff != "" {
		t.Error(diff)
	}
}

// A file that is cut or overwritten while it is in use loses only its content.
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
