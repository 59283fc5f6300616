package config

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"popgate/cmd/popgate/certificates"
	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// newPair returns a certificate read from files, as a listener's is.
func newPair(t *testing.T, o proxytest.CertificateOptions) *certificates.Pair {
	t.Helper()
	dir := t.TempDir()
	proxytest.NewCertificate(t, o).WriteFiles(t, dir)
	p, err := certificates.ReadPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// rsaPair returns a certificate for name with an RSA key.
func rsaPair(t *testing.T, name string) *certificates.Pair {
	t.Helper()
	return newPair(t, proxytest.CertificateOptions{Names: []string{name}, RSA: true})
}

// listenerWith returns a listener with certificates.
func listenerWith(minimum uint16, legacy bool, pairs ...*certificates.Pair) *Listener {
	l := &Listener{MinTLS: minimum, LegacyCiphers: legacy, Certificates: &certificates.Set{Pairs: pairs}}
	l.Certificates.Lenient = l.acceptsOldTLS()
	return l
}

// handshake does a handshake and returns the client's state and error.
func handshake(t *testing.T, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Server(far, server).Handshake() // the client's error is what matters
		_ = far.Close()
	}()
	client.InsecureSkipVerify = true // the caller checks which certificate is served
	conn := tls.Client(near, client)
	err := conn.Handshake()
	state := conn.ConnectionState()
	_ = near.Close()
	<-done
	return state, err
}

// O-TLS-4: which certificate a client gets.
func TestCertificateByName(t *testing.T) {
	common := newPair(t, proxytest.CertificateOptions{CommonName: "old.example", Names: []string{}, RSA: true})
	first, second, wild := rsaPair(t, "pop.example"), rsaPair(t, "mail.example"), rsaPair(t, "*.example.org")
	both := newPair(t, proxytest.CertificateOptions{Names: []string{"localhost"}}) // ECDSA
	old := rsaPair(t, "localhost")
	for _, tt := range []struct {
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
		l := listenerWith(tls.VersionTLS12, tt.lenient, first, second, wild, common)
		state, err := handshake(t, listenerTLS(l), &tls.Config{ServerName: tt.sni})
		if tt.want == "" {
			if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
				t.Errorf("%q: %v, want the alert unrecognized_name", tt.sni, err)
			}
			continue
		}
		if err != nil || state.PeerCertificates[0].Subject.CommonName != tt.want {
			t.Errorf("%q: %v, want %s", tt.sni, err, tt.want)
		}
	}

	// One name with an ECDSA and an RSA certificate.
	l := listenerWith(tls.VersionTLS12, false, both, old)
	for suite, want := range map[uint16]x509.PublicKeyAlgorithm{
		tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256: x509.ECDSA,
		tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256:   x509.RSA,
	} {
		state, err := handshake(t, listenerTLS(l), &tls.Config{
			ServerName: "localhost", MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{suite},
		})
		if err != nil || state.PeerCertificates[0].PublicKeyAlgorithm != want {
			t.Errorf("%s: %v", tls.CipherSuiteName(suite), err)
		}
	}
}

// An address instead of a name, which old clients send, counts as no name.
func TestCertificateByAddress(t *testing.T) {
	l := listenerWith(tls.VersionTLS12, false, rsaPair(t, "pop.example"))
	for _, name := range []string{"192.0.2.1", "2001:db8::1"} {
		cert, err := l.Certificates.Choose(&tls.ClientHelloInfo{ServerName: name})
		if err != nil || cert == nil {
			t.Errorf("%s: %v, %v", name, cert, err)
		}
	}
}

// O-TLS-2: what min_tls and legacy_ciphers accept, and that neither accepts
// more.
func TestVintageTLS(t *testing.T) {
	cert := rsaPair(t, "pop.example")
	const (
		modern  = tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
		cbc     = tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA
		static  = tls.TLS_RSA_WITH_AES_128_CBC_SHA
		triple  = tls.TLS_RSA_WITH_3DES_EDE_CBC_SHA
		rivest4 = tls.TLS_RSA_WITH_RC4_128_SHA
	)
	for _, tt := range []struct {
		minimum uint16
		legacy  bool
		version uint16 // the client's only one
		suite   uint16
		want    bool
	}{
		{tls.VersionTLS12, false, tls.VersionTLS12, modern, true},
		{tls.VersionTLS12, false, tls.VersionTLS12, cbc, false},
		{tls.VersionTLS12, false, tls.VersionTLS12, static, false},
		{tls.VersionTLS12, false, tls.VersionTLS10, cbc, false},
		{tls.VersionTLS12, true, tls.VersionTLS12, cbc, true},
		{tls.VersionTLS12, true, tls.VersionTLS12, static, true},
		{tls.VersionTLS12, true, tls.VersionTLS11, static, false},
		{tls.VersionTLS11, false, tls.VersionTLS11, cbc, true},
		{tls.VersionTLS11, false, tls.VersionTLS11, static, false},
		{tls.VersionTLS11, false, tls.VersionTLS10, cbc, false},
		{tls.VersionTLS10, false, tls.VersionTLS10, cbc, true},
		{tls.VersionTLS10, false, tls.VersionTLS10, static, false},
		{tls.VersionTLS10, true, tls.VersionTLS10, static, true},
		{tls.VersionTLS10, true, tls.VersionTLS10, triple, true},
		{tls.VersionTLS10, true, tls.VersionTLS10, rivest4, false},
		{tls.VersionTLS13, true, tls.VersionTLS12, static, false},
	} {
		_, err := handshake(t, listenerTLS(listenerWith(tt.minimum, tt.legacy, cert)), &tls.Config{
			ServerName: "pop.example", MinVersion: tt.version, MaxVersion: tt.version, CipherSuites: []uint16{tt.suite},
		})
		if (err == nil) != tt.want {
			t.Errorf("%s or later, legacy_ciphers %v: %s with %s: %v",
				tls.VersionName(tt.minimum), tt.legacy, tls.VersionName(tt.version), tls.CipherSuiteName(tt.suite), err)
		}
	}
}

// O-TLS-2, O-TLS-3: which TLS versions, suites and protocols a listener accepts.
func TestListenerTLS(t *testing.T) {
	cert := newPair(t, proxytest.CertificateOptions{Names: []string{"localhost"}, SelfSigned: true})
	roots := x509.NewCertPool()
	roots.AddCert(cert.Leaf())

	for _, tt := range []struct {
		name    string
		minimum uint16
		client  *tls.Config
		version uint16 // 0 for a refusal
		alpn    string
		refusal string // alert that the client gets
	}{
		{"new client", tls.VersionTLS12, &tls.Config{NextProtos: []string{"pop3"}}, tls.VersionTLS13, "pop3", ""},
		{"without ALPN", tls.VersionTLS12, &tls.Config{}, tls.VersionTLS13, "", ""},
		{"several protocols", tls.VersionTLS12, &tls.Config{NextProtos: []string{"imap", "pop3"}}, tls.VersionTLS13, "pop3", ""},
		{"foreign protocol", tls.VersionTLS12, &tls.Config{NextProtos: []string{"http/1.1"}}, 0, "", "no application protocol"},
		{"1.2", tls.VersionTLS12, &tls.Config{MaxVersion: tls.VersionTLS12}, tls.VersionTLS12, "", ""},
		{"1.2 below the minimum", tls.VersionTLS13, &tls.Config{MaxVersion: tls.VersionTLS12}, 0, "", "protocol version"},
		{"1.1", tls.VersionTLS12, &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, 0, "", "protocol version"},
		{"1.2 with CBC", tls.VersionTLS12, &tls.Config{
			MaxVersion:   tls.VersionTLS12,
			CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA},
		}, 0, "", "handshake failure"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			client, server := net.Pipe()
			defer client.Close()
			defer server.Close()
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = tls.Server(server, listenerTLS(listenerWith(tt.minimum, false, cert))).Handshake()
			}()
			tt.client.RootCAs, tt.client.ServerName = roots, "localhost"
			conn := tls.Client(client, tt.client)
			err := conn.Handshake()
			if tt.refusal != "" {
				if err == nil || !strings.Contains(err.Error(), tt.refusal) {
					t.Errorf("handshake: %v, want %q", err, tt.refusal)
				}
				client.Close()
				<-done
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			state := conn.ConnectionState()
			if state.Version != tt.version || state.NegotiatedProtocol != tt.alpn {
				t.Errorf("TLS %x with ALPN %q, want %x with %q", state.Version, state.NegotiatedProtocol, tt.version, tt.alpn)
			}
			client.Close()
			<-done
		})
	}
}

// O-TLS-1: both kinds of listener, with file names relative to the
// configuration.
func TestCertificateFiles(t *testing.T) {
	dir := t.TempDir()
	proxytest.NewCertificate(t, proxytest.CertificateOptions{}).WriteFiles(t, dir)
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
	c, err := Load(file)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []uint16{tls.VersionTLS13, tls.VersionTLS12} {
		if cfg := c.Listeners[i].Options.TLS; cfg == nil || cfg.MinVersion != want || len(c.Listeners[i].Certificates.Pairs) != 1 {
			t.Errorf("listener %d: TLS %+v, want one certificate and minimum %x", i, cfg, want)
		}
	}
	if c.Upstreams[0].Options.RootCAs == nil {
		t.Error("the upstream does not use its ca_file")
	}
}

// O-FILE-2: a key that all users of the machine may use is refused. Its group may
// read it.
func TestExposedKey(t *testing.T) {
	dir := t.TempDir()
	proxytest.NewCertificate(t, proxytest.CertificateOptions{}).WriteFiles(t, dir)
	key := filepath.Join(dir, "key.pem")
	if err := os.Symlink(key, filepath.Join(dir, "link.pem")); err != nil {
		t.Fatal(err)
	}
	for mode, want := range map[os.FileMode]string{
		0o600: "", 0o640: "", 0o440: "", 0o660: "",
		0o644: `4: listener[0].key_file: all users of this machine may read or change it (mode 0644); leave it to its owner and group: chmod o= link.pem`,
		0o602: `4: listener[0].key_file: all users of this machine may read or change it (mode 0602); leave it to its owner and group: chmod o= link.pem`,
	} {
		if err := os.Chmod(key, mode); err != nil {
			t.Fatal(err)
		}
		if got := mistakesIn(t, dir, "[[listener]]\naddress = \":995\"\ncert_file = \"cert.pem\"\nkey_file = \"link.pem\"\n[[upstream]]\naddress = \"a:993\"\n"); got != want {
			t.Errorf("%o: %s", mode, got)
		}
	}
}

// A certificate is warned about from 14 days before its end on.
func TestExpiry(t *testing.T) {
	end := time.Date(2030, 3, 15, 12, 0, 0, 0, time.UTC)
	l := listenerWith(tls.VersionTLS12, false, newPair(t, proxytest.CertificateOptions{Until: end}))
	for before, want := range map[time.Duration]string{
		15 * 24 * time.Hour:           "",
		14*24*time.Hour + time.Second: "",
		14*24*time.Hour - time.Second: "certificate expires within 14 days",
		time.Second:                   "certificate expires within 14 days",
		-time.Second:                  "certificate has expired",
	} {
		got := ""
		for _, w := range l.warnings(end.Add(-before)) {
			got += w.String()
		}
		if text, rest, _ := strings.Cut(got, ","); text != want || want != "" && !strings.HasSuffix(rest, ", on 2030-03-15") {
			t.Errorf("%v before: %q, want %q", before, got, want)
		}
	}
}

// P-USER-3: networks from which passwords come over the Internet are warned about.
func TestPublicNetworks(t *testing.T) {
	for network, public := range map[string]bool{
		"0.0.0.0/0": true, "::/0": true, "8.8.8.8/32": true, "10.0.0.0/7": true, "172.0.0.0/8": true, "2001:4860::/32": true, "fc00::/6": true,
		"10.0.0.0/8": false, "10.1.2.3/32": false, "172.20.0.0/16": false, "192.168.1.0/24": false, "127.0.0.0/8": false, "::1/128": false,
		"fd00::/8": false, "fe80::/64": false, "100.64.0.0/10": false, "169.254.1.1/32": false,
	} {
		l := &Listener{Address: ":110", Options: proxy.ListenerOptions{Mode: proxy.TLSNone}}
		l.Options.InsecureLoginFrom = []netip.Prefix{netip.MustParsePrefix("192.168.0.0/24"), netip.MustParsePrefix(network)}
		got := ""
		for _, w := range l.warnings(time.Now()) {
			got += w.String()
		}
		want := ""
		if public {
			want = "insecure_login_from names public networks: passwords may cross the Internet in the clear, listener :110, networks [" + network + "]"
		}
		if got != want {
			t.Errorf("%s: %q", network, got)
		}
	}
}
