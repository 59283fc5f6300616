package store

import "container/list"

// kind says what a record holds.
type kind byte

const (
	kindListing    kind = 'l'
	kindSizes      kind = 's'
	kindIdentities kind = 'i'
	kindUniqueIDs  kind = 'u'
	kindFacts      kind = 'f'
)

// recordID names one record.
type recordID struct {
	Key
	kind   kind
	source string // of identities
}

// record is the value of a recordID: a Listing, sizes, identities, UniqueIDs or facts.
// It is shared and never changed.
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
