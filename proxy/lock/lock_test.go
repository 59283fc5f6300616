package lock_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"popgate/proxy/lock"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestExclusive shows O-LOCK-1: of many sessions one at a time holds a key.
func TestExclusive(t *testing.T) {
	var l lock.Local
	var wg sync.WaitGroup
	holders, total := 0, 0 // guarded by the lock under test alone
	for range 50 {
		wg.Go(func() {
			release, err := l.Acquire(context.Background(), "k")
			if err != nil {
				t.Error(err)
				return
			}
			if holders++; holders != 1 {
				t.Errorf("%d holders at once", holders)
			}
			total++
			holders--
			release()
		})
	}
	wg.Wait()
	if total != 50 {
		t.Errorf("%d of 50 got the lock", total)
	}
}

// TestKeys shows that keys do not hinder each other (O-LOCK-1).
func TestKeys(t *testing.T) {
	var l lock.Local
	for _, key := range []string{"", "a", "b"} {
		if _, err := l.Acquire(context.Background(), key); err != nil {
			t.Errorf("key %q: %v", key, err)
		}
	}
}

// TestFIFO shows that waiters are served in order and that one who gives up is
// passed over (O-LOCK-1).
func TestFIFO(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lock.Local
		first, err := l.Acquire(t.Context(), "k")
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
				release, err := l.Acquire(ctx, "k")
				if i == 1 {
					if !errors.Is(err, context.DeadlineExceeded) {
						t.Errorf("the impatient one got %v", err)
					}
					return
				}
				if err != nil {
					t.Error(err)
					return
				}
				order = append(order, i)
				release()
			}()
			synctest.Wait()
		}
		<-time.After(2 * time.Second)
		synctest.Wait()
		first()
		synctest.Wait()
		if len(order) != 3 || order[0] != 0 || order[1] != 2 || order[2] != 3 {
			t.Errorf("served in order %v, want [0 2 3]", order)
		}
	})
}

// TestReleaseTwice shows that a second release does not free what someone
// else holds by then (O-LOCK-1).
func TestReleaseTwice(t *testing.T) {
	var l lock.Local
	first, err := l.Acquire(context.Background(), "k")
	if err != nil {
		t.Fatal(err)
	}
	first()
	second, err := l.Acquire(context.Background(), "k")
	if err != nil {
		t.Fatal(err)
	}
	first()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.Acquire(ctx, "k"); !errors.Is(err, context.Canceled) {
		t.Errorf("third Acquire: %v, want context.Canceled", err)
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var inner lock.Local
		release, _ := inner.Acquire(ctx, "k")
		release()
		release()
		held, _ := inner.Acquire(ctx, "k")
		release()
		if _, err := inner.Acquire(ctx, "k"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("lock was freed by a stale release: %v", err)
		}
		held()
	})
	second()
}

// TestTurnAgainstTimeout lets waiters give up while the lock is passed on:
// whoever wins, the lock is never lost (O-LOCK-1).
func TestTurnAgainstTimeout(t *testing.T) {
	var l lock.Local
	for range 500 {
		release, err := l.Acquire(context.Background(), "k")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() {
			if release, err := l.Acquire(ctx, "k"); err == nil {
				release()
			}
		})
		wg.Go(cancel)
		wg.Go(release)
		wg.Wait()
		cancel()
	}
	release, err := l.Acquire(context.Background(), "k")
	if err != nil {
		t.Fatal(err)
	}
	release()
}
