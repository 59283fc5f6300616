package imapbackend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"popgate/imapbackend/wire"
	"popgate/proxy"
	"popgate/proxy/endpoint"
)

// Longest waits towards the upstream (requirement I-KEEP-2).
const (
	connectTimeout  = 10 * time.Second
	tlsTimeout      = 10 * time.Second
	greetingTimeout = 20 * time.Second
	progressTimeout = 60 * time.Second  // for the next octet of an answer
	selectTimeout   = 300 * time.Second // the same for SELECT
	logoutTimeout   = 2 * time.Second
)

// server is one upstream server: how it is reached, and what is known of it. It
// is safe for concurrent use.
type server struct {
	opts         *Options
	tls          *tls.Config // shared, never changed
	dial         func(context.Context) (net.Conn, error)
	objectID     atomic.Bool              // it had OBJECTID at the last login
	capabilities atomic.Pointer[[]string] // before the last login; nil: not known
}

func newServer(opts *Options, dial func(context.Context) (net.Conn, error)) *server {
	return &server{opts: opts, tls: opts.tlsConfig(), dial: dial}
}

// connect dials, negotiates TLS, and reads greeting and capabilities. Errors are
// *proxy.Error.
func (s *server) connect(ctx context.Context) (*upstream, error) {
	dialCtx, cancel := context.WithTimeout(ctx, connectTimeout)
	raw, err := s.dial(dialCtx)
	cancel()
	if err != nil {
		return nil, mapDial(err)
	}
	u := &upstream{opts: s.opts, server: s}
	conn := raw
	if s.opts.TLS == TLSImplicit {
		if conn, err = u.handshake(ctx, raw); err != nil {
			raw.Close()
			return nil, u.tlsFailed(ctx, err)
		}
	}
	u.conn = wire.New(conn, progressTimeout)
	defer u.watch(ctx)()
	if err := u.greet(ctx); err != nil {
		u.conn.Close()
		return nil, err
	}
	return u, nil
}

func (u *upstream) handshake(ctx context.Context, conn net.Conn) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, tlsTimeout)
	defer cancel()
	t := tls.Client(conn, u.server.tls)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	state := t.ConnectionState()
	u.tls = &state
	return t, nil
}

// tlsFailed logs a failed handshake as what it may be: an attacker in between.
func (u *upstream) tlsFailed(ctx context.Context, err error) *proxy.Error {
	e := mapTLS(err)
	if e.Code == proxy.CodeSysPerm {
		proxy.Logger(ctx).WarnContext(ctx, "security: upstream TLS failed",
			"upstream", u.opts.Name, "error", err)
	}
	return e
}

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

// greet reads the greeting, negotiates STARTTLS where that is configured, and
// learns the capabilities.
func (u *upstream) greet(ctx context.Context) error {
	u.conn.SetProgress(greetingTimeout)
	greeting, err := u.conn.Greeting()
	if err != nil {
		return u.lost(atConnect, err)
	}
	u.conn.SetProgress(progressTimeout)
	u.greeting = greeting.String()
	switch greeting.Type {
	case "BYE":
		return u.failed(atConnect, "greeting", greeting, nil)
	case "PREAUTH":
		// The upstream has not checked the user, and on a plain connection
		// it may be an attacker's way around STARTTLS (I-CONN-1).
		return setupError(errors.New("imap: greeting PREAUTH: the upstream does not check the user"))
	}
	if u.opts.TLS == TLSStartTLS {
		if err := u.startTLS(ctx); err != nil {
			return err
		}
	}
	if u.conn.Capabilities() == nil {
		if err := u.askCapabilities(ctx); err != nil {
			return err
		}
	}
	if !u.conn.Has("IMAP4REV1") && !u.conn.Has("IMAP4REV2") {
		return setupError(errors.New("imap: the upstream speaks neither IMAP4rev1 nor IMAP4rev2"))
	}
	capabilities := u.conn.Capabilities()
	u.server.capabilities.Store(&capabilities)
	return nil
}

// startTLS is strict: whatever prevents it ends the attempt before a
// credential is sent (O-TLS-7).
func (u *upstream) startTLS(ctx context.Context) error {
	if caps := u.conn.Capabilities(); caps != nil && !u.conn.Has("STARTTLS") {
		return setupError(errors.New("imap: the upstream does not offer STARTTLS"))
	}
	status, err := u.run(ctx, "STARTTLS")
	if err != nil {
		return u.lost(atConnect, err)
	}
	if !status.OK() {
		return setupError(fmt.Errorf("imap: STARTTLS: %s", status))
	}
	err = u.conn.Upgrade(func(conn net.Conn) (net.Conn, error) { return u.handshake(ctx, conn) })
	if err != nil {
		return u.tlsFailed(ctx, err)
	}
	return nil
}

func (u *upstream) askCapabilities(ctx context.Context) error {
	status, err := u.run(ctx, "CAPABILITY")
	if err != nil {
		return u.lost(atConnect, err)
	}
	if !status.OK() {
		return u.failed(atConnect, "CAPABILITY", status, nil)
	}
	return nil
}
