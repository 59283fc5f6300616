package proxy

import (
	"errors"
	"os"
	"sync"
	"time"
)

const (
	// lookPeriod is how often a session looks whether the client has left while a
	// message makes no progress, and lookTime how long it waits for what the client
	// may have sent.
	lookPeriod = 400 * time.Millisecond
	lookTime   = 10 * time.Millisecond
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

// lookout notices the end of a client during RETR and TOP.
type lookout struct {
	mu      sync.Mutex // not held while the client is waited for
	active  bool
	reading chan struct{} // closed when what look reads has ended; nil: it does not read
	written int64         // by the connection, when it was last looked at
	timer   *time.Timer
}

// lookOut has a timer look whether the client has left, until stopLooking: by then
// the session must not read. While octets go to the client, writing shows that it has
// left, and it may have closed its sending side alone.
func (s *session) lookOut() {
	o := &s.lookout
	o.mu.Lock()
	defer o.mu.Unlock()
	o.active, o.written = true, s.raw.written.Load()
	if o.timer == nil {
		o.timer = time.AfterFunc(lookPeriod, s.look)
	} else {
		o.timer.Reset(lookPeriod)
	}
}

// stopLooking ends what lookOut has begun, without waiting for the client.
func (s *session) stopLooking() {
	o := &s.lookout
	o.mu.Lock()
	o.active = false
	o.timer.Stop()
	reading := o.reading
	if reading != nil {
		_ = s.raw.SetReadDeadline(past) // as in unwatchClient
	}
	o.mu.Unlock()
	if reading != nil {
		<-reading
	}
}

// look ends the session's context if the client has left.
func (s *session) look() {
	if !s.beginLook() {
		return
	}
	left := s.hasLeft()
	if left {
		s.cancel(errLeft)
	}
	o := &s.lookout
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.reading)
	o.reading = nil
	if o.active && !left {
		o.timer.Reset(lookPeriod)
	}
}

// beginLook reports whether look is to read from the client now.
func (s *session) beginLook() bool {
	o := &s.lookout
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.active {
		return false
	}
	if n := s.raw.written.Load(); n != o.written || s.raw.writing.Load() || s.setReadTimeout(lookTime) != nil {
		o.written = n
		o.timer.Reset(lookPeriod)
		return false
	}
	o.reading = make(chan struct{})
	return true
}
