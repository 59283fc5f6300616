// Package speed measures how fast data come that are on their way.
package speed

import "time"

const (
	// memory is how much time counts; what is older is forgotten.
	memory = 2 * time.Second

	// least is the time from which on the measured speed says anything. What
	// came faster is not held up by the link.
	least = 100 * time.Millisecond
)

// Meter measures a speed in octets per time. Its time runs from the first octet
// of an answer until nothing more is on its way, so that it includes neither the
// wait for an answer nor the time without a command. It does include the time in
// which the reader does not read: a slow reader needs no faster link. The zero
// value has measured nothing. A Meter is not safe for concurrent use.
type Meter struct {
	octets  int64         // within time
	time    time.Duration // that counts, without what has run since running
	coming  int64         // octets that began to come since
	running time.Time     // zero: time does not run
}

// Begin records that data of the given number of octets begin to come.
func (m *Meter) Begin(octets int64) {
	m.tick()
	if m.running.IsZero() {
		m.running = time.Now()
	}
	m.coming += octets
}

// Pause records that nothing more is on its way.
func (m *Meter) Pause() {
	m.tick()
	m.running = time.Time{}
}

// tick takes the time that has run so far into account.
func (m *Meter) tick() {
	if m.running.IsZero() {
		return
	}
	now := time.Now()
	passed := now.Sub(m.running)
	if rest := max(memory-passed, 0); m.time > rest {
		m.octets = int64(float64(m.octets) * float64(rest) / float64(m.time))
		m.time = rest
	}
	m.octets += m.coming
	m.time += passed
	m.coming, m.running = 0, now
}

// Within returns how many octets come within d; known is false where that is not
// limited, as far as has been measured.
func (m *Meter) Within(d time.Duration) (octets int64, known bool) {
	m.tick()
	if m.time < least {
		return 0, false
	}
	return int64(float64(m.octets) / float64(m.time) * float64(d)), true
}
