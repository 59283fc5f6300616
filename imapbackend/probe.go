package imapbackend

import (
	"context"
	"crypto/tls"
	"slices"
	"time"

	"popgate/imapbackend/dialect"
	"popgate/imapbackend/upstream"
	"popgate/proxy"
)

// Report is what an upstream announces before a login.
type Report struct {
	Greeting     string   // as a status line
	TLSVersion   string   // "" without TLS
	Capabilities []string // in upper case
	Dialect      dialect.Dialect
	Warnings     []string // what the gateway will lack, in words for an operator
}

// Probe connects to the upstream as a session would, and logs out without
// having logged in. Errors are *proxy.Error with the cause.
func (b *Backend) Probe(ctx context.Context) (Report, error) {
	at := upstream.NewAttempt()
	u, err := b.server.Connect(ctx, at)
	for err != nil && at.Again() {
		u, err = b.server.Connect(ctx, at)
	}
	if err != nil {
		return Report{}, err
	}
	defer u.Logout(ctx)
	r := Report{Greeting: u.Greeting, Capabilities: u.Wire.Capabilities(), Dialect: u.Dialect()}
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
	return r, nil
}

// learnInterval is the time between two questions for the upstream's
// mechanisms.
const learnInterval = 5 * time.Minute

// Learn keeps the Backend informed, until ctx ends, whether the upstream offers
// these SASL mechanisms, in upper case. Each login shows that too, so the
// upstream is asked at once, and later only while it is not known to offer all
// of them: a mechanism that clients are not offered brings no logins.
func (b *Backend) Learn(ctx context.Context, mechanisms ...string) {
	missing := func(mechanism string) bool { return !b.server.Offers(mechanism) }
	tick := time.NewTicker(learnInterval)
	defer tick.Stop()
	for {
		if slices.ContainsFunc(mechanisms, missing) {
			if _, err := b.Probe(ctx); err != nil && ctx.Err() == nil {
				b.server.ForgetCapabilities()
				proxy.Logger(ctx).WarnContext(ctx, "cannot find out the upstream's mechanisms",
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

// Offers implements proxy.Exchanger. Tokens are sent to any upstream; of the
// other mechanisms, those that it last announced are relayed.
func (b *Backend) Offers(mechanism string, _ proxy.Caller) bool { return b.server.Offers(mechanism) }
