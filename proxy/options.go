package proxy

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"popgate/proxy/lock"
)

// Options are the options of a Server. The zero value of a field means its
// default.
type Options struct {
	// Backend logs users in. It is required.
	Backend Backend

	// Logger receives one record at the end of each session and, at level
	// debug, one for each command. nil: slog.Default().
	Logger *slog.Logger

	// Autologout ends a session that has sent no command for this long
	// (RFC 1939 §3). Default and minimum: 10 minutes.
	Autologout time.Duration

	// LoginAttempts is the number of failed logins after which a connection
	// is closed. Default: 3.
	LoginAttempts int

	// NoAuthList makes AUTH without argument an error instead of the list of
	// mechanisms that clients from before RFC 5034 expect.
	NoAuthList bool

	// Mechanisms are the SASL mechanisms to offer, in the order in which they
	// are listed. "PLAIN" and "LOGIN" work with any Backend; "XOAUTH2",
	// "OAUTHBEARER", "CRAM-MD5", "SCRAM-SHA-1" and "SCRAM-SHA-256" need an
	// Exchanger, and the last three are offered only while it offers them.
	// nil: PLAIN and LOGIN. Empty but not nil: none.
	Mechanisms []string

	// UTF8 offers UTF8 mode and names in UTF-8 (RFC 6856 §2).
	UTF8 bool

	// Expire is how long the upstream retains messages, for EXPIRE (RFC 2449
	// §6.7): a number of days, or "NEVER". The gateway itself removes nothing.
	// "": not announced.
	Expire string

	// LoginDelay is the least time between two logins to one maildrop, a
	// multiple of a second (RFC 2449 §6.5). A verified login that comes sooner is
	// refused. 0: none.
	LoginDelay time.Duration

	// Implementation is the IMPLEMENTATION that is announced after the login
	// (RFC 2449 §6.9). "": not announced.
	Implementation string

	// HiddenCapabilities are omitted from CAPA; letter case does not matter.
	// Hiding "TOP" also disables the command.
	HiddenCapabilities []string

	// Locker locks the maildrops, each by the Keys of its Identity. nil: a
	// lock.Local that only this Server uses.
	Locker lock.Locker

	// Limits limit the number of connections. The zero value sets no limit.
	Limits Limits

	// Throttler delays logins after failed ones. nil: no delay.
	Throttler Throttler

	// Observer is informed of sessions, logins, commands and refusals. nil:
	// no Observer.
	Observer Observer
}

// Defaults returns the defaults of those Options that are not zero by default.
func Defaults() Options {
	return Options{
		Autologout:    MinAutologout,
		LoginAttempts: 3,
		Mechanisms:    []string{mechPlain, mechLogin},
	}
}

// resolve returns o with defaults in place of zero values, or an error if o is
// invalid.
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
	if o.Expire != "" && o.Expire != "NEVER" && !isNumber(o.Expire) {
		return o, fmt.Errorf("proxy: EXPIRE %q is neither a number of days nor NEVER", o.Expire)
	}
	if o.LoginDelay < 0 || o.LoginDelay%time.Second != 0 {
		return o, fmt.Errorf("proxy: login delay %v is no multiple of a second", o.LoginDelay)
	}
	if strings.ContainsFunc(o.Implementation, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return o, fmt.Errorf("proxy: implementation %q is no word of printable ASCII", o.Implementation)
	}
	if o.Mechanisms == nil {
		o.Mechanisms = defaults.Mechanisms
	}
	if o.Throttler == nil {
		o.Throttler = noThrottler{}
	}
	_, exchanger := o.Backend.(Exchanger)
	for _, name := range o.Mechanisms {
		m := findMechanism(name)
		if m == nil {
			return o, fmt.Errorf("proxy: unknown SASL mechanism %q", name)
		}
		if m.parse != nil && !exchanger {
			return o, fmt.Errorf("proxy: SASL mechanism %s needs a Backend that is an Exchanger", name)
		}
	}
	return o, nil
}

// isNumber reports whether s is a whole number that is not negative.
func isNumber(s string) bool {
	_, err := strconv.ParseUint(s, 10, 31)
	return err == nil
}

// MinAutologout is the shortest autologout that RFC 1939 §3 allows.
const MinAutologout = 10 * time.Minute

// TLSMode is how connections to a listener are protected.
type TLSMode string

// The modes of a listener.
const (
	TLSNone     TLSMode = "none"     // plain, no STLS
	TLSStartTLS TLSMode = "starttls" // plain until STLS (RFC 2595 §4)
	TLSImplicit TLSMode = "implicit" // TLS from the first octet (RFC 8314 §3.3)
)

// Values returns all modes.
func (TLSMode) Values() []TLSMode { return []TLSMode{TLSImplicit, TLSStartTLS, TLSNone} }

// ListenerOptions describe one listener of a Server.
type ListenerOptions struct {
	// Mode is TLSNone, TLSStartTLS or TLSImplicit; the latter two need TLS.
	Mode TLSMode
	TLS  *tls.Config

	// InsecureLoginFrom are the networks whose clients may log in without
	// TLS.
	InsecureLoginFrom []netip.Prefix

	// ProxyProtocolFrom, if not empty, are the networks of the proxies in
	// front of this listener. Each connection must then begin with a PROXY
	// protocol header, version 1 or 2, which names the client. Connections
	// from elsewhere are closed.
	ProxyProtocolFrom []netip.Prefix
}
