package imapbackend

import (
	"context"
	"crypto/tls"
	"slices"
	"time"

	"popgate/proxy"
)

// Report is what an upstream tells before anybody has logged in.
type Report struct {
	Greeting     string
	TLSVersion   string // "" without TLS
	Capabilities []string
	Warnings     []string // what the gateway will miss, in words for an operator
}

// Probe connects to the upstream as a session would, up to where a user would
// log in, and leaves again. Errors are *proxy.Error whose cause tells more.
func (b *Backend) Probe(ctx context.Context) (Report, error) {
	u, err := b.server.connect(ctx)
	if err != nil {
		return Report{}, err
	}
	defer u.logout(ctx)
	r := Report{Greeting: u.greeting, Capabilities: u.conn.Capabilities()}
	if u.tls != nil {
		r.TLSVersion = tls.VersionName(u.tls.Version)
	}
	warn := func(text string) { r.Warnings = append(r.Warnings, text) }
	switch {
	case u.conn.Has("AUTH=PLAIN"):
	case u.conn.Has("LOGINDISABLED"):
		warn("offers neither AUTH=PLAIN nor LOGIN: nobody can log in")
	default:
		warn("lacks AUTH=PLAIN: names and passwords must be ASCII")
	}
	if !u.conn.Has("UIDPLUS") && !u.conn.Has("IMAP4REV2") {
		warn("does not show UIDPLUS before login: if it lacks it, without_uidplus decides what DELE does")
	}
	return r, nil
}

// learnInterval lies between two looks at the upstream's mechanisms.
const learnInterval = 5 * time.Minute

// Learn keeps known, until ctx ends, whether the upstream takes these SASL
// mechanisms, in upper case. Each login tells that anew, so the upstream is
// asked at once, and later only while it is not known to take all of them: a
// mechanism that is not offered brings no logins.
func (b *Backend) Learn(ctx context.Context, mechanisms ...string) {
	missing := func(mechanism string) bool { return !b.offers(mechanism) }
	tick := time.NewTicker(learnInterval)
	defer tick.Stop()
	for {
		if slices.ContainsFunc(mechanisms, missing) {
			if _, err := b.Probe(ctx); err != nil && ctx.Err() == nil {
				b.server.capabilities.Store(nil)
				proxy.Logger(ctx).WarnContext(ctx, "upstream does not tell its mechanisms",
					"upstream", b.opts.Name, "error", err, "retry", learnInterval)
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// Offers implements proxy.Exchanger. Tokens are passed to any upstream; the
// mechanisms that are relayed are those it has last been seen to offer.
func (b *Backend) Offers(mechanism string, _ proxy.Caller) bool { return b.offers(mechanism) }

func (b *Backend) offers(mechanism string) bool {
	if isToken(mechanism) {
		return true
	}
	capabilities := b.server.capabilities.Load()
	return capabilities != nil && Relays(*capabilities, mechanism)
}
