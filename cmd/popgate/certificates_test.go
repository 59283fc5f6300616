package main

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// rsaCertificate returns a self-signed certificate for name, with an RSA key, as
// PEM.
func rsaCertificate(t *testing.T, until time.Time, name string) (certPEM, keyPEM []byte) {
	t.Helper()
	return certificateFor(t, until, name, name)
}

// certificateFor is rsaCertificate with a common name and alternative names.
func certificateFor(t *testing.T, until time.Time, common string, names ...string) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: common},
		DNSNames:              names,
		NotBefore:             time.Now().Add(-24 * time.Hour),
		NotAfter:              until,
		KeyUsage:              x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IsCA:                  true,
		BasicConstraintsValid: true,
		CRLDistributionPoints: []string{"http://127.0.0.1/crl"}, // a scanner misses them otherwise
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
}

func inAYear() time.Time { return time.Now().Add(365 * 24 * time.Hour) }

// rsaPair is rsaCertificate as a pair.
func rsaPair(t *testing.T, name string) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(rsaCertificate(t, inAYear(), name))
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// shake does a handshake and returns the client's view of it, and its error.
func shake(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Server(far, server).Handshake() // the client's error is the more telling
		_ = far.Close()
	}()
	client.InsecureSkipVerify = true // what is served is looked at by the caller
	conn := tls.Client(near, client)
	err := conn.Handshake()
	state := conn.ConnectionState()
	_ = near.Close()
	<-done
	return state, err
}

// O-TLS-4: which certificate a client gets.
func TestCertificateByName(t *testing.T) {
	common, err := tls.X509KeyPair(certificateFor(t, inAYear(), "old.example"))
	if err != nil {
		t.Fatal(err)
	}
	first, second, wild := rsaPair(t, "pop.example"), rsaPair(t, "mail.example"), rsaPair(t, "*.example.org")
	both := writePair(t, t.TempDir()) // ECDSA, for localhost
	old := rsaPair(t, "localhost")
	for _, c := range []struct {
		sni     string
		lenient bool
		want    string // common name, "" for the alert
	}{
		{"", false, "pop.example"},
		{"pop.example", false, "pop.example"},
		{"MAIL.example", false, "mail.example"},
		{"a.example.org", false, "*.example.org"},
		{"a.b.example.org", false, ""},
		{"other.example", false, ""},
		{"old.example", false, "old.example"},
		{"other.example", true, "pop.example"},
		{"mail.example", true, "mail.example"},
		{"", true, "pop.example"},
	} {
		l := listenerWith("1.2", c.lenient, first, second, wild, common)
		state, err := shake(t, listenerTLS(l), &tls.Config{ServerName: c.sni})
		if c.want == "" {
			if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
				t.Errorf("%q: %v, want the alert unrecognized_name", c.sni, err)
			}
			continue
		}
		if err != nil || state.PeerCertificates[0].Subject.CommonName != c.want {
			t.Errorf("%q: %v, want %s", c.sni, err, c.want)
		}
	}

	// A name with two kinds of keys.
	l := listenerWith("1.2", false, both, old)
	for suite, want := range map[uint16]x509.PublicKeyAlgorithm{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: x509.ECDSA,
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:   x509.RSA,
	} {
		state, err := shake(t, listenerTLS(l), &tls.Config{
			ServerName: "localhost", MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite},
		})
		if err != nil || state.PeerCertificates[0].PublicKeyAlgorithm != want {
			t.Errorf("%s: %v", tls.CipherSuiteName(suite), err)
		}
	}
}

// An address in place of a name, which old clients send, stands for no name.
func TestCertificateByAddress(t *testing.T) {
	l := listenerWith("1.2", false, rsaPair(t, "pop.example"))
	for _, name := range []string{"192.0.2.1", "2001:db8::1"} {
		cert, err := l.certificates.choose(&tls.ClientHelloInfo{ServerName: name})
		if err != nil || cert == nil {
			t.Errorf("%s: %v, %v", name, cert, err)
		}
	}
}

// O-TLS-2: what min_tls and legacy_ciphers let in, and that neither lets in
// more than it says.
func TestVintageTLS(t *testing.T) {
	cert := rsaPair(t, "pop.example")
	const (
		modern  = tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
		cbc     = tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA
		static  = tls.TLS_RSA_WITH_AES_128_CBC_SHA
		triple  = tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA
		rivest4 = tls.TLS_RSA_WITH_RC4_128_SHA
	)
	for _, c := range []struct {
		minimum string
		legacy  bool
		version uint16 // the client's only one
		suite   uint16
		want    bool
	}{
		{"1.2", false, tls.VersionTLS12, modern, true},
		{"1.2", false, tls.VersionTLS12, cbc, false},
		{"1.2", false, tls.VersionTLS12, static, false},
		{"1.2", false, tls.VersionTLS10, cbc, false},
		{"1.2", true, tls.VersionTLS12, cbc, true},
		{"1.2", true, tls.VersionTLS12, static, true},
		{"1.2", true, tls.VersionTLS11, static, false},
		{"1.1", false, tls.VersionTLS11, cbc, true},
		{"1.1", false, tls.VersionTLS11, static, false},
		{"1.1", false, tls.VersionTLS10, cbc, false},
		{"1.0", false, tls.VersionTLS10, cbc, true},
		{"1.0", false, tls.VersionTLS10, static, false},
		{"1.0", true, tls.VersionTLS10, static, true},
		{"1.0", true, tls.VersionTLS10, triple, true},
		{"1.0", true, tls.VersionTLS10, rivest4, false},
		{"1.3", true, tls.VersionTLS12, static, false},
	} {
		_, err := shake(t, listenerTLS(listenerWith(c.minimum, c.legacy, cert)), &tls.Config{
			ServerName: "pop.example", MinVersion: c.version, MaxVersion: c.version, CipherSuites: []uint16{c.suite},
		})
		if (err == nil) != c.want {
			t.Errorf("min_tls %s, legacy_ciphers %v: %s with %s: %v",
				c.minimum, c.legacy, tls.VersionName(c.version), tls.CipherSuiteName(c.suite), err)
		}
	}
}

// Warnings say in check what serve logs (O-TLS-2).
func TestWarnings(t *testing.T) {
	_, addr := upstreamWithMail(t)
	file := vintageConfig(t, addr)
	dir := filepath.Dir(file)
	var out strings.Builder
	if code := run([]string{"check", "--config", file}, strings.NewReader(""), &out, os.Stderr); code != exitOK {
		t.Errorf("code %d", code)
	}
	want := `configuration: good, 1 listener(s)
configuration: warning: passwords go to the upstream without TLS, upstream 127.0.0.1
configuration: warning: silent connections may use up all: set limits.unauthenticated below limits.connections, unauthenticated 1000, connections 100
configuration: warning: listener accepts outdated TLS, for vintage clients only, listener 127.0.0.1:0, min_tls 1.0, legacy_ciphers true
configuration: warning: certificate has expired, cert_file ` + filepath.Join(dir, "cert.pem") + ", on " + time.Now().Add(-time.Hour).UTC().Format(time.DateOnly)
	got := strings.Split(out.String(), "\n")
	if diff := cmp.Diff(want, strings.Join(got[:min(len(got), 5)], "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// vintageConfig writes a configuration that there is a lot to say against.
func vintageConfig(t *testing.T, upstream string) (file string) {
	t.Helper()
	dir := t.TempDir()
	certPEM, keyPEM := rsaCertificate(t, time.Now().Add(-time.Hour), "localhost")
	put(t, filepath.Join(dir, "cert.pem"), certPEM)
	put(t, filepath.Join(dir, "key.pem"), keyPEM)
	file = filepath.Join(dir, "config.toml")
	put(t, file, []byte(`[[listener]]
address = "127.0.0.1:0"
min_tls = "1.0"
legacy_ciphers = true
cert_file = "cert.pem"
key_file = "key.pem"
[[upstream]]
address = "`+upstream+`"
tls = "none"
insecure = true
[limits]
connections = 100
`))
	return file
}

func put(t *testing.T, file string, data []byte) {
	t.Helper()
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
}
