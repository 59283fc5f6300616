package store

import (
	"errors"
	"sync"
	"time"
)

const (
	// writeDelay is how long changes are collected.
	writeDelay = time.Second

	// manyUses is how many mailboxes in use are worth a transaction of
	// their own.
	manyUses = 4096
)

var errClosed = errors.New("store: closed")

// writer writes behind the sessions: what changes is collected, and one
// goroutine commits it. It has the file.
type writer struct {
	store *Store
	disk  *disk
	limit int64 // octets of memory that wait to be written

	// Guarded by Store.mu.
	waiting  batch
	writing  batch          // being committed
	cost     int64          // of waiting
	durable  []chan<- error // who waits for the commit of waiting
	isClosed bool

	wake   chan struct{} // full: there is something to write, in a while
	urgent chan struct{} // full: at once
	closed chan struct{}
	done   sync.WaitGroup

	failing bool // of the goroutine: the last commit failed
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

func fill(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// enqueue notes that a record has changed; nil deletes it. Store.mu is held. A
// record that finds no room stays on the disk as it was: it was true once, and
// that is all that a store says.
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
	if id.kind != kindUniqueIDs && r != nil && w.cost+cost > w.limit {
		fill(w.urgent)
		return
	}
	w.waiting.records[id] = r
	w.cost += cost
	w.use(id.Key)
	fill(w.wake)
}

// fits reports whether a record can be on the disk.
func (w *writer) fits(r record) bool { return valid(r) && r.cost() <= w.disk.share(recordShare) }

// confirm returns what tells of the next commit, which is made at once.
// Store.mu is held.
func (w *writer) confirm() <-chan error {
	c := make(chan error, 1)
	if w.isClosed {
		c <- errClosed
		return c
	}
	w.durable = append(w.durable, c)
	fill(w.urgent)
	return c
}

// use notes that a mailbox is in use. Store.mu is held.
func (w *writer) use(key Key) {
	if w.isClosed {
		return
	}
	w.waiting.used[digestOf(key)] = thisHour()
	if len(w.waiting.used) == manyUses {
		fill(w.urgent)
	}
}

// pending returns what is not on the disk yet. Store.mu is held.
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

// commit has write bring what has been collected to the disk.
func (w *writer) commit(write func(batch) error) {
	s := w.store
	s.mu.Lock()
	b, durable := w.waiting, w.durable
	w.writing, w.waiting, w.durable, w.cost = b, newBatch(), nil, 0
	s.mu.Unlock()
	err := write(b) // of nothing it is cheap
	if found, ok := errors.AsType[*damage](err); ok {
		if err = w.disk.replace(found); err == nil {
			err = w.disk.write(w.withMemory(b))
		}
	}
	s.mu.Lock()
	w.writing = batch{}
	s.mu.Unlock()
	for _, c := range durable {
		c <- err
	}
	w.tell(err)
}

// withMemory adds to b what is in memory, for a file that is new.
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

// tell logs the first of several failures, and their end.
func (w *writer) tell(err error) {
	switch log := w.disk.log; {
	case err != nil && !w.failing:
		log.Error("store cannot be written, sessions go on without", "path", w.disk.path, "error", err)
	case err == nil && w.failing:
		log.Info("store can be written again", "path", w.disk.path)
	}
	w.failing = err != nil
}

// close commits what is left and gives the file back.
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
