// Package lock grants exclusive access to maildrops (RFC 1939 §4): at most one
// session holds a maildrop at a time. Package locktest has the tests that every
// Locker must pass.
package lock

import (
	"context"
	"fmt"
	"time"
)

// Locker hands out exclusive locks by key. It is safe for concurrent use.
type Locker interface {
	// Acquire waits until no one else holds key, or until ctx ends. key may
	// be any string. holder describes the caller, for the logs of others. If
	// ctx ends while another holds key, the error is a *HeldError; any other
	// error means that ctx had already ended, or that the lock service failed
	// or did not answer.
	Acquire(ctx context.Context, key, holder string) (Lock, error)
}

// Lock is a lock that is held until Release, or until it is lost. It is safe
// for concurrent use.
type Lock interface {
	// Lost returns a channel that is closed when the lock service can no
	// longer guarantee that nobody else holds the lock, but not because of
	// Release. It is nil if that cannot happen.
	Lost() <-chan struct{}

	// Release releases the lock, if it has not been lost. It waits only a
	// short time. Calls after the first have no effect.
	Release()
}

// HeldError is the error of Acquire when another holds the lock.
type HeldError struct {
	Holder string    // as given to Acquire
	Since  time.Time // when it acquired the lock; the zero Time if not known
	Err    error     // the error of the context
}

// Error names the holder. It is for the log only.
func (e *HeldError) Error() string {
	since := ""
	if !e.Since.IsZero() {
		since = " since " + e.Since.Format(time.RFC3339)
	}
	return fmt.Sprintf("held by %s%s: %v", e.Holder, since, e.Err)
}

// Unwrap returns the error of the context.
func (e *HeldError) Unwrap() error { return e.Err }
