package proxy

import (
	"sync"
	"time"
)

// logInterval is the shortest time between two log records of one kind of
// refusal.
const logInterval = time.Second

// logLimiter allows one log record per logInterval, so that a flood of
// connections does not flood the log.
type logLimiter struct {
	mu       sync.Mutex
	next     time.Time
	withheld int
}

// allow reports whether a record may be written now, and how many have been
// withheld since the last one.
func (r *logLimiter) allow(now time.Time) (withheld int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Before(r.next) {
		r.withheld++
		return 0, false
	}
	withheld, r.withheld = r.withheld, 0
	r.next = now.Add(logInterval)
	return withheld, true
}
