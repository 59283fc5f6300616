package imapbackend

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// compress, RFC 4978: compression starts after the login and before SELECT, if
// it is configured and offered, and costs one round trip. A refusal changes
// nothing, and a kept connection stays compressed.
func TestCompress(t *testing.T) {
	for _, tt := range []struct {
		name      string
		caps      string
		on        bool
		asked     int
		mostTrips float64
	}{
		{"on and offered", " COMPRESS=DEFLATE", true, 1, 4.51},
		{"off", " COMPRESS=DEFLATE", false, 0, 3.51},
		{"not offered", "", true, 0, 3.51},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newModel()
				m.RTT = rtt
				m.Caps += " UNSELECT" + tt.caps
				for i := range 20 {
					m.add(mail(i, 5000))
				}
				b := m.backend(t, Options{KeepOpen: keepOpen, Compress: tt.on})
				for round, most := range []float64{tt.mostTrips, 1.01} {
					start := time.Now()
					d := openMaildrop(t, b)
					if n := trips(start); n > most {
						t.Errorf("round %d: %.2f round trips", round, n)
					}
					for i, msg := range d.Messages() {
						if got := read(t, d, msg.UID); got != m.messages()[i].Body {
							t.Errorf("round %d: UID %d is %q", round, msg.UID, got)
						}
					}
					quit(t, d)
				}
				commands := m.Commands()
				at := slices.Index(commands, "COMPRESS DEFLATE")
				asked := len(slices.DeleteFunc(slices.Clone(commands), func(c string) bool { return !strings.HasPrefix(c, "COMPRESS") }))
				if asked != tt.asked || asked > 0 && at > slices.Index(commands, "SELECT INBOX") {
					t.Errorf("commands %q", commands)
				}
				b.Close()
				<-time.After(rtt) // until the last octets have arrived
			})
		})
	}
	refused := strings.Replace(loggedIn, "UIDPLUS", "UIDPLUS COMPRESS=DEFLATE", 1) +
		"C: <c> COMPRESS DEFLATE\nS: <c> NO zebra\n" + strings.TrimPrefix(opened, loggedIn) + bye
	play(t, "refused", refused, Options{Compress: true}, func(s *session) { s.open() })
	garbage := strings.Replace(loggedIn, "UIDPLUS", "UIDPLUS COMPRESS=DEFLATE", 1) +
		"C: <c> COMPRESS DEFLATE\nS: <c> OK zebra\nS: * OK zebra in the clear\nW: stall\n"
	play(t, "agreed to and not done", garbage, Options{Compress: true}, func(s *session) {
		s.fails(s.openFails(), "SYS/PERM")
	})
}
