package proxy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"popgate/proxy/lock"
)

// lockWait is how long a login waits for the session that holds its maildrop.
const lockWait = 5 * time.Second

// errLockLost is why a session ends that has lost the lock of its maildrop, and
// what it answers to a QUIT that has been received already.
var errLockLost = fmt.Errorf("lock of the maildrop lost: %w", ErrNotRemoved)

// heldLock is the lock of the maildrop that a session has opened. Where it may
// be lost, a goroutine watches it.
type heldLock struct {
	lock.Lock
	released chan struct{} // closed to end the goroutine
	watched  chan struct{} // closed when it has ended
}

// acquire locks the maildrop (RFC 1939 §4). Who holds it instead is for the log
// only.
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
	if _, held := errors.AsType[*lock.HeldError](err); held {
		return &Error{Code: ErrInUse.Code, Text: ErrInUse.Text, Err: err}
	}
	return &Error{Code: CodeSysTemp, Text: "maildrop cannot be locked, try again later", Err: err}
}

// watchLock has the session end when l is lost, whatever it is doing.
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

// lockLost reports whether the lock has been lost while it was held. UPDATE asks
// for itself, as the goroutine that watches may not have run yet.
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

// unlock frees the lock of the maildrop. It is not watched any more then.
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
