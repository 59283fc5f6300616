package proxytest

import (
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"

	"popgate/proxy"
)

// Insecure is a listener without TLS on which everyone may log in.
var Insecure = proxy.ListenerOptions{
	Mode:              proxy.TLSNone,
	InsecureLoginFrom: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
}

// Gateway is a proxy.Server under test and its one listener.
type Gateway struct {
	*proxy.Server
	Listener net.Listener

	t       testing.TB
	serving sync.WaitGroup
}

// Serve runs a Server on l until the end of the test. l comes from Listen or
// Loopback. If opts has no Logger, nothing is logged.
func Serve(t testing.TB, l net.Listener, opts proxy.Options, lopts proxy.ListenerOptions) *Gateway {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	srv, err := proxy.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	g := &Gateway{Server: srv, Listener: l, t: t}
	g.serving.Go(func() {
		if err := srv.Serve(l, lopts); !errors.Is(err, proxy.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(g.Stop)
	return g
}

// Stop closes the Server and waits for its end. It may be called again.
func (g *Gateway) Stop() {
	_ = g.Close() // always nil
	g.serving.Wait()
}

// Addr returns the address of the listener.
func (g *Gateway) Addr() string { return g.Listener.Addr().String() }

// Dial connects to the gateway. In memory, the client is 198.51.100.7:40000.
func (g *Gateway) Dial() *Client {
	g.t.Helper()
	if l, ok := g.Listener.(dialer); ok {
		conn, err := l.Dial()
		return g.client(conn, err)
	}
	return Dial(g.t, g.Addr())
}

// DialFrom connects from an address with port to the gateway, which must have a
// Listener of this package.
func (g *Gateway) DialFrom(addr string) *Client {
	g.t.Helper()
	from := netip.MustParseAddrPort(addr)
	conn, err := g.Listener.(dialer).DialFrom(net.TCPAddrFromAddrPort(from))
	return g.client(conn, err)
}

// dialer is a Listener, or a type that embeds one.
type dialer interface {
	Dial() (*Conn, error)
	DialFrom(net.Addr) (*Conn, error)
}

func (g *Gateway) client(conn *Conn, err error) *Client {
	g.t.Helper()
	if err != nil {
		g.t.Fatal(err)
	}
	return NewClient(g.t, conn)
}

// Loopback listens on a free TCP port of 127.0.0.1 until the end of the test.
func Loopback(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() }) // a server may have closed it
	return l
}
