// Package lock grants exclusive access to maildrops (RFC 1939 §4): at most one
// session holds a maildrop at a time.
package lock

import (
	"context"
	"sync"
)

// Locker hands out exclusive locks by key. It is safe for concurrent use.
type Locker interface {
	// Acquire waits until no one else holds key, or ctx ends; then it returns
	// ctx's error. Any other error means that the lock service itself failed.
	// release gives the lock back and may be called any number of times, by
	// any goroutine; only the first call counts.
	Acquire(ctx context.Context, key string) (release func(), err error)
}

// Local is a Locker for one process. Those who wait get the lock in the order
// in which they came. The zero value is ready to use; it must not be copied.
type Local struct {
	mu   sync.Mutex
	held map[string][]chan struct{} // waiters of each key that is held
}

var _ Locker = (*Local)(nil)

// Acquire implements Locker.
func (l *Local) Acquire(ctx context.Context, key string) (func(), error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	l.mu.Lock()
	waiters, busy := l.held[key]
	if !busy {
		if l.held == nil {
			l.held = make(map[string][]chan struct{})
		}
		l.held[key] = nil
		l.mu.Unlock()
		return l.releaser(key), nil
	}
	turn := make(chan struct{})
	l.held[key] = append(waiters, turn)
	l.mu.Unlock()

	select {
	case <-turn:
		return l.releaser(key), nil
	case <-ctx.Done():
		if !l.giveUp(key, turn) {
			l.pass(key) // the turn came in the same moment
		}
		return nil, ctx.Err()
	}
}

// releaser returns the function that gives key back once.
func (l *Local) releaser(key string) func() {
	return sync.OnceFunc(func() { l.pass(key) })
}

// pass hands key to the next waiter, or forgets it.
func (l *Local) pass(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	waiters := l.held[key]
	if len(waiters) == 0 {
		delete(l.held, key)
		return
	}
	l.held[key] = waiters[1:]
	close(waiters[0])
}

// giveUp takes turn out of the queue. False means that it is no longer there
// because the lock was handed to it.
func (l *Local) giveUp(key string, turn chan struct{}) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	waiters := l.held[key]
	for i, w := range waiters {
		if w == turn {
			l.held[key] = append(waiters[:i:i], waiters[i+1:]...)
			return true
		}
	}
	return false
}
