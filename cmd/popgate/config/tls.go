package config

import (
	"crypto/tls"

	"popgate/proxy/endpoint"
)

// Cipher suites of TLS before 1.3 beyond endpoint.Suites.
var (
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

// lowered reports whether a listener accepts more than RFC 9325 allows, for
// vintage clients (O-TLS-2).
func (l *Listener) lowered() bool {
	return l.LegacyCiphers || l.MinTLS < tls.VersionTLS12
}

// listenerTLS is the TLS configuration of l. A client that offers only foreign
// protocols by ALPN is refused with no_application_protocol; one without ALPN
// is welcome. Ticket keys are left to crypto/tls, which renews them daily, and
// renegotiation does not exist in it.
func listenerTLS(l *Listener) *tls.Config {
	suites := endpoint.Suites()
	if l.lowered() {
		suites = append(suites, oldSuites...)
	}
	if l.LegacyCiphers {
		suites = append(suites, vintageSuites...)
	}
	return &tls.Config{
		GetCertificate: l.Certificates.Choose,
		MinVersion:     l.MinTLS,
		CipherSuites:   suites,
		NextProtos:     []string{"pop3"},
	}
}
