package store

import "slices"

// maxFlagged bounds the messages of one Flagged.
const maxFlagged = 200_000

// Flagged are messages that a removal has flagged \Deleted, or is about to, and
// that are not to stay so: if it ends without success, the next session removes
// the flag.
type Flagged struct {
	UIDValidity uint64
	UIDs        []uint64 // ascending; shared, must not be changed
}

// Flagged returns what PutFlagged has stored for a mailbox, which is the same in
// and out of UTF8 mode.
func (s *Store) Flagged(key Key) (Flagged, bool) {
	f, ok := s.get(flaggedID(key)).(Flagged)
	return f, ok
}

// PutFlagged replaces what is stored of a mailbox by f, of which it keeps at most
// 200,000 messages; f without messages deletes it. It does not wait for the disk,
// as Sync does: a store with a file has written f about a second later, and nothing at
// all if f has been deleted by then.
func (s *Store) PutFlagged(key Key, f Flagged) {
	f.UIDs = slices.Clip(f.UIDs[:min(len(f.UIDs), maxFlagged)])
	if len(f.UIDs) == 0 || !valid(f) {
		s.drop(flaggedID(key))
		return
	}
	s.put(flaggedID(key), f)
}

func flaggedID(key Key) recordID {
	key.UTF8 = false
	return recordID{Key: key, kind: kindFlagged}
}

func (f Flagged) cost() int64 { return recordCost + 8*int64(len(f.UIDs)) }

func (f Flagged) chunks() []chunk {
	c := chunker{shift: numberShift}
	for _, uid := range f.UIDs {
		c.next(uid)
	}
	return headed(c.chunks, [4]uint64{f.UIDValidity, 0, uint64(len(f.UIDs))})
}
