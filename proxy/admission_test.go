package proxy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// TestAdmission shows O-LIM-1: which sessions are refused and which are evicted.
// Sessions are numbered in the order of arrival.
func TestAdmission(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limits Limits
		events []string // address, "in N" or "out N"
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
	waiting := map[*session]netip.Addr{}
	var all []*session
	address := func() netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(rnd.IntN(12))}) }
	for range 4000 {
		switch k := rnd.IntN(10); {
		case k < 6 || len(all) == 0:
			s, addr := new(session), address()
			most := largest(waiting)
			victim, limit := a.admit(s, addr, true)
			if victim != nil {
				if count(waiting, waiting[victim]) != most {
					t.Fatal("the victim is not of the largest group")
				}
				if a.loggedIn(victim) {
					t.Fatal("a victim has logged in")
				}
				delete(waiting, victim)
			}
			if limit == "" {
				all, waiting[s] = append(all, s), addr
			}
		default:
			i := rnd.IntN(len(all))
			s := all[i]
			switch k {
			case 6:
				if a.loggedIn(s) {
					delete(waiting, s)
				}
			case 7:
				addr := address()
				if _, w := waiting[s]; a.setAddress(s, addr) == "" && w {
					waiting[s] = addr
				}
			default:
				a.remove(s)
				delete(waiting, s)
				all = slices.Delete(all, i, i+1)
			}
		}
		if a.waiting != len(waiting) || len(a.sessions) != len(all) || a.waiting > 30 || len(all) > 60 {
			t.Fatalf("%d of %d wait, want %d of %d", a.waiting, len(a.sessions), len(waiting), len(all))
		}
		if len(a.largest) > 0 && a.largest[0].sessions.Len() != largest(waiting) {
			t.Fatalf("the largest group has %d, want %d", a.largest[0].sessions.Len(), largest(waiting))
		}
	}
	for _, s := range all {
		a.remove(s)
	}
	if len(a.sessions)+len(a.perAddress)+len(a.groups)+len(a.largest)+a.waiting != 0 {
		t.Errorf("something is left of %+v", a)
	}
}

func count(waiting map[*session]netip.Addr, addr netip.Addr) (n int) {
	for _, a := range waiting {
		if a == addr {
			n++
		}
	}
	return n
}

func largest(waiting map[*session]netip.Addr) (n int) {
	for _, a := range waiting {
		n = max(n, count(waiting, a))
	}
	return n
}
