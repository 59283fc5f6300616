package store

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"

	"popgate/proxy"
)

// edit changes the records in the closed store in path.
func edit(t *testing.T, path string, change func(records *bolt.Bucket) error) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	if err == nil {
		err = db.Update(func(tx *bolt.Tx) error { return change(tx.Bucket(bucketRecords)) })
	}
	if err == nil {
		err = db.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// partKey returns the key of a part of a record.
func partKey(k kind, source, suffix string) []byte {
	return append(recordID{Key: key("a"), kind: k, source: source}.prefix(), suffix...)
}

// I-SNAP-7: a record of which any part is not the one that was written with the
// rest is not used, even if each part has its right checksum. Of unique-ids those
// parts are used that are of the same mailbox.
func TestWholeRecord(t *testing.T) {
	all := []struct {
		kind   kind
		source string
	}{{kindListing, ""}, {kindSizes, ""}, {kindIdentities, "emailid"}, {kindUniqueIDs, ""}, {kindFlagged, ""}}
	older := newSample(1100)
	older.listing.Messages = slices.Clone(older.listing.Messages)
	m := newSample(1100)
	m.listing.Messages[0].Octets = 5
	m.sizes[1] = 5
	m.flagged.UIDs = slices.Clone(m.flagged.UIDs[1:])
	m.ids[0].ID, m.unique.Shown[0].ID = "other", "other"
	replaced := func(suffix string, body func(old []byte) []byte) func(k kind, source string, b *bolt.Bucket) error {
		return func(k kind, source string, b *bolt.Bucket) error {
			at := partKey(k, source, suffix)
			return b.Put(at, body(bytes.Clone(b.Get(at))))
		}
	}
	first := suffix(tagByUID, 0)
	for name, change := range map[string]func(k kind, source string, b *bolt.Bucket) error{
		"one bit of a value":  replaced(first, func(old []byte) []byte { old[len(old)-1] ^= 1; return old }),
		"one bit of the head": replaced("", func(old []byte) []byte { old[5] ^= 1; return old }),
		"no chunk":            func(k kind, source string, b *bolt.Bucket) error { return b.Delete(partKey(k, source, first)) },
		"no head":             func(k kind, source string, b *bolt.Bucket) error { return b.Delete(partKey(k, source, "")) },
		"an unknown version": func(k kind, source string, b *bolt.Bucket) error {
			at := partKey(k, source, "")
			body := bytes.Clone(b.Get(at)[4:])
			body[len(body)-digestSize-1] = recordVersion + 1
			return b.Put(at, addChecksum(at, body))
		},
		"an older chunk": func(k kind, source string, b *bolt.Bucket) error {
			r := map[kind]record{kindListing: older.listing, kindSizes: sizes{7, older.sizes}, kindIdentities: identities{7, older.ids}, kindUniqueIDs: older.unique, kindFlagged: older.flagged}[k]
			at := partKey(k, source, first)
			return b.Put(at, addChecksum(at, r.chunks()[0].body))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			s, _ := openStore(t, path, Options{})
			m.put(t, s, key("a"))
			m.put(t, s, key("b"))
			closeStore(t, s)
			edit(t, path, func(b *bolt.Bucket) (err error) {
				for _, r := range all {
					if err == nil {
						err = change(r.kind, r.source, b)
					}
				}
				return err
			})
			s, log := openStore(t, path, Options{})
			m.check(t, s, key("b"))
			l, ok := s.Listing(key("a"))
			sizes, ids := s.Sizes(key("a"), 7), s.Identities(key("a"), 7, "emailid")
			f, flagged := s.Flagged(key("a"))
			if ok || sizes != nil || ids != nil || flagged {
				t.Errorf("used: %d messages, %d sizes, %d identities, %d flagged", len(l.Messages), len(sizes), len(ids), len(f.UIDs))
			}
			u, _ := s.UniqueIDs(key("a"))
			if n := len(u.Shown); name == "no chunk" && n != 1100-21 || name == "no head" && n != 0 {
				t.Errorf("%d unique-ids", n)
			}
			closeStore(t, s)
			if n := bytes.Count([]byte(log.String()), []byte("part of the store is damaged")); n != len(all) {
				t.Errorf("logged %d times: %s", n, log)
			}
		})
	}
}

// A chunk of the unique-ids of an earlier mailbox is not used for those of the
// present one, also where others are used that are left.
func TestChunkOfEarlierMailbox(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, _ := openStore(t, path, Options{})
	before, now := newSample(100).unique, newSample(100).unique
	before.UIDValidity = 6
	for i := range before.Shown {
		before.Shown[i].String = "before"
	}
	if err := s.PutUniqueIDs(key("a"), now); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
	edit(t, path, func(b *bolt.Bucket) error {
		for _, c := range before.chunks() {
			if at := partKey(kindUniqueIDs, "", c.suffix); c.suffix == suffix(tagByUID, 1) {
				return b.Put(at, addChecksum(at, c.body))
			}
		}
		t.Fatal("no such chunk")
		return nil
	})
	s, _ = openStore(t, path, Options{})
	u, _ := s.UniqueIDs(key("a"))
	want := slices.DeleteFunc(slices.Clone(now.Shown), func(s Shown) bool { return s.UID>>textShift == 1 })
	if diff := cmp.Diff(UniqueIDs{UIDValidity: 7, Shown: want, Gone: now.Gone}, u); diff != "" {
		t.Error(diff)
	}
}

// A leaf of the file that has one chunk twice, in place of another one, with key and
// right checksum.
func TestChunkTwice(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, _ := openStore(t, path, Options{})
	l := Listing{UIDValidity: 9, UIDNext: 1 << 20}
	for i := range uint64(3) { // chunks of as many messages
		for j := range uint64(100) {
			l.Messages = append(l.Messages, message(i<<numberShift+1+j, int64(1000*i+j)))
		}
	}
	s.PutListing(key("a"), l)
	newSample(500).put(t, s, key("b")) // else all is in one leaf with other buckets
	closeStore(t, s)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	one, two := partKey(kindListing, "", suffix(tagByUID, 1)), partKey(kindListing, "", suffix(tagByUID, 2))
	changed := false
	for page := range slices.Chunk(b, os.Getpagesize()) {
		if binary.NativeEndian.Uint16(page[8:]) != leafFlag {
			continue
		}
		at := make(map[string]int) // the element, by key
		for i := range int(binary.NativeEndian.Uint16(page[10:])) {
			e := pageHeader + elementLen*i
			k := e + int(binary.NativeEndian.Uint32(page[e+4:]))
			if end := k + int(binary.NativeEndian.Uint32(page[e+8:])); end <= len(page) {
				at[string(page[k:end])] = e
			}
		}
		e1, e2 := at[string(one)], at[string(two)]
		if e1 > 0 && e2 > 0 {
			copy(page[e2:e2+elementLen], page[e1:])
			binary.NativeEndian.PutUint32(page[e2+4:], binary.NativeEndian.Uint32(page[e1+4:])-uint32(e2-e1))
			changed = true
		}
	}
	if err := os.WriteFile(path, b, 0o600); err != nil || !changed {
		t.Fatal("the chunks are not in one leaf", err)
	}
	s, log := openStore(t, path, Options{})
	if got, ok := s.Listing(key("a")); ok {
		t.Errorf("%d messages, the one at 200 is %v, want %v", len(got.Messages), got.Messages[200], l.Messages[200])
	}
	if !bytes.Contains([]byte(log.String()), []byte("out of order")) {
		t.Error(log)
	}
}

// A page that is its own child, or free and in use, is damage: bbolt would not end.
func TestPageTwice(t *testing.T) {
	good := filled(t)
	page := os.Getpagesize()
	for name, change := range map[string]func(b []byte) bool{
		"its own child": func(b []byte) bool {
			branches := 0 // some are of former transactions
			for id := 2; id < len(b)/page; id++ {
				if one := b[id*page : (id+1)*page]; binary.NativeEndian.Uint16(one[8:]) == branchFlag {
					binary.NativeEndian.PutUint64(one[pageHeader+8:], uint64(id))
					branches++
				}
			}
			return branches > 0
		},
		"free and in use": func(b []byte) bool {
			m, ok := latestMeta(bytes.NewReader(b))
			free := b[int(m.freelist)*page:]
			if ok && binary.NativeEndian.Uint16(free[10:]) > 0 {
				binary.NativeEndian.PutUint16(free[10:], 1)
				binary.NativeEndian.PutUint64(free[pageHeader:], m.root)
			}
			return ok
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			b := bytes.Clone(good)
			if !change(b) {
				t.Fatal("nothing to change")
			}
			if err := os.WriteFile(path, b, 0o600); err != nil {
				t.Fatal(err)
			}
			got, err := Inspect(path)
			if want := "damaged; serve will set it aside"; err != nil || !bytes.Contains([]byte(got), []byte(want)) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

// A listing that is out of order is not kept, in memory either.
func TestListingOutOfOrder(t *testing.T) {
	s := NewMemory(1 << 20)
	for name, uids := range map[string][]uint64{"descending": {3, 2}, "twice": {2, 2}, "UIDNEXT": {2, 10}, "zero": {0, 1}} {
		s.PutListing(key("a"), listing(3))
		l := Listing{UIDValidity: 1, UIDNext: 10}
		for _, uid := range uids {
			l.Messages = append(l.Messages, message(uid, 1))
		}
		s.PutListing(key("a"), l)
		if got, ok := s.Listing(key("a")); ok {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func message(uid uint64, octets int64) proxy.Message { return proxy.Message{UID: uid, Octets: octets} }
