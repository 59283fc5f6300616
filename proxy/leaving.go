package proxy

import (
	"errors"
	"os"
	"time"
)

// errLeft ends a session whose client has left while the Backend worked.
var errLeft = errors.New("the client has left")

// watchClient has a goroutine read from the client while the session waits for
// the Backend, so that a client that leaves ends the session's context. Until
// unwatchClient the session must not read. It watches nothing if the session is
// about to end anyway.
func (s *session) watchClient() {
	_ = s.raw.SetReadDeadline(time.Time{}) // fails where the connection is closed already
	if s.srv.draining.Load() || s.raw.interrupted.Load() {
		return // as in setReadTimeout
	}
	watched := make(chan struct{})
	s.watched = watched
	go func() {
		defer close(watched)
		if s.hasLeft() {
			s.cancel(errLeft)
		}
	}()
}

// unwatchClient ends what watchClient has begun. The read deadline has passed
// then; whoever reads next sets another.
func (s *session) unwatchClient() {
	if s.watched == nil {
		return
	}
	_ = s.raw.SetReadDeadline(past)
	<-s.watched
	s.watched = nil
}

// hasLeft reads from the client until a complete line waits for the session, the
// buffer is full, or the read deadline is over, and reports whether the client
// has left before: it has closed or reset the connection with no command left to
// answer. A client that has closed its sending side alone looks the same; with a
// command left it gets the answers.
func (s *session) hasLeft() bool {
	for s.r.hasRoom() {
		if err := s.r.fill(); err != nil {
			return !errors.Is(err, os.ErrDeadlineExceeded)
		}
	}
	return false
}
