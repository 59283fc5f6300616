package upstream

import (
	"context"
	"strconv"
	"strings"

	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// proxyTTL is how many further proxies the upstream may be. Each of Dovecot's
// takes one off and refuses at none, which ends a loop.
const proxyTTL = "4"

// idCommand tells the upstream who we are (RFC 2971), and where it trusts us
// with that, on whose behalf we come (requirement O-ID-2, in the words of
// Dovecot). What it answers changes nothing, not even a NO.
func (u *Conn) idCommand(ctx context.Context) string {
	fields := []string{"name", "popgate"}
	if v := u.opts.Version; v != "" && wire.Quotable(v) {
		fields = append(fields, "version", v)
	}
	if c, ok := proxy.ClientOf(ctx); ok && u.opts.SendClientID {
		fields = append(fields,
			"x-originating-ip", c.Addr.Addr().WithZone("").String(),
			"x-originating-port", strconv.Itoa(int(c.Addr.Port())),
			"x-connected-ip", c.Local.Addr().WithZone("").String(),
			"x-connected-port", strconv.Itoa(int(c.Local.Port())),
			"x-session-id", c.Session,
			"x-proxy-ttl", proxyTTL)
	}
	for i, f := range fields {
		fields[i] = wire.Quote(f)
	}
	return "ID (" + strings.Join(fields, " ") + ")"
}
