package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"popgate/proxy/proxytest"
)

// check prints the warnings that serve logs (O-TLS-2).
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
configuration: warning: idle connections may take every slot: set limits.unauthenticated below limits.connections, unauthenticated 1000, connections 100
configuration: warning: listener accepts outdated TLS, for vintage clients only, listener 127.0.0.1:0, min_tls 1.0, legacy_ciphers true
configuration: warning: certificate has expired, cert_file ` + filepath.Join(dir, "cert.pem") + ", on " + time.Now().Add(-time.Hour).UTC().Format(time.DateOnly)
	got := strings.Split(out.String(), "\n")
	if diff := cmp.Diff(want, strings.Join(got[:min(len(got), 5)], "\n")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// vintageConfig writes a configuration that causes many warnings.
func vintageConfig(t *testing.T, upstream string) (file string) {
	t.Helper()
	dir := t.TempDir()
	proxytest.NewCertificate(t, proxytest.CertificateOptions{RSA: true, Until: time.Now().Add(-time.Hour)}).WriteFiles(t, dir)
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
