package lock

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Local is a Locker for one process, whose locks are never lost. Those who wait
// get the lock in the order in which they came. The zero value is ready to use;
// it must not be copied.
type Local struct {
	mu   sync.Mutex
	held map[string]*localLock
}

var _ Locker = (*Local)(nil)

// localLock is a key that is held.
type localLock struct {
	holder  string
	since   time.Time
	waiters []*localWaiter
}

// localWaiter waits for its turn.
type localWaiter struct {
	holder string
	turn   chan struct{} // closed when it holds the lock
}

// Acquire implements Locker.
func (l *Local) Acquire(ctx context.Context, key, holder string) (Lock, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	w := &localWaiter{holder, make(chan struct{})}
	l.mu.Lock()
	if l.held == nil {
		l.held = make(map[string]*localLock)
	}
	if k := l.held[key]; k != nil {
		k.waiters = append(k.waiters, w)
	} else {
		l.held[key] = &localLock{holder: holder, since: time.Now()}
		close(w.turn)
	}
	l.mu.Unlock()

	select {
	case <-w.turn:
	case <-ctx.Done():
		if err := l.giveUp(key, w, ctx.Err()); err != nil {
			return nil, err
		}
		// The turn came in the same moment.
	}
	return &localHold{release: sync.OnceFunc(func() { l.pass(key) })}, nil
}

// pass hands key to the next waiter, or forgets it.
func (l *Local) pass(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.held[key]
	if len(k.waiters) == 0 {
		delete(l.held, key)
		return
	}
	next := k.waiters[0]
	k.holder, k.since, k.waiters = next.holder, time.Now(), k.waiters[1:]
	close(next.turn)
}

// giveUp takes w out of the queue and returns who holds the lock; nil means
// that w does.
func (l *Local) giveUp(key string, w *localWaiter, cause error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	k := l.held[key]
	i := slices.Index(k.waiters, w)
	if i < 0 {
		return nil
	}
	k.waiters = slices.Delete(k.waiters, i, i+1)
	return &HeldError{Holder: k.holder, Since: k.since, Err: cause}
}

// localHold is the Lock of one holder.
type localHold struct{ release func() }

func (*localHold) Lost() <-chan struct{} { return nil }
func (h *localHold) Release()            { h.release() }
