package proxy

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"net/netip"
	"strings"
	"sync"
	"time"
)

// Throttler slows down the guessing of passwords. Its Delay is called for each
// login, and then Failed or Succeeded, unless a system fault prevented a
// verdict. It is safe for concurrent use.
//
// client is the address of the client, not mapped into IPv6; the zero Addr if it
// has none. name is the login name as the client gave it; "" if it is not known.
// Clients choose both, so an implementation must limit how many it remembers.
type Throttler interface {
	// Delay returns how long the login waits before the Backend is called,
	// and how long after that call a failure is answered at the earliest. It
	// is called again when the name becomes known in the middle of an
	// exchange. An error refuses the login; one that is no *Error is treated
	// as [SYS/TEMP].
	Delay(ctx context.Context, client netip.Addr, name string) (before, failure time.Duration, err error)

	// Failed records a login that failed because of its credentials.
	Failed(ctx context.Context, client netip.Addr, name string)

	// Succeeded records a login that opened its maildrop.
	Succeeded(ctx context.Context, client netip.Addr, name string)
}

// ThrottleOptions are the options of a Throttle. All are required.
type ThrottleOptions struct {
	// Delay is the time until the first failed login is answered. It doubles
	// with each further failure from the same address, or for the same name,
	// up to MaxDelay.
	Delay, MaxDelay time.Duration

	// Window is how long after the last failure all failures are forgotten.
	Window time.Duration
}

const (
	// throttleEntries is how many addresses, and how many names, a Throttle
	// remembers. The one whose last failure is the oldest is forgotten first.
	throttleEntries = 1 << 14

	// knownFor is how long a client that has logged in stays known.
	knownFor = 24 * time.Hour
)

// Throttle is a Throttler within one process. Failures count by address (IPv6:
// by /64, the smallest network of one customer) and by name; the larger count
// applies. If a name has logged in from an address before, failures of other
// names at that address do not count for it: one device with an old password
// must not delay a whole office.
//
// The delay of a failed login has two parts, so that the time of the answer does
// not reveal why it failed. The second part, as long as Delay, begins when the
// Backend is called. A correct password waits for the first part only, which is
// always shorter than MaxDelay.
type Throttle struct {
	opts ThrottleOptions
	seed maphash.Seed

	mu        sync.Mutex
	addresses counters // failures by address
	names     counters // failures by name
	known     counters // successes by address and name
}

var _ Throttler = (*Throttle)(nil)

// NewThrottle returns a Throttle, or an error if opts are invalid.
func NewThrottle(opts ThrottleOptions) (*Throttle, error) {
	switch {
	case opts.Delay <= 0:
		return nil, fmt.Errorf("proxy: throttle delay %v", opts.Delay)
	case opts.MaxDelay < opts.Delay:
		return nil, fmt.Errorf("proxy: throttle delay %v above its maximum %v", opts.Delay, opts.MaxDelay)
	case opts.Window <= 0:
		return nil, fmt.Errorf("proxy: throttle window %v", opts.Window)
	}
	return &Throttle{
		opts:      opts,
		seed:      maphash.MakeSeed(),
		addresses: newCounters(throttleEntries, opts.Window),
		names:     newCounters(throttleEntries, opts.Window),
		known:     newCounters(throttleEntries, knownFor),
	}, nil
}

// Delay implements Throttler.
func (t *Throttle) Delay(_ context.Context, client netip.Addr, name string) (before, failure time.Duration, err error) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	if name != "" {
		n = t.names.count(now, t.nameKey(name))
	}
	if t.known.count(now, t.pairKey(client, name)) == 0 {
		n = max(n, t.addresses.count(now, t.addressKey(client)))
	}
	return t.opts.after(n) - t.opts.Delay, t.opts.Delay, nil
}

// Failed implements Throttler.
func (t *Throttle) Failed(_ context.Context, client netip.Addr, name string) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.addresses.add(now, t.addressKey(client))
	if name != "" {
		t.names.add(now, t.nameKey(name))
	}
}

// Succeeded implements Throttler.
func (t *Throttle) Succeeded(_ context.Context, client netip.Addr, name string) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	t.known.add(now, t.pairKey(client, name))
}

// after returns the time until a failed login is answered after n failures.
func (o ThrottleOptions) after(n int) time.Duration {
	d := o.Delay
	for ; n > 0 && d < o.MaxDelay; n-- {
		d = min(2*d, o.MaxDelay)
	}
	return d
}

// Keys are hashes, so that their size does not depend on what clients send.
// Names are folded to lower case, as many upstreams do.

func (t *Throttle) addressKey(client netip.Addr) uint64 {
	return maphash.Comparable(t.seed, network(client))
}

func (t *Throttle) nameKey(name string) uint64 {
	return maphash.String(t.seed, strings.ToLower(name))
}

func (t *Throttle) pairKey(client netip.Addr, name string) uint64 {
	return maphash.Comparable(t.seed, [2]uint64{t.addressKey(client), t.nameKey(name)})
}

// network returns the network that counts as one client: an IPv4 address, or an
// IPv6 /64.
func network(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits) // fails for the zero Addr only, which stays zero
	return p
}

// counters counts events by key, for at most capacity keys. A key is forgotten
// when it has had no event for the duration of window.
type counters struct {
	capacity int
	window   time.Duration
	entries  map[uint64]*list.Element
	order    list.List // of *counter, the longest without one first
}

type counter struct {
	key  uint64
	n    int
	last time.Time
}

func newCounters(capacity int, window time.Duration) counters {
	return counters{capacity: capacity, window: window, entries: make(map[uint64]*list.Element)}
}

// count returns the number of events of key.
func (m *counters) count(now time.Time, key uint64) int {
	m.expire(now)
	e := m.entries[key]
	if e == nil {
		return 0
	}
	return e.Value.(*counter).n
}

// add counts an event of key.
func (m *counters) add(now time.Time, key uint64) {
	m.expire(now)
	e := m.entries[key]
	if e == nil {
		if len(m.entries) >= m.capacity {
			m.drop(m.order.Front())
		}
		e = m.order.PushBack(&counter{key: key})
		m.entries[key] = e
	}
	ev := e.Value.(*counter)
	ev.n++
	ev.last = now
	m.order.MoveToBack(e)
}

// expire forgets the keys whose window is over.
func (m *counters) expire(now time.Time) {
	for e := m.order.Front(); e != nil && now.Sub(e.Value.(*counter).last) >= m.window; e = m.order.Front() {
		m.drop(e)
	}
}

func (m *counters) drop(e *list.Element) {
	delete(m.entries, e.Value.(*counter).key)
	m.order.Remove(e)
}

// throttled runs login, which calls the Backend, with the delays of the
// Throttler. Only [AUTH] counts as a failure (M-3). A shutdown ends the delay and
// the session. If name is still "" before login, login itself calls delayLogin
// when it knows the name.
func (s *session) throttled(name func() string, login func() error) error {
	t := s.srv.opts.Throttler
	if t == nil {
		err := login()
		s.logFailure(name(), err)
		return err
	}
	client := s.record.Addr.Addr()
	failure, err := s.delayLogin(name())
	if err != nil {
		return err
	}
	asked := time.Now()
	err = login()
	s.logFailure(name(), err)
	switch {
	case err == nil:
		t.Succeeded(s.ctx, client, name())
	case isAuthFailure(err):
		t.Failed(s.ctx, client, name())
		if err := s.sleep(failure - time.Since(asked)); err != nil {
			return err
		}
	}
	return err
}

// delayLogin waits as long as the Throttler demands for a login of that name; not
// at all if name is "". It returns the delay of a failure.
func (s *session) delayLogin(name string) (failure time.Duration, err error) {
	t := s.srv.opts.Throttler
	if t == nil {
		return 0, nil
	}
	before, failure, err := t.Delay(s.ctx, s.record.Addr.Addr(), name)
	if err == nil && name != "" {
		err = s.sleep(before)
	}
	return failure, err
}

// sleep waits d and adds the wait to the login's record. The Server's shutdown
// ends it.
func (s *session) sleep(d time.Duration) error {
	if d <= 0 {
		return nil
	}
	began := time.Now()
	defer func() { s.attempt.Throttled += time.Since(began) }()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-s.srv.stopped:
	case <-s.ctx.Done():
	}
	return &endError{reason: endShutdown}
}

// logFailure logs a failed login before it is answered. Programs such as
// fail2ban read this record.
func (s *session) logFailure(name string, err error) {
	if isAuthFailure(err) {
		s.log.Info("login failed", "user", loggedName(name), "error", err)
	}
}

// isAuthFailure reports whether a login failed because of its credentials.
func isAuthFailure(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == CodeAuth
}
