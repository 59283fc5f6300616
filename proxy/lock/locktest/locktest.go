// Package locktest has the tests that every lock.Locker must pass.
package locktest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"popgate/proxy/lock"
)

const (
	// patience limits each wait that must succeed.
	patience = 30 * time.Second

	// brief is the length of a wait that must fail.
	brief = 200 * time.Millisecond
)

// Suite describes a lock.Locker under test.
type Suite struct {
	// New returns a Locker with no key held.
	New func(t *testing.T) lock.Locker

	// Lose makes the holder of key lose its lock. nil: locks cannot be lost.
	Lose func(l lock.Locker, key string)
}

// Run runs the tests, each as a subtest with a new Locker.
func Run(t *testing.T, s Suite) {
	for _, tt := range []struct {
		name string
		run  func(t *testing.T, l lock.Locker)
	}{
		{"exclusive", exclusive},
		{"keys", keys},
		{"waiting", waiting},
		{"cancelled", cancelled},
		{"ended", ended},
		{"holder", holder},
		{"released twice", releasedTwice},
		{"released by another", releasedByAnother},
		{"released and cancelled", releasedAndCancelled},
		{"not lost", notLost},
		{"lost", s.lost},
		{"lost in time", s.lostInTime},
	} {
		t.Run(tt.name, func(t *testing.T) { tt.run(t, s.New(t)) })
	}
}

// acquire acquires a lock that is free or will become free.
func acquire(t *testing.T, l lock.Locker, key, holder string) lock.Lock {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	h, err := l.Acquire(ctx, key, holder)
	if err != nil {
		t.Fatalf("Acquire by %s: %v", holder, err)
	}
	return h
}

// refused tries in vain to acquire a lock that another holds.
func refused(t *testing.T, l lock.Locker, key string) *lock.HeldError {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), brief)
	defer cancel()
	_, err := l.Acquire(ctx, key, "refused")
	held, ok := errors.AsType[*lock.HeldError](err)
	if !ok || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("Acquire of a lock that is held: %v, want a HeldError at the end of the context", err)
	}
	return held
}

func isLost(h lock.Lock) bool {
	select {
	case <-h.Lost():
		return true
	default:
		return false
	}
}

// exclusive shows that one of many callers at a time holds a key, and that each
// of them gets it.
func exclusive(t *testing.T, l lock.Locker) {
	const n = 20
	var wg sync.WaitGroup
	holders, total := 0, 0 // guarded by the lock under test alone
	for i := range n {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			h, err := l.Acquire(ctx, "k", fmt.Sprint(i))
			if err != nil {
				t.Error(err)
				return
			}
			if holders++; holders != 1 {
				t.Errorf("%d holders at once", holders)
			}
			total++
			holders--
			h.Release()
		})
	}
	wg.Wait()
	if total != n {
		t.Errorf("%d of %d got the lock", total, n)
	}
}

// keys shows that different keys are independent, whatever octets they have.
func keys(t *testing.T, l lock.Locker) {
	for _, key := range []string{"", "a", "b", "a\x00b", "\u00e4 {}:*", "A"} {
		defer acquire(t, l, key, "a").Release()
	}
}

// waiting shows that a waiting caller gets the lock when it is released.
func waiting(t *testing.T, l lock.Locker) {
	first := acquire(t, l, "k", "first")
	refused(t, l, "k")
	done := make(chan struct{})
	go func() {
		defer close(done)
		acquire(t, l, "k", "second").Release()
	}()
	first.Release()
	<-done
}

// cancelled shows that a caller that stops waiting does not block the others.
func cancelled(t *testing.T, l lock.Locker) {
	first := acquire(t, l, "k", "first")
	ctx, cancel := context.WithCancel(context.Background())
	outcome := make(chan error)
	go func() {
		_, err := l.Acquire(ctx, "k", "impatient")
		outcome <- err
	}()
	got := make(chan lock.Lock)
	go func() { got <- acquire(t, l, "k", "patient") }()
	cancel()
	if err := <-outcome; !errors.Is(err, context.Canceled) {
		t.Errorf("the impatient caller got %v", err)
	}
	first.Release()
	(<-got).Release()
	acquire(t, l, "k", "last").Release()
}

// ended shows that a context that has already ended acquires nothing.
func ended(t *testing.T, l lock.Locker) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := l.Acquire(ctx, "k", "late"); !errors.Is(err, context.Canceled) {
		t.Errorf("Acquire: %v, want context.Canceled", err)
	}
	acquire(t, l, "k", "next").Release()
}

// holder shows that the error names the holder at the end of the wait.
func holder(t *testing.T, l lock.Locker) {
	for _, name := range []string{"session 1 of 192.0.2.1:40000", `"{}%s` + "\u00e4\x00"} {
		h := acquire(t, l, "k", name)
		if got := refused(t, l, "k"); got.Holder != name {
			t.Errorf("held by %q, want %q", got.Holder, name)
		}
		h.Release()
	}
}

// releasedTwice shows that a second Release does not release the lock of the
// next holder.
func releasedTwice(t *testing.T, l lock.Locker) {
	first := acquire(t, l, "k", "first")
	first.Release()
	first.Release()
	second := acquire(t, l, "k", "second")
	first.Release()
	if got := refused(t, l, "k"); got.Holder != "second" {
		t.Errorf("held by %q, want second", got.Holder)
	}
	second.Release()
}

// releasedByAnother shows that any goroutine may call Release, and several at
// once.
func releasedByAnother(t *testing.T, l lock.Locker) {
	h := acquire(t, l, "k", "first")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(h.Release)
	}
	wg.Wait()
	acquire(t, l, "k", "second").Release()
}

// releasedAndCancelled shows that the lock remains usable when a wait ends at the
// moment of the release.
func releasedAndCancelled(t *testing.T, l lock.Locker) {
	for range 200 {
		h := acquire(t, l, "k", "first")
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() {
			if h, err := l.Acquire(ctx, "k", "second"); err == nil {
				h.Release()
			}
		})
		wg.Go(cancel)
		wg.Go(h.Release)
		wg.Wait()
		cancel()
	}
	acquire(t, l, "k", "last").Release()
}

// notLost shows that a lock is not lost while it is held, nor by Release.
func notLost(t *testing.T, l lock.Locker) {
	h := acquire(t, l, "k", "first")
	refused(t, l, "k")
	if isLost(h) {
		t.Error("lost while it was held")
	}
	h.Release()
	acquire(t, l, "k", "second").Release()
	if isLost(h) {
		t.Error("lost after Release")
	}
}

// lost shows that only the holder is informed of the loss, and that its Release
// does not release the lock of the next holder.
func (s Suite) lost(t *testing.T, l lock.Locker) {
	h, other := acquire(t, l, "k", "first"), acquire(t, l, "other", "first")
	defer other.Release()
	if s.Lose == nil {
		h.Release()
		return
	}
	s.Lose(l, "k")
	select {
	case <-h.Lost():
	case <-time.After(patience):
		t.Fatal("not reported as lost")
	}
	second := acquire(t, l, "k", "second")
	h.Release()
	if got := refused(t, l, "k"); got.Holder != "second" {
		t.Errorf("held by %q, want second", got.Holder)
	}
	if isLost(other) || isLost(second) {
		t.Error("another lock is reported as lost")
	}
	second.Release()
}

// lostInTime shows that the loss is reported before another can hold the lock.
func (s Suite) lostInTime(t *testing.T, l lock.Locker) {
	h := acquire(t, l, "k", "first")
	if s.Lose == nil {
		h.Release()
		return
	}
	inTime := make(chan bool)
	go func() {
		second := acquire(t, l, "k", "second")
		inTime <- isLost(h)
		second.Release()
	}()
	s.Lose(l, "k")
	if !<-inTime {
		t.Error("another holds the lock before its loss is reported")
	}
	h.Release()
}
