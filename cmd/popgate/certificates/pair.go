package certificates

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
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

// Files returns the names of both files.
func (p *Pair) Files() []string { return []string{p.certFile, p.keyFile} }

// CertFile returns the name of the certificate's file.
func (p *Pair) CertFile() string { return p.certFile }

// Leaf returns the certificate in use.
func (p *Pair) Leaf() *x509.Certificate { return p.current.Load().Leaf }

// expiryNotice is how long before its end a certificate is warned about.
const expiryNotice = 14 * 24 * time.Hour

// Expiry returns what an operator should know of the end of the certificate in use:
// that it has expired, or will within 14 days; else "".
func (p *Pair) Expiry(now time.Time) string {
	switch left := p.Leaf().NotAfter.Sub(now); {
	case left < 0:
		return "certificate has expired"
	case left < expiryNotice:
		return "certificate expires within 14 days"
	}
	return ""
}

// WarnDaily warns once a day, until ctx ends, of pairs that are about to expire or
// have expired.
func WarnDaily(ctx context.Context, pairs []*Pair, log *slog.Logger) {
	daily := time.NewTicker(24 * time.Hour)
	defer daily.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-daily.C:
			for _, p := range pairs {
				p.warnOfExpiry(now, log)
			}
		}
	}
}

// warnOfExpiry logs what Expiry returns.
func (p *Pair) warnOfExpiry(now time.Time, log *slog.Logger) {
	if text := p.Expiry(now); text != "" {
		log.Warn(text, "cert_file", p.certFile, "on", p.Leaf().NotAfter.Format(time.DateOnly))
	}
}

// Exposed returns the permissions of the file name, as in "0644", if all users of
// the machine may read or change it; "" if not, or where there are no such
// permissions. Links are followed.
func Exposed(name string) string {
	fi, err := os.Stat(name)
	if err != nil || runtime.GOOS == "windows" || fi.Mode().Perm()&0o006 == 0 {
		return ""
	}
	return fmt.Sprintf("%04o", fi.Mode().Perm())
}

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

// Reload reads the files again and logs the result (O-TLS-5); the same error is
// logged only once. After an error the old pair stays in use.
func (p *Pair) Reload(log *slog.Logger) {
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
		p.warnOfExpiry(time.Now(), log)
		if mode := Exposed(p.keyFile); mode != "" {
			log.Warn("all users of this machine may read or change the key", "key_file", p.keyFile, "mode", mode)
		}
	}
}
