// Package endpoint holds what the two sides of the gateway have in common: the
// form of addresses, and the cipher suites of a connection that is to be safe.
package endpoint

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// A PortError is the error of an address whose port is not a number in range.
type PortError struct{ Port string }

func (e *PortError) Error() string { return fmt.Sprintf("%q is not a port", e.Port) }

// Split splits an address of the form host:port, with an IPv6 host in brackets.
// The host may be empty; the port is a number from least to 65535. The error
// says what is wrong with the address, and is a *PortError where the port is.
func Split(address string, least uint16) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		if e, ok := errors.AsType[*net.AddrError](err); ok && strings.HasPrefix(e.Err, "missing port") {
			return "", 0, fmt.Errorf("%q has no port", address)
		}
		return "", 0, fmt.Errorf("%q is not host:port", address)
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || uint16(n) < least {
		return "", 0, &PortError{text}
	}
	return host, uint16(n), nil
}

// IsLoopback reports whether host, a name or an address without its port, can
// only be this machine.
func IsLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// Suites returns the cipher suites of TLS 1.2 that have ephemeral keys and
// authenticated encryption (RFC 9325 §4.2). Those of TLS 1.3 are fixed, and
// crypto/tls prefers the strong ones by itself. The slice is the caller's.
func Suites() []uint16 {
	return []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}
}
