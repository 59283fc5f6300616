package proxy

import (
	"testing"
	"time"
)

// TestRation shows that a flood of refusals is one record in a second, which
// says how many it stands for.
func TestRation(t *testing.T) {
	var r ration
	now := time.Unix(1000, 0)
	if n, ok := r.take(now); n != 0 || !ok {
		t.Errorf("first: %d, %v", n, ok)
	}
	for range 5 {
		if _, ok := r.take(now.Add(rationInterval - 1)); ok {
			t.Error("too early")
		}
	}
	if n, ok := r.take(now.Add(rationInterval)); n != 5 || !ok {
		t.Errorf("next: %d, %v", n, ok)
	}
}
