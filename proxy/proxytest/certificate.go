package proxytest

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// CertificateOptions describe a certificate. The zero value is one for localhost
// and 127.0.0.1 with an ECDSA key, signed by a new authority, and valid both now
// and in fake time, which starts on 2000-01-01.
type CertificateOptions struct {
	// Names are the alternative names: DNS names and IP addresses. nil: the
	// default; empty but not nil: none.
	Names []string

	// CommonName is the subject. "": the first of Names.
	CommonName string

	// Until is the end of the validity, which then begins a year and a day
	// earlier. Zero: valid from 1999 to 2098.
	Until time.Time

	// RSA makes the key an RSA key of 2048 bits.
	RSA bool

	// SelfSigned makes the certificate its own authority.
	SelfSigned bool
}

// Certificate is a certificate with its key and its authority.
type Certificate struct {
	Pair tls.Certificate
	CA   *x509.CertPool

	CertPEM, KeyPEM, CAPEM []byte
}

// NewCertificate creates a certificate.
func NewCertificate(t testing.TB, o CertificateOptions) *Certificate {
	t.Helper()
	if o.Names == nil {
		o.Names = []string{"localhost", "127.0.0.1"}
	}
	key, keyPEM := newKey(t, o.RSA)
	leaf := o.template(t)
	leaf.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	leaf.KeyUsage = x509.KeyUsageDigitalSignature
	if o.RSA {
		leaf.KeyUsage |= x509.KeyUsageKeyEncipherment
	}
	leaf.CRLDistributionPoints = []string{"http://127.0.0.1/crl"} // TLS scanners complain without

	ca, caKey := leaf, key
	if o.SelfSigned {
		authority(leaf)
	} else {
		ca, caKey = o.template(t), newECDSA(t)
		ca.Subject.CommonName = "proxytest CA"
		ca.DNSNames, ca.IPAddresses = nil, nil
		authority(ca)
		ca = sign(t, ca, ca, caKey, caKey)
	}
	cert := sign(t, leaf, ca, key, caKey)
	if o.SelfSigned {
		ca = cert
	}
	c := &Certificate{
		Pair:    tls.Certificate{Certificate: [][]byte{cert.Raw}, PrivateKey: key, Leaf: cert},
		CA:      x509.NewCertPool(),
		CertPEM: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}),
		KeyPEM:  keyPEM,
		CAPEM:   pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw}),
	}
	c.CA.AddCert(ca)
	return c
}

// WriteFiles writes cert.pem, key.pem and ca.pem to dir.
func (c *Certificate) WriteFiles(t testing.TB, dir string) {
	t.Helper()
	for name, data := range map[string][]byte{"cert.pem": c.CertPEM, "key.pem": c.KeyPEM, "ca.pem": c.CAPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// Server returns the configuration of a TLS server with the certificate.
func (c *Certificate) Server() *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{c.Pair}}
}

// template returns what the certificate and its authority have in common.
func (o CertificateOptions) template(t testing.TB) *x509.Certificate {
	t.Helper()
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: serial,
		NotBefore:    time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:     time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	if !o.Until.IsZero() {
		c.NotBefore, c.NotAfter = o.Until.AddDate(-1, 0, -1), o.Until
	}
	for _, name := range o.Names {
		if ip := net.ParseIP(name); ip != nil {
			c.IPAddresses = append(c.IPAddresses, ip)
		} else {
			c.DNSNames = append(c.DNSNames, name)
		}
	}
	if c.Subject.CommonName = o.CommonName; o.CommonName == "" {
		c.Subject.CommonName = o.Names[0]
	}
	return c
}

// authority lets c sign certificates.
func authority(c *x509.Certificate) {
	c.KeyUsage |= x509.KeyUsageCertSign
	c.BasicConstraintsValid, c.IsCA = true, true
}

// newKey returns a key, also in PEM: RSA in PKCS #1, ECDSA in PKCS #8.
func newKey(t testing.TB, withRSA bool) (crypto.Signer, []byte) {
	t.Helper()
	if withRSA {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		return key, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	}
	key := newECDSA(t)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func newECDSA(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign returns a certificate for key, as described by template, signed by parent.
func sign(t testing.TB, template, parent *x509.Certificate, key, parentKey crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), parentKey)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}
