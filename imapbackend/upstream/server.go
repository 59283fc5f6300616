package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"popgate/imapbackend/dialect"
	"popgate/imapbackend/wire"
	"popgate/proxy"
	"popgate/proxy/endpoint"
)

// Link is a network connection to a server, on which TLS has not begun, and how TLS
// protects it.
type Link struct {
	net.Conn

	// TLS says how the connection is protected.
	TLS proxy.TLSMode

	// ServerName is the name that the server is asked for, and that its
	// certificate must have, unless Accepts decides on that. The chain of the
	// certificate is verified in any case.
	ServerName string
	Accepts    func(*x509.Certificate) error
}

// Options describe an upstream server. Name, Dial and Mailbox are required.
type Options struct {
	// Name identifies the upstream in logs and locks.
	Name string

	// Dial opens a network connection to it. It is called concurrently.
	Dial func(context.Context) (Link, error)

	// RootCAs verify its certificate; nil: those of the system.
	RootCAs *x509.CertPool

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

	// Dialect says how the dialect of the server is chosen.
	Dialect dialect.Choice

	// Tap returns what sees a new connection. nil: nothing does.
	Tap func() wire.Tap

	// Spare ends a connection of the user that waits for a next session, and reports
	// whether there was one. It is called concurrently, where a login would exceed
	// what the dialect accepts. nil: there are none.
	Spare func(user string) bool

	// Memory keeps what is learned of the server. nil: it is known until the
	// process ends.
	Memory Memory
}

// Memory keeps what was learned of a server from one run to the next, by the
// fingerprint of what it has announced (dialect.Fingerprint). It is called
// concurrently, and seldom: Load once for each fingerprint, Save when something is
// learned.
type Memory interface {
	// Load returns what was last saved, or nothing.
	Load(fingerprint string) dialect.Facts
	Save(fingerprint string, facts dialect.Facts)
}

// Server is one upstream server: how it is reached, and what it has announced.
// It is safe for concurrent use.
type Server struct {
	opts         Options
	tls          *tls.Config              // shared, never changed
	objectID     atomic.Bool              // it had OBJECTID at the last login
	accountID    atomic.Bool              // it had ids of accounts then
	capabilities atomic.Pointer[[]string] // before the last login; nil: not known
	waits        waits
	refusals     refusals
	users        users
	mu           sync.Mutex
	learned      []*learned // the latest is the last one
}

// learned is what was learned of the servers that announce the same.
type learned struct {
	*dialect.Learned
	fingerprint string
}

// maxLearned is how many kinds of servers may take turns at the address of an
// upstream, as they do while a cluster is updated, without being learned again.
const maxLearned = 4

// learnedOf returns what was learned of the server that announces this.
func (s *Server) learnedOf(greeting string, capabilities []string) *learned {
	fingerprint := dialect.Fingerprint(greeting, capabilities)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.learned {
		if l.fingerprint == fingerprint {
			return l
		}
	}
	var known dialect.Facts
	if m := s.opts.Memory; m != nil {
		known = m.Load(fingerprint)
	}
	l := &learned{dialect.NewLearned(known), fingerprint}
	if s.learned = append(s.learned, l); len(s.learned) > maxLearned {
		s.learned = slices.Delete(s.learned, 0, 1)
	}
	return l
}

// save keeps what was learned, if it is news.
func (s *Server) save(l *learned, news bool) {
	if m := s.opts.Memory; m != nil && news {
		m.Save(l.fingerprint, l.Facts())
	}
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
// All connections share its session cache, which makes most handshakes cheap. It is
// completed by Link.tlsConfig.
func (o *Options) tlsConfig() *tls.Config {
	return &tls.Config{
		RootCAs:            o.RootCAs,
		MinVersion:         tls.VersionTLS12,
		CipherSuites:       endpoint.Suites(),
		NextProtos:         []string{"imap"},
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
}
