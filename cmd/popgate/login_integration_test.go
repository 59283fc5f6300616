//go:build integration

package main_test

import (
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"testing"

	"popgate/imapbackend/dovecottest"
	"popgate/proxy/proxytest"
)

// tlsConfig returns the configuration of a gateway with TLS on both sides.
func tlsConfig(s *dovecottest.Server, listenerMode, upstreamMode, caFile string) string {
	addr := map[string]string{"implicit": s.TLSAddr, "starttls": s.Addr}[upstreamMode]
	_, port, _ := net.SplitHostPort(addr)
	return fmt.Sprintf(`[[listener]]
address = "127.0.0.1:0"
tls = %q
cert_file = %q
key_file = %q

[[upstream]]
address = "localhost:%s"
tls = %q
ca_file = %q
`, listenerMode, s.CertFile, s.KeyFile, port, upstreamMode, caFile)
}

// openssl logs in over TLS and verifies the certificate: P-STLS-1, P-USER-3,
// P-CAPA-3, O-TLS-1, O-TLS-7, P-SESS-11 (openssl reports a missing close_notify
// as an error).
func TestOpenSSL(t *testing.T) {
	s := dovecottest.Start(t)
	s.Append("joe", []byte("Subject: x\r\n\r\ny\r\n"))
	for _, tt := range []struct{ listener, upstream string }{
		{"implicit", "implicit"},
		{"starttls", "starttls"},
	} {
		t.Run(tt.listener, func(t *testing.T) {
			g := startGateway(t, tlsConfig(s, tt.listener, tt.upstream, s.CAFile))
			args := []string{"s_client", "-quiet", "-crlf", "-connect", g.addr, "-CAfile", s.CAFile,
				"-verify_return_error", "-verify_hostname", "localhost"}
			if tt.listener == "starttls" {
				args = append(args, "-starttls", "pop3")
			}
			script := "CAPA\nUSER joe\nPASS " + dovecottest.Password + "\nSTAT\nRETR 1\nQUIT\n"
			out := client{dir: clientDir(t), stdin: script}.run(t, "openssl", args...)
			for _, want := range []string{"\r\nUSER\r\n", "+OK 1 17\r\n", "Subject: x\r\n\r\ny\r\n.\r\n+OK"} {
				if !strings.Contains(out, want) {
					t.Errorf("no %q in\n%s", want, out)
				}
			}
			if strings.Contains(out, "STLS") {
				t.Errorf("STLS is offered inside TLS:\n%s", out)
			}
		})
	}
}

// A listener that requires TLS refuses logins without it: P-USER-3, P-AUTH-3,
// P-CAPA-2.
func TestPlaintextRefused(t *testing.T) {
	s := dovecottest.Start(t)
	g := startGateway(t, tlsConfig(s, "starttls", "starttls", s.CAFile))
	c := proxytest.Dial(t, g.addr)
	c.Greeting()
	if got := c.Fetch("CAPA"); !strings.Contains(got, "STLS\r\n") || strings.Contains(got, "USER") || strings.Contains(got, "SASL") {
		t.Errorf("CAPA without TLS: %q", got)
	}
	c.Do("USER joe", "-ERR ")
	c.Do("AUTH PLAIN", "-ERR ")
}

// An upstream whose certificate is not valid gets no password: O-TLS-7, M-1.
func TestUpstreamCertificate(t *testing.T) {
	s, stranger := dovecottest.Start(t), dovecottest.Start(t)
	for _, mode := range []string{"implicit", "starttls"} {
		t.Run(mode, func(t *testing.T) {
			config := tlsConfig(s, "none", mode, stranger.CAFile)
			config = strings.Replace(config, `tls = "none"`, "tls = \"none\"\ninsecure_login_from = [\"127.0.0.0/8\"]", 1)
			for _, key := range []string{"cert_file", "key_file"} {
				config = withoutKey(config, key)
			}
			g := startGateway(t, config)
			mustFailLogin(t, g, s, "-ERR [SYS/PERM] ", dovecottest.Password)
		})
	}
}

// withoutKey removes the first line that sets key.
func withoutKey(config, key string) string {
	before, rest, found := strings.Cut(config, "\n"+key+" =")
	if !found {
		return config
	}
	_, after, _ := strings.Cut(rest, "\n")
	return before + "\n" + after
}

// The upstream decides whether a password is wrong: P-RESP-7, M-1, P-SESS-10.
func TestWrongPassword(t *testing.T) {
	s := dovecottest.Start(t)
	g := startGateway(t, plainConfig(s.Addr))
	mustFailLogin(t, g, s, "-ERR [AUTH] ", "wrong")
	// A second try may succeed.
	c := proxytest.Dial(t, g.addr)
	c.Greeting()
	c.OK("USER joe")
	c.Do("PASS wrong", "-ERR [AUTH] ")
	c.OK("USER joe", "PASS "+dovecottest.Password, "QUIT")
}

// An upstream that is down may come back: M-1, P-GREET-3, P-USER-1.
func TestUpstreamDown(t *testing.T) {
	s := dovecottest.Start(t)
	g := startGateway(t, plainConfig(s.Addr))
	s.Kill()
	mustFailLogin(t, g, s, "-ERR [SYS/TEMP] ", dovecottest.Password)
	s.Restart()
	loginPOP(t, g.addr, "joe").OK("QUIT")
}

// mustFailLogin logs in by PASS and by AUTH PLAIN. Each must get a reply that
// begins with want and reveals nothing about the upstream (P-RESP-8).
func mustFailLogin(t *testing.T, g *gateway, s *dovecottest.Server, want, password string) {
	t.Helper()
	plain := base64.StdEncoding.EncodeToString([]byte("\x00joe\x00" + password))
	for _, login := range []string{"PASS " + password, "AUTH PLAIN " + plain} {
		c := proxytest.Dial(t, g.addr)
		c.Greeting()
		if strings.HasPrefix(login, "PASS") {
			c.OK("USER joe")
		}
		reply := c.Do(login, want)
		for _, addr := range []string{s.Addr, s.TLSAddr} {
			host, port, _ := net.SplitHostPort(addr)
			for _, secret := range []string{host, port, "localhost", "ovecot"} {
				if strings.Contains(reply, secret) {
					t.Errorf("the reply %q contains %q", reply, secret)
				}
			}
		}
		c.OK("QUIT")
	}
}
