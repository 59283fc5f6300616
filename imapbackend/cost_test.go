package imapbackend_test

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
)

// What a session allocates. Client and upstream run in this process too, so the
// bounds have room for what they allocate, and for sync.Pool, which drops some
// items under the race detector.
func TestAllocations(t *testing.T) {
	const octets = 4 << 10
	walk := func(command string, most float64) func(*testing.T) {
		return func(t *testing.T) {
			const runs = 500
			c := benchClient(t, benchUpstream(t, runs+50, octets))
			n := 0
			step := func() {
				n++
				fetch(t, c, fmt.Sprintf(command, n))
			}
			for range 40 { // until the read-ahead is in full use
				step()
			}
			atMost(t, "allocations a message", testing.AllocsPerRun(runs, step), most)
		}
	}
	t.Run("RETR", walk("RETR %d", 20))
	t.Run("TOP", walk("TOP %d 0", 16))
	t.Run("large RETR", func(t *testing.T) {
		c := benchClient(t, benchUpstream(t, 1, 8<<20))
		// The size of the message does not matter.
		atMost(t, "allocations for 8 MiB", testing.AllocsPerRun(3, func() {
			fetch(t, c, "RETR 1")
		}), 60)
	})
	t.Run("session", func(t *testing.T) {
		addr := benchGateway(t, benchUpstream(t, 10, octets)).Addr()
		session(t, addr)
		atMost(t, "allocations a session", testing.AllocsPerRun(100, func() { session(t, addr) }), 600)
	})
}

// An idle session has at most three goroutines, besides the one of the
// upstream in this process, and holds no large buffer on either side.
func TestIdleSession(t *testing.T) {
	const sessions = 64
	addr := benchGateway(t, benchUpstream(t, 10, 4<<10)).Addr()
	idle := func(user int) {
		c := benchDial(t, addr)
		t.Cleanup(func() { c.Conn.Close() })
		err := c.Login(fmt.Sprint("u", user), "p")
		for _, command := range []string{"LIST", "RETR 1"} {
			err = errors.Join(err, c.OK(command), c.Discard())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	idle(0) // allocates what all sessions share
	goroutines, octets := runtime.NumGoroutine(), inUse()
	for i := range sessions {
		idle(i + 1)
	}
	const ofUpstream = 1
	atMost(t, "goroutines a session", float64(runtime.NumGoroutine()-goroutines)/sessions, 3+ofUpstream)
	atMost(t, "octets a session", float64((inUse()-octets)/sessions-benchBuffer), 40<<10)
}

// atMost logs a count, and fails if it is above the bound.
func atMost(t *testing.T, what string, got, bound float64) {
	t.Helper()
	t.Logf("%.1f %s", got, what)
	if got > bound {
		t.Errorf("%s: %v at most", what, bound)
	}
}

// inUse returns the octets on heap and stacks, without what the pools hold.
func inUse() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}
