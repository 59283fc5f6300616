//go:build unix

package main

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"syscall"
	"testing"
	"time"

	"popgate/cmd/popgate/processtest"
	"popgate/proxy/proxytest"
)

var regexpReloaded = regexp.MustCompile(`msg="certificate reloaded"`)

// withCertificate starts a gateway with implicit TLS and the certificate and key
// in dir.
func withCertificate(t *testing.T, dir string) (p *processtest.Process, addr string) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "config.toml")
	put(t, file, []byte(`[[listener]]
address = "127.0.0.1:0"
tls = "implicit"
cert_file = "`+filepath.Join(dir, "tls.crt")+`"
key_file = "`+filepath.Join(dir, "tls.key")+`"
[[upstream]]
address = "127.0.0.1:1"
tls = "none"
`))
	p = start(t, "serve", "--config", file)
	return p, p.Stderr.Expect(`msg=listening address=(\S+)`)[1]
}

// putPair writes a new certificate for name, and its key, to dir.
func putPair(t *testing.T, dir, name string) {
	t.Helper()
	cert := proxytest.NewCertificate(t, proxytest.CertificateOptions{Names: []string{name}})
	put(t, filepath.Join(dir, "tls.crt"), cert.CertPEM)
	put(t, filepath.Join(dir, "tls.key"), cert.KeyPEM)
}

// served returns the name in the certificate that a gateway serves.
func served(t *testing.T, addr string) string {
	t.Helper()
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}) // the caller checks the name
	if err != nil {
		t.Fatal(err)
	}
	name := conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	greet(t, conn).OK("QUIT")
	return name
}

// O-TLS-5: new files are served without a restart; a bad pair is not, and an
// error is logged; an open session continues.
func TestReloadFiles(t *testing.T) {
	dir := t.TempDir()
	putPair(t, dir, "one.example")
	p, addr := withCertificate(t, dir)
	conn, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true}) // the name does not matter
	if err != nil {
		t.Fatal(err)
	}
	open := greet(t, conn)

	putPair(t, dir, "two.example")
	p.Stderr.Expect(`level=INFO msg="certificate reloaded" cert_file=\S+tls.crt`)
	if got := served(t, addr); got != "two.example" {
		t.Errorf("%s is served", got)
	}
	put(t, filepath.Join(dir, "tls.key"), []byte("junk"))
	p.Stderr.Expect(`level=ERROR msg="certificate not reloaded, the old pair stays in use"`)
	if got := served(t, addr); got != "two.example" {
		t.Errorf("%s is served", got)
	}
	putPair(t, dir, "three.example")
	p.Stderr.Expect(`msg="certificate reloaded"`)
	if got := served(t, addr); got != "three.example" {
		t.Errorf("%s is served", got)
	}
	open.OK("QUIT")
	p.Signal(syscall.SIGTERM)
	p.Exit(exitOK)
}

// O-TLS-5: files may be replaced by a link to another directory, as Kubernetes
// does it. This is done twice, so that the second change is found by watching
// the new directory.
func TestReloadLinks(t *testing.T) {
	dir := t.TempDir()
	swap := func(name string) {
		t.Helper()
		version := filepath.Join(dir, ".."+name)
		if err := os.Mkdir(version, 0o700); err != nil {
			t.Fatal(err)
		}
		putPair(t, version, name)
		if err := os.Symlink(".."+name, filepath.Join(dir, "..tmp")); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(filepath.Join(dir, "..tmp"), filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	swap("one.example")
	for _, file := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink(filepath.Join("..data", file), filepath.Join(dir, file)); err != nil {
			t.Fatal(err)
		}
	}
	p, addr := withCertificate(t, dir)
	for _, name := range []string{"two.example", "three.example"} {
		swap(name)
		p.Stderr.Expect(`msg="certificate reloaded"`)
		if got := served(t, addr); got != name {
			t.Errorf("%s is served, want %s", got, name)
		}
	}
	put(t, filepath.Join(dir, "..three.example", "tls.key"), []byte("junk"))
	p.Stderr.Expect(`level=ERROR msg="certificate not reloaded`)
	p.Signal(syscall.SIGTERM)
	p.Exit(exitOK)
}

// O-TLS-5: SIGHUP reads the files too; unchanged files are not logged.
func TestReloadSignal(t *testing.T) {
	dir := t.TempDir()
	putPair(t, dir, "one.example")
	p, addr := withCertificate(t, dir)
	putPair(t, dir, "two.example")
	p.Signal(syscall.SIGHUP)
	p.Stderr.Expect(`msg="reading certificates and match files again`)
	p.Stderr.Expect(`msg="certificate reloaded"`)
	if got := served(t, addr); got != "two.example" {
		t.Errorf("%s is served", got)
	}
	p.Signal(syscall.SIGHUP)
	p.Stderr.Expect(`msg="reading certificates and match files again`)
	p.Signal(syscall.SIGTERM)
	p.Exit(exitOK)
	if n := len(regexpReloaded.FindAllString(p.Stderr.String(), -1)); n != 1 {
		t.Errorf("reloaded %d times:\n%s", n, p.Stderr.String())
	}
}

// O-TLS-2: serve logs what check warns of.
func TestServeVintageWarnings(t *testing.T) {
	p := start(t, "serve", "--config", vintageConfig(t, "127.0.0.1:1"))
	p.Stderr.Expect(`level=WARN msg="listener accepts outdated TLS, for vintage clients only" listener=127.0.0.1:0 min_tls=1.0 legacy_ciphers=true`)
	p.Stderr.Expect(`level=WARN msg="certificate has expired"`)
	p.Stderr.Expect(`msg=listening`)
	p.Signal(syscall.SIGTERM)
	p.Exit(exitOK)
}

// O-TLS-5: other files that change all the time do not delay the reload forever.
func TestReloadBusy(t *testing.T) {
	dir := t.TempDir()
	putPair(t, dir, "one.example")
	p, addr := withCertificate(t, dir)
	putPair(t, dir, "two.example")
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		pace := time.NewTicker(50 * time.Millisecond)
		defer pace.Stop()
		for ctx.Err() == nil {
			if err := os.WriteFile(filepath.Join(dir, "log"), nil, 0o600); err != nil {
				t.Error(err)
			}
			<-pace.C
		}
	})
	p.Stderr.Expect(`msg="certificate reloaded"`)
	cancel()
	wg.Wait()
	if got := served(t, addr); got != "two.example" {
		t.Errorf("%s is served", got)
	}
	p.Signal(syscall.SIGTERM)
	p.Exit(exitOK)
}
