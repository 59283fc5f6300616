package proxy

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"popgate/proxy/lock"
)

// Options of a Server. The zero value of a field is its default.
type Options struct {
	// Backend is required.
	Backend Backend

	// Logger gets one record a session at its end, and each command with its
	// status at level debug. nil: slog.Default().
	Logger *slog.Logger

	// Autologout ends a session that has sent no command for so long
	// (RFC 1939 §3). Default, and least: 10 minutes.
	Autologout time.Duration

	// LoginAttempts is the number of failed logins after which a connection
	// is closed. Default: 3.
	LoginAttempts int

	// NoAuthList makes AUTH without argument an error instead of the list of
	// mechanisms that clients from before RFC 5034 expect.
	NoAuthList bool

	// Mechanisms are the SASL mechanisms offered, in the order in which they
	// are listed: of "PLAIN", "LOGIN", and with a Backend that is an Exchanger
	// "XOAUTH2" and "OAUTHBEARER", and "CRAM-MD5", "SCRAM-SHA-1" and
	// "SCRAM-SHA-256", which are offered as long as the Exchanger does. nil:
	// the first two. Empty but not nil: none.
	Mechanisms []string

	// UTF8 offers UTF8 mode and names in UTF-8 (RFC 6856 §2).
	UTF8 bool

	// HiddenCapabilities are left out of CAPA. Hiding "TOP" also switches
	// the command off.
	HiddenCapabilities []string

	// Locker locks the maildrops, each by the Key of its Identity. nil: a
	// lock of this Server's own.
	Locker lock.Locker

	// Limits bound the connections; the zero value sets none.
	Limits Limits

	// Throttler slows down logins after failed ones. nil: none is slowed.
	Throttler Throttler

	// Observer is informed of sessions, logins, commands and refusals. nil:
	// nobody is.
	Observer Observer
}

// Defaults returns the Options that stand for their zero values.
func Defaults() Options {
	return Options{
		Autologout:    MinAutologout,
		LoginAttempts: 3,
		Mechanisms:    []string{mechPlain, mechLogin},
	}
}

// resolve returns o with its defaults, or what is wrong with it.
func (o Options) resolve() (Options, error) {
	defaults := Defaults()
	if o.Backend == nil {
		return o, errors.New("proxy: no Backend")
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.Locker == nil {
		o.Locker = new(lock.Local)
	}
	o.Autologout = cmp.Or(o.Autologout, defaults.Autologout)
	if o.Autologout < MinAutologout {
		return o, fmt.Errorf("proxy: autologout %v is below the %v of RFC 1939 §3", o.Autologout, MinAutologout)
	}
	o.LoginAttempts = cmp.Or(o.LoginAttempts, defaults.LoginAttempts)
	if o.LoginAttempts < 0 {
		return o, fmt.Errorf("proxy: %d login attempts", o.LoginAttempts)
	}
	if l := o.Limits; l.Connections < 0 || l.PerAddress < 0 || l.Unauthenticated < 0 {
		return o, fmt.Errorf("proxy: negative limit in %+v", l)
	}
	if o.Mechanisms == nil {
		o.Mechanisms = defaults.Mechanisms
	}
	_, exchanger := o.Backend.(Exchanger)
	for _, name := range o.Mechanisms {
		m := findMechanism(name)
		if m == nil {
			return o, fmt.Errorf("proxy: unknown SASL mechanism %q", name)
		}
		if m.parse != nil && !exchanger {
			return o, fmt.Errorf("proxy: the Backend has no exchanges, as %s is", name)
		}
	}
	return o, nil
}

// MinAutologout is the least autologout that RFC 1939 §3 allows.
const MinAutologout = 10 * time.Minute

// TLSMode says how connections to a listener are protected.
type TLSMode string

// The modes of a listener.
const (
	TLSNone     TLSMode = "none"     // plain, no STLS
	TLSStartTLS TLSMode = "starttls" // plain until STLS (RFC 2595 §4)
	TLSImplicit TLSMode = "implicit" // TLS from the first octet (RFC 8314 §3.3)
)

// Values returns the modes there are.
func (TLSMode) Values() []TLSMode { return []TLSMode{TLSImplicit, TLSStartTLS, TLSNone} }

// ListenerOptions describe one listener of a Server.
type ListenerOptions struct {
	// Mode is TLSNone, TLSStartTLS or TLSImplicit; the latter two need TLS.
	Mode TLSMode
	TLS  *tls.Config

	// InsecureLoginFrom are the networks whose clients may log in without
	// TLS.
	InsecureLoginFrom []netip.Prefix

	// ProxyProtocolFrom, where not empty, are the networks of the proxies
	// before this listener. Each connection then begins with a PROXY protocol
	// header, version 1 or 2, which names the client; connections from
	// elsewhere are closed.
	ProxyProtocolFrom []netip.Prefix
}
