package main

import "crypto/tls"

// listenerTLS is the TLS configuration of a listener (RFC 9325): TLS 1.3, and
// TLS 1.2 with ephemeral keys and authenticated encryption, unless minimum is
// "1.3". A client that offers only foreign protocols by ALPN is refused with
// no_application_protocol; one without ALPN is welcome. Ticket keys are left to
// crypto/tls, which renews them daily.
func listenerTLS(cert tls.Certificate, minimum string) *tls.Config {
	cfg := &tls.Config{
		Certificates: []tls.Certificate{cert},
		MinVersion:   tls.VersionTLS12,
		CipherSuites: []uint16{ // of TLS 1.2; those of 1.3 are fixed
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		NextProtos: []string{"pop3"},
	}
	if minimum == "1.3" {
		cfg.MinVersion = tls.VersionTLS13
	}
	return cfg
}
