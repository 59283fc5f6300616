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

// Throttler slows down the guessing of passwords. It is asked once for each
// login, and told of its outcome unless a fault of the system prevented a
// verdict. It is safe for concurrent use.
//
// client is the address of the client without its mapping into IPv6, the zero
// Addr if it has none. name is the login name as the client gave it, "" where a
// mechanism does not tell it. Both are short-lived strings of others: an
// implementation bounds what it remembers of them.
type Throttler interface {
	// Delay returns how long the login waits before the Backend is asked, and
	// how long at least a failure then takes to be answered. An error, an
	// *Error or else taken for [SYS/TEMP], refuses the login.
	Delay(ctx context.Context, client netip.Addr, name string) (before, failure time.Duration, err error)

	// Failed notes a login that the credentials made fail.
	Failed(ctx context.Context, client netip.Addr, name string)

	// Succeeded notes a login that opened its maildrop.
	Succeeded(ctx context.Context, client netip.Addr, name string)
}

// ThrottleOptions say how a Throttle slows down. None of them has a default.
type ThrottleOptions struct {
	// Delay is when the first failed login is answered. It doubles with each
	// further failure from the same address, or for the same name, up to
	// MaxDelay.
	Delay, MaxDelay time.Duration

	// Window is how long after the last failure all of them are forgotten.
	Window time.Duration
}

const (
	// throttleEntries is how many addresses, and how many names, a Throttle
	// remembers; the one without failures for longest is forgotten first.
	throttleEntries = 1 << 14

	// knownFor is how long a client that has logged in stays known.
	knownFor = 24 * time.Hour
)

// Throttle is a Throttler within one process. Failures count by address (IPv6:
// by /64, the least that one customer has) and by name; the larger count
// decides. Where a name has logged in from an address before, failures of
// others at that address do not count for it: one device with an old password
// must not hold up its whole office.
//
// A login that comes to a failure takes the delay in two parts, so that the
// time of the answer does not tell why it failed: the last part, as long as
// Delay, begins when the Backend is asked. A right password waits for the
// first part only, which is always below MaxDelay.
type Throttle struct {
	opts ThrottleOptions
	seed maphash.Seed

	mu        sync.Mutex
	addresses counters // failures by address
	names     counters // failures by name
	known     counters // successes by address and name
}

var _ Throttler = (*Throttle)(nil)

// NewThrottle returns a Throttle, or what is wrong with opts.
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

// after returns when a login fails that has had n failures before it.
func (o ThrottleOptions) after(n int) time.Duration {
	d := o.Delay
	for ; n > 0 && d < o.MaxDelay; n-- {
		d = min(2*d, o.MaxDelay)
	}
	return d
}

// Keys are hashes, so that their memory does not depend on what clients send.
// Upstreams fold the case of names, so all spellings count together.

func (t *Throttle) addressKey(client netip.Addr) uint64 {
	return maphash.Comparable(t.seed, network(client))
}

func (t *Throttle) nameKey(name string) uint64 {
	return maphash.String(t.seed, strings.ToLower(name))
}

func (t *Throttle) pairKey(client netip.Addr, name string) uint64 {
	return maphash.Comparable(t.seed, [2]uint64{t.addressKey(client), t.nameKey(name)})
}

// network returns what counts as one client: an IPv4 address, or a /64 of IPv6.
func network(addr netip.Addr) netip.Prefix {
	addr = addr.Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits) // fails for the zero Addr only, which stays zero
	return p
}

// counters counts events by key, as many keys as it has room for. A key is
// forgotten when it has had no event for the time of window.
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

// throttled runs login, which asks the Backend, at the pace that the Throttler
// allows. Only [AUTH] counts as a failure (M-3). The Server's shutdown ends the
// waits, and the session with them. name is "" before login where an exchange
// has yet to tell it, which paces itself then.
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

// delayLogin waits as long as the Throttler has a login of that name wait, not at all
// while the name is not known. It returns how long a failure takes.
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

// sleep waits d, for the sake of the Throttler.
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

// logFailure tells of a failed login, before it is answered: programs such as
// fail2ban read this record.
func (s *session) logFailure(name string, err error) {
	if isAuthFailure(err) {
		s.log.Info("login failed", "user", loggedName(name), "error", err)
	}
}

// isAuthFailure reports whether the credentials are why a login failed.
func isAuthFailure(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == CodeAuth
}
