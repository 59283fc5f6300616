package imapbackend_test

import (
	"errors"
	"fmt"
	"runtime"
	"testing"
)

// What sessions allocate, by a gateway before an upstream in this process. The
// bounds have room for what client and upstream of the test allocate, and the
// pools under the race detector, which loses some of what it is given.
func TestAllocations(t *testing.T) {
	const octets = 4 << 10
	walk := func(command string, most float64) func(*testing.T) {
		return func(t *testing.T) {
			const runs = 500
			c := benchClient(t, benchUpstream(t, runs+50, octets))
			n := 0
			step := func() {
				n++
				c.OK(fmt.Sprintf(command, n))
				c.Discard()
			}
			for range 40 { // the walk is under way
				step()
			}
			atMost(t, "allocations a message", testing.AllocsPerRun(runs, step), most)
		}
	}
	t.Run("RETR", walk("RETR %d", 20))
	t.Run("TOP", walk("TOP %d 0", 16))
	t.Run("large RETR", func(t *testing.T) {
		c := benchClient(t, benchUpstream(t, 1, 8<<20))
		// Whatever its size.
		atMost(t, "allocations for 8 MiB", testing.AllocsPerRun(3, func() {
			c.OK("RETR 1")
			c.Discard()
		}), 60)
	})
	t.Run("session", func(t *testing.T) {
		addr := benchGateway(t, benchUpstream(t, 10, octets)).Addr()
		session(t, addr)
		atMost(t, "allocations a session", testing.AllocsPerRun(100, func() { session(t, addr) }), 500)
	})
}

// A session that waits has three goroutines at the most, the upstream's of this
// test not counted, and holds no large buffer on either side.
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
	idle(0) // makes what is made once
	goroutines, octets := runtime.NumGoroutine(), inUse()
	for i := range sessions {
		idle(i + 1)
	}
	const ofUpstream = 1
	atMost(t, "goroutines a session", float64(runtime.NumGoroutine()-goroutines)/sessions, 3+ofUpstream)
	atMost(t, "octets a session", float64((inUse()-octets)/sessions-benchBuffer), 40<<10)
}

// atMost logs what has been counted, and fails if it is more than the bound.
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
