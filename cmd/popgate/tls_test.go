package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
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
)

// writePair puts a certificate for localhost, its own CA, and its key into
// cert.pem and key.pem.
func writePair(t *testing.T, dir string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: "localhost"},
		DNSNames:              []string{"localhost"},
		NotBefore:             time.Now().Add(-time.Hour),
		NotAfter:              time.Now().Add(time.Hour),
		IsCA:                  true,
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	for name, b := range map[string][]byte{"cert.pem": certPEM, "key.pem": keyPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// listenerWith returns a listener with certificates.
func listenerWith(minimum string, legacy bool, certs ...tls.Certificate) *listener {
	l := &listener{MinTLS: minimum, LegacyCiphers: legacy, certificates: new(certificates)}
	l.certificates.lenient = l.lowered()
	for _, cert := range certs {
		p := new(keyPair)
		p.current.Store(&cert)
		l.certificates.pairs = append(l.certificates.pairs, p)
	}
	return l
}

// O-TLS-2, O-TLS-3: what a listener agrees to.
func TestListenerTLS(t *testing.T) {
	cert := writePair(t, t.TempDir())
	roots := x509.NewCertPool()
	leaf, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots.AddCert(leaf)

	for _, test := range []struct {
		name    string
		minimum string
		client  *tls.Config
		version uint16 // 0 for a refusal
		alpn    string
		refusal string // alert that the client gets
	}{
		{"new client", "1.2", &tls.Config{NextProtos: []string{"pop3"}}, tls.VersionTLS13, "pop3", ""},
		{"without ALPN", "1.2", &tls.Config{}, tls.VersionTLS13, "", ""},
		{"several protocols", "1.2", &tls.Config{NextProtos: []string{"imap", "pop3"}}, tls.VersionTLS13, "pop3", ""},
		{"foreign protocol", "1.2", &tls.Config{NextProtos: []string{"http/1.1"}}, 0, "", "no application protocol"},
		{"1.2", "1.2", &tls.Config{MaxVersion: tls.VersionTLS12}, tls.VersionTLS12, "", ""},
		{"1.2 below the minimum", "1.3", &tls.Config{MaxVersion: tls.VersionTLS12}, 0, "", "protocol version"},
		{"1.1", "1.2", &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, 0, "", "protocol version"},
		{"1.2 with CBC", "1.2", &tls.Config{
			MaxVersion:   tls.VersionTLS12,
			CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA},
		}, 0, "", "handshake failure"},
	} {
		t.Run(test.name, func(t *testing.T) {
			client, server := net.Pipe()
			defer client.Close()
			defer server.Close()
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = tls.Server(server, listenerTLS(listenerWith(test.minimum, false, cert))).Handshake()
			}()
			test.client.RootCAs, test.client.ServerName = roots, "localhost"
			conn := tls.Client(client, test.client)
			err := conn.Handshake()
			if test.refusal != "" {
				if err == nil || !strings.Contains(err.Error(), test.refusal) {
					t.Errorf("handshake: %v, want %q", err, test.refusal)
				}
				client.Close()
				<-done
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			state := conn.ConnectionState()
			if state.Version != test.version || state.NegotiatedProtocol != test.alpn {
				t.Errorf("TLS %x with ALPN %q, want %x with %q", state.Version, state.NegotiatedProtocol, test.version, test.alpn)
			}
			client.Close()
			<-done
		})
	}
}

// O-TLS-1: both kinds of listener, with files named relative to the
// configuration.
func TestCertificateFiles(t *testing.T) {
	dir := t.TempDir()
	writePair(t, dir)
	file := filepath.Join(dir, "config.toml")
	text := `[[listener]]
address = ":995"
tls = "implicit"
min_tls = "1.3"
cert_file = "cert.pem"
key_file = "key.pem"
[[listener]]
address = ":110"
cert_file = "cert.pem"
key_file = "key.pem"
[[upstream]]
address = "localhost:993"
ca_file = "cert.pem"
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := loadConfig(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
		if cfg := c.listeners[i].options.TLS; cfg == nil || cfg.MinVersion != want || len(c.listeners[i].certificates.pairs) != 1 {
			t.Errorf("listener %d: TLS %+v, want one certificate and minimum %x", i, cfg, want)
		}
	}
	if c.upstream.options.RootCAs == nil {
		t.Error("the upstream has no CA of its own")
	}
}
