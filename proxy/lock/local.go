package lock

import (
	"context"
	"slices"
	"sync"
	"time"
)

// Local is a Locker within one process. Its locks are never lost, and waiters
// are served in order. The zero value is ready to use. It must not be copied
// after first use.
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

// localWaiter is a call of Acquire in the queue of a key.
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
		// It became the holder at the same moment.
	}
	return &localHold{release: sync.OnceFunc(func() { l.pass(key) })}, nil
}

// pass gives key to the next waiter, or deletes it if there is none.
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

// giveUp removes w from the queue and returns a *HeldError, or nil if w has
// already become the holder.
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
