package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"sync/atomic"
	"time"

	"popgate/imapbackend/dialect"
	"popgate/proxy"
	"popgate/proxy/endpoint"
)

// Options describe an upstream server. Name, Dial, TLS, ServerName and Mailbox
// are required.
type Options struct {
	// Name identifies the upstream in logs and locks.
	Name string

	// Dial opens a network connection to it. It is called concurrently.
	Dial func(context.Context) (net.Conn, error)

	// TLS says how connections are protected.
	TLS proxy.TLSMode

	// ServerName is the name that its certificate must have. RootCAs verify
	// the certificate; nil: those of the system.
	ServerName string
	RootCAs    *x509.CertPool

	// Mailbox is the mailbox served, in UTF-8.
	Mailbox string

	// Compress asks for COMPRESS=DEFLATE (RFC 4978) where it is offered.
	Compress bool

	// SendClientID reports the client's address by ID (RFC 2971), and
	// Version is reported as the version of the gateway; "": none.
	SendClientID bool
	Version      string

	// Observer is informed of the connections. nil: none.
	Observer proxy.Observer
}

// Server is one upstream server: how it is reached, and what it has announced.
// It is safe for concurrent use.
type Server struct {
	opts         Options
	tls          *tls.Config              // shared, never changed
	objectID     atomic.Bool              // it had OBJECTID at the last login
	capabilities atomic.Pointer[[]string] // before the last login; nil: not known
	learned      dialect.Learned
}

// NewServer returns a Server and does not contact it.
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
// through the gateway. Tokens are sent to any server; of the other mechanisms,
// those that it last announced are relayed.
func (s *Server) Offers(mechanism string) bool {
	if IsToken(mechanism) {
		return true
	}
	capabilities := s.capabilities.Load()
	return capabilities != nil && Relays(*capabilities, mechanism)
}

// ForgetCapabilities forgets the mechanisms that the server last announced.
func (s *Server) ForgetCapabilities() { s.capabilities.Store(nil) }

// tlsConfig returns the TLS client configuration (requirements O-TLS-2, 3, 7).
// All connections share its session cache, which makes most handshakes cheap.
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
