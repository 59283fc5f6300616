package config

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
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
	if public := slices.DeleteFunc(slices.Clone(l.Options.InsecureLoginFrom), private); len(public) > 0 {
		ws = append(ws, Warning{"insecure_login_from names public networks: passwords may cross the Internet in the clear", []slog.Attr{ // P-USER-3
			slog.String("listener", l.Address),
			slog.Any("networks", public)}})
	}
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
		if text := p.Expiry(now); text != "" {
			ws = append(ws, Warning{text, []slog.Attr{
				slog.String("cert_file", p.CertFile()),
				slog.String("on", p.Leaf().NotAfter.Format(time.DateOnly))}})
		}
	}
	return ws
}

// privateNetworks are those that do not reach over the Internet: RFC 1918, 4193,
// 6598, loopback and link-local addresses.
var privateNetworks = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("172.16.0.0/12"), netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("fc00::/7"), netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("::1/128"),
}

// private reports whether all of network is private.
func private(network netip.Prefix) bool {
	return slices.ContainsFunc(privateNetworks, func(p netip.Prefix) bool {
		return p.Bits() <= network.Bits() && p.Contains(network.Addr())
	})
}
