package proxy

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// attempts are logins at a Throttle that begin at once, each in its goroutine.
type attempts struct {
	sync.Mutex
	sync.WaitGroup
	th     *Throttle
	asked  []time.Duration // when the Backend was asked, since the beginning
	errors int             // logins refused without a verdict
	waited time.Duration   // by the last of them
}

// add begins n logins, whose verdict comes after latency.
func (a *attempts) add(t *testing.T, n int, client func(i int) string, name func(i int) string, latency time.Duration, v Verdict) {
	began := time.Now()
	for i := range n {
		a.Go(func() {
			_, done, err := a.th.Begin(t.Context(), netip.MustParseAddr(client(i)), name(i), func() {})
			a.Lock()
			if err == nil {
				a.asked = append(a.asked, time.Since(began))
			} else if a.errors, a.waited = a.errors+1, time.Since(began); !errors.Is(err, errThrottled) {
				t.Error(err)
			}
			a.Unlock()
			if err == nil {
				<-time.After(latency)
				done(v)
			}
		})
	}
}

// most returns the largest number of logins in any second.
func (a *attempts) most() (n int) {
	slices.Sort(a.asked)
	for i := range a.asked {
		j := i
		for j < len(a.asked) && a.asked[j] < a.asked[i]+time.Second {
			j++
		}
		n = max(n, j-i)
	}
	return n
}

func is(s string) func(int) string { return func(int) string { return s } }

func different(i int) string {
	return netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String()
}

// TestRate shows P-PASS-6 and M-3: of logins that begin at once, on however many
// connections, five a second are let through for one name, and for one address,
// if they are refused. The others wait for the maximum, and are refused. Logins
// that succeed, or fail for another reason, do not count.
func TestRate(t *testing.T) {
	inPrefix := func(i int) string { return "2001:db8::" + string("0123456789abcdef"[i%16]) }
	for _, tt := range []struct {
		what         string
		client, name func(int) string
		verdict      Verdict
		latency      time.Duration
		passed, most int
	}{
		{"one name", different, is("alice"), VerdictRefused, time.Millisecond, 75, 5},
		{"one address", is("192.0.2.1"), different, VerdictRefused, time.Millisecond, 75, 5},
		{"one network", inPrefix, different, VerdictRefused, time.Millisecond, 75, 5},
		{"both", is("192.0.2.1"), is("alice"), VerdictRefused, time.Millisecond, 75, 5},
		{"no name yet", is("192.0.2.1"), is(""), VerdictRefused, time.Millisecond, 75, 5},
		{"no name yet, elsewhere", different, is(""), VerdictRefused, time.Millisecond, 500, 500},
		{"no name yet, and no verdict", is("192.0.2.1"), is(""), VerdictNone, 50 * time.Millisecond, 500, 100},
		{"a slow verdict", different, is("alice"), VerdictRefused, 3 * time.Second, 75, 5},
		{"neither", different, different, VerdictRefused, time.Millisecond, 500, 500},
		{"accepted", is("192.0.2.1"), different, VerdictAccepted, 50 * time.Millisecond, 500, 100},
		{"no verdict", is("192.0.2.1"), is("alice"), VerdictNone, 50 * time.Millisecond, 500, 100},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := attempts{th: newThrottle(t)}
			a.add(t, 500, tt.client, tt.name, tt.latency, tt.verdict)
			a.Wait()
			if n := len(a.asked); n < tt.passed || n > tt.passed+refusalRate || a.errors != 500-n || a.most() != tt.most { // the last ones at the limit itself
				t.Errorf("%s: %d passed, %d in a second, %d did not; want %d, %d", tt.what, len(a.asked), a.most(), a.errors, tt.passed, tt.most)
			}
			if a.errors > 0 && a.waited != throttleOptions.MaxDelay {
				t.Errorf("%s: refused after %v", tt.what, a.waited)
			}
			<-time.After(rateWindow)
			synctest.Wait()
			if n := len(a.th.rates.byKey); n != 0 {
				t.Errorf("%s: %d keys are left", tt.what, n)
			}
		})
	}
}

// TestWaits shows when a login would have to wait, that Begin announces its wait
// before it waits, once, and that it announces none otherwise.
func TestWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(t)
		known, other := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
		logIn(t, th, known, "alice", VerdictAccepted)
		fail(th, other, "bob")
		a := attempts{th: th}
		a.add(t, 10, different, is("carol"), time.Millisecond, VerdictRefused)
		a.add(t, 10, is("192.0.2.3"), is(""), time.Millisecond, VerdictRefused)
		synctest.Wait()
		for _, tt := range []struct {
			client netip.Addr
			name   string
			want   bool
			nobody bool // it is not begun
		}{
			{netip.MustParseAddr("192.0.2.3"), "", true, false},
			{known, "alice", false, false},
			{known, "BOB", true, false},
			{other, "alice", true, false},
			{known, "dave", false, false},
			{known, "carol", true, false},
			{known, "", false, false},
			{other, "", true, true}, // it only would have to wait with a name
		} {
			if got := th.Waits(tt.client, tt.name); got != tt.want {
				t.Errorf("%q at %v: %v", tt.name, tt.client, got)
			}
			began, announced := time.Now(), 0
			_, done, err := th.Begin(t.Context(), tt.client, tt.name, func() {
				if announced++; time.Since(began) != 0 {
					t.Errorf("%q at %v: announced after %v", tt.name, tt.client, time.Since(began))
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			done(VerdictNone)
			waited := time.Since(began) != 0
			if waited != (announced == 1) || announced > 1 || !tt.nobody && waited != tt.want {
				t.Errorf("%q at %v: waits %v, announced %d times", tt.name, tt.client, time.Since(began), announced)
			}
		}
		a.Wait()
	})
}

// TestRateOthers shows whom guessers do not hold up: another address in turn for the
// same name, another name at their address, and nobody at all who is known there.
func TestRateOthers(t *testing.T) {
	for _, tt := range []struct {
		what, client, name string
		known              bool
		most               time.Duration
	}{
		{"the name from elsewhere", "192.0.2.2", "alice", false, time.Second},
		{"another name from there", "192.0.2.1", "bob", false, time.Second},
		{"neither", "192.0.2.2", "bob", false, 0},
		{"known there", "192.0.2.1", "bob", true, 0},
		{"known elsewhere", "192.0.2.2", "alice", true, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			a := attempts{th: newThrottle(t)}
			client := netip.MustParseAddr(tt.client)
			if tt.known {
				logIn(t, a.th, client, tt.name, VerdictAccepted)
			}
			a.add(t, 500, is("192.0.2.1"), is("alice"), time.Millisecond, VerdictRefused)
			synctest.Wait()
			began := time.Now()
			if _, done, err := a.th.reserved(t.Context(), client, tt.name); err != nil {
				t.Errorf("%s: %v", tt.what, err)
			} else if took := time.Since(began); took > tt.most {
				t.Errorf("%s: waits %v", tt.what, took)
			} else {
				done(VerdictAccepted)
			}
			a.Wait()
		})
	}
}

// reserved is Begin without the delay that grows with the failures before.
func (t *Throttle) reserved(ctx context.Context, client netip.Addr, name string) (time.Duration, func(Verdict), error) {
	k := t.keys(client, name)
	_, known := t.delay(k)
	turns, err := t.reserve(ctx, k, known, func() {})
	return 0, func(v Verdict) { t.done(k, turns, v) }, err
}

// TestRateLeft shows that a login that is given up gives its place to another.
func TestRateLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := attempts{th: newThrottle(t)}
		gone, leave := context.WithCancel(t.Context())
		for range 100 {
			a.Go(func() {
				if _, done, err := a.th.Begin(gone, netip.MustParseAddr("192.0.2.1"), "alice", func() {}); err == nil {
					<-gone.Done()
					done(VerdictNone)
				} else if !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		leave()
		a.Wait()
		if got := before(t, a.th, "192.0.2.1", "alice"); got != 0 {
			t.Errorf("a login after them waits %v", got)
		}
	})
}

// TestRateKnown shows that failures of a known client count for the name and for the
// address, though it does not wait for others.
func TestRateKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		th := newThrottle(t)
		client := netip.MustParseAddr("192.0.2.1")
		logIn(t, th, client, "alice", VerdictAccepted)
		a := attempts{th: th}
		a.add(t, refusalRate, is("192.0.2.1"), is("alice"), time.Millisecond, VerdictRefused)
		a.Wait()
		for _, other := range []struct{ client, name string }{{"192.0.2.2", "alice"}, {"192.0.2.1", "bob"}} {
			ctx, cancel := context.WithTimeout(t.Context(), rateWindow-2*time.Millisecond)
			if _, _, err := th.reserved(ctx, netip.MustParseAddr(other.client), other.name); err == nil {
				t.Errorf("%s from %s does not wait", other.name, other.client)
			}
			cancel()
			<-time.After(rateWindow)
			a.add(t, refusalRate, is("192.0.2.1"), is("alice"), time.Millisecond, VerdictRefused)
			<-time.After(throttleOptions.MaxDelay - throttleOptions.Delay + time.Millisecond)
			synctest.Wait()
		}
		a.Wait()
	})
}

// TestFoldName shows which names count as one.
func TestFoldName(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"alice", "ALICE", true},
		{"alice", " alice \t", true},
		{"alice", "\u3000\uff21lice", true},        // an ideographic space, a wide A
		{"gr\u00fc\u00df", "GRU\u0308SS", true},    // composed and decomposed, sharp s
		{"alice", "a\u00adl\u200di\ufe0fce", true}, // invisible
		{"\u03a3\u03af\u03c3\u03c5\u03c6\u03bf\u03c2", "\u03a3\u038a\u03a3\u03a5\u03a6\u039f\u03a3", true}, // final sigma
		{"alice", "al ice", false},
		{"alice", "alic\u0435", false}, // Cyrillic
		{"gr\xfcn", "gr\xfcn", true},
	} {
		if got := FoldName(tt.a) == FoldName(tt.b); got != tt.same {
			t.Errorf("%q and %q: %v", tt.a, tt.b, got)
		}
	}
}
