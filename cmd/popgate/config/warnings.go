package config

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"popgate/cmd/popgate/words"
	"popgate/imapbackend"
	"popgate/imapbackend/uniqueid"
	"popgate/proxy"
)

// A Warning is what an operator should know about a valid configuration. The
// server itself warns about each listener with InsecureLoginFrom (P-USER-3).
type Warning struct {
	Text  string
	Attrs []slog.Attr
}

// String returns the warning as check prints it.
func (w Warning) String() string {
	var b strings.Builder
	b.WriteString(w.Text)
	for _, a := range w.Attrs {
		fmt.Fprintf(&b, ", %s %s", a.Key, words.Printable(a.Value.String()))
	}
	return b.String()
}

// Warnings returns the warnings about the file and the files that it names. now
// is the time at which certificates must be valid.
func (c *Config) Warnings(now time.Time) []Warning {
	var ws []Warning
	for i := range c.Upstreams {
		ws = append(ws, c.Upstreams[i].warnings()...)
	}
	if l := c.Limits.Options; l.Connections > 0 && (l.Unauthenticated == 0 || l.Unauthenticated >= l.Connections) {
		ws = append(ws, Warning{"idle connections may take every slot: set limits.unauthenticated below limits.connections",
			[]slog.Attr{
				slog.Int("unauthenticated", l.Unauthenticated),
				slog.Int("connections", l.Connections)}})
	}
	for i := range c.Listeners {
		ws = append(ws, c.Listeners[i].warnings(now)...)
	}
	return ws
}

func (u *Upstream) warnings() []Warning {
	var ws []Warning
	o, name := &u.Options, slog.String("upstream", u.Options.Name)
	if o.TLS == imapbackend.TLSNone && o.Insecure {
		ws = append(ws, Warning{"passwords go to the upstream without TLS", []slog.Attr{name}})
	}
	if t, err := uniqueid.Parse(o.UIDL); err == nil && !t.HasUIDValidity() {
		ws = append(ws, Warning{"unique-ids without {uidvalidity} are reused for other messages when the mailbox is rebuilt", // I-UIDL-2
			[]slog.Attr{name, slog.String("uidl", o.UIDL)}})
	}
	if o.WithoutUIDPLUS == imapbackend.ExpungeIfAlone {
		ws = append(ws, Warning{"without_uidplus = \"expunge-if-alone\" may remove what another client flags \\Deleted at the same moment",
			[]slog.Attr{name}})
	}
	return ws
}

func (l *Listener) warnings(now time.Time) []Warning {
	var ws []Warning
	if l.Options.Mode != proxy.TLSNone && l.acceptsOldTLS() {
		ws = append(ws, Warning{"listener accepts outdated TLS, for vintage clients only", []slog.Attr{ // O-TLS-2
			slog.String("listener", l.Address),
			slog.String("min_tls", strings.TrimPrefix(tls.VersionName(l.MinTLS), "TLS ")),
			slog.Bool("legacy_ciphers", l.LegacyCiphers)}})
	}
	if l.Certificates == nil {
		return ws
	}
	for _, p := range l.Certificates.Pairs {
		if leaf := p.Leaf(); now.After(leaf.NotAfter) {
			ws = append(ws, Warning{"certificate has expired", []slog.Attr{
				slog.String("cert_file", p.CertFile()),
				slog.String("on", leaf.NotAfter.Format(time.DateOnly))}})
		}
	}
	return ws
}
