package upstream

import (
	"context"
	"strconv"
	"strings"

	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// proxyTTL is how many further proxies may follow. Each Dovecot proxy
// decrements it and refuses at zero, which ends a loop.
const proxyTTL = "4"

// idCommand returns the command that identifies the gateway to the upstream
// (RFC 2971), and the client if that is configured (requirement O-ID-2, with
// Dovecot's field names). Its answer is ignored, even a NO.
func (o *Options) idCommand(ctx context.Context) string {
	fields := []string{"name", "popgate"}
	if v := o.Version; v != "" && wire.Quotable(v) {
		fields = append(fields, "version", v)
	}
	if c, ok := proxy.ClientOf(ctx); ok && o.SendClientID {
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
