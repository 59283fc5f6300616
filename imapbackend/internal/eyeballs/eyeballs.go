// Package eyeballs connects to a host by whichever of its addresses answers
// first ("Happy Eyeballs", RFC 8305).
package eyeballs

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// The pace of connection attempts (RFC 8305 §3, §5).
const (
	resolutionDelay = 50 * time.Millisecond
	attemptDelay    = 250 * time.Millisecond
)

// Dialer connects to a host by whichever of its addresses answers first
// (RFC 8305).
type Dialer struct {
	lookup func(ctx context.Context, network, host string) ([]netip.Addr, error)
	dial   func(ctx context.Context, addr netip.AddrPort) (net.Conn, error)
}

// New returns a Dialer on the system's resolver and sockets.
func New() Dialer {
	// No TCP keep-alive: it would cost each login four system calls. The
	// keep-alive NOOP and timeouts find an upstream that is gone.
	d := net.Dialer{KeepAlive: -1}
	return Dialer{
		lookup: net.DefaultResolver.LookupNetIP,
		dial: func(ctx context.Context, addr netip.AddrPort) (net.Conn, error) {
			return d.DialContext(ctx, "tcp", addr.String())
		},
	}
}

type lookupResult struct {
	v6    bool
	addrs []netip.Addr
	err   error
}

type dialResult struct {
	conn net.Conn
	err  error
}

// race is one connection being made.
type race struct {
	Dialer
	port     uint16
	lookups  chan lookupResult
	dials    chan dialResult
	pending  int             // number of lookups without a result yet
	running  int             // number of attempts without a result yet
	queue    [2][]netip.Addr // addresses not tried yet: IPv4, IPv6
	lastV6   bool            // family of the last attempt
	firstErr error
}

// Connect returns the first connection that is established. Addresses of the two
// families alternate, IPv6 first; an attempt starts attemptDelay after the
// previous one, or as soon as that has failed. The other attempts end before
// Connect returns or soon after. The error is that of the first failure.
func (d Dialer) Connect(ctx context.Context, host string, port uint16) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	q := &race{Dialer: d, port: port, lookups: make(chan lookupResult, 2), dials: make(chan dialResult)}
	if addr, err := netip.ParseAddr(host); err == nil {
		return d.dial(ctx, netip.AddrPortFrom(addr, port))
	}
	for _, v6 := range []bool{true, false} {
		q.pending++
		go q.resolve(ctx, host, v6)
	}
	conn, err := q.run(ctx)
	cancel()
	// cancel ends the attempts that are still running. A connection that is
	// established too late is closed.
	go func(running int) {
		for range running {
			if late := <-q.dials; late.conn != nil {
				late.conn.Close()
			}
		}
	}(q.running)
	return conn, err
}

func (q *race) resolve(ctx context.Context, host string, v6 bool) {
	network := "ip4"
	if v6 {
		network = "ip6"
	}
	addrs, err := q.lookup(ctx, network, host)
	q.lookups <- lookupResult{v6, addrs, err}
}

func (q *race) run(ctx context.Context) (net.Conn, error) {
	// Attempts start when timer fires. It is not set before there is an
	// address.
	timer := time.NewTimer(0)
	<-timer.C
	defer timer.Stop()
	started := false
	for {
		if q.pending == 0 && q.running == 0 && !q.waiting() {
			if q.firstErr == nil {
				q.firstErr = errors.New("no addresses")
			}
			return nil, q.firstErr
		}
		select {
		case l := <-q.lookups:
			q.enqueue(l)
			switch {
			case !q.waiting():
			case started && q.running > 0:
				timer.Reset(attemptDelay)
			case started || l.v6 || q.pending == 0:
				timer.Reset(0)
			default:
				timer.Reset(resolutionDelay)
			}
		case <-timer.C:
			started = true
			if q.attempt(ctx) {
				timer.Reset(attemptDelay)
			}
		case d := <-q.dials:
			q.running--
			if d.err == nil {
				return d.conn, nil
			}
			q.recordError(d.err)
			timer.Reset(0)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// enqueue records the result of a lookup.
func (q *race) enqueue(l lookupResult) {
	q.pending--
	family := 0
	if l.v6 {
		family = 1
	}
	q.queue[family] = append(q.queue[family], l.addrs...)
	// Any other error replaces that of a family without addresses.
	if l.err != nil && (q.firstErr == nil || isNotFound(q.firstErr)) {
		q.firstErr = l.err
	}
}

func isNotFound(err error) bool {
	dns, ok := errors.AsType[*net.DNSError](err)
	return ok && dns.IsNotFound
}

// recordError keeps the error of the first failed attempt, which says more than
// that of a lookup.
func (q *race) recordError(err error) {
	if _, isLookup := errors.AsType[*net.DNSError](q.firstErr); q.firstErr == nil || isLookup {
		q.firstErr = err
	}
}

func (q *race) waiting() bool { return len(q.queue[0])+len(q.queue[1]) > 0 }

// attempt starts to connect to the next address, if there is one.
func (q *race) attempt(ctx context.Context) bool {
	if !q.waiting() {
		return false
	}
	family := 1
	if q.lastV6 && len(q.queue[0]) > 0 || len(q.queue[1]) == 0 {
		family = 0
	}
	q.lastV6 = family == 1
	addr := netip.AddrPortFrom(q.queue[family][0], q.port)
	q.queue[family] = q.queue[family][1:]
	q.running++
	go func() {
		conn, err := q.dial(ctx, addr)
		q.dials <- dialResult{conn, err}
	}()
	return true
}
