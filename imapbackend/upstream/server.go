package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync/atomic"
	"time"

	"popgate/proxy"
	"popgate/proxy/endpoint"
)

// Options describe an upstream server.
type Options struct {
	// Name identifies the upstream in logs and locks.
	Name string

	// Dial connects to it. Its error becomes the answer to the client.
	Dial func(context.Context) (net.Conn, error)

	// TLS says how connections are protected.
	TLS proxy.TLSMode

	// ServerName is the name that its certificate must carry, RootCAs verifies
	// that; nil: the system's.
	ServerName string
	RootCAs    *x509.CertPool

	// Mailbox is the mailbox served, in UTF-8.
	Mailbox string

	// Compress asks for COMPRESS=DEFLATE (RFC 4978) where it is offered.
	Compress bool

	// SendClientID reports by ID where the client comes from, and Version is
	// reported as the version of the gateway (RFC 2971).
	SendClientID bool
	Version      string

	// Observer is informed of the connections. nil: nobody is.
	Observer proxy.Observer
}

// Server is one upstream server: how it is reached, and what is known of it. It
// is safe for concurrent use.
type Server struct {
	opts         Options
	tls          *tls.Config              // shared, never changed
	objectID     atomic.Bool              // it had OBJECTID at the last login
	capabilities atomic.Pointer[[]string] // before the last login; nil: not known
}

// NewServer returns a server that has not been contacted.
func NewServer(opts Options) *Server {
	return &Server{opts: opts, tls: opts.tlsConfig()}
}

// report reports an event of a connection.
func (s *Server) report(kind proxy.UpstreamEventKind, err error, elapsed time.Duration) {
	if o := s.opts.Observer; o != nil {
		o.UpstreamChanged(proxy.UpstreamEvent{Kind: kind, Upstream: s.opts.Name, Err: err, Elapsed: elapsed})
	}
}

// Offers reports whether clients can use a SASL mechanism, in upper case,
// through the gateway. Tokens are passed to any server; the mechanisms that are
// relayed are those that the server offered when last seen.
func (s *Server) Offers(mechanism string) bool {
	if IsToken(mechanism) {
		return true
	}
	capabilities := s.capabilities.Load()
	return capabilities != nil && Relays(*capabilities, mechanism)
}

// ForgetCapabilities forgets what the server offered when last seen.
func (s *Server) ForgetCapabilities() { s.capabilities.Store(nil) }

// tlsConfig returns the TLS client configuration (requirements O-TLS-2, 3, 7).
// All connections share the sessions it remembers, which saves most of the work
// of a handshake.
func (o *Options) tlsConfig() *tls.Config {
	return &tls.Config{
		ServerName:         o.ServerName,
		RootCAs:            o.RootCAs,
		MinVersion:         tls.VersionTLS12,
		CipherSuites:       endpoint.Suites(),
		NextProtos:         []string{"imap"},
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
}
