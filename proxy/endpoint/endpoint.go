// Package endpoint has what the client side and the upstream side of the gateway
// share: the form of addresses, and the cipher suites of TLS 1.2.
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

// PortError is the error of an address whose port is not a number in range.
type PortError struct{ Port string }

func (e *PortError) Error() string { return fmt.Sprintf("%q is not a port", e.Port) }

// Split splits an address of the form host:port, with an IPv6 host in brackets.
// The host may be empty. The port is a number from least to 65535; if it is not,
// the error is a *PortError.
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

// IsLoopback reports whether host, a name or an address without port, is
// localhost or a loopback address.
func IsLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	a, err := netip.ParseAddr(host)
	return err == nil && a.Unmap().IsLoopback()
}

// Suites returns the cipher suites of TLS 1.2 that have ephemeral keys and
// authenticated encryption (RFC 9325 §4.2). crypto/tls chooses among them, and
// does not let those of TLS 1.3 be configured. The caller owns the slice.
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
