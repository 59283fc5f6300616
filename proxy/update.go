package proxy

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

const (
	// updateTimeout is how long UPDATE may take before the client is told
	// that messages remain.
	updateTimeout = 120 * time.Second

	// updateGrace is how long UPDATE may take beyond that to come to an end.
	updateGrace = 30 * time.Second
)

// errUpdateOverdue is an UPDATE that still runs when its time is over. It is
// reported to the client like any removal that is not whole.
var errUpdateOverdue = fmt.Errorf("UPDATE takes too long: %w", ErrNotRemoved)

// quit answers QUIT, which in TRANSACTION leads to UPDATE (RFC 1939 §6).
func (s *session) quit([]string) error {
	if s.record.State == StateAuthorization {
		s.w.ok("bye")
		return &endError{reason: endQuit}
	}
	if len(s.sent) > 0 {
		// The maildrop is to know what has been retrieved. A client that is
		// gone has sent its QUIT all the same.
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

// quitWithoutLock answers a QUIT that comes when the lock of the maildrop has
// been lost.
func (s *session) quitWithoutLock() error {
	if s.snap.marked > 0 {
		s.replyError(s.cmd.verb, s.cmd.scope, errLockLost)
	} else {
		s.w.ok("bye")
	}
	s.closeConn()
	return &endError{endLock, errLockLost}
}

// quitUnmarked is UPDATE with no message marked: the reply waits for
// nothing, and a failure afterwards is of no concern to the client.
func (s *session) quitUnmarked() error {
	s.unlock()
	s.w.ok("bye")
	s.closeConn()
	ctx, cancel := context.WithTimeout(s.ctx, updateTimeout+updateGrace)
	defer cancel()
	if err := s.maildrop.Update(ctx, nil); err != nil {
		s.log.Warn("update without removal", "error", err)
	}
	return &endError{reason: endQuit}
}

// quitMarked is UPDATE with messages marked.
func (s *session) quitMarked() error {
	marked := s.snap.markedUIDs()
	update := s.startUpdate(marked)
	err := update.wait(updateTimeout)
	switch {
	case err != nil && s.lockLost():
		// Its context has ended with the lock, so that nothing more is
		// removed. What has been removed before is not known.
		err = fmt.Errorf("%w: %w", errLockLost, err)
	case err != nil && s.ctx.Err() != nil:
		return &endError{endShutdown, err} // Close has cut it
	}

	// RFC 1939 §6 frees the lock after the reply, RFC 1725 §6 before it, so
	// that a client that comes back at once finds it free. While UPDATE still
	// runs nobody else may come in.
	overdue := errors.Is(err, errUpdateOverdue)
	if !overdue {
		s.unlock()
	}
	r, mayRetain := s.maildrop.(Retainer)
	switch {
	case err != nil:
		s.replyError(s.cmd.verb, s.cmd.scope, err)
	case mayRetain && r.Retains():
		s.w.ok("bye, messages are kept on the server")
	default:
		s.record.Removed = len(marked)
		s.w.ok(fmt.Sprintf("bye, %d messages removed", len(marked)))
	}
	s.closeConn()
	if overdue {
		err = update.finish(s, updateGrace)
		s.log.Debug("update after its time", "error", err)
	}
	return &endError{reason: endQuit}
}

// update is a call of Maildrop.Update on its way.
type update struct {
	cancel context.CancelFunc
	done   chan error
}

// startUpdate begins to remove the marked messages. It goes on when the client
// has gone: its QUIT has been received.
func (s *session) startUpdate(marked []uint32) *update {
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

// finish waits d, and then cuts what still runs by closing the maildrop.
func (u *update) finish(s *session, d time.Duration) error {
	err := u.wait(d)
	if errors.Is(err, errUpdateOverdue) {
		u.cancel()
		s.logOut()
		err = <-u.done
	}
	return err
}
