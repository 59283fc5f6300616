package proxy

import (
	"testing"
	"time"
)

// TestLogLimiter shows that a flood of refusals is one record per second, which
// has the number of those withheld.
func TestLogLimiter(t *testing.T) {
	var r logLimiter
	now := time.Unix(1000, 0)
	if n, ok := r.allow(now); n != 0 || !ok {
		t.Errorf("first: %d, %v", n, ok)
	}
	for range 5 {
		if _, ok := r.allow(now.Add(logInterval - 1)); ok {
			t.Error("too early")
		}
	}
	if n, ok := r.allow(now.Add(logInterval)); n != 5 || !ok {
		t.Errorf("next: %d, %v", n, ok)
	}
}
