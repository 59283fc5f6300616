package imapbackend

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"popgate/imapbackend/internal/imapscript"
	"popgate/imapbackend/upstream"
	"popgate/proxy"
	"popgate/proxy/proxytest"
)

const hostName = "zebra.example.net"

// startTLS is the beginning of a script up to TLS.
const startTLS = "S: * OK [CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN] x\nC: <t> STARTTLS\nS: <t> OK go\nTLS:\n"

func certificateFor(t *testing.T, name string) *proxytest.Certificate {
	t.Helper()
	return proxytest.NewCertificate(t, proxytest.CertificateOptions{Names: []string{name}})
}

// noSecret checks that the upstream got nothing of a credential: there is no
// login before TLS (O-TLS-7).
func (s *session) noSecret() {
	s.Helper()
	said := s.up.Conversation()
	if strings.Contains(said, ir) || strings.Contains(said, "LOGIN ") || strings.Contains(said, "AUTHENTICATE") {
		s.Errorf("O-TLS-7: a credential was sent:\n%s", said)
	}
}

// O-TLS-7, I-CONN-2: a private CA and a server name are accepted, in both
// modes, and nothing from before STARTTLS counts afterwards.
func TestTLS(t *testing.T) {
	cert := certificateFor(t, hostName)
	opts := Options{Address: hostName + ":993", RootCAs: cert.CA}
	play(t, "O-TLS-7 implicit", "TLS:\n"+opened+bye, withTLS(opts, TLSImplicit), func(s *session) { s.open() }, imapscript.WithTLS(cert.Server()))

	fresh := "C: <c> CAPABILITY\nS: * CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR\nS: <c> OK x\n" + strings.TrimPrefix(opened, greeted) + bye
	play(t, "I-CONN-2 capabilities asked for again after STARTTLS", startTLS+fresh, withTLS(opts, TLSStartTLS),
		func(s *session) { s.open() }, imapscript.WithTLS(cert.Server()))
	play(t, "STARTTLS is tried where the greeting says nothing", "S: * OK x\nC: <t> STARTTLS\nS: * CAPABILITY X\nS: <t> OK go\nTLS:\n"+fresh,
		withTLS(opts, TLSStartTLS), func(s *session) { s.open() }, imapscript.WithTLS(cert.Server()))
	// The octets after the OK do not count as answers within TLS: with the
	// attacker's capabilities the password would be sent by LOGIN.
	play(t, "I-CONN-2 injected plaintext is dropped", "S: * OK [CAPABILITY IMAP4rev1 STARTTLS] x\nC: <t> STARTTLS\n"+
		"S+: <t> OK [CAPABILITY IMAP4rev1 AUTH=ZEBRA] go\nS64: DQoqIENBUEFCSUxJVFkgSU1BUDRyZXYxDQpQMiBPSyB4DQo=\nTLS:\n"+fresh,
		withTLS(opts, TLSStartTLS), func(s *session) { s.open() }, imapscript.WithTLS(cert.Server()))
	play(t, "O-TLS-7 name differs from the address", "TLS:\n"+opened+bye,
		Options{Address: "10.0.0.1:993", ServerName: hostName, RootCAs: cert.CA, TLS: TLSImplicit}, func(s *session) { s.open() }, imapscript.WithTLS(cert.Server()))
}

// A second connection resumes the TLS session of the first.
func TestTLSResumed(t *testing.T) {
	cert := certificateFor(t, hostName)
	opts := Options{Address: hostName + ":993", RootCAs: cert.CA, TLS: TLSImplicit}
	once := "TLS:\n" + greeted + bye
	play(t, "tickets", once+"-- connection 2 --\n"+once, opts, func(s *session) {
		for _, want := range []bool{false, true} {
			u, err := s.b.server.Connect(s.ctx, upstream.NewAttempt())
			if err != nil {
				s.Fatal(err)
			}
			if u.TLS.DidResume != want {
				s.Errorf("resumed: %v", u.TLS.DidResume)
			}
			u.Logout(s.ctx)
		}
	}, imapscript.WithTLS(cert.Server()))
}

func withTLS(o Options, mode TLSMode) Options {
	o.TLS = mode
	return o
}

// O-TLS-2, O-TLS-3, O-TLS-7: what popgate offers in the handshake.
func TestTLSOffer(t *testing.T) {
	cert := certificateFor(t, hostName)
	var hello *tls.ClientHelloInfo
	server := cert.Server()
	server.NextProtos = []string{"imap"}
	server.GetConfigForClient = func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		hello = h
		return nil, nil
	}
	opts := Options{Address: hostName + ":993", RootCAs: cert.CA, TLS: TLSImplicit}
	play(t, "O-TLS-3", "TLS:\n"+greeted+bye, opts, func(s *session) {
		r, err := s.b.Probe(s.ctx)
		if err != nil || r.TLSVersion != "TLS 1.3" {
			s.Fatalf("%+v, %v", r, err)
		}
		if hello.ServerName != hostName {
			s.Errorf("O-TLS-7: SNI %q", hello.ServerName)
		}
		if strings.Join(hello.SupportedProtos, " ") != "imap" {
			s.Errorf("O-TLS-3: ALPN %q", hello.SupportedProtos)
		}
		for _, v := range hello.SupportedVersions {
			if v < tls.VersionTLS12 {
				s.Errorf("O-TLS-2: offers %s", tls.VersionName(v))
			}
		}
		for _, id := range hello.CipherSuites {
			if name := tls.CipherSuiteName(id); !strings.Contains(name, "GCM") && !strings.Contains(name, "POLY1305") ||
				strings.HasPrefix(name, "TLS_RSA") {
				s.Errorf("O-TLS-2: offers %s", name)
			}
		}
	}, imapscript.WithTLS(server))
}

// O-TLS-7, M-1: if TLS fails, the login ends with [SYS/PERM] and a security
// event in the log, before a credential is sent.
func TestTLSRefused(t *testing.T) {
	good := certificateFor(t, hostName)
	otherName := certificateFor(t, "other.example.net")
	withServer := func(change func(*tls.Config)) *tls.Config {
		server := good.Server()
		change(server)
		return server
	}
	for _, tt := range []struct {
		name   string
		server *tls.Config
		fail   string // in the cause
	}{
		{"wrong name", otherName.Server(), "certificate"},
		{"unknown CA", certificateFor(t, hostName).Server(), "unknown authority"},
		{"TLS 1.1", withServer(func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS11 }), "protocol version"},
		{"no AEAD", withServer(func(c *tls.Config) {
			c.MaxVersion, c.CipherSuites = tls.VersionTLS12, []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA}
		}), "handshake failure"},
		{"other protocol", withServer(func(c *tls.Config) { c.NextProtos = []string{"pop3"} }), "no application protocol"},
	} {
		opts := Options{Address: hostName + ":993", RootCAs: good.CA}
		if tt.name == "wrong name" {
			opts.RootCAs = otherName.CA
		}
		for mode, script := range map[TLSMode]string{TLSImplicit: "TLS:\nW: stall\n", TLSStartTLS: startTLS + "W: stall\n"} {
			play(t, tt.name+"/"+string(mode), script, withTLS(opts, mode), func(s *session) {
				e := s.fails(s.openFails(), perm)
				if !strings.Contains(e.Error(), tt.fail) {
					s.Errorf("cause %v", e)
				}
				if !strings.Contains(s.log.String(), "security: upstream TLS failed") {
					s.Errorf("no security event in the log: %s", s.log.String())
				}
				s.noSecret()
			}, imapscript.WithTLS(tt.server))
		}
	}
}

// O-TLS-7, I-CONN-1, I-KEEP-2: no credential is sent if the handshake is not
// reached or does not finish.
func TestTLSNotReached(t *testing.T) {
	const greeting = "S: * OK [CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN SASL-IR] x\nC: <t> STARTTLS\n"
	for _, tt := range []struct {
		name, script string
		mode         TLSMode
		want         proxy.Code
		after        time.Duration
	}{
		{"O-TLS-7 STARTTLS is not offered", greeted + "W:\n", TLSStartTLS, perm, 0},
		{"O-TLS-7 NO to STARTTLS", greeting + "S: <t> NO zebra\nW:\n", TLSStartTLS, perm, 0},
		{"O-TLS-7 NO [UNAVAILABLE] to STARTTLS", greeting + "S: <t> NO [UNAVAILABLE] zebra\nW:\n", TLSStartTLS, perm, 0},
		{"O-TLS-7 BAD to STARTTLS", greeting + "S: <t> BAD zebra\nW:\n", TLSStartTLS, perm, 0},
		{"I-CONN-1 PREAUTH before STARTTLS", "S: * PREAUTH [CAPABILITY IMAP4rev1] zebra\nW:\n", TLSStartTLS, perm, 0},
		{"lost at STARTTLS", greeting + "X:\n", TLSStartTLS, temp, 0},
		{"lost in the handshake", greeting + "S: <t> OK x\nX:\n", TLSStartTLS, temp, 0},
		{"reset in the handshake", greeting + "S: <t> OK x\nR:\n", TLSStartTLS, temp, 0},
		{"I-KEEP-2 no answer to STARTTLS", greeting + "W:\n", TLSStartTLS, temp, upstream.LoginLimit},
		{"I-KEEP-2 no handshake", greeting + "S: <t> OK x\nW: stall\n", TLSStartTLS, temp, upstream.TLSTimeout},
		{"I-KEEP-2 no handshake, implicit", "W: stall\n", TLSImplicit, temp, upstream.TLSTimeout},
		{"plain IMAP on the TLS port", greeted + "W: stall\n", TLSImplicit, perm, 0},
		{"closed, implicit", "X:\n", TLSImplicit, temp, 0},
		{"reset, implicit", "R:\n", TLSImplicit, temp, 0},
	} {
		play(t, tt.name, tt.script, Options{TLS: tt.mode}, func(s *session) {
			began := time.Now()
			s.fails(s.openFails(), tt.want)
			if d := time.Since(began); d != tt.after {
				s.Errorf("after %v, want %v", d, tt.after)
			}
			s.noSecret()
		})
	}
}

// M-1, I-KEEP-2: the errors of connections that cannot be established.
func TestDialFailures(t *testing.T) {
	for _, tt := range []struct {
		name string
		err  error // of dialling; nil: it hangs
		want proxy.Code
	}{
		{"M-1 refused", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, temp},
		{"M-1 unreachable", &net.OpError{Op: "dial", Err: syscall.EHOSTUNREACH}, temp},
		{"M-1 name does not exist", &net.OpError{Op: "dial", Err: &net.DNSError{Name: hostName, IsNotFound: true}}, perm},
		{"M-1 DNS fails for now", &net.OpError{Op: "dial", Err: &net.DNSError{Name: hostName, IsTemporary: true}}, temp},
		{"M-1 DNS times out", &net.DNSError{Name: hostName, IsTimeout: true}, temp},
		{"I-KEEP-2 connect", nil, temp},
	} {
		play(t, tt.name, "X:\n", Options{}, func(s *session) {
			c, err := s.up.Dial(s.ctx) // the script is not used
			if err != nil {
				s.Fatal(err)
			}
			defer c.Close()
			s.b.dial = func(ctx context.Context) (net.Conn, error) {
				if tt.err == nil {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				return nil, tt.err
			}
			began := time.Now()
			e := s.fails(s.openFails(), tt.want)
			if d := time.Since(began); tt.err == nil && d != upstream.ConnectTimeout {
				s.Errorf("after %v", d)
			}
			if tt.err != nil && !errors.Is(e, tt.err) {
				s.Errorf("cause %v", e)
			}
		})
	}
}

// M-1: a refused connection, without a test in place of the dialling.
func TestRefusedConnection(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	b := backend(t, Options{Address: l.Addr().String()})
	_, err = b.Login(t.Context(), joe)
	e := proxy.AsError(err)
	if e.Code != temp || !errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(e.Text, "127.0.0.1") {
		t.Errorf("Login: %v, to the client %q", err, e.Text)
	}
}

// I-KEEP-2, I-LOGIN-8: a silent upstream counts as lost after the time of the phase.
func TestTimeouts(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		after        time.Duration
	}{
		{"greeting", "W:\n", upstream.GreetingTimeout},
		{"part of a greeting", "S+: * OK zeb\nW:\n", upstream.GreetingTimeout},
		{"CAPABILITY", "S: * OK x\nC: <c> CAPABILITY\nW:\n", upstream.LoginLimit},
	} {
		play(t, "I-KEEP-2 "+tt.name, "D: 1h\n"+tt.script, Options{}, func(s *session) {
			began := time.Now()
			s.fails(s.openFails(), temp)
			if d := time.Since(began); d != tt.after {
				s.Errorf("after %v, want %v", d, tt.after)
			}
		})
	}
}

// P-PASS-4: the end of its context ends a login at once.
func TestLoginCancelled(t *testing.T) {
	for name, script := range map[string]string{
		"greeting":     "W:\n",
		"AUTHENTICATE": greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\nW:\n",
		"SELECT":       selecting + "W:\n",
		"listing":      listed + "W:\n",
	} {
		play(t, "P-PASS-4 "+name, script, Options{}, func(s *session) {
			began := time.Now()
			ctx, cancel := context.WithTimeout(s.ctx, time.Second)
			defer cancel()
			s.ctx = ctx
			s.fails(s.openFails(), temp)
			if d := time.Since(began); d != time.Second {
				s.Errorf("after %v", d)
			}
		})
	}
}
