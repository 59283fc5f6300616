package imapbackend

import (
	"context"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"popgate/imapbackend/imapmodel"
	"popgate/proxy"
	"popgate/proxy/proxytest"
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

// I-FETCH-8: the next batch is requested when half of the last one has been read, be
// that messages or octets: a command for each message would cost the upstream more
// than the messages.
func TestReadAheadBatches(t *testing.T) {
	for _, tt := range []struct {
		name           string
		messages, size int
		total          int64 // budget; 0: the default
		most           int   // commands
	}{
		{"many small messages", 4000, 10, 0, 22},
		{"large messages", 1000, 20_000, 0, 12},
		{"large messages in a small share", 300, 10_000, 1, 115},
	} {
		inEachForm(t, tt.name, func(t *testing.T, m *model) {
			for i := range tt.messages {
				m.add(mail(i, tt.size))
			}
			var commands atomic.Int64
			m.Refuse = func(cmd string) string {
				if strings.HasPrefix(cmd, "UID FETCH") {
					commands.Add(1)
				}
				return ""
			}
			d := openMaildrop(t, m.backend(t, Options{ReadAheadTotal: tt.total}))
			defer d.Close()
			commands.Store(0)
			for _, msg := range d.Messages() {
				read(t, d, msg.UID)
			}
			t.Logf("%d commands", commands.Load())
			if n := int(commands.Load()); n > tt.most {
				t.Errorf("%d commands, want %d at most", n, tt.most)
			}
		})
	}
}

// P-RETR-5: sessions that request and do not read take the budget of all, and not
// what each session has by itself: with it the walk of another has few round trips,
// in whatever way it goes. When they have gone, it is as fast as ever.
func TestOwnShare(t *testing.T) {
	const size, messages = 1000, 1000
	for _, tt := range []struct {
		name  string
		walk  func(t *testing.T, d proxy.Maildrop, uid uint64)
		total int64
		most  float64
	}{
		{"RETR of all", func(t *testing.T, d proxy.Maildrop, uid uint64) { read(t, d, uid) }, 1 << 20, 45},
		{"TOP n 0 of all", func(t *testing.T, d proxy.Maildrop, uid uint64) { header(t, d, uid) }, 1 << 20, 45},
		{"TOP n 0 and RETR n", func(t *testing.T, d proxy.Maildrop, uid uint64) {
			header(t, d, uid)
			read(t, d, uid)
		}, 1 << 20, 90},
		{"pipelined", func(t *testing.T, d proxy.Maildrop, uid uint64) {
			expectNext(d, uid, 64)
			read(t, d, uid)
		}, 1 << 20, 45},
		{"RETR of all, none may read ahead", func(t *testing.T, d proxy.Maildrop, uid uint64) { read(t, d, uid) }, -1, messages},
	} {
		inEachForm(t, tt.name, func(t *testing.T, m *model) {
			m.RTT = rtt
			for i := range messages {
				m.add(mail(i, size))
			}
			b := m.backend(t, Options{ReadAheadTotal: tt.total})
			defer func() { <-time.After(time.Minute) }() // for what is on its way
			var greedy []func()
			for range 8 {
				d := openMaildrop(t, b)
				expectNext(d, 1, 512)
				body, err := d.Read(t.Context(), 1)
				if err != nil {
					t.Fatal(err)
				}
				greedy = append(greedy, func() {
					body.Close()
					d.Close()
				})
			}
			if left := b.budget.Left(); left > 2*size {
				t.Fatalf("%d octets are left", left)
			}
			walk := func(most float64) {
				t.Helper()
				d := openMaildrop(t, b)
				defer d.Close()
				start := time.Now()
				for uid := range uint64(messages) {
					tt.walk(t, d, uid+1)
				}
				n := trips(start)
				t.Logf("%.1f round trips", n)
				if n > most {
					t.Errorf("%.1f round trips, want %v at most", n, most)
				}
			}
			walk(tt.most)
			for _, leave := range greedy {
				leave()
			}
			if tt.total > 0 {
				walk(16)
			}
		})
	}
}

// expectNext is what a client does that sends n commands at once, up from that for
// the message uid.
func expectNext(d proxy.Maildrop, uid uint64, n int) {
	var next []uint64
	for _, msg := range d.Messages()[uid:min(int(uid)+n-1, len(d.Messages()))] {
		next = append(next, msg.UID)
	}
	d.(proxy.Expecter).Expect(next)
}

// slowRate is 0.5 Mbit/s.
const slowRate = 62_500

// I-FETCH-8: on a slow link, what is on its way delays neither the removal of
// what a client has read nor a message elsewhere by more than a login takes, and
// the walk before them is as fast as the link.
func TestSlowLink(t *testing.T) {
	const size, total, taken = 60_000, 80, 20
	for _, tt := range []struct {
		name   string
		fast   bool          // until the walk has ended
		once   bool          // the user cannot be logged in again
		top    bool          // the walk is one of headers
		pause  time.Duration // of the client after each message
		seen   Seen
		within time.Duration // QUIT, or a message elsewhere
		dials  int
	}{
		{name: "slow", within: 3 * time.Second, dials: 1},
		{name: "slow, headers", top: true, within: 3 * time.Second, dials: 1},
		{name: "slow, one login", once: true, within: 3 * time.Second, dials: 1},
		{name: "slow, headers, one login", once: true, top: true, within: 3 * time.Second, dials: 1},
		{name: "slow client, one login", once: true, pause: 5 * time.Second, within: 3 * time.Second, dials: 1},
		{name: "slow, seen on QUIT", seen: SeenOnQuit, within: 3 * time.Second, dials: 1},
		{name: "slow, seen on RETR", seen: SeenOnRetr, within: 3 * time.Second, dials: 1},
		{name: "slows down", fast: true, within: 8 * time.Second, dials: 2},
	} {
		for _, end := range []string{"QUIT", "RETR", "RETR ahead", "TOP"} {
			t.Run(tt.name+", "+end, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := newModel()
					m.RTT, m.Link = rtt, new(imapmodel.Link)
					for i := range total {
						m.add("X-Long: " + strings.Repeat("x", 6000) + "\r\n" + mail(i, size))
					}
					d := openMaildrop(t, m.backend(t, Options{Seen: tt.seen}))
					defer func() { <-time.After(time.Minute) }() // until the link has carried everything
					defer d.Close()
					if tt.once {
						d.(*maildrop).again = verifier{}
					}
					if !tt.fast {
						m.Link.SetRate(slowRate)
					}
					began, octets, marked := time.Now(), 0, []uint64{}
					for _, msg := range d.Messages()[:taken] {
						if tt.top {
							octets += len(header(t, d, msg.UID))
						} else {
							octets += len(read(t, d, msg.UID))
							d.Retrieved(t.Context(), msg.UID, msg.Octets)
						}
						marked = append(marked, msg.UID)
						<-time.After(tt.pause)
					}
					least := time.Duration(octets) * time.Second / slowRate
					if tt.seen == SeenOnRetr { // each message waits for a STORE, the last one for all that is on its way
						least += taken*rtt + aheadTime
					}
					if took := time.Since(began) - taken*tt.pause; took > least+least/10+3*rtt {
						t.Errorf("the walk took %v, the link %v", took, least)
					}
					m.Link.SetRate(slowRate)
					began = time.Now()
					switch end {
					case "QUIT":
						if err := d.Update(t.Context(), marked); err != nil {
							t.Error(err)
						}
						if left := m.messages(); len(left) != total-taken || left[0].UID != taken+1 {
							t.Errorf("%d messages are left", len(left))
						}
					case "RETR":
						if got := read(t, d, total-1); got != m.messages()[total-2].Body {
							t.Error("another message")
						}
					case "RETR ahead": // which is on its way where that is a lot
						if got := read(t, d, taken+16); got != m.messages()[taken+15].Body {
							t.Error("another message")
						}
					case "TOP":
						if got := text(t)(d.Top(t.Context(), total-1, 3)); !strings.HasPrefix(m.messages()[total-2].Body, got[:6000]) {
							t.Error("another message")
						}
					}
					if took := time.Since(began); took > tt.within {
						t.Errorf("%s took %v", end, took)
					}
					if m.Dials() != tt.dials {
						t.Errorf("%d connections, want %d", m.Dials(), tt.dials)
					}
				})
			})
		}
	}
}

// I-FETCH-8: the login that is to replace a slow connection leaves it alone
// where it fails, or takes longer than what is on its way.
func TestDetour(t *testing.T) {
	for _, tt := range []struct {
		name    string
		refused bool          // the login
		login   time.Duration // that it takes
		rate    int           // of the link at QUIT
		once    bool          // the user cannot be logged in again
		within  time.Duration
		dials   int
		logs    string
	}{
		{name: "replaced", rate: slowRate, within: 8 * time.Second, dials: 2, logs: "lost and replaced"},
		{name: "refused", refused: true, rate: slowRate, within: 60 * time.Second, dials: 2},
		{name: "a login for ever", login: time.Hour, rate: slowRate, within: 60 * time.Second, dials: 1},
		{name: "in time", login: 3 * time.Second, rate: 8 * slowRate, within: 8 * time.Second, dials: 1},
		{name: "without another login", once: true, rate: slowRate, within: 60 * time.Second, dials: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newModel()
				m.RTT, m.Link = rtt, new(imapmodel.Link)
				for i := range 80 {
					m.add(mail(i, 60_000))
				}
				var refuses atomic.Bool
				m.Refuse = func(cmd string) string {
					if refuses.Load() && strings.HasPrefix(cmd, "AUTHENTICATE") {
						return "NO [LIMIT] too many connections"
					}
					return ""
				}
				b := m.backend(t, Options{})
				d := openMaildrop(t, b)
				defer func() { <-time.After(time.Minute) }() // until the link has carried everything
				defer d.Close()
				for uid := range uint64(20) {
					read(t, d, uid+1)
				}
				m.Link.SetRate(tt.rate)
				if tt.once {
					d.(*maildrop).again = verifier{}
				}
				refuses.Store(tt.refused)
				b.dial = func(ctx context.Context) (net.Conn, error) {
					select {
					case <-time.After(tt.login):
						return m.Dial(ctx)
					case <-ctx.Done():
						return nil, ctx.Err()
					}
				}
				var log proxytest.Log
				began := time.Now()
				if err := d.Update(proxy.WithLogger(t.Context(), log.Logger()), []uint64{1, 2, 20}); err != nil {
					t.Error(err)
				}
				if took := time.Since(began); took > tt.within {
					t.Errorf("QUIT took %v", took)
				}
				if left := m.messages(); len(left) != 77 || left[0].UID != 3 || left[17].UID != 21 {
					t.Errorf("%d messages are left", len(left))
				}
				if m.Dials() != tt.dials {
					t.Errorf("%d connections, want %d", m.Dials(), tt.dials)
				}
				if got := log.String(); strings.Contains(got, "level=INFO") != (tt.logs != "") || strings.Contains(got, "level=WARN") || !strings.Contains(got, tt.logs) {
					t.Errorf("log: %s", got)
				}
			})
		})
	}
}

// What sessions of one upstream read ahead is not left for those of another with
// which it shares (P-RETR-5).
func TestReadAheadShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m, other := newModel(), newModel()
		for i := range 40 {
			m.add(mail(i, 20<<10))
		}
		b, shared := m.backend(t, Options{ReadAheadTotal: 1 << 20}), other.backend(t, Options{ReadAheadTotal: 1 << 20})
		shared.ShareReadAhead(b)
		before := shared.budget.Left()
		d := openMaildrop(t, b)
		expectNext(d, 1, 40)
		read(t, d, 1)
		if left := shared.budget.Left(); left >= before {
			t.Errorf("%d octets are left of %d", left, before)
		}
		d.Close()
	})
}
