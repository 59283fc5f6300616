package certificates

import (
	"crypto/tls"
	"crypto/x509"
	"net/netip"
	"strings"
)

// Set is the certificates of one listener.
type Set struct {
	Pairs []*Pair // the default first

	// Lenient sends the default certificate to a client that asks for an
	// unknown name. Otherwise that client is refused with the alert
	// unrecognized_name (O-TLS-4). Old clients neither understand the alert
	// nor check names well, so listeners for them are lenient, and no others.
	Lenient bool
}

// Choose is for tls.Config.GetCertificate. Of several certificates for the name
// it returns the first that the client supports, so a name may have an RSA and
// an ECDSA certificate. If it returns neither a certificate nor an error,
// crypto/tls sends the alert unrecognized_name.
func (s *Set) Choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	// An address is not a name (RFC 6066 §3), but old clients send it.
	name := strings.TrimSuffix(hello.ServerName, ".")
	if _, err := netip.ParseAddr(name); err == nil {
		name = ""
	}
	if cert := s.find(hello, name); cert != nil || !s.Lenient {
		return cert, nil
	}
	return s.find(hello, ""), nil
}

// isFor reports whether a certificate is for name. Old self-signed certificates
// have their name only as the common name, and some clients accept that.
func isFor(leaf *x509.Certificate, name string) bool {
	if len(leaf.DNSNames) == 0 {
		return strings.EqualFold(leaf.Subject.CommonName, name)
	}
	return leaf.VerifyHostname(name) == nil
}

// find returns the certificate for name, nil if there is none. Every certificate
// is for "".
func (s *Set) find(hello *tls.ClientHelloInfo, name string) *tls.Certificate {
	var first *tls.Certificate
	for _, p := range s.Pairs {
		cert := p.current.Load()
		if name != "" && !isFor(cert.Leaf, name) {
			continue
		}
		if hello.SupportsCertificate(cert) == nil {
			return cert
		}
		if first == nil {
			first = cert
		}
	}
	return first
}
