package main

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"popgate/proxy/proxytest"
)

// greetingServer greets each connection, under TLS if config is not nil, and returns
// its address by the name localhost.
func greetingServer(t *testing.T, config *tls.Config, greeting string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	if config != nil {
		l = tls.NewListener(l, config)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = conn.Write([]byte(greeting))
				_, _ = conn.Read(make([]byte, 1024)) // until the client ends it
			}()
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return "localhost:" + port
}

// O-CHECK-2: check and uidl report each fault of a connection once, with the one
// hint that fits it.
func TestConnectHints(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, c *proxytest.Certificate) string {
		path := filepath.Join(dir, name)
		put(t, path, c.CAPEM)
		return path
	}
	good := proxytest.NewCertificate(t, proxytest.CertificateOptions{})
	other := proxytest.NewCertificate(t, proxytest.CertificateOptions{Names: []string{"other.example"}})
	old := proxytest.NewCertificate(t, proxytest.CertificateOptions{Until: time.Now().Add(-time.Hour)})
	goodCA, otherCA, oldCA := file("good.pem", good), file("other.pem", other), file("old.pem", old)
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	server := func(c *proxytest.Certificate) func(string) string {
		return func(greeting string) string {
			if c == nil {
				return greetingServer(t, nil, greeting)
			}
			return greetingServer(t, c.Server(), greeting)
		}
	}
	at := func(address string) func(string) string { return func(string) string { return address } }
	for _, tt := range []struct {
		name, mode, ca string
		server         func(greeting string) string
		check, uidl    string // hints
	}{
		{"no such name", "implicit", "", at("no-such-host.invalid:993"), `check address: the name no-such-host\.invalid `, `check --server: the name no-such-host\.invalid `},
		{"nobody there", "none", "", at(dead.Addr().String()), `no server listens there: check the port in address,`, `no server listens there: check the port in --server,`},
		{"TLS port in plain", "none", "", server(good), `set tls = "implicit", or use`, `use --tls implicit, or use`},
		{"TLS port for STARTTLS", "starttls", "", server(good), `set tls = "implicit", or use`, `use --tls implicit, or use`},
		{"plain port with TLS", "implicit", goodCA, server(nil), `set tls = "starttls", or use`, `use --tls starttls, or use`},
		{"unknown CA", "implicit", otherCA, server(good), `if you trust it, name the CA's certificate in ca_file;`, `if you trust it, name the CA's certificate in --ca-file;`},
		{"wrong name", "implicit", otherCA, server(other), `write in server_name a name that the certificate has: other\.example`, `write in --server a name that the certificate has: other\.example`},
		{"expired", "implicit", oldCA, server(old), `the server needs a new certificate, unless`, `the server needs a new certificate, unless`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			address := tt.server("* OK ready\r\n")
			text := fmt.Sprintf("address = %q\ntls = %q\n", address, tt.mode)
			args := []string{"--server", tt.server("+OK ready\r\n"), "--user", "x", "--tls", tt.mode, "--insecure"}
			if tt.ca != "" {
				text += fmt.Sprintf("ca_file = %q\n", tt.ca)
				args = append(args, "--ca-file", tt.ca)
			}
			l, _, _ := strings.Cut(smallest, "[[upstream]]")
			var out, errs bytes.Buffer
			began := time.Now()
			code := run([]string{"check", "--config", writeConfig(t, l+"[[upstream]]\n"+text)}, strings.NewReader(""), &out, &errs)
			if took := time.Since(began); took > 10*time.Second { // the greeting may take 30
				t.Errorf("check took %v", took)
			}
			expectHint(t, code, errs.String(), tt.check)
			code, _, stderr := uidlRun("secret\n", args...)
			expectHint(t, code, stderr, tt.uidl)
		})
	}
}

// expectHint checks that stderr is one error and the one hint.
func expectHint(t *testing.T, code int, stderr, hint string) {
	t.Helper()
	if code != exitFailure || !regexp.MustCompile(`^error: .*\nhint: `+hint+`.*\n$`).MatchString(stderr) {
		t.Errorf("code %d: %s\nwant one error and the hint %s", code, stderr, hint)
	}
}

// A file of the command line that cannot be read has a hint, too, and so has an
// address that this machine does not have.
func TestFileHints(t *testing.T) {
	dir := t.TempDir()
	for file, hint := range map[string]string{
		filepath.Join(dir, "none.toml"): "there is no such file: name the configuration file",
		dir:                             "this is a directory: name the configuration file in it",
	} {
		var errs bytes.Buffer
		code := run([]string{"check", "--config", file}, strings.NewReader(""), os.Stdout, &errs)
		if code != exitUsage || !strings.HasSuffix(errs.String(), "\nhint: "+hint+"\n") {
			t.Errorf("code %d: %s", code, errs.String())
		}
	}
	var errs bytes.Buffer
	code := run([]string{"serve", "--config", writeConfig(t, strings.Replace(smallest, "127.0.0.1:3110", "192.0.2.1:3110", 1))}, nil, os.Stdout, &errs)
	if code != exitFailure || !strings.Contains(errs.String(), "\nhint: this machine does not have that address: ") {
		t.Errorf("code %d: %s", code, errs.String())
	}
}
