package main

import (
	"fmt"
	"log/slog"
	"strings"
	"time"

	"popgate/imapbackend/uniqueid"
)

// A warning is what an operator should know about a configuration that is
// valid. The server itself warns of each listener with InsecureLoginFrom
// (P-USER-3).
type warning struct {
	text  string
	attrs []slog.Attr
}

// String returns the warning as check prints it.
func (w warning) String() string {
	var b strings.Builder
	b.WriteString(w.text)
	for _, a := range w.attrs {
		fmt.Fprintf(&b, ", %s %s", a.Key, printable(a.Value.String()))
	}
	return b.String()
}

// warnings are those about the file and what it names.
func (c *config) warnings(now time.Time) []warning {
	var ws []warning
	if c.upstream.TLS == "none" && c.upstream.Insecure {
		ws = append(ws, warning{"passwords go to the upstream without TLS",
			[]slog.Attr{slog.String("upstream", c.upstream.Name)}})
	}
	if t, err := uniqueid.Parse(c.upstream.UIDL); err == nil && !t.HasUIDValidity() {
		ws = append(ws, warning{"unique-ids without {uidvalidity} come back for other messages when the mailbox is rebuilt", // I-UIDL-2
			[]slog.Attr{
				slog.String("upstream", c.upstream.Name),
				slog.String("uidl", c.upstream.UIDL)}})
	}
	if c.upstream.WithoutUIDPLUS == "expunge-if-alone" {
		ws = append(ws, warning{"without_uidplus = \"expunge-if-alone\" may remove what another client flags \\Deleted at the same moment",
			[]slog.Attr{slog.String("upstream", c.upstream.Name)}})
	}
	if c.limits.Connections > 0 && (c.limits.Unauthenticated == 0 || c.limits.Unauthenticated >= c.limits.Connections) {
		ws = append(ws, warning{"silent connections may use up all: set limits.unauthenticated below limits.connections",
			[]slog.Attr{
				slog.Int("unauthenticated", c.limits.Unauthenticated),
				slog.Int("connections", c.limits.Connections)}})
	}
	for i := range c.listeners {
		l := &c.listeners[i]
		if l.TLS != "none" && l.lowered() {
			ws = append(ws, warning{"listener accepts outdated TLS, for vintage clients only", []slog.Attr{ // O-TLS-2
				slog.String("listener", l.Address),
				slog.String("min_tls", l.MinTLS),
				slog.Bool("legacy_ciphers", l.LegacyCiphers)}})
		}
		if l.certificates == nil {
			continue
		}
		for _, p := range l.certificates.pairs {
			if leaf := p.current.Load().Leaf; now.After(leaf.NotAfter) {
				ws = append(ws, warning{"certificate has expired", []slog.Attr{
					slog.String("cert_file", p.certFile),
					slog.String("on", leaf.NotAfter.Format(time.DateOnly))}})
			}
		}
	}
	return ws
}
