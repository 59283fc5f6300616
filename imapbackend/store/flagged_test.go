package store

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// I-DEL-5: flagged messages are those of the mailbox in and out of UTF8 mode; the
// last put replaces what was there, and no messages delete it.
func TestFlagged(t *testing.T) {
	s := NewMemory(1 << 20)
	k := key("a")
	utf8 := k
	utf8.UTF8 = true
	check := func(want Flagged) {
		t.Helper()
		for _, k := range []Key{k, utf8} {
			if got, ok := s.Flagged(k); !cmp.Equal(got, want) || ok != (want.UIDs != nil) {
				t.Errorf("%v, %v, want %v", got, ok, want)
			}
		}
	}
	check(Flagged{})
	s.PutFlagged(utf8, Flagged{9, []uint64{1, 5, 1 << 40}})
	check(Flagged{9, []uint64{1, 5, 1 << 40}})
	s.PutFlagged(k, Flagged{10, []uint64{7}})
	check(Flagged{10, []uint64{7}})
	s.PutFlagged(k, Flagged{10, nil})
	check(Flagged{})
	s.PutFlagged(k, Flagged{10, []uint64{7, 6}}) // never sent, as it is out of order
	check(Flagged{})
	s = NewMemory(8 << 20)
	many := make([]uint64, maxFlagged+1)
	for i := range many {
		many[i] = uint64(i + 1)
	}
	s.PutFlagged(k, Flagged{10, many})
	check(Flagged{10, many[:maxFlagged]})
}

// I-DEL-5: flagged messages outlive the process. What is deleted within a second
// is not written at all.
func TestFlaggedOnDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, _ := openStore(t, path, Options{})
	want := Flagged{1 << 40, []uint64{1, 2, 1023, 1024, 1 << 50}}
	s.PutFlagged(key("a"), want)
	closeStore(t, s)
	s, _ = openStore(t, path, Options{})
	if got, _ := s.Flagged(key("a")); !cmp.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	s.PutFlagged(key("a"), Flagged{})
	s.PutFlagged(key("b"), want)
	before := s.writer.disk.octets.Load()
	s.PutFlagged(key("b"), Flagged{})
	closeStore(t, s)
	if n := s.writer.disk.octets.Load() - before; n > 256 { // the hours of use
		t.Errorf("%d octets written", n)
	}
	s, _ = openStore(t, path, Options{})
	for _, name := range []string{"a", "b"} {
		if got, ok := s.Flagged(key(name)); ok {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// I-DEL-5: after Sync a record is on the disk, whatever happens to the process; Sync
// waits no longer than its context, and for nothing without a file.
func TestSync(t *testing.T) {
	if err := NewMemory(1 << 20).Sync(t.Context()); err != nil {
		t.Error(err)
	}
	s, _ := openStore(t, filepath.Join(t.TempDir(), "store.db"), Options{})
	want := Flagged{9, []uint64{1, 2}}
	s.PutFlagged(key("a"), want)
	if err := s.Sync(t.Context()); err != nil {
		t.Error(err)
	}
	if r, _, err := s.writer.disk.read(flaggedID(key("a"))); err != nil || !cmp.Equal(r, record(want)) {
		t.Errorf("on the disk is %v, %v", r, err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	hung := &Store{writer: &writer{urgent: make(chan struct{}, 1)}} // which nobody runs
	if err := hung.Sync(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Sync: %v", err)
	}
	closeStore(t, s)
	if err := s.Sync(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("Sync of a closed store: %v", err)
	}
}

// The record is not used if it is not in order.
func TestFlaggedValid(t *testing.T) {
	for _, uids := range [][]uint64{{0}, {2, 1}, {1, 1}} {
		if valid(Flagged{9, uids}) {
			t.Errorf("%v is valid", slices.Clone(uids))
		}
	}
}
