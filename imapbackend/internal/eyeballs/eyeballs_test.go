package eyeballs

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// network is a scripted resolver and network: it says when and how each lookup
// and each attempt is answered.
type network struct {
	start   time.Time
	lookups map[string]answer // by "ip4" and "ip6"
	dials   map[string]answer // by address; an address without entry never answers

	mu   sync.Mutex
	log  []string
	open int
}

type answer struct {
	after time.Duration
	addrs string // of a lookup, separated by spaces
	err   error
}

func (n *network) Dialer() Dialer {
	return Dialer{
		lookup: func(ctx context.Context, family, _ string) ([]netip.Addr, error) {
			a := n.lookups[family]
			if err := wait(ctx, a.after); err != nil {
				return nil, err
			}
			var addrs []netip.Addr
			for _, s := range strings.Fields(a.addrs) {
				addrs = append(addrs, netip.MustParseAddr(s))
			}
			return addrs, a.err
		},
		dial: func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
			n.mu.Lock()
			n.log = append(n.log, fmt.Sprintf("%v %v", time.Since(n.start), addr.Addr()))
			n.mu.Unlock()
			a, ok := n.dials[addr.Addr().String()]
			if !ok {
				a.after = time.Hour
			}
			if err := wait(ctx, a.after); err != nil {
				return nil, err
			}
			if a.err != nil {
				return nil, a.err
			}
			n.mu.Lock()
			n.open++
			n.mu.Unlock()
			near, _ := net.Pipe()
			return &countedConn{near, addr, n}, nil
		},
	}
}

func wait(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type countedConn struct {
	net.Conn
	addr netip.AddrPort
	n    *network
}

func (c *countedConn) Close() error {
	c.n.mu.Lock()
	defer c.n.mu.Unlock()
	c.n.open--
	return c.Conn.Close()
}

// O-NET-1 (RFC 8305 §3, §4, §5): families alternate, IPv6 first; 50 ms for the
// other lookup, 250 ms between attempts, the next at once after a failure.
func TestRace(t *testing.T) {
	const ms = time.Millisecond
	refused, notFound := errors.New("refused"), error(&net.DNSError{Err: "no such host", IsNotFound: true})
	for _, tt := range []struct {
		name     string
		ip4, ip6 answer
		dials    map[string]answer
		want     string // the address that won, or the error
		log      []string
	}{
		{"one family", answer{addrs: "192.0.2.1"}, answer{err: notFound}, map[string]answer{"192.0.2.1": {}},
			"192.0.2.1", []string{"0s 192.0.2.1"}},
		{"IPv6 answers first", answer{after: 9 * ms, addrs: "192.0.2.1"}, answer{addrs: "2001:db8::1"}, map[string]answer{"2001:db8::1": {}},
			"2001:db8::1", []string{"0s 2001:db8::1"}},
		{"IPv6 within the resolution delay", answer{addrs: "192.0.2.1"}, answer{after: 40 * ms, addrs: "2001:db8::1"}, map[string]answer{"2001:db8::1": {}},
			"2001:db8::1", []string{"40ms 2001:db8::1"}},
		{"IPv6 lookup too late", answer{addrs: "192.0.2.1"}, answer{after: 90 * ms, addrs: "2001:db8::1"}, map[string]answer{"192.0.2.1": {after: 500 * ms}, "2001:db8::1": {}},
			"2001:db8::1", []string{"50ms 192.0.2.1", "340ms 2001:db8::1"}},
		{"alternating", answer{addrs: "192.0.2.1 192.0.2.2"}, answer{addrs: "2001:db8::1 2001:db8::2"}, map[string]answer{"192.0.2.2": {}},
			"192.0.2.2", []string{"0s 2001:db8::1", "250ms 192.0.2.1", "500ms 2001:db8::2", "750ms 192.0.2.2"}},
		{"failure starts the next", answer{addrs: "192.0.2.1"}, answer{addrs: "2001:db8::1"}, map[string]answer{"2001:db8::1": {after: 10 * ms, err: refused}, "192.0.2.1": {}},
			"192.0.2.1", []string{"0s 2001:db8::1", "10ms 192.0.2.1"}},
		{"all fail", answer{addrs: "192.0.2.1"}, answer{err: notFound}, map[string]answer{"192.0.2.1": {err: refused}},
			"refused", []string{"0s 192.0.2.1"}},
		{"no such host", answer{err: notFound}, answer{err: notFound}, nil,
			"lookup : no such host", nil},
		{"nothing answers", answer{addrs: "192.0.2.1"}, answer{}, nil,
			"context deadline exceeded", []string{"0s 192.0.2.1"}},
		{"two win", answer{addrs: "192.0.2.1"}, answer{addrs: "2001:db8::1"}, map[string]answer{"2001:db8::1": {after: 260 * ms}, "192.0.2.1": {after: 10 * ms}},
			"2001:db8::1", []string{"0s 2001:db8::1", "250ms 192.0.2.1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &network{start: time.Now(), lookups: map[string]answer{"ip4": tt.ip4, "ip6": tt.ip6}, dials: tt.dials}
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				conn, err := n.Dialer().Connect(ctx, "imap.example.com", 993)
				synctest.Wait()
				got := fmt.Sprint(err)
				if err == nil {
					got = conn.(*countedConn).addr.Addr().String()
					conn.Close()
				}
				// Where two answer at the same moment, either may win.
				if got != tt.want && tt.name != "two win" {
					t.Errorf("got %s, want %s", got, tt.want)
				}
				if diff := cmp.Diff(tt.log, n.log); diff != "" {
					t.Error(diff)
				}
				if n.open != 0 {
					t.Errorf("%d connections left open", n.open)
				}
			})
		})
	}
}
