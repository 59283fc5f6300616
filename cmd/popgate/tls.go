package main

import "crypto/tls"

// Cipher suites of TLS before 1.3, whose own are fixed. crypto/tls prefers them
// in an order of its own, the strong first.
var (
	// modernSuites have ephemeral keys and authenticated encryption (RFC 9325
	// §4.2).
	modernSuites = []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
		tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	}

	// oldSuites are the best that TLS before 1.2 has: ephemeral keys, CBC.
	oldSuites = []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,
		tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA,
		tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
	}

	// vintageSuites are for clients from before ephemeral keys and AES; they
	// need a certificate with an RSA key.
	vintageSuites = []uint16{
		tls.TLS_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_RSA_WITH_AES_128_CBC_SHA,
		tls.TLS_RSA_WITH_AES_256_CBC_SHA,
		tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA,
		tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA,
	}
)

// tlsVersions are the values of min_tls.
var tlsVersions = map[string]uint16{
	"1.0": tls.VersionTLS10,
	"1.1": tls.VersionTLS11,
	"1.2": tls.VersionTLS12,
	"1.3": tls.VersionTLS13,
}

// lowered reports whether a listener accepts more than RFC 9325 allows, for
// vintage clients (O-TLS-2).
func (l *listener) lowered() bool {
	return l.LegacyCiphers || tlsVersions[l.MinTLS] < tls.VersionTLS12
}

// listenerTLS is the TLS configuration of l. A client that offers only foreign
// protocols by ALPN is refused with no_application_protocol; one without ALPN
// is welcome. Ticket keys are left to crypto/tls, which renews them daily, and
// renegotiation does not exist in it.
func listenerTLS(l *listener) *tls.Config {
	suites := append([]uint16{}, modernSuites...)
	if l.lowered() {
		suites = append(suites, oldSuites...)
	}
	if l.LegacyCiphers {
		suites = append(suites, vintageSuites...)
	}
	return &tls.Config{
		GetCertificate: l.certificates.choose,
		MinVersion:     tlsVersions[l.MinTLS],
		CipherSuites:   suites,
		NextProtos:     []string{"pop3"},
	}
}
