package speed

import (
	"testing"
	"testing/synctest"
	"time"
)

// step is what happens to a Meter.
type step struct {
	octets int64         // that begin to come, if not 0
	wait   time.Duration // after that
	pause  bool          // nothing is on its way then
}

func TestMeter(t *testing.T) {
	for _, tt := range []struct {
		name  string
		steps []step
		want  int64 // octets within a second; -1: not known
	}{
		{"nothing", nil, -1},
		{"at once", []step{{octets: 1000, pause: true}}, -1},
		{"for less than the least time", []step{{octets: 1000, wait: least - time.Millisecond, pause: true}}, -1},
		{"slow", []step{{octets: 500, wait: 500 * time.Millisecond, pause: true}}, 1000},
		{"slow, still coming", []step{{octets: 500, wait: 500 * time.Millisecond}}, 1000},
		{"not while nothing comes", []step{{octets: 500, wait: 500 * time.Millisecond, pause: true}, {wait: time.Hour}}, 1000},
		{"one after the other", []step{{octets: 100, wait: 100 * time.Millisecond}, {octets: 300, wait: 100 * time.Millisecond}}, 2000},
		{"a long time", []step{{octets: 6000, wait: time.Minute}}, 100},
		{"the last few seconds", []step{{octets: 1 << 30, wait: time.Second}, {wait: 16 * time.Second}, {octets: 1000, wait: 20 * time.Second},
			{octets: 2000, wait: time.Second}}, 1025},
		{"the last few seconds, at once", []step{{octets: 1000, wait: time.Second}, {octets: 9000}, {octets: 9000}, {octets: 1000, wait: time.Second}}, 10000},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var m Meter
				for _, s := range tt.steps {
					if s.octets > 0 {
						m.Begin(s.octets)
					}
					<-time.After(s.wait)
					if s.pause {
						m.Pause()
					}
				}
				got, known := m.Within(time.Second)
				if want := max(tt.want, 0); known != (tt.want >= 0) || got < want-want/4 || got > want+want/4 {
					t.Errorf("%d octets within a second, known: %v; want %d", got, known, tt.want)
				}
			})
		})
	}
}
