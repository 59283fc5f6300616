package proxy

import (
	"context"
	"log/slog"
	"net/netip"
)

// Client identifies the client and the connection of a session.
type Client struct {
	Addr     netip.AddrPort // remote address; the zero AddrPort if it is not an IP address
	Local    netip.AddrPort // local address, likewise
	Session  string         // random, identifies the session in the log
	Listener string         // address of the listener, as in the log
}

// Network returns what counts as one client: the IPv4 address, or the IPv6 /64; the
// zero Prefix if the address is not known.
func (c Client) Network() netip.Prefix { return network(c.Addr.Addr()) }

type clientKey struct{}

// WithClient returns a context that carries the client of a session.
func WithClient(ctx context.Context, c Client) context.Context {
	return context.WithValue(ctx, clientKey{}, c)
}

// ClientOf returns the client in ctx. ok is false if there is none, or if its
// addresses are not IP addresses.
func ClientOf(ctx context.Context) (c Client, ok bool) {
	c, ok = ctx.Value(clientKey{}).(Client)
	return c, ok && c.Addr.IsValid() && c.Local.IsValid()
}

type loggerKey struct{}

// WithLogger returns a context that carries the logger of one session.
func WithLogger(ctx context.Context, l *slog.Logger) context.Context {
	return context.WithValue(ctx, loggerKey{}, l)
}

// Logger returns the logger in ctx, which adds session and client to each
// record, or slog.Default() if there is none.
func Logger(ctx context.Context) *slog.Logger {
	if l, ok := ctx.Value(loggerKey{}).(*slog.Logger); ok {
		return l
	}
	return slog.Default()
}
