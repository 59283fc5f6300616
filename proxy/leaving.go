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
	mu      sync.Mutex
	active  bool
	written int64 // by the connection, when it was last looked at
	timer   *time.Timer
	reading chan struct{} // closed when look has read; nil: it does not read
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

// stopLooking ends what lookOut has begun. The read deadline may have passed then, as
// after unwatchClient.
func (s *session) stopLooking() {
	o := &s.lookout
	o.mu.Lock()
	o.active = false
	o.timer.Stop()
	reading := o.reading
	o.mu.Unlock()
	if reading != nil {
		_ = s.raw.SetReadDeadline(past) // fails where the connection is closed already
		<-reading
	}
}

// look ends the session's context if the client has left.
func (s *session) look() {
	o := &s.lookout
	o.mu.Lock()
	defer o.mu.Unlock()
	if !o.active {
		return
	}
	if n := s.raw.written.Load(); n != o.written {
		o.written = n
	} else if o.lookNow(s); !o.active {
		return
	}
	o.timer.Reset(lookPeriod)
}

// lookNow reads from the client, with mu held except while it waits, and ends the
// session's context if the client has left.
func (o *lookout) lookNow(s *session) {
	o.reading = make(chan struct{})
	o.mu.Unlock()
	if s.setReadTimeout(lookTime) == nil && s.hasLeft() {
		s.cancel(errLeft)
	}
	o.mu.Lock()
	close(o.reading)
	o.reading = nil
}
