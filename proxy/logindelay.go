package proxy

import (
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
)

// maxDelayed bounds the maildrops whose last login is remembered.
const maxDelayed = 100_000

// loginDelays knows when each maildrop was last opened (RFC 2449 §6.5). It is safe
// for concurrent use.
type loginDelays struct {
	delay time.Duration // 0: none
	last  *lru.Cache[string, time.Time]
}

func newLoginDelays(delay time.Duration) loginDelays {
	if delay <= 0 {
		return loginDelays{}
	}
	last, _ := lru.New[string, time.Time](maxDelayed) // fails only without size
	return loginDelays{delay, last}
}

// admit returns errLoginDelay for a login that comes too soon after the last one.
func (d loginDelays) admit(id Identity) error {
	if d.delay <= 0 {
		return nil
	}
	if last, ok := d.last.Peek(id.Keys()[0]); ok && time.Since(last) < d.delay {
		return errLoginDelay
	}
	return nil
}

// loggedIn records a login that is answered +OK.
func (d loginDelays) loggedIn(id Identity) {
	if d.delay > 0 {
		d.last.Add(id.Keys()[0], time.Now())
	}
}
