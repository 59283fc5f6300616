package upstream

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"popgate/imapbackend/dialect"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// Connect opens a connection up to the point where a user can log in, and
// reports the attempt to the Observer. It is one of at, which has judged it where
// there is an error. The caller closes the Conn. Errors are *proxy.Error.
func (s *Server) Connect(ctx context.Context, at *Attempt) (*Conn, error) {
	began := time.Now()
	u, err := s.open(ctx, at)
	s.report(proxy.UpstreamOpened, err, time.Since(began))
	return u, err
}

// open dials, negotiates TLS, and reads greeting and capabilities.
func (s *Server) open(ctx context.Context, at *Attempt) (*Conn, error) {
	at.made++
	at.again = false
	dialCtx, cancel := context.WithTimeout(ctx, ConnectTimeout)
	link, err := s.opts.Dial(dialCtx)
	cancel()
	if ctx.Err() != nil && err != nil {
		return nil, TempError(context.Cause(ctx))
	}
	if err != nil {
		return nil, dialError(err)
	}
	defer func() {
		if p := recover(); p != nil {
			link.Close()
			panic(p)
		}
	}()
	c := &Conn{opts: &s.opts, server: s, attempt: at, link: link}
	conn := link.Conn
	if link.TLS == proxy.TLSImplicit {
		if conn, err = c.handshake(ctx, link.Conn); err != nil {
			link.Close()
			e := c.tlsFailed(ctx, err)
			at.again = e.Code == proxy.CodeSysTemp && isLost(err) && at.mayReplace(ctx)
			return nil, e
		}
	}
	c.Wire = wire.New(conn, ProgressTimeout)
	if s.opts.Tap != nil {
		c.Wire.SetTap(s.opts.Tap())
	}
	defer c.Watch(ctx)()
	if err := c.greet(ctx); err != nil {
		at.Judge(ctx, c)
		c.Wire.Close()
		return nil, err
	}
	return c, nil
}

func (c *Conn) handshake(ctx context.Context, conn net.Conn) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, TLSTimeout)
	defer cancel()
	t := tls.Client(conn, c.link.tlsConfig(c.server.tls))
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	state := t.ConnectionState()
	c.TLS = &state
	return t, nil
}

// tlsConfig returns base for the link.
func (l *Link) tlsConfig(base *tls.Config) *tls.Config {
	config := base.Clone()
	config.ServerName = l.ServerName
	if l.Accepts == nil {
		return config
	}
	roots := base.RootCAs
	config.InsecureSkipVerify = true // VerifyConnection verifies all but the name alike
	config.VerifyConnection = func(state tls.ConnectionState) error {
		chain := state.PeerCertificates
		intermediates := x509.NewCertPool()
		for _, cert := range chain[1:] {
			intermediates.AddCert(cert)
		}
		_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: intermediates})
		if err == nil {
			err = l.Accepts(chain[0])
		}
		if err != nil {
			return &tls.CertificateVerificationError{UnverifiedCertificates: chain, Err: err}
		}
		return nil
	}
	return config
}

// tlsFailed returns the error of a failed handshake. It logs those that an
// attacker may have caused.
func (c *Conn) tlsFailed(ctx context.Context, err error) *proxy.Error {
	e := tlsError(err)
	if e.Code == proxy.CodeSysPerm {
		proxy.Logger(ctx).WarnContext(ctx, "security: upstream TLS failed",
			"upstream", c.opts.Name, "error", err)
	}
	return e
}

// greet reads the greeting, negotiates STARTTLS where that is configured, and
// learns the capabilities and with them the dialect.
func (c *Conn) greet(ctx context.Context) error {
	c.Wire.SetProgress(GreetingTimeout)
	greeting, err := c.Wire.Greeting()
	if err != nil {
		return greetingError(c.CleanError(err))
	}
	c.Wire.SetProgress(ProgressTimeout)
	c.Greeting = greeting.String()
	switch greeting.Type {
	case "BYE":
		return c.Failed(AtConnect, "greeting", greeting, nil)
	case "PREAUTH":
		// The upstream has not verified the user; and without TLS an
		// attacker may have sent it to prevent STARTTLS (I-CONN-1).
		return SetupError(errors.New("imap: greeting PREAUTH: the upstream does not verify the user"))
	}
	c.greeted = true
	if c.link.TLS == proxy.TLSStartTLS {
		if err := c.startTLS(ctx); err != nil {
			return err
		}
	}
	if c.Wire.Capabilities() == nil {
		if err := c.askCapabilities(ctx); err != nil {
			return err
		}
	}
	if !c.Wire.Has("IMAP4REV1") && !c.Wire.Has("IMAP4REV2") {
		return SetupError(errors.New("imap: the upstream speaks neither IMAP4rev1 nor IMAP4rev2"))
	}
	capabilities := c.Wire.Capabilities()
	c.server.capabilities.Store(&capabilities)
	c.dialect = c.opts.Dialect.Dialect(c.Greeting, capabilities)
	c.learned = c.server.learnedOf(c.Greeting, capabilities)
	return c.introduce(ctx)
}

// introduce sends ID and waits for the answer, as long as for the greeting at
// most, unless ID can be sent with the login.
func (c *Conn) introduce(ctx context.Context) error {
	if c.uses(dialect.IDFlight) || !c.sendsID() {
		return nil
	}
	c.identified = true
	c.dare(dialect.ID, GreetingTimeout)
	status, err := c.run(ctx, c.opts.idCommand(ctx))
	if err != nil {
		return c.Lost(AtConnect, err)
	}
	c.dare(0, ProgressTimeout)
	switch status.Type {
	case "OK":
		c.succeeded(dialect.ID)
	case "BAD":
		c.failed(ctx, dialect.ID, true, fmt.Errorf("imap: ID: %s", c.Clean(status.String())))
	}
	return nil
}

// sendsID reports whether ID is to be sent before the login.
func (c *Conn) sendsID() bool { return !c.identified && c.Wire.Has("ID") && c.uses(dialect.ID) }

// startTLS negotiates TLS. Any failure ends the attempt before a credential is
// sent (O-TLS-7).
func (c *Conn) startTLS(ctx context.Context) error {
	if caps := c.Wire.Capabilities(); caps != nil && !c.Wire.Has("STARTTLS") {
		return SetupError(errors.New("imap: the upstream does not offer STARTTLS"))
	}
	status, err := c.run(ctx, "STARTTLS")
	if err != nil {
		return c.Lost(AtConnect, err)
	}
	if !status.OK() {
		return SetupError(fmt.Errorf("imap: STARTTLS: %s", status))
	}
	err = c.Wire.Upgrade(func(conn net.Conn) (net.Conn, error) { return c.handshake(ctx, conn) })
	if err != nil {
		e := c.tlsFailed(ctx, err)
		c.final = !isLost(err)
		return e
	}
	return nil
}

func (c *Conn) askCapabilities(ctx context.Context) error {
	status, err := c.run(ctx, "CAPABILITY")
	if err != nil {
		return c.Lost(AtConnect, err)
	}
	if !status.OK() {
		return c.Failed(AtConnect, "CAPABILITY", status, nil)
	}
	return nil
}
