package main

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
)

// keyPair is a certificate and its key in two files, which may be replaced
// while it is in use.
type keyPair struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]

	mu        sync.Mutex
	digest    [sha256.Size]byte // of the files when current was read
	complaint string            // what was last logged about them, "" if they are good
}

// readKeyPair reads a pair for the first time.
func readKeyPair(certFile, keyFile string) (*keyPair, error) {
	p := &keyPair{certFile: certFile, keyFile: keyFile}
	_, err := p.read()
	return p, err
}

// read reads the files and reports whether they were others than those in use,
// which then are replaced. After an error the old pair stays.
func (p *keyPair) read() (changed bool, err error) {
	certPEM, err := os.ReadFile(p.certFile)
	if err != nil {
		return false, err
	}
	keyPEM, err := os.ReadFile(p.keyFile)
	if err != nil {
		return false, err
	}
	h := sha256.New()
	h.Write(certPEM)
	h.Write(keyPEM)
	digest := [sha256.Size]byte(h.Sum(nil))
	if p.current.Load() != nil && digest == p.digest {
		return false, nil
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return false, err
	}
	p.current.Store(&cert)
	p.digest = digest
	return true, nil
}

// reload reads the files again and logs what comes of it (O-TLS-5); the same
// complaint is logged once only.
func (p *keyPair) reload(log *slog.Logger) {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed, err := p.read()
	switch {
	case err != nil && err.Error() != p.complaint:
		p.complaint = err.Error()
		log.Error("certificate not reloaded, the old pair stays in use",
			"cert_file", p.certFile, "key_file", p.keyFile, "error", err)
	case err == nil && (changed || p.complaint != ""):
		p.complaint = ""
		log.Info("certificate reloaded", "cert_file", p.certFile, "until", p.current.Load().Leaf.NotAfter)
	}
}

// certificates are those of one listener, the default first.
type certificates struct {
	pairs []*keyPair

	// lenient has a client that asks for an unknown name get the default
	// certificate. Otherwise it is refused with the alert unrecognized_name
	// (O-TLS-4). Old clients neither understand the alert nor check names
	// well, so listeners for them are lenient, and no others.
	lenient bool
}

// choose implements tls.Config.GetCertificate. Of several that fit, the first
// that the client can use is taken, so a name may have an RSA and an ECDSA
// certificate. No certificate and no error stand for the alert
// unrecognized_name in crypto/tls.
func (c *certificates) choose(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	// An address is no name (RFC 6066 §3), but old clients send it.
	name := strings.TrimSuffix(hello.ServerName, ".")
	if _, err := netip.ParseAddr(name); err == nil {
		name = ""
	}
	if cert := c.find(hello, name); cert != nil || !c.lenient {
		return cert, nil
	}
	return c.find(hello, ""), nil
}

// isFor reports whether a certificate is for name. Old self-made certificates
// have their name as common name only; clients that take such a one are served.
func isFor(leaf *x509.Certificate, name string) bool {
	if len(leaf.DNSNames) == 0 {
		return strings.EqualFold(leaf.Subject.CommonName, name)
	}
	return leaf.VerifyHostname(name) == nil
}

// find returns the certificate for name, "" standing for all names.
func (c *certificates) find(hello *tls.ClientHelloInfo, name string) *tls.Certificate {
	var first *tls.Certificate
	for _, p := range c.pairs {
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
