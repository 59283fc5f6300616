package proxy

import (
	"context"
	"fmt"
	"hash/maphash"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"
)

// Throttler slows down the guessing of passwords. It is safe for concurrent use.
type Throttler interface {
	// Begin is called before the Backend is asked for a verdict on a login of
	// name, and returns when it may be asked; the caller then calls done once.
	// failure is how long after that a refusal is answered at the earliest. An
	// error refuses the login without a verdict; one that is no *Error is treated
	// as [SYS/TEMP], unless ctx has ended.
	//
	// client is the address of the client, not mapped into IPv6; the zero Addr if
	// it has none. name is that of Namer, else the login name as the client gave
	// it; "" if it is not known. If it becomes known in the middle of an exchange,
	// Begin is called again, after done. Clients choose both, so an implementation
	// must limit how many it remembers.
	//
	// waits is called before Begin begins to wait, at most once, so that the caller
	// can give up what it does not need meanwhile.
	Begin(ctx context.Context, client netip.Addr, name string, waits func()) (failure time.Duration, done func(Verdict), err error)

	// Waits reports whether Begin would have to wait now. For name "" it is whether
	// it would for a name of which nothing is known.
	Waits(client netip.Addr, name string) bool
}

// Verdict is what has become of a login, as far as it says something about the
// password.
type Verdict int

// The verdicts on a login.
const (
	// VerdictNone is a login on whose credentials nobody has decided, because of
	// a system fault for example.
	VerdictNone Verdict = iota
	// VerdictRefused is a login that failed because of its credentials, or an
	// exchange that its client has abandoned after a challenge.
	VerdictRefused
	// VerdictAccepted is a login that opened its maildrop.
	VerdictAccepted
)

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
	// throttleEntries is how many addresses, names, and pairs of both a Throttle
	// remembers. The one whose last failure is the oldest is forgotten first.
	throttleEntries = 1 << 14

	// knownFor is how long a client that has logged in stays known: longer than
	// a weekend.
	knownFor = 7 * 24 * time.Hour
)

// errThrottled is a login that has not had its turn within MaxDelay.
var errThrottled = &Error{Code: CodeSysTemp, Text: "too many logins at once, try again later"}

// Throttle is a Throttler within one process. Failures count by address (IPv6:
// by /64, the smallest network of one customer) and by name; the larger count
// applies. If a name has logged in from an address before, only failures of that
// name from that address count for it there: one device with an old password
// must not delay a whole office, nor a guesser elsewhere the user.
//
// The delay of a failed login has two parts, so that the time of the answer does
// not reveal why it failed. The second part, as long as Delay, begins when the
// Backend is called. A correct password waits for the first part only, which is
// always shorter than MaxDelay.
//
// Besides, no more than refusalRate logins a second that will be refused are let
// through for one address, and for one name, on however many connections. As it
// is not known which those are, each login reserves its place before the Backend
// is asked, and gives it back unless it is refused. The others wait their turn,
// until they have waited for MaxDelay in all, and are then refused by errThrottled.
type Throttle struct {
	opts ThrottleOptions
	seed maphash.Seed

	mu        sync.Mutex
	addresses counters // failures by address
	names     counters // failures by name
	own       counters // failures by address and name, of those that are known
	known     counters // successes by address and name
	rates     rates    // by the same keys
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
		own:       newCounters(throttleEntries, opts.Window),
		known:     newCounters(throttleEntries, knownFor),
	}, nil
}

// Begin implements Throttler. Without a name it waits for the turn at the address,
// but not because of failures before, from which users who are known are exempt.
func (t *Throttle) Begin(ctx context.Context, client netip.Addr, name string, waits func()) (failure time.Duration, done func(Verdict), err error) {
	k := t.keys(client, name)
	ctx, cancel := context.WithTimeoutCause(ctx, t.opts.MaxDelay, errThrottled)
	defer cancel()
	before, known := t.delay(k)
	waits = sync.OnceFunc(waits)
	if name != "" && before > 0 {
		waits()
		if err := wait(ctx, before); err != nil {
			return 0, nil, err
		}
	}
	turns, err := t.reserve(ctx, k, known, waits)
	if err != nil {
		return 0, nil, err
	}
	return t.opts.Delay, func(v Verdict) { t.done(k, turns, v) }, nil
}

// Waits implements Throttler.
func (t *Throttle) Waits(client netip.Addr, name string) bool {
	k := t.keys(client, name)
	before, known := t.delay(k)
	return before > 0 || slices.ContainsFunc(k.rates(known), func(at rateKey) bool { return t.rates.full(at.key) })
}

// wait waits d, or until ctx ends, whose cause it returns.
func wait(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// delay returns how long a login waits because of failures before it, and whether
// the name has logged in from that address.
func (t *Throttle) delay(k throttleKeys) (before time.Duration, known bool) {
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	known = t.known.count(now, k.pair) > 0
	n := t.own.count(now, k.pair)
	if !known {
		n = max(t.names.count(now, k.name), t.addresses.count(now, k.address))
	}
	return t.opts.after(n) - t.opts.Delay, known
}

// reserve waits for the turn of a login: at its address, and then for its name,
// or only at both together if they are known. So whoever waits for a name that
// others guess holds up nobody but logins at the own address.
func (t *Throttle) reserve(ctx context.Context, k throttleKeys, known bool, waits func()) ([]*reservation, error) {
	var turns []*reservation
	for _, at := range k.rates(known) {
		r, err := t.rates.reserve(ctx, at, waits)
		if err != nil {
			t.done(k, turns, VerdictNone)
			return nil, err
		}
		turns = append(turns, r)
	}
	t.rates.begin(turns)
	return turns, nil
}

// done records a verdict.
func (t *Throttle) done(k throttleKeys, turns []*reservation, v Verdict) {
	if v != VerdictRefused {
		t.rates.giveBack(turns)
	}
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	switch v {
	case VerdictAccepted:
		t.known.add(now, k.pair)
	case VerdictRefused:
		t.addresses.add(now, k.address)
		if k.name != 0 {
			t.names.add(now, k.name)
		}
		if t.known.count(now, k.pair) > 0 {
			t.own.add(now, k.pair)
		}
		if len(turns) == 1 && k.name != 0 { // of the pair
			t.rates.count(k.address)
			t.rates.count(k.name)
		}
	}
}

// after returns the time until a failed login is answered after n failures.
func (o ThrottleOptions) after(n int) time.Duration {
	d := o.Delay
	for ; n > 0 && d < o.MaxDelay; n-- {
		d = min(2*d, o.MaxDelay)
	}
	return d
}

// throttleKeys are what a login counts by: hashes, so that their size does not
// depend on what clients send. No two of different kinds are equal but by accident.
type throttleKeys struct {
	address, name, pair uint64 // name is 0 if the name is not known
}

// rates returns by which rates a login is limited, in the order of their turns.
func (k throttleKeys) rates(known bool) []rateKey {
	switch {
	case k.name == 0:
		return []rateKey{{k.address, 0}}
	case known:
		return []rateKey{{k.pair, 0}}
	}
	return []rateKey{{k.address, k.name}, {k.name, k.address}}
}

func (t *Throttle) keys(client netip.Addr, name string) (k throttleKeys) {
	k.address = maphash.Comparable(t.seed, network(client))
	if name != "" {
		k.name = maphash.String(t.seed, FoldName(name))
	}
	k.pair = maphash.Comparable(t.seed, [2]uint64{k.address, k.name})
	return k
}

// longestName is the length in octets beyond which names are compared as they are.
// No upstream has users with such names.
const longestName = 1024

// FoldName returns one name for all spellings that an upstream may treat as one:
// spaces at its ends, letter case, width, composed and compatible characters
// (RFC 8265 §3.3, RFC 4013 §2) and invisible ones do not matter. That some upstreams
// distinguish more does no harm here.
func FoldName(name string) string {
	if len(name) > longestName {
		return name
	}
	name = norm.NFKC.String(cases.Fold().String(norm.NFKC.String(name)))
	name = strings.Map(func(r rune) rune {
		if unicode.Is(unicode.Cf, r) || unicode.Is(unicode.Variation_Selector, r) || r == '\u034F' {
			return -1
		}
		return r
	}, name)
	return strings.TrimSpace(name)
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
