package proxy

import (
	"fmt"
	"math"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"
)

var throttleOptions = ThrottleOptions{Delay: 2 * time.Second, MaxDelay: 15 * time.Second, Window: 10 * time.Minute}

func newThrottle(t *testing.T) *Throttle {
	t.Helper()
	th, err := NewThrottle(throttleOptions)
	if err != nil {
		t.Fatal(err)
	}
	return th
}

// before returns how long a login waits before the Backend is called.
func before(t *testing.T, th *Throttle, client, name string) time.Duration {
	t.Helper()
	began := time.Now()
	failure, done, err := th.Begin(t.Context(), netip.MustParseAddr(client), name, func() {})
	if err != nil || failure != throttleOptions.Delay {
		t.Fatalf("failure delay %v, %v", failure, err)
	}
	done(VerdictNone)
	return time.Since(began)
}

// logIn is a login with that verdict.
func logIn(t *testing.T, th *Throttle, client netip.Addr, name string, v Verdict) {
	t.Helper()
	_, done, err := th.Begin(t.Context(), client, name, func() {})
	if err != nil {
		t.Fatal(err)
	}
	done(v)
}

// fail is a login that is refused, and does not take time.
func fail(th *Throttle, client netip.Addr, name string) {
	th.done(th.keys(client, name), nil, VerdictRefused)
}

// TestThrottleOptions shows which options NewThrottle refuses.
func TestThrottleOptions(t *testing.T) {
	for _, o := range []ThrottleOptions{
		{0, time.Second, time.Second},
		{2 * time.Second, time.Second, time.Second},
		{time.Second, time.Second, 0},
	} {
		if _, err := NewThrottle(o); err == nil {
			t.Errorf("%+v is accepted", o)
		}
	}
}

// TestThrottleGrowth shows P-PASS-6: delays double up to the maximum, and no
// number of failures makes them overflow.
func TestThrottleGrowth(t *testing.T) {
	for n, want := range []time.Duration{2, 4, 8, 15, 15} {
		if got := throttleOptions.after(n); got != want*time.Second {
			t.Errorf("after %d failures: %v, want %vs", n, got, int(want))
		}
	}
	if got := throttleOptions.after(math.MaxInt); got != throttleOptions.MaxDelay {
		t.Errorf("after very many failures: %v", got)
	}
}

// TestThrottleKeys shows P-PASS-6 and O-LIM-1: which failures count together.
func TestThrottleKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			client, name string
			want         time.Duration // of a login after alice has failed from 192.0.2.1 and from 2001:db8::1
		}{
			{"192.0.2.1", "bob", 2 * time.Second},
			{"::ffff:192.0.2.1", "bob", 2 * time.Second},
			{"192.0.2.2", "bob", 0},
			{"192.0.2.2", "ALICE", 6 * time.Second},
			{"192.0.2.2", " alice\t", 6 * time.Second},
			{"192.0.2.2", "\uff41\uff4c\uff49\uff43\uff45", 6 * time.Second}, // full width
			{"192.0.2.2", "al\u00adice\u200b", 6 * time.Second},              // soft hyphen, space without width
			{"192.0.2.2", "al ice", 0},
			{"192.0.2.2", "", 0},
			{"2001:db8::ffff:1", "bob", 2 * time.Second},
			{"2001:db8:0:1::1", "bob", 0},
		} {
			th := newThrottle(t)
			fail(th, netip.MustParseAddr("192.0.2.1"), "alice")
			fail(th, netip.MustParseAddr("2001:db8::1"), "alice")
			if got := before(t, th, tt.client, tt.name); got != tt.want {
				t.Errorf("%s from %s waits %v, want %v", tt.name, tt.client, got, tt.want)
			}
		}
	})
}

// TestThrottleCap shows P-PASS-6: whatever others try, a correct password waits
// for less than the maximum.
func TestThrottleCap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(t)
		for i := range 10000 {
			addr := netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)})
			fail(th, addr, "alice")
		}
		if got, want := before(t, th, "192.0.2.1", "alice"), 13*time.Second; got != want {
			t.Errorf("alice waits %v, want %v", got, want)
		}
		if got := before(t, th, "192.0.2.1", "bob"); got != 0 {
			t.Errorf("bob waits %v", got)
		}
	})
}

// TestThrottleKnown shows that a user who has logged in from an address is not
// delayed by failures of other names there, but by those of their own.
func TestThrottleKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(t)
		client := netip.MustParseAddr("192.0.2.1")
		logIn(t, th, client, "alice", VerdictAccepted)
		for range 10 {
			fail(th, client, "printer")
		}
		if got := before(t, th, "192.0.2.1", "alice"); got != 0 {
			t.Errorf("alice waits %v", got)
		}
		if got := before(t, th, "192.0.2.1", "bob"); got != 13*time.Second {
			t.Errorf("bob waits %v", got)
		}
		fail(th, client, "alice")
		if got := before(t, th, "192.0.2.1", "alice"); got != 2*time.Second {
			t.Errorf("alice waits %v after her own failure", got)
		}
		<-time.After(knownFor)
		fail(th, client, "printer")
		fail(th, client, "printer")
		if got := before(t, th, "192.0.2.1", "alice"); got != 6*time.Second {
			t.Errorf("alice waits %v when she is no longer known", got)
		}
	})
}

// TestThrottleWindow shows that failures are forgotten, and their entries deleted.
func TestThrottleWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(t)
		client := netip.MustParseAddr("192.0.2.1")
		fail(th, client, "alice")
		<-time.After(throttleOptions.Window - 1)
		if got := before(t, th, "192.0.2.1", "alice"); got != 2*time.Second {
			t.Errorf("at the end of the window alice waits %v", got)
		}
		<-time.After(1)
		if got := before(t, th, "192.0.2.1", "alice"); got != 0 {
			t.Errorf("after the window alice waits %v", got)
		}
		if n := len(th.addresses.entries) + len(th.names.entries); n != 0 {
			t.Errorf("%d entries are left", n)
		}
	})
}

// TestThrottleMemory shows that the number of entries is limited, that the oldest
// is dropped first, and that a flood of names does not clear an address.
func TestThrottleMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(t)
		client := netip.MustParseAddr("192.0.2.1")
		fail(th, client, "first")
		fail(th, client, "second")
		fail(th, client, "first") // now newer than second
		for i := range throttleEntries - 1 {
			fail(th, client, fmt.Sprint("name ", i))
		}
		for _, m := range []*counters{&th.names, &th.addresses} {
			if len(m.entries) > throttleEntries || m.order.Len() != len(m.entries) {
				t.Errorf("%d entries, %d in order", len(m.entries), m.order.Len())
			}
		}
		if got := before(t, th, "192.0.2.2", "first"); got != 6*time.Second {
			t.Errorf("first waits %v", got)
		}
		if got := before(t, th, "192.0.2.2", "second"); got != 0 {
			t.Errorf("second, the oldest, waits %v", got)
		}
		if got := before(t, th, "192.0.2.1", "other"); got != 13*time.Second {
			t.Errorf("the address waits %v", got)
		}
	})
}
