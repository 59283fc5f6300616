package store

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

func openStore(t testing.TB, path string, o Options) (*Store, *proxytest.Log) {
	t.Helper()
	log := new(proxytest.Log)
	o.Log = log.Logger()
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

// sample is all records of a mailbox.
type sample struct {
	listing Listing
	sizes   map[uint64]int64
	ids     []Identity
	unique  UniqueIDs
	flagged Flagged
}

func newSample(n int) sample {
	s := sample{listing: Listing{UIDValidity: 7, UIDNext: uint64(3*n + 5)}, sizes: map[uint64]int64{}, unique: UniqueIDs{UIDValidity: 7}, flagged: Flagged{UIDValidity: 7}}
	for i := range n {
		uid := uint64(3*i + 1)
		s.listing.Messages = append(s.listing.Messages, proxy.Message{UID: uid, Octets: int64(i) * 977 % 100_000})
		if i%10 == 0 {
			s.sizes[uid] = int64(i)
		}
		if i%3 == 0 {
			s.flagged.UIDs = append(s.flagged.UIDs, uid)
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
	s.PutFlagged(k, m.flagged)
	if err := s.PutUniqueIDs(k, m.unique); err != nil {
		t.Fatal(err)
	}
}

// check checks that s contains all of m.
func (m sample) check(t testing.TB, s *Store, k Key) {
	t.Helper()
	l, _ := s.Listing(k)
	u, _ := s.UniqueIDs(k)
	f, _ := s.Flagged(k)
	got := sample{l, s.Sizes(k, 7), s.Identities(k, 7, "emailid"), u, f}
	if diff := cmp.Diff(m, got, cmp.AllowUnexported(sample{})); diff != "" {
		t.Errorf("%v: %s", k, diff)
	}
}
