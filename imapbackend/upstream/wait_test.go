package upstream

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"
)

// M-4: waits are bounded in number. Those that are over make room first, then the
// one that ends first; a shorter wait does not replace a longer one.
func TestWaitsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var w waits
		user := func(i int) waitFor { return w.account("", fmt.Sprint("user", i), "") }
		first := user(0)
		if !w.add(first, 10*time.Minute) || w.add(first, time.Minute) {
			t.Error("not only the first wait of a user is new")
		}
		if got := w.left(first); got != 10*time.Minute {
			t.Errorf("%v left, want the longer wait", got)
		}
		for i := 1; i < maxWaits; i++ {
			w.add(user(i), maxWait)
		}
		w.add(user(maxWaits), maxWait)
		if len(w.until) != maxWaits || w.left(first) > 0 || w.left(user(1)) <= 0 || w.left(user(maxWaits)) <= 0 {
			t.Errorf("%d waits; the one that ends first is not the one forgotten", len(w.until))
		}
		<-time.After(maxWait)
		if w.left(user(1)) > 0 {
			t.Error("a wait does not end")
		}
		w.add(first, time.Second)
		if len(w.until) != 1 {
			t.Errorf("%d waits, although all others are over", len(w.until))
		}
	})
}
