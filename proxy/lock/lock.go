// Package lock grants exclusive access to maildrops (RFC 1939 §4): at most one
// session holds a maildrop at a time. Package locktest has the tests that every
// Locker passes.
package lock

import (
	"context"
	"fmt"
	"time"
)

// Locker hands out exclusive locks by key. It is safe for concurrent use.
type Locker interface {
	// Acquire waits until no one else holds key, or ctx ends. holder names
	// the caller for the logs of others. If ctx ends while another holds key
	// the error is a *HeldError; any other error means that ctx had ended
	// before, or that the lock service failed or did not answer.
	Acquire(ctx context.Context, key, holder string) (Lock, error)
}

// Lock is a lock that is held until Release, or until it is lost. It is safe
// for concurrent use.
type Lock interface {
	// Lost returns a channel that is closed when the lock service can no
	// longer guarantee that nobody else holds the lock, but not because of
	// Release. It is nil where that cannot happen.
	Lost() <-chan struct{}

	// Release gives the lock back, waiting a short time at most, also if it
	// has been lost. It may be called any number of times; only the first
	// call counts.
	Release()
}

// HeldError is a lock that another held until the end of the wait.
type HeldError struct {
	Holder string    // as given to Acquire
	Since  time.Time // when it acquired the lock; the zero Time if not known
	Err    error     // that of the context
}

// Error names the holder. It is for the log.
func (e *HeldError) Error() string {
	since := ""
	if !e.Since.IsZero() {
		since = " since " + e.Since.Format(time.RFC3339)
	}
	return fmt.Sprintf("held by %s%s: %v", e.Holder, since, e.Err)
}

// Unwrap returns the error of the context.
func (e *HeldError) Unwrap() error { return e.Err }
