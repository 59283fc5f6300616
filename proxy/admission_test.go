package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// fewSilent are 15 sessions that log in, the second of which does so first, and one
// that is silent when another arrives.
var fewSilent = func() (events []string) {
	for i := range 16 {
		events = append(events, fmt.Sprint("192.0.2.", i))
	}
	events = append(events, "busy 1")
	for i := range 15 {
		events = append(events, fmt.Sprint("busy ", i))
	}
	return append(events, "192.0.2.99")
}()

// TestAdmission shows O-LIM-1: which sessions are refused and which are evicted.
// Sessions are numbered in the order of arrival.
func TestAdmission(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limits Limits
		events []string // address, "in N" or "in N", "busy N", "idle N" or "out N"
		want   []string // for each address: "", the limit, or the victim
	}{
		{"none", Limits{}, []string{"192.0.2.1", "192.0.2.1", "192.0.2.1"}, []string{"", "", ""}},
		{"in total", Limits{Connections: 2}, []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "out 0", "192.0.2.3"},
			[]string{"", "", "connections", ""}},
		{"by address", Limits{PerAddress: 1}, []string{"192.0.2.1", "192.0.2.1", "192.0.2.2", "out 0", "192.0.2.1"},
			[]string{"", "connections_per_address", "", ""}},
		{"the oldest of the largest", Limits{Unauthenticated: 3}, []string{"192.0.2.1", "192.0.2.2", "192.0.2.2", "192.0.2.3"},
			[]string{"", "", "", "1"}},
		{"equally large", Limits{Unauthenticated: 3}, []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "192.0.2.4"},
			[]string{"", "", "", "0", "1"}},
		{"logged in", Limits{Unauthenticated: 2}, []string{"192.0.2.1", "in 0", "192.0.2.1", "192.0.2.1", "192.0.2.1"},
			[]string{"", "", "", "1"}},
		{"a login in progress", Limits{Unauthenticated: 2}, []string{"192.0.2.1", "192.0.2.2", "busy 0", "192.0.2.3", "192.0.2.4"},
			[]string{"", "", "1", "2"}},
		{"a login in progress of the largest", Limits{Unauthenticated: 3}, []string{"192.0.2.1", "192.0.2.1", "192.0.2.2", "busy 0", "busy 1", "192.0.2.3"},
			[]string{"", "", "", "2"}},
		{"logins in progress only", Limits{Unauthenticated: 3}, []string{"192.0.2.1", "192.0.2.2", "192.0.2.2", "busy 0", "busy 2", "busy 1", "192.0.2.3"},
			[]string{"", "", "", "2"}},
		{"a login that is over", Limits{Unauthenticated: 2}, []string{"192.0.2.1", "192.0.2.2", "busy 0", "idle 0", "192.0.2.3"},
			[]string{"", "", "1"}},
		{"few are silent", Limits{Unauthenticated: 16}, fewSilent, append(make([]string, 16), "1")},
		{"IPv6 by /64", Limits{Unauthenticated: 3}, []string{"192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db8:1::1"},
			[]string{"", "", "", "1"}},
		{"IPv6 by address", Limits{PerAddress: 1}, []string{"2001:db8::1", "2001:db8::2"}, []string{"", ""}},
		{"left", Limits{Unauthenticated: 2}, []string{"192.0.2.1", "192.0.2.1", "out 0", "192.0.2.2"},
			[]string{"", "", ""}},
	} {
		a := newAdmission(tt.limits)
		var sessions []*session
		var got []string
		for _, v := range tt.events {
			var n int
			if _, err := fmt.Sscanf(v, "in %d", &n); err == nil {
				a.loggedIn(sessions[n])
			} else if _, err := fmt.Sscanf(v, "busy %d", &n); err == nil {
				a.setBusy(sessions[n], true)
			} else if _, err := fmt.Sscanf(v, "idle %d", &n); err == nil {
				a.setBusy(sessions[n], false)
			} else if _, err := fmt.Sscanf(v, "out %d", &n); err == nil {
				a.remove(sessions[n])
			} else {
				s := new(session)
				victim, outcome := a.admit(s, netip.MustParseAddr(v), true)
				if victim != nil {
					outcome = fmt.Sprint(slices.Index(sessions, victim))
				}
				sessions = append(sessions, s)
				got = append(got, outcome)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestAdmissionCounts compares the counts with a simple model, over random events
// (O-LIM-1).
func TestAdmissionCounts(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	a := newAdmission(Limits{Connections: 60, PerAddress: 9, Unauthenticated: 30})
	silent, busy := places{}, places{}
	var all []*session
	address := func() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(rnd.IntN(12))}) }
	for range 4000 {
		switch k := rnd.IntN(10); {
		case k < 5 || len(all) == 0:
			s, addr := new(session), address()
			from := silent
			if len(silent) < 30/8 {
				from = busy
			}
			most := from.largest()
			victim, limit := a.admit(s, addr, true)
			if victim != nil {
				if v, ok := from[victim]; !ok || from.count(v) != most {
					t.Fatal("the victim is not of the largest group of its kind")
				}
				if a.loggedIn(victim) {
					t.Fatal("a victim has logged in")
				}
				delete(from, victim)
			}
			if limit == "" {
				all, silent[s] = append(all, s), addr
			}
		default:
			i := rnd.IntN(len(all))
			s := all[i]
			switch k {
			case 5, 6:
				a.setBusy(s, true)
				silent.move(s, busy)
				if k == 6 {
					a.setBusy(s, false)
					busy.move(s, silent)
				}
			case 7:
				if a.loggedIn(s) {
					delete(silent, s)
					delete(busy, s)
				}
			case 8:
				addr := address()
				if a.setAddress(s, addr) == "" {
					silent.set(s, addr)
					busy.set(s, addr)
				}
			default:
				a.remove(s)
				delete(silent, s)
				delete(busy, s)
				all = slices.Delete(all, i, i+1)
			}
		}
		if a.silent.n != len(silent) || a.busy.n != len(busy) || len(a.sessions) != len(all) || a.silent.n+a.busy.n > 30 || len(all) > 60 {
			t.Fatalf("%d and %d of %d, want %d and %d of %d", a.silent.n, a.busy.n, len(a.sessions), len(silent), len(busy), len(all))
		}
		for _, p := range []struct {
			*pool
			want places
		}{{&a.silent, silent}, {&a.busy, busy}} {
			if len(p.largest) > 0 && p.largest[0].sessions.Len() != p.want.largest() {
				t.Fatalf("the largest group has %d, want %d", p.largest[0].sessions.Len(), p.want.largest())
			}
		}
	}
	for _, s := range all {
		a.remove(s)
	}
	if len(a.sessions)+len(a.perAddress)+len(a.silent.groups)+len(a.busy.groups)+a.silent.n+a.busy.n != 0 {
		t.Errorf("something is left of %+v", a)
	}
}

// places are sessions with their addresses.
type places map[*session]netip.Addr

func (p places) set(s *session, addr netip.Addr) {
	if _, ok := p[s]; ok {
		p[s] = addr
	}
}

func (p places) move(s *session, to places) {
	if addr, ok := p[s]; ok {
		delete(p, s)
		to[s] = addr
	}
}

func (p places) count(addr netip.Addr) (n int) {
	for _, a := range p {
		if a == addr {
			n++
		}
	}
	return n
}

func (p places) largest() (n int) {
	for _, a := range p {
		n = max(n, p.count(a))
	}
	return n
}
