package proxytest

import (
	"fmt"
	"slices"
	"sync"

	"popgate/proxy"
)

// Observer records each event as a line of text. The zero value is ready to use.
// It is safe for concurrent use.
type Observer struct {
	mu     sync.Mutex
	events []string
}

var _ proxy.Observer = (*Observer)(nil)

// Events returns what has been recorded, in order.
func (o *Observer) Events() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.events)
}

func (o *Observer) add(format string, args ...any) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.events = append(o.events, fmt.Sprintf(format, args...))
}

// outcome returns what a client would be sent for err.
func outcome(err error) string {
	if err == nil {
		return "ok"
	}
	e := proxy.AsError(err)
	if e.Code == proxy.CodeNone {
		return e.Text
	}
	return string(e.Code)
}

// SessionStarted implements proxy.Observer.
func (o *Observer) SessionStarted(r *proxy.Record) {
	o.add("session from %s to %s", r.Addr, r.Listener)
}

// StateEntered implements proxy.Observer.
func (o *Observer) StateEntered(r *proxy.Record) { o.add("%v %s", r.State, r.User) }

// LoginDone implements proxy.Observer.
func (o *Observer) LoginDone(r *proxy.Record, l proxy.LoginRecord) {
	o.add("login %s %s: %s, %v, throttled %v, lock %v, %s", l.Mechanism, r.User, outcome(l.Err), l.Elapsed, l.Throttled, l.LockWait, l.Source)
}

// CommandDone implements proxy.Observer.
func (o *Observer) CommandDone(_ *proxy.Record, c proxy.CommandRecord) {
	o.add("%s %s, %d octets, %v", c.Verb, c.Status, c.Octets, c.Elapsed)
}

// SessionEnded implements proxy.Observer.
func (o *Observer) SessionEnded(r *proxy.Record) {
	o.add("end of %s: %s after %v in %v, TLS %v, retr %d, top %d, dele %d, octets %d, removed %d of %d, mismatches %d, failed %d, sent %d, received %d",
		r.User, r.Reason, r.Duration, r.State, r.TLS != nil || r.ProxyTLS != nil, r.Retr, r.Top, r.Dele, r.Octets,
		r.Removed, r.Removed+r.Remaining, r.Mismatches, r.FailedLogins, r.Sent, r.Received)
}

// ConnectionRefused implements proxy.Observer.
func (o *Observer) ConnectionRefused(r proxy.Refusal) {
	o.add("refused %s at %s: %s", r.Client, r.Listener, r.Reason)
}

// UpstreamChanged implements proxy.Observer. It does not record times.
func (o *Observer) UpstreamChanged(e proxy.UpstreamEvent) {
	what := map[proxy.UpstreamEventKind]string{
		proxy.UpstreamOpened:   "opened",
		proxy.UpstreamClosed:   "closed",
		proxy.UpstreamReplaced: "replaced",
		proxy.UpstreamKept:     "kept",
		proxy.UpstreamReused:   "reused",
	}[e.Kind]
	o.add("%s %s: %s", e.Upstream, what, outcome(e.Err))
}
