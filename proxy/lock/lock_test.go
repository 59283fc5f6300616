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
