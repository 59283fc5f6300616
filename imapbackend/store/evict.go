package store

import (
	"bytes"
	"cmp"
	"slices"

	bolt "go.etcd.io/bbolt"
)

// Shares of the file's limit. bbolt needs some room, since it writes new pages
// before it frees old ones.
const (
	fullShare  = 0.75 // above this in use, mailboxes are evicted
	evictShare = 0.5  // eviction continues down to this

	// recordShare limits one record, and the changes of one transaction.
	recordShare = 0.25

	// pageFill allows for pages that are not full and for their headers.
	pageFill = 2
)

// share returns a part of the file's limit, in octets.
func (d *disk) share(part float64) int64 { return int64(part * float64(d.maxSize)) }

// sizeOf estimates what changes add to the file.
func sizeOf(changes []change) (octets int64) {
	for _, c := range changes {
		if c.value != nil {
			octets += int64(len(c.key)+len(c.value)) + 32
		}
	}
	return octets * pageFill
}

// inUse returns the octets of the file that are not free.
func (d *disk) inUse() (octets int64, err error) {
	err = d.view(func(tx *bolt.Tx) error {
		octets = tx.Size() - int64(d.db.Stats().FreeAlloc)
		return nil
	})
	return octets, err
}

// makeRoom drops mailboxes until there is room for changes: the least recently
// used first, and everything else before unique-ids, which cannot be recovered.
func (d *disk) makeRoom(changes []change) error {
	size := sizeOf(changes)
	if size == 0 {
		return nil
	}
	used, err := d.inUse()
	if err != nil || used+size <= d.share(fullShare) {
		return err
	}
	return d.evict(size)
}

// evict makes room for size octets.
func (d *disk) evict(size int64) error {
	victims, err := d.leastUsed()
	if err != nil {
		return err
	}
	used, err := d.inUse()
	if err != nil {
		return err
	}
	cache := func(key []byte) bool { return kind(key[digestSize]) != kindUniqueIDs }
	n, err := d.drop(victims, used+size-d.share(evictShare), cache)
	if err != nil {
		return err
	}
	d.log.Info("store is full: least recently used mailboxes are forgotten", "path", d.path, "mailboxes", n)
	if used, err = d.inUse(); err != nil || used+size <= d.share(fullShare) {
		return err
	}
	n, err = d.drop(victims, used+size-d.share(evictShare), func([]byte) bool { return true })
	d.log.Warn("store is too small: unique-ids are forgotten, clients will download mail again",
		"path", d.path, "mailboxes", n, "max_size", d.maxSize)
	return err
}

// leastUsed returns all mailboxes, the least recently used first.
func (d *disk) leastUsed() ([]digest, error) {
	type mailbox struct {
		name digest
		hour int64
	}
	var all []mailbox
	err := d.view(func(tx *bolt.Tx) error {
		return tx.Bucket(bucketMailboxes).ForEach(func(k, v []byte) error {
			if len(k) == digestSize {
				all = append(all, mailbox{digest(k), hourOf(k, v)})
			}
			return nil
		})
	})
	slices.SortFunc(all, func(a, b mailbox) int {
		return cmp.Or(cmp.Compare(a.hour, b.hour), bytes.Compare(a.name[:], b.name[:]))
	})
	names := make([]digest, len(all))
	for i, m := range all {
		names[i] = m.name
	}
	return names, err
}

// drop deletes the records for which which returns true, mailbox by mailbox,
// until the given number of octets is freed, and then mailboxes without records.
// It returns the number of mailboxes that have lost records.
func (d *disk) drop(mailboxes []digest, octets int64, which func(key []byte) bool) (n int, err error) {
	const step = 1000 // deletions in one transaction, which copies their pages
	var freed int64
	var changes []change
	for _, name := range mailboxes {
		if freed >= octets {
			break
		}
		left, before := 0, len(changes)
		err := d.view(func(tx *bolt.Tx) error {
			c := tx.Bucket(bucketRecords).Cursor()
			for k, v := c.Seek(name[:]); bytes.HasPrefix(k, name[:]); k, v = c.Next() {
				if len(k) > digestSize && !which(k) {
					left++
					continue
				}
				changes = append(changes, change{bucketRecords, bytes.Clone(k), nil})
				freed += int64(len(k) + len(v))
			}
			return nil
		})
		if err != nil {
			return n, err
		}
		if len(changes) > before {
			n++
		}
		if left == 0 {
			changes = append(changes, change{bucketMailboxes, bytes.Clone(name[:]), nil})
		}
		if len(changes) >= step {
			if err := d.apply(changes); err != nil {
				return n, err
			}
			changes = nil
		}
	}
	if len(changes) == 0 {
		return n, nil
	}
	return n, d.apply(changes)
}
