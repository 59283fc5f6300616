package proxy

import (
	"sync"
	"time"
)

// rationInterval is how often the log has a record of one kind of refusal.
const rationInterval = time.Second

// ration lets one log record through in each rationInterval, so that a flood
// of connections is not one of records.
type ration struct {
	mu       sync.Mutex
	next     time.Time
	withheld int
}

// take reports whether a record may be written now, and how many have been
// withheld since the last.
func (r *ration) take(now time.Time) (withheld int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Before(r.next) {
		r.withheld++
		return 0, false
	}
	withheld, r.withheld = r.withheld, 0
	r.next = now.Add(rationInterval)
	return withheld, true
}
