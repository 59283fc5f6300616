package proxy

import (
	"crypto/tls"
	"log/slog"
	"net/netip"
	"time"
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

	// Mechanisms are the SASL mechanisms offered, of "PLAIN" and "LOGIN", in
	// the order in which they are listed. nil: both. Empty but not nil: none.
	Mechanisms []string

	// HiddenCapabilities are left out of CAPA. Hiding "TOP" also switches
	// the command off.
	HiddenCapabilities []string
}

// TLSMode says how connections to a listener are protected.
type TLSMode string

// The modes of a listener.
const (
	TLSNone     TLSMode = "none"     // plain, no STLS
	TLSStartTLS TLSMode = "starttls" // plain until STLS (RFC 2595 §4)
	TLSImplicit TLSMode = "implicit" // TLS from the first octet (RFC 8314 §3.3)
)

// ListenerOptions describe one listener of a Server.
type ListenerOptions struct {
	// Mode is TLSNone, TLSStartTLS or TLSImplicit; the latter two need TLS.
	Mode TLSMode
	TLS  *tls.Config

	// InsecureLoginFrom are the networks whose clients may log in without
	// TLS.
	InsecureLoginFrom []netip.Prefix
}
