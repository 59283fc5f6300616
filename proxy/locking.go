package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"popgate/proxy/lock"
)

// lockWait is how long a login waits for another session to release the lock.
const lockWait = 5 * time.Second

// errLockLost ends a session that has lost the lock of its maildrop. It is also
// the answer to a QUIT that has already been received.
var errLockLost = fmt.Errorf("lock of the maildrop lost: %w", ErrNotRemoved)

// heldLock is the lock of a session's maildrop. If it can be lost, a goroutine
// watches it.
type heldLock struct {
	lock.Lock
	released chan struct{} // closed to end the goroutine
	watched  chan struct{} // closed when the goroutine has ended
}

// acquire locks the maildrop (RFC 1939 §4). The reply does not reveal who else
// holds the lock; the log does.
func (s *session) acquire(key string) error {
	ctx, cancel := context.WithTimeout(s.ctx, lockWait)
	defer cancel()
	began := time.Now()
	l, err := s.srv.opts.Locker.Acquire(ctx, key, fmt.Sprintf("session %s of %s", s.record.Session, s.clientName()))
	s.attempt.LockWait = time.Since(began)
	if err == nil {
		s.lock = s.watchLock(l)
		return nil
	}
	if _, held := errors.AsType[*lock.HeldError](err); held && s.ctx.Err() == nil {
		return &Error{Code: ErrInUse.Code, Text: ErrInUse.Text, Err: err}
	}
	return &Error{Code: CodeSysTemp, Text: "maildrop cannot be locked, try again later", Err: err}
}

// watchLock makes the session end when l is lost, whatever it is doing.
func (s *session) watchLock(l lock.Lock) *heldLock {
	h := &heldLock{Lock: l}
	lost := l.Lost()
	if lost == nil {
		return h
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
	return h
}

// lockLost reports whether the session's lock has been lost. UPDATE checks this
// itself because the watching goroutine may not have run yet.
func (s *session) lockLost() bool {
	if s.lock == nil {
		return false
	}
	select {
	case <-s.lock.Lost():
		return true
	default:
		return false
	}
}

// unlock releases the lock of the maildrop, if it is held, and stops watching it.
func (s *session) unlock() {
	h := s.lock
	if h == nil {
		return
	}
	s.lock = nil
	if h.released != nil {
		close(h.released)
		<-h.watched
	}
	h.Release()
}
