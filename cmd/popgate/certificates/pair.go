package certificates

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
)

// Pair is a certificate and its key, in two files that may be replaced while the
// Pair is in use. It is safe for concurrent use.
type Pair struct {
	certFile, keyFile string
	current           atomic.Pointer[tls.Certificate]

	mu      sync.Mutex
	digest  [sha256.Size]byte // of the files when current was read
	problem string            // the last error logged about them, "" if they are good
}

// ReadPair reads a pair of PEM files: the certificate, with its intermediates
// after it, and its key.
func ReadPair(certFile, keyFile string) (*Pair, error) {
	p := &Pair{certFile: certFile, keyFile: keyFile}
	_, err := p.read()
	return p, err
}

// CertFile returns the name of the certificate's file.
func (p *Pair) CertFile() string { return p.certFile }

// Leaf returns the certificate in use.
func (p *Pair) Leaf() *x509.Certificate { return p.current.Load().Leaf }

// read reads the files and reports whether they have changed; it then uses the
// new pair. After an error the old pair stays in use.
func (p *Pair) read() (changed bool, err error) {
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

// reload reads the files again and logs the result (O-TLS-5); the same error is
// logged only once.
func (p *Pair) reload(log *slog.Logger) {
	p.mu.Lock()
	defer p.mu.Unlock()
	changed, err := p.read()
	switch {
	case err != nil && err.Error() != p.problem:
		p.problem = err.Error()
		log.Error("certificate not reloaded, the old pair stays in use",
			"cert_file", p.certFile, "key_file", p.keyFile, "error", err)
	case err == nil && (changed || p.problem != ""):
		p.problem = ""
		log.Info("certificate reloaded", "cert_file", p.certFile, "until", p.Leaf().NotAfter)
	}
}
