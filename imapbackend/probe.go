package imapbackend

import (
	"context"
	"crypto/tls"
	"slices"
	"time"

	"popgate/proxy"
)

// Report is what an upstream announces before a login.
type Report struct {
	Greeting     string
	TLSVersion   string // "" without TLS
	Capabilities []string
	Warnings     []string // what the gateway will miss, in words for an operator
}

// Probe connects to the upstream as a session would, up to where a user would
// log in, and leaves again. Errors are *proxy.Error whose cause says more.
func (b *Backend) Probe(ctx context.Context) (Report, error) {
	u, err := b.server.Connect(ctx)
	if err != nil {
		return Report{}, err
	}
	defer u.Logout(ctx)
	r := Report{Greeting: u.Greeting, Capabilities: u.Wire.Capabilities()}
	if state := u.TLS; state != nil {
		r.TLSVersion = tls.VersionName(state.Version)
	}
	warn := func(text string) { r.Warnings = append(r.Warnings, text) }
	switch {
	case u.Wire.Has("AUTH=PLAIN"):
	case u.Wire.Has("LOGINDISABLED"):
		warn("offers neither AUTH=PLAIN nor LOGIN: nobody can log in")
	default:
		warn("lacks AUTH=PLAIN: names and passwords must be ASCII")
	}
	if !u.Wire.Has("UIDPLUS") && !u.Wire.Has("IMAP4REV2") {
		warn("does not show UIDPLUS before login: if it lacks it, without_uidplus decides what DELE does")
	}
	return r, nil
}

// learnInterval lies between two looks at the upstream's mechanisms.
const learnInterval = 5 * time.Minute

// Learn keeps known, until ctx ends, whether the upstream takes these SASL
// mechanisms, in upper case. Each login shows that again, so the upstream is
// asked at once, and later only while it is not known to take all of them: a
// mechanism that is not offered brings no logins.
func (b *Backend) Learn(ctx context.Context, mechanisms ...string) {
	missing := func(mechanism string) bool { return !b.server.Offers(mechanism) }
	tick := time.NewTicker(learnInterval)
	defer tick.Stop()
	for {
		if slices.ContainsFunc(mechanisms, missing) {
			if _, err := b.Probe(ctx); err != nil && ctx.Err() == nil {
				b.server.ForgetCapabilities()
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
func (b *Backend) Offers(mechanism string, _ proxy.Caller) bool { return b.server.Offers(mechanism) }
