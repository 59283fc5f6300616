package locktest

import (
	"context"
	"sync"

	"popgate/proxy/lock"
)

// Losable is a Locker within one process that loses locks on demand. The zero
// value is ready to use. It must not be copied after first use.
type Losable struct {
	local lock.Local
	mu    sync.Mutex
	held  map[string]*losableLock
}

var _ lock.Locker = (*Losable)(nil)

// Acquire implements lock.Locker.
func (l *Losable) Acquire(ctx context.Context, key, holder string) (lock.Lock, error) {
	inner, err := l.local.Acquire(ctx, key, holder)
	if err != nil {
		return nil, err
	}
	h := &losableLock{lost: make(chan struct{})}
	h.free = sync.OnceFunc(func() {
		l.mu.Lock()
		delete(l.held, key)
		l.mu.Unlock()
		inner.Release()
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held == nil {
		l.held = make(map[string]*losableLock)
	}
	l.held[key] = h
	return h, nil
}

// Lose makes the holder of key, if any, lose its lock. Another may acquire it
// then.
func (l *Losable) Lose(key string) {
	l.mu.Lock()
	h := l.held[key]
	if h != nil {
		delete(l.held, key)
		close(h.lost)
	}
	l.mu.Unlock()
	if h != nil {
		h.free()
	}
}

type losableLock struct {
	lost chan struct{}
	free func()
}

func (h *losableLock) Lost() <-chan struct{} { return h.lost }
func (h *losableLock) Release()              { h.free() }
