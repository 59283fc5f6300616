package store

import (
	"container/list"
	"slices"
)

// kind says what a record holds.
type kind byte

const (
	kindListing    kind = 'l'
	kindSizes      kind = 's'
	kindIdentities kind = 'i'
	kindUniqueIDs  kind = 'u'
	kindFacts      kind = 'f'
	kindFlagged    kind = 'd'
)

// recordID names one record.
type recordID struct {
	Key
	kind   kind
	source string // of identities
}

// record is the value of a recordID: a Listing, sizes, identities, UniqueIDs,
// Flagged or facts. It is shared and never changed.
type record interface {
	cost() int64     // approximate octets of memory
	chunks() []chunk // the form on disk
}

// sizes are true sizes in octets, by UID.
type sizes struct {
	uidValidity uint64
	octets      map[uint64]int64
}

// identities are those of one source, ascending by UID.
type identities struct {
	uidValidity uint64
	ids         []Identity
}

// recordCost is the memory of a record without its messages, in octets.
const recordCost = 512

func (l Listing) cost() int64 { return recordCost + 16*int64(len(l.Messages)) }

func (s sizes) cost() int64 { return recordCost + 32*int64(len(s.octets)) }

func (i identities) cost() int64 {
	n := recordCost + 24*int64(len(i.ids))
	for _, id := range i.ids {
		n += int64(len(id.ID))
	}
	return n
}

func (u UniqueIDs) cost() int64 {
	n := recordCost + 40*int64(len(u.Shown)+len(u.Gone))
	for _, s := range u.Shown {
		n += int64(len(s.ID) + len(s.String))
	}
	for _, g := range u.Gone {
		n += int64(len(g.ID) + len(g.String))
	}
	return n
}

// cache keeps records in memory. When it is full, it evicts the least recently
// used one. It is not safe for concurrent use.
type cache struct {
	limit, used int64 // octets
	entries     map[recordID]*list.Element
	recent      *list.List // of *entry, the most recently used first
}

type entry struct {
	id     recordID
	record record
	cost   int64
}

func newCache(limit int64) *cache {
	return &cache{limit: limit, entries: make(map[recordID]*list.Element), recent: list.New()}
}

// get returns a record, nil if there is none.
func (c *cache) get(id recordID) record {
	el, ok := c.entries[id]
	if !ok {
		return nil
	}
	c.recent.MoveToFront(el)
	return el.Value.(*entry).record
}

// put keeps r, unless it would evict most of the rest.
func (c *cache) put(id recordID, r record) {
	c.drop(id)
	e := &entry{id, r, r.cost()}
	if e.cost > c.limit/2 {
		return
	}
	c.entries[id] = c.recent.PushFront(e)
	c.used += e.cost
	for c.used > c.limit {
		c.drop(c.recent.Back().Value.(*entry).id)
	}
}

func (c *cache) drop(id recordID) {
	if el, ok := c.entries[id]; ok {
		c.used -= el.Value.(*entry).cost
		c.recent.Remove(el)
		delete(c.entries, id)
	}
}

// valid reports whether a record can be written and read back.
func valid(r record) bool {
	ascending := true
	var last uint64
	next := func(uid uint64, texts ...string) {
		long := slices.ContainsFunc(texts, func(s string) bool { return len(s) > textLimit })
		ascending = ascending && uid > last && !long
		last = uid
	}
	switch r := r.(type) {
	case Listing:
		for _, m := range r.Messages {
			next(m.UID)
			ascending = ascending && m.Octets >= 0 && m.UID < r.UIDNext
		}
	case sizes:
		for uid, octets := range r.octets {
			ascending = ascending && uid > 0 && octets >= 0
		}
	case identities:
		for _, id := range r.ids {
			next(id.UID, id.ID)
		}
	case Flagged:
		for _, uid := range r.UIDs {
			next(uid)
		}
	case UniqueIDs:
		for _, s := range r.Shown {
			next(s.UID, s.ID, s.String)
		}
		for _, g := range r.Gone {
			ascending = ascending && g.Day >= 0 && len(g.ID) <= textLimit && len(g.String) <= textLimit
		}
	case facts:
		for _, f := range r {
			ascending = ascending && len(f.Fingerprint) <= textLimit && len(f.Text) <= textLimit
		}
	}
	return ascending
}
