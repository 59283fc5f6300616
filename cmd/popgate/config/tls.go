package config

import (
	"crypto/tls"

	"popgate/proxy/endpoint"
)

// Cipher suites of TLS 1.2 and older in addition to endpoint.Suites.
var (
	// oldSuites are the best that TLS 1.1 and older have: ephemeral keys, CBC.
	oldSuites = []uint16{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,
		tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA,
		tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
	}

	// vintageSuites are for clients without ephemeral keys or AES; they need a
	// certificate with an RSA key.
	vintageSuites = []uint16{
		tls.TLS_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_RSA_WITH_AES_128_CBC_SHA,
		tls.TLS_RSA_WITH_AES_256_CBC_SHA,
		tls.TLS_ECDHE_RSA_WITH_3DES_EDE_CBC_SHA,
		tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA,
	}
)

// acceptsOldTLS reports whether a listener accepts more than RFC 9325 allows,
// for vintage clients (O-TLS-2).
func (l *Listener) acceptsOldTLS() bool {
	return l.LegacyCiphers || l.MinTLS < tls.VersionTLS12
}

// listenerTLS returns the TLS configuration of l. A client that offers only
// other protocols by ALPN is refused with the alert no_application_protocol; a
// client without ALPN is accepted. crypto/tls renews its ticket keys daily, and
// its servers do not renegotiate.
func listenerTLS(l *Listener) *tls.Config {
	suites := endpoint.Suites()
	if l.acceptsOldTLS() {
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
