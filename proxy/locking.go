package proxy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"popgate/proxy/lock"
)

// lockWait is how long a login waits for another session to release the lock.
const lockWait = 5 * time.Second

// loginLimit is how long after its credential a client may wait for the lock. What
// is left of a minute is for ending the connection to the upstream. After a login
// that took longer still, leastWait is enough for a lock that is free.
const (
	loginLimit = 58 * time.Second
	leastWait  = 100 * time.Millisecond
)

// errLockLost ends a session that has lost the lock of its maildrop. It is also
// the answer to a QUIT that has already been received.
var errLockLost = fmt.Errorf("lock of the maildrop lost: %w", ErrNotRemoved)

// heldLock is a lock of a session's maildrop. If it can be lost, a goroutine
// watches it.
type heldLock struct {
	lock.Lock
	released chan struct{} // closed to end the goroutine
	watched  chan struct{} // closed when the goroutine has ended
}

// acquire locks the maildrop (RFC 1939 §4) by each of its keys in their order; all
// of them together may take lockWait, and no longer than loginLimit allows. The reply does not reveal who else holds a
// lock; the log does.
func (s *session) acquire(keys []string) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(s.ctx, min(lockWait, max(leastWait, loginLimit-began.Sub(s.credited))))
	defer cancel()
	holder := fmt.Sprintf("session %s of %s", s.record.Session, s.clientName())
	var err error
	for _, key := range keys {
		var l lock.Lock
		if l, err = s.srv.opts.Locker.Acquire(ctx, key, holder); err != nil {
			break
		}
		h := &heldLock{Lock: l}
		s.locks = append(s.locks, h)
		s.watchLock(h)
	}
	s.attempt.LockWait = time.Since(began)
	if err == nil {
		return nil
	}
	s.unlock()
	if _, held := errors.AsType[*lock.HeldError](err); held && s.ctx.Err() == nil {
		return &Error{Code: ErrInUse.Code, Text: ErrInUse.Text, Err: err}
	}
	return &Error{Code: CodeSysTemp, Text: "maildrop cannot be locked, try again later", Err: err}
}

// watchLock makes the session end when h is lost, whatever it is doing.
func (s *session) watchLock(h *heldLock) {
	lost := h.Lost()
	if lost == nil {
		return
	}
	h.released, h.watched = make(chan struct{}), make(chan struct{})
	go func() {
		defer close(h.watched)
		select {
		case <-lost:
			s.interrupt(errLockLost)
		case <-h.released:
		}
	}()
}

// lockLost reports whether one of the session's locks has been lost. UPDATE
// checks this itself because the watching goroutine may not have run yet.
func (s *session) lockLost() bool {
	for _, h := range s.locks {
		select {
		case <-h.Lost():
			return true
		default:
		}
	}
	return false
}

// unlock releases the locks of the maildrop, those that are held, the last one
// first, and stops watching them.
func (s *session) unlock() {
	locks := s.locks
	s.locks = nil
	for _, h := range slices.Backward(locks) {
		if h.released != nil {
			close(h.released)
			<-h.watched
		}
		s.contain(h.Release)
	}
}
