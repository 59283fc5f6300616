package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// Connect dials, negotiates TLS, and reads greeting and capabilities. Errors are
// *proxy.Error.
func (s *Server) Connect(ctx context.Context) (*Conn, error) {
	dialCtx, cancel := context.WithTimeout(ctx, ConnectTimeout)
	raw, err := s.opts.Dial(dialCtx)
	cancel()
	if err != nil {
		return nil, dialError(err)
	}
	u := &Conn{opts: &s.opts, server: s}
	conn := raw
	if s.opts.TLS == proxy.TLSImplicit {
		if conn, err = u.handshake(ctx, raw); err != nil {
			raw.Close()
			return nil, u.tlsFailed(ctx, err)
		}
	}
	u.Wire = wire.New(conn, ProgressTimeout)
	defer u.Watch(ctx)()
	if err := u.greet(ctx); err != nil {
		u.Wire.Close()
		return nil, err
	}
	return u, nil
}

func (u *Conn) handshake(ctx context.Context, conn net.Conn) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, TLSTimeout)
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
func (u *Conn) tlsFailed(ctx context.Context, err error) *proxy.Error {
	e := tlsError(err)
	if e.Code == proxy.CodeSysPerm {
		proxy.Logger(ctx).WarnContext(ctx, "security: upstream TLS failed",
			"upstream", u.opts.Name, "error", err)
	}
	return e
}

// greet reads the greeting, negotiates STARTTLS where that is configured, and
// learns the capabilities.
func (u *Conn) greet(ctx context.Context) error {
	u.Wire.SetProgress(GreetingTimeout)
	greeting, err := u.Wire.Greeting()
	if err != nil {
		return u.Lost(AtConnect, err)
	}
	u.Wire.SetProgress(ProgressTimeout)
	u.greeting = greeting.String()
	switch greeting.Type {
	case "BYE":
		return u.Failed(AtConnect, "greeting", greeting, nil)
	case "PREAUTH":
		// The upstream has not checked the user, and on a plain connection
		// it may be an attacker's way around STARTTLS (I-CONN-1).
		return SetupError(errors.New("imap: greeting PREAUTH: the upstream does not check the user"))
	}
	if u.opts.TLS == proxy.TLSStartTLS {
		if err := u.startTLS(ctx); err != nil {
			return err
		}
	}
	if u.Wire.Capabilities() == nil {
		if err := u.askCapabilities(ctx); err != nil {
			return err
		}
	}
	if !u.Wire.Has("IMAP4REV1") && !u.Wire.Has("IMAP4REV2") {
		return SetupError(errors.New("imap: the upstream speaks neither IMAP4rev1 nor IMAP4rev2"))
	}
	capabilities := u.Wire.Capabilities()
	u.server.capabilities.Store(&capabilities)
	return nil
}

// startTLS is strict: whatever prevents it ends the attempt before a
// credential is sent (O-TLS-7).
func (u *Conn) startTLS(ctx context.Context) error {
	if caps := u.Wire.Capabilities(); caps != nil && !u.Wire.Has("STARTTLS") {
		return SetupError(errors.New("imap: the upstream does not offer STARTTLS"))
	}
	status, err := u.run(ctx, "STARTTLS")
	if err != nil {
		return u.Lost(AtConnect, err)
	}
	if !status.OK() {
		return SetupError(fmt.Errorf("imap: STARTTLS: %s", status))
	}
	err = u.Wire.Upgrade(func(conn net.Conn) (net.Conn, error) { return u.handshake(ctx, conn) })
	if err != nil {
		return u.tlsFailed(ctx, err)
	}
	return nil
}

func (u *Conn) askCapabilities(ctx context.Context) error {
	status, err := u.run(ctx, "CAPABILITY")
	if err != nil {
		return u.Lost(AtConnect, err)
	}
	if !status.OK() {
		return u.Failed(AtConnect, "CAPABILITY", status, nil)
	}
	return nil
}
