package proxy

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

const (
	// updateTimeout is how long UPDATE may take before the client gets an
	// error.
	updateTimeout = 120 * time.Second

	// updateGrace is how long UPDATE may continue after that before it is
	// cancelled.
	updateGrace = 30 * time.Second
)

// errUpdateOverdue is an UPDATE that still runs after updateTimeout. The client
// sees it as a removal that is incomplete.
var errUpdateOverdue = fmt.Errorf("UPDATE takes too long: %w", ErrNotRemoved)

// quit answers QUIT, which in TRANSACTION leads to UPDATE (RFC 1939 §6).
func (s *session) quit([]string) error {
	if s.record.State == StateAuthorization {
		s.w.ok("bye")
		return &endError{reason: endQuit}
	}
	if len(s.sent) > 0 {
		// The flush reports to the maildrop what has been retrieved. If it
		// fails, the QUIT that was received is still valid.
		_ = s.flush()
	}
	if s.lockLost() {
		return s.quitWithoutLock()
	}
	s.enter(StateUpdate)
	if s.snap.marked == 0 {
		return s.quitUnmarked()
	}
	return s.quitMarked()
}

// quitWithoutLock answers QUIT after the lock of the maildrop has been lost.
func (s *session) quitWithoutLock() error {
	if s.snap.marked > 0 {
		s.replyError(s.cmd.verb, s.cmd.scope, errLockLost)
	} else {
		s.w.ok("bye")
	}
	s.closeConn()
	return &endError{endLock, errLockLost}
}

// quitUnmarked runs UPDATE with no message marked. It replies first: a failure
// does not concern the client.
func (s *session) quitUnmarked() error {
	s.unlock()
	s.w.ok("bye")
	s.closeConn()
	ctx, cancel := context.WithTimeout(s.ctx, updateTimeout+updateGrace)
	defer cancel()
	if err := s.maildrop.Update(ctx, nil); err != nil {
		s.log.Warn("UPDATE failed, nothing was marked", "error", err)
	}
	return &endError{reason: endQuit}
}

// quitMarked runs UPDATE with messages marked.
func (s *session) quitMarked() error {
	marked := s.snap.markedUIDs()
	r, mayRetain := s.maildrop.(Retainer)
	retains := mayRetain && r.Retains()
	update := s.startUpdate(marked)
	err := update.wait(updateTimeout)
	switch {
	case err != nil && s.lockLost():
		// The context ended with the lock, so nothing more is removed. How
		// much has been removed is not known.
		err = fmt.Errorf("%w: %w", errLockLost, err)
	case err != nil && s.ctx.Err() != nil: // interrupted by Close
		if !retains {
			s.logRemoval(marked, err)
		}
		return &endError{endShutdown, err}
	}

	// RFC 1939 §6 releases the lock after the reply, RFC 1725 §6 before it,
	// which lets a client log in again at once. The lock is kept while UPDATE
	// still runs.
	overdue := errors.Is(err, errUpdateOverdue)
	if !overdue {
		s.unlock()
	}
	switch {
	case err != nil:
		s.replyError(s.cmd.verb, s.cmd.scope, err)
	case retains:
		s.w.ok("bye, messages are kept on the server")
	default:
		s.record.Removed = len(marked)
		s.w.ok(fmt.Sprintf("bye, %d messages removed", len(marked)))
	}
	s.closeConn()
	if overdue {
		err = update.finish(s, updateGrace)
		s.log.Debug("overdue UPDATE ended", "error", err)
	}
	if !retains {
		s.logRemoval(marked, err)
	}
	return &endError{reason: endQuit}
}

// update is a running call of Maildrop.Update.
type update struct {
	cancel context.CancelFunc
	done   chan error
}

// startUpdate starts removing the marked messages. A client that disconnects
// does not stop it: QUIT has been received.
func (s *session) startUpdate(marked []uint64) *update {
	ctx, cancel := context.WithTimeout(s.ctx, updateTimeout+updateGrace)
	u := &update{cancel: cancel, done: make(chan error, 1)}
	maildrop := s.maildrop
	go func() {
		defer func() {
			if p := recover(); p != nil {
				s.log.Error("panic in update", "panic", p, "stack", string(debug.Stack()))
				u.done <- fmt.Errorf("panic: %v", p)
			}
		}()
		u.done <- maildrop.Update(ctx, marked)
	}()
	return u
}

// wait returns the result of the update, or errUpdateOverdue after d.
func (u *update) wait(d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case err := <-u.done:
		u.cancel()
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("%w: %w", ErrNotRemoved, err)
		}
		return err
	case <-timer.C:
		return errUpdateOverdue
	}
}

// finish waits d more for the update, and then cancels it and closes the
// maildrop.
func (u *update) finish(s *session, d time.Duration) error {
	err := u.wait(d)
	if errors.Is(err, errUpdateOverdue) {
		u.cancel()
		s.logOut()
		err = <-u.done
	}
	return err
}
