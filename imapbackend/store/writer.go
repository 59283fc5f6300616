package store

import (
	"errors"
	"sync"
	"time"
)

const (
	// writeDelay is how long changes are collected.
	writeDelay = time.Second

	// maxUses is how many used mailboxes are collected before they are
	// written at once.
	maxUses = 4096
)

var errClosed = errors.New("store: closed")

// writer writes to the file, so that sessions do not wait: changes are collected,
// and one goroutine commits them.
type writer struct {
	store *Store
	disk  *disk
	limit int64 // octets of memory that may wait to be written

	// Guarded by Store.mu.
	waiting  batch
	writing  batch          // being committed
	cost     int64          // of waiting
	waiters  []chan<- error // receive the result of the commit of waiting
	isClosed bool

	wake   chan struct{} // full: there is something to write, after writeDelay
	urgent chan struct{} // full: there is something to write at once
	closed chan struct{}
	done   sync.WaitGroup

	failing bool // used by the goroutine: the last commit failed
}

func newBatch() batch {
	return batch{records: make(map[recordID]record), used: make(map[digest]int64)}
}

func newWriter(s *Store, d *disk, limit int64) *writer {
	w := &writer{
		store: s, disk: d, limit: limit, waiting: newBatch(),
		wake: make(chan struct{}, 1), urgent: make(chan struct{}, 1), closed: make(chan struct{}),
	}
	w.done.Go(w.run)
	return w
}

// notify fills c.
func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// enqueue records that a record has changed; nil deletes it. Store.mu is held. If
// there is no room, the older record stays on the disk: a cache may be out of
// date.
func (w *writer) enqueue(id recordID, r record) {
	if w.isClosed {
		return
	}
	cost := int64(recordCost)
	if r != nil {
		if cost = r.cost(); !w.fits(r) {
			r, cost = nil, recordCost
		}
	}
	if id.kind != kindUniqueIDs && id.kind != kindFlagged && r != nil && w.cost+cost > w.limit {
		notify(w.urgent)
		return
	}
	w.waiting.records[id] = r
	w.cost += cost
	w.use(id.Key)
	notify(w.wake)
}

// fits reports whether a record can be on the disk.
func (w *writer) fits(r record) bool { return valid(r) && r.cost() <= w.disk.share(recordShare) }

// confirm commits at once and returns a channel that receives the result.
// Store.mu is held.
func (w *writer) confirm() <-chan error {
	c := make(chan error, 1)
	if w.isClosed {
		c <- errClosed
		return c
	}
	w.waiters = append(w.waiters, c)
	notify(w.urgent)
	return c
}

// use records that a mailbox is in use. Store.mu is held.
func (w *writer) use(key Key) {
	if w.isClosed {
		return
	}
	w.waiting.used[digestOf(key)] = thisHour()
	if len(w.waiting.used) == maxUses {
		notify(w.urgent)
	}
}

// pending returns a record that is not on the disk yet. Store.mu is held.
func (w *writer) pending(id recordID) (r record, ok bool) {
	for _, b := range []batch{w.waiting, w.writing} {
		if r, ok = b.records[id]; ok {
			return r, true
		}
	}
	return nil, false
}

// run commits until the store is closed.
func (w *writer) run() {
	delay := time.NewTimer(writeDelay)
	defer delay.Stop()
	for {
		select {
		case <-w.wake:
			delay.Reset(writeDelay)
			select {
			case <-delay.C:
			case <-w.urgent:
			case <-w.closed:
			}
		case <-w.urgent:
		case found := <-w.disk.broken:
			w.commit(func(batch) error { return found })
			continue
		case <-w.closed:
			w.commit(w.disk.write)
			return
		}
		w.commit(w.disk.write)
	}
}

// commit calls write with what has been collected.
func (w *writer) commit(write func(batch) error) {
	s := w.store
	s.mu.Lock()
	b, waiters := w.waiting, w.waiters
	w.writing, w.waiting, w.waiters, w.cost = b, newBatch(), nil, 0
	s.mu.Unlock()
	err := write(b) // an empty batch is cheap
	if found, ok := errors.AsType[*damage](err); ok {
		if err = w.disk.replace(found); err == nil {
			err = w.disk.write(w.withMemory(b))
		}
	}
	s.mu.Lock()
	w.writing = batch{}
	s.mu.Unlock()
	for _, c := range waiters {
		c <- err
	}
	w.logResult(err)
}

// withMemory adds to b what is in memory, for a new file.
func (w *writer) withMemory(b batch) batch {
	s := w.store
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, el := range s.cache.entries {
		if r := el.Value.(*entry).record; w.fits(r) {
			b.records[id] = r
			b.used[digestOf(id.Key)] = thisHour()
		}
	}
	return b
}

// logResult logs the first of several failures, and their end.
func (w *writer) logResult(err error) {
	switch log := w.disk.log; {
	case err != nil && !w.failing:
		log.Error("store cannot be written, sessions continue without it", "path", w.disk.path, "error", err)
	case err == nil && w.failing:
		log.Info("store can be written again", "path", w.disk.path)
	}
	w.failing = err != nil
}

// close commits what is left and closes the file.
func (w *writer) close() error {
	w.store.mu.Lock()
	wasClosed := w.isClosed
	w.isClosed = true
	w.store.mu.Unlock()
	if !wasClosed {
		close(w.closed)
	}
	w.done.Wait()
	return w.disk.close(false)
}
