package lock_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"popgate/proxy/lock"
	"popgate/proxy/lock/locktest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestLocal shows O-LOCK-1 within one process.
func TestLocal(t *testing.T) {
	locktest.Run(t, locktest.Suite{New: func(*testing.T) lock.Locker { return new(lock.Local) }})
}

// TestLocalOrder shows O-LOCK-1: waiters are served in order, without one that
// has given up, whose error names the holder and its time.
func TestLocalOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lock.Local
		began := time.Now()
		first, err := l.Acquire(t.Context(), "k", "first")
		if err != nil {
			t.Fatal(err)
		}
		var order []int
		impatient, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		for i := range 4 {
			ctx := t.Context()
			if i == 1 {
				ctx = impatient
			}
			go func() {
				h, err := l.Acquire(ctx, "k", "waiter")
				if i == 1 {
					held, ok := errors.AsType[*lock.HeldError](err)
					if !ok || held.Holder != "first" || !held.Since.Equal(began) || !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("the impatient waiter got %v", err)
					}
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, i)
				h.Release()
			}()
			synctest.Wait()
		}
		<-time.After(2 * time.Second)
		synctest.Wait()
		first.Release()
		synctest.Wait()
		if len(order) != 3 || order[0] != 0 || order[1] != 2 || order[2] != 3 {
			t.Errorf("served in order %v, want [0 2 3]", order)
		}
	})
}

// TestLocalTurnAtTheEnd shows O-LOCK-1: a waiter whose turn comes between the end
// of its context and its leaving the queue holds the lock, and can release it.
func TestLocalTurnAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lock.Local
		first, err := l.Acquire(t.Context(), "k", "first")
		if err != nil {
			t.Fatal(err)
		}
		ctx := &endingContext{Context: t.Context(), atEnd: first.Release, done: make(chan struct{})}
		second, err := l.Acquire(ctx, "k", "second")
		if err != nil {
			t.Fatalf("the lock is held for ever: %v", err)
		}
		second.Release()
		third, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		h, err := l.Acquire(third, "k", "third")
		if err != nil {
			t.Fatal(err)
		}
		h.Release()
	})
}

// endingContext ends when its Done is first asked for, and calls atEnd when it is
// asked why.
type endingContext struct {
	context.Context
	atEnd func()
	done  chan struct{}
	ended bool
}

func (c *endingContext) Done() <-chan struct{} {
	if !c.ended {
		c.ended = true
		close(c.done)
	}
	return c.done
}

func (c *endingContext) Err() error {
	if !c.ended {
		return nil
	}
	c.atEnd()
	return context.Canceled
}
