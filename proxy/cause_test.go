package proxy_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// TestBeginCause shows O-LOG-2: the record of a session that ends before its
// greeting, or in STLS, says why, at info.
func TestBeginCause(t *testing.T) {
	tlsClient := func(config *tls.Config) func(*proxytest.Client) {
		config.InsecureSkipVerify = config.RootCAs == nil
		return func(p *proxytest.Client) { _ = tls.Client(p.Conn, config).Handshake() }
	}
	write := func(octets string) func(*proxytest.Client) {
		return func(p *proxytest.Client) { p.Write(octets) }
	}
	leave := func(p *proxytest.Client) { _ = p.Conn.Close() }
	silent := func(*proxytest.Client) {}
	server := serverTLS(t)
	server.NextProtos = []string{"pop3"}
	long := strings.Repeat("x", 200)
	for _, tt := range []struct {
		name   string
		header bool // the listener expects a PROXY header, else TLS
		client func(*proxytest.Client)
		reason string
		cause  string // as the log quotes it
	}{
		{"version", false, tlsClient(&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}), "handshake",
			`"tls: client offered only unsupported versions: [302 301]"`},
		{"certificate", false, tlsClient(&tls.Config{ServerName: "localhost", RootCAs: x509.NewCertPool()}), "handshake",
			`"client does not trust the certificate: remote error: tls: `},
		{"certificate, alert in the clear", false, func(p *proxytest.Client) {
			_ = tls.Client(plainAlerts{p.Conn}, &tls.Config{ServerName: "localhost", RootCAs: x509.NewCertPool()}).Handshake()
		}, "handshake", `"client does not trust the certificate: remote error: tls: unknown certificate authority"`},
		{"ciphers", false, tlsClient(&tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_CBC_SHA}}), "handshake",
			`"tls: no cipher suite supported by both client and server; client offered: [2f]"`},
		{"ALPN", false, tlsClient(&tls.Config{NextProtos: []string{"h2", long, long}}), "handshake",
			`"tls: client requested unsupported application protocols ([\"h2\" \"` + strings.Repeat("x", 255-len(`tls: client requested unsupported application protocols (["h2" "`)) + `..."`},
		{"plain", false, write("USER alice\r\n"), "handshake", `"client does not speak TLS: tls: first record does not look like a TLS handshake"`},
		{"leaves", false, leave, "handshake", `"client closed the connection"`},
		{"silent", false, silent, "handshake", `"client sends nothing, or too slowly"`},
		{"no header", true, write("USER alice\r\n"), `"PROXY header"`, `"no PROXY protocol header"`},
		{"bad header", true, write("PROXY TCP4 192.0.2.1\r\n"), `"PROXY header"`, `"no PROXY protocol header"`},
		{"unknown command", true, write("\r\n\r\n\x00\r\nQUIT\n\x2f\x11\x00\x00"), `"PROXY header"`, `"no PROXY protocol header: unknown version or command 0x2f"`},
		{"proxy leaves", true, leave, `"PROXY header"`, `"proxy closed the connection"`},
		{"proxy silent", true, silent, `"PROXY header"`, `"proxy sends nothing, or too slowly"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := new(proxytest.Log)
				opts := proxy.ListenerOptions{Mode: proxy.TLSImplicit, TLS: server}
				if tt.header {
					opts.ProxyProtocolFrom = []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0")}
				}
				g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: memory(), Logger: log.Logger()}, opts)
				p := g.Dial()
				tt.client(p)
				<-time.After(time.Minute)
				synctest.Wait()
				want := fmt.Sprintf("reason=%s cause=%s", tt.reason, tt.cause)
				if len(log.Lines("level=INFO msg=session", want)) != 1 {
					t.Errorf("no %s in\n%s", want, log.String())
				}
			})
		})
	}
}

// plainAlerts is a client that sends its alert as OpenSSL does in TLS 1.3: in the clear.
type plainAlerts struct{ net.Conn }

func (c plainAlerts) Write(p []byte) (int, error) {
	clear, _, found := bytes.Cut(p, []byte{23, 3, 3, 0}) // the type of an encrypted record, and so on
	if !found {
		return c.Conn.Write(p)
	}
	_, err := c.Conn.Write(append(clear, 21, 3, 3, 0, 2, 2, 48)) // unknown_ca
	return len(p), err
}

// TestAuditLines shows O-LOG-2: a line at login says who is in, and one at QUIT
// which messages are gone, by UID.
func TestAuditLines(t *testing.T) {
	run := func(t *testing.T, faults proxytest.Faults, commands ...string) *proxytest.Log {
		b := memory(generated(9, 10)...)
		b.SetFaults(faults)
		log := new(proxytest.Log)
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b, Logger: log.Logger()}, proxytest.Insecure)
		p := g.Dial()
		p.Login("Alice", "secret")
		synctest.Wait()
		if len(log.Lines("level=INFO", `msg="logged in"`, " client=198.51.100.7:40000 user=alice upstream=memory mechanism=PASS messages=9 octets=234")) != 1 {
			t.Errorf("nobody is in:\n%s", log.String())
		}
		for _, c := range commands {
			p.Do(c, "")
		}
		p.Closed()
		synctest.Wait()
		return log
	}
	const (
		removed = `msg="messages removed"`
		perhaps = `msg="messages were to be removed, some may be"`
	)
	synctest.Test(t, func(t *testing.T) {
		log := run(t, proxytest.Faults{}, "DELE 1", "DELE 3", "DELE 4", "DELE 5", "DELE 7", "DELE 8", "RSET",
			"DELE 2", "DELE 4", "DELE 5", "DELE 6", "DELE 9", "QUIT")
		if len(log.Lines("level=INFO", removed, " user=alice upstream=memory messages=5 uids=2,4:6,9")) != 1 {
			t.Errorf("log:\n%s", log.String())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		if log := run(t, proxytest.Faults{}, "DELE 1", "RSET", "QUIT"); len(log.Lines("removed")) != 1 { // the record
			t.Errorf("log:\n%s", log.String())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		log := run(t, proxytest.Faults{Update: proxy.ErrNotRemoved}, "DELE 1", "DELE 2", "QUIT")
		if len(log.Lines("level=INFO", perhaps, " messages=2 uids=1:2")) != 1 || len(log.Lines(removed)) != 0 {
			t.Errorf("log:\n%s", log.String())
		}
	})
}
