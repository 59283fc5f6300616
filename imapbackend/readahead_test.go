package imapbackend

import (
	"testing"
	"time"

	"popgate/proxy"
)

// When a walk ends, the octets that it has cost are at most a multiple of those
// that the client has read, plus a constant after three messages in a row.
func TestReadAheadCost(t *testing.T) {
	const size = 10_000
	for _, tt := range []struct{ taken, most int64 }{
		{1, 1 * size},
		{2, 2*size + minFlight},
		{3, 3*3*size + longFlight},
		{60, 3*60*size + longFlight},
	} {
		inEachForm(t, itoa(int(tt.taken)), func(t *testing.T, m *model) {
			for i := range 400 {
				m.add(mail(i, size))
			}
			d := openMaildrop(t, m.backend(t, Options{}))
			defer d.Close()
			before := m.Octets()
			for uid := range uint64(tt.taken) {
				read(t, d, uid+1)
			}
			most := tt.most + tt.most/20 + 500 // the rest of the responses
			if got := m.Octets() - before; got > most {
				t.Errorf("%d octets for %d messages of %d, want %d at most", got, tt.taken, size, most)
			}
		})
	}
}

// Large messages and long round trips: the read-ahead reaches its limit after
// a few round trips, so that RETR of all at 20 ms has half the throughput of 0
// ms.
func TestReadAheadOpens(t *testing.T) {
	for _, tt := range []struct {
		inFlight int
		most     float64
	}{{1, 8}, {64, 5}} {
		inFlight := tt.inFlight
		inEachForm(t, itoa(inFlight)+" in flight", func(t *testing.T, m *model) {
			m.RTT = rtt
			for i := range 1000 {
				m.add(mail(i, 32_000))
			}
			d := openMaildrop(t, m.backend(t, Options{}))
			defer func() { <-time.After(rtt) }() // until the last octets have arrived
			defer d.Close()
			start := time.Now()
			for i, msg := range d.Messages() {
				if i%inFlight == 0 && inFlight > 1 {
					var next []uint64
					for _, msg := range d.Messages()[i+1 : min(i+inFlight, 1000)] {
						next = append(next, msg.UID)
					}
					d.(proxy.Expecter).Expect(next)
				}
				read(t, d, msg.UID)
			}
			if n := trips(start); n > tt.most {
				t.Errorf("%d in flight: %.1f round trips for 32 MB", inFlight, n)
			}
		})
	}
}
