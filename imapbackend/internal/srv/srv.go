// Package srv finds the IMAP servers of a domain by its SRV records (RFC 6186,
// RFC 2782), and says which certificates they may have (RFC 9525).
package srv

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"popgate/imapbackend/internal/eyeballs"
	"popgate/imapbackend/upstream"
	"popgate/proxy"
)

// refreshAfter is how old records may be before they are looked up again.
const refreshAfter = 10 * time.Minute

// lookupTimeout is how long one lookup of both services may take.
const lookupTimeout = 10 * time.Second

// The services of RFC 6186 §3.2, in the order in which RFC 8314 §5.1 prefers them.
var services = []struct {
	name string
	tls  proxy.TLSMode
}{{"imaps", proxy.TLSImplicit}, {"imap", proxy.TLSStartTLS}}

// Target is a server of a domain.
type Target struct {
	Host string // without the final dot
	Port uint16

	// TLS is TLSImplicit or TLSStartTLS; Service is what an SRV-ID in the
	// certificate begins with, such as "_imaps".
	TLS     proxy.TLSMode
	Service string

	priority, weight uint16
}

// Domain looks up the servers of a domain. It is safe for concurrent use.
type Domain struct {
	name   string
	lookup func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error)

	flight singleflight.Group // one lookup at a time

	mu      sync.Mutex
	targets []Target
	at      time.Time // when they were looked up, successfully or not
}

// New returns the Domain of that name, on the system's resolver. It looks nothing up.
func New(name string) *Domain {
	return &Domain{name: strings.TrimSuffix(name, "."), lookup: net.DefaultResolver.LookupSRV}
}

// Targets returns the servers in the order in which they are to be tried: by priority,
// and at random by weight among those of one priority. They are looked up at the first
// call, and in the background when the records are older than 10 minutes; while that
// fails, the old ones stay in use.
func (d *Domain) Targets(ctx context.Context) ([]Target, error) {
	d.mu.Lock()
	targets, fresh := d.targets, time.Since(d.at) < refreshAfter
	d.mu.Unlock()
	if len(targets) > 0 && fresh {
		return shuffled(targets), nil
	}
	flight := d.flight.DoChan("", func() (any, error) { return d.refresh(context.WithoutCancel(ctx)) })
	if len(targets) > 0 {
		return shuffled(targets), nil
	}
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case r := <-flight:
		if r.Err != nil {
			return nil, r.Err
		}
		return shuffled(r.Val.([]Target)), nil
	}
}

// Connect connects to the servers, one after the other until one answers
// (requirements O-DISC-2, O-DISC-3).
func (d *Domain) Connect(ctx context.Context) (upstream.Link, error) {
	targets, err := d.Targets(ctx)
	if err != nil {
		return upstream.Link{}, err
	}
	var failed []error
	for _, t := range targets {
		conn, err := eyeballs.New().Connect(ctx, t.Host, t.Port)
		if err == nil {
			return upstream.Link{Conn: conn, TLS: t.TLS, ServerName: d.ServerName(t),
				Accepts: func(cert *x509.Certificate) error { return d.Accepts(t, cert) }}, nil
		}
		if failed = append(failed, err); ctx.Err() != nil {
			break
		}
	}
	return upstream.Link{}, errors.Join(failed...)
}

// IsDomain reports whether name may be that of a Domain.
func IsDomain(name string) bool {
	return strings.Contains(name, ".") && !strings.ContainsAny(name, ":/@ _") && net.ParseIP(name) == nil
}

// refresh looks the servers up and keeps them.
func (d *Domain) refresh(ctx context.Context) ([]Target, error) {
	ctx, cancel := context.WithTimeout(ctx, lookupTimeout)
	defer cancel()
	found, err := d.find(ctx)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.at = time.Now()
	if err == nil {
		d.targets = found
	} else if len(d.targets) > 0 {
		proxy.Logger(ctx).WarnContext(ctx, "SRV records not found, the former ones stay in use", "domain", d.name, "error", err)
	}
	return found, err
}

// find looks up the first service that the domain has.
func (d *Domain) find(ctx context.Context) ([]Target, error) {
	var failed []error
	for _, s := range services {
		_, records, err := d.lookup(ctx, s.name, "tcp", d.name)
		if err != nil {
			failed = append(failed, err)
			if dns, ok := errors.AsType[*net.DNSError](err); !ok || !dns.IsNotFound {
				break // not even that there is none: a server in the clear is no substitute
			}
			continue
		}
		var found []Target
		for _, r := range records {
			if host := strings.TrimSuffix(r.Target, "."); host != "" { // else there is no such service
				found = append(found, Target{host, r.Port, s.tls, "_" + s.name, r.Priority, r.Weight})
			}
		}
		if len(found) > 0 {
			return found, nil
		}
		failed = append(failed, fmt.Errorf("_%s._tcp.%s says that there is no such service", s.name, d.name))
	}
	return nil, fmt.Errorf("srv: %w", errors.Join(failed...))
}

// shuffled returns targets by priority, and within one at random by weight (RFC 2782).
func shuffled(targets []Target) []Target {
	left := slices.Clone(targets)
	slices.SortStableFunc(left, func(a, b Target) int { return int(a.priority) - int(b.priority) })
	var order []Target
	for len(left) > 0 {
		same := 0
		total := 0
		for same < len(left) && left[same].priority == left[0].priority {
			total += int(left[same].weight)
			same++
		}
		i := 0
		for n := rand.IntN(total + 1); i < same-1 && n > int(left[i].weight); i++ {
			n -= int(left[i].weight)
		}
		order = append(order, left[i])
		left = slices.Delete(left, i, i+1)
	}
	return order
}
