//go:build integration

package main_test

import (
	"encoding/base64"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"popgate/imapbackend/dovecottest"
	"popgate/proxy/proxytest"
)

var saslMechanisms = []string{"plain", "login", "xoauth2", "oauthbearer", "cram-md5", "scram-sha-1", "scram-sha-256"}

// saslDovecot starts a Dovecot with every mechanism and one message for joe.
func saslDovecot(t *testing.T) *dovecottest.Server {
	t.Helper()
	s := dovecottest.Start(t, dovecottest.WithMechanisms(saslMechanisms...))
	s.Append("joe", []byte("Subject: x\r\n\r\ny\r\n"))
	return s
}

// saslGateway starts a gateway with these mechanisms in front of s, with TLS on
// both sides, and returns when it offers them.
func saslGateway(t *testing.T, s *dovecottest.Server, mechanisms ...string) *gateway {
	t.Helper()
	g := startGateway(t, tlsConfig(s, "implicit", "implicit", s.CAFile)+`auth = ["`+strings.Join(mechanisms, `", "`)+"\"]\n")
	g.await("the upstream's mechanisms", func() bool {
		out := client{dir: clientDir(t), stdin: "CAPA\nQUIT\n"}.run(t, "openssl", openSSL(s, g)...)
		return strings.Contains(out, "SASL "+strings.ToUpper(strings.Join(mechanisms, " "))+"\r\n")
	})
	return g
}

// port returns the port of the gateway.
func (g *gateway) port() string { return g.addr[strings.LastIndexByte(g.addr, ':')+1:] }

// copyCA copies the CA of s to dir, where clients that do not run as root can
// read it.
func copyCA(t *testing.T, s *dovecottest.Server, dir string) string {
	t.Helper()
	file := filepath.Join(dir, "ca.pem")
	writeFile(t, file, string(mustRead(t, s.CAFile)), 0o600)
	return file
}

// openSSL returns the arguments of openssl for a TLS client.
func openSSL(s *dovecottest.Server, g *gateway) []string {
	return []string{"s_client", "-quiet", "-crlf", "-connect", g.addr, "-CAfile", s.CAFile,
		"-verify_return_error", "-verify_hostname", "localhost"}
}

// soon is when the tokens of a test expire.
func soon() time.Time { return time.Now().Add(time.Hour) }

// P-AUTH-5, P-AUTH-7, P-SASL-2, P-SASL-3, P-SASL-5, P-CAPA-4, O-OAUTH-1: curl
// logs in by each of its mechanisms. With a token it uses OAUTHBEARER if that is
// listed, whatever --login-options says.
func TestCurlMechanisms(t *testing.T) {
	t.Parallel()
	s := saslDovecot(t)
	all, xoauth2 := saslGateway(t, s, saslMechanisms...), saslGateway(t, s, "plain", "xoauth2")
	const message = "Subject: x\r\n\r\ny\r\n"
	check := func(g *gateway, mechanism, want string, args ...string) {
		t.Helper()
		args = append(args, "--silent", "--show-error", "--fail", "--cacert", s.CAFile, "--login-options", "AUTH="+mechanism,
			"pop3s://localhost:"+g.port()+"/1")
		const denied = 67
		if got := (client{dir: clientDir(t), accepted: []int{denied}}).run(t, "curl", args...); got != want {
			t.Errorf("%s: %q, want %q", mechanism, got, want)
		}
	}
	for _, m := range []string{"PLAIN", "LOGIN", "CRAM-MD5"} {
		check(all, m, message, "--user", "joe:"+dovecottest.Password)
		check(all, m, "", "--user", "joe:wrong")
	}
	for m, g := range map[string]*gateway{"XOAUTH2": xoauth2, "OAUTHBEARER": all} {
		check(g, m, message, "--user", "joe:", "--oauth2-bearer", s.Token("joe", soon()))
		check(g, m, "", "--user", "joe:", "--oauth2-bearer", s.Token("joe", time.Now().Add(-time.Hour)))
		check(g, m, "", "--user", "joe:", "--oauth2-bearer", s.Token("bob", soon()))
		if out := g.Stderr.String(); strings.Contains(out, "eyJ") {
			t.Errorf("O-LOG-1: a token is in the log:\n%s", out)
		}
	}
	mustHaveLoggedIn(t, s, "PLAIN", "CRAM-MD5", "XOAUTH2", "OAUTHBEARER")
}

// P-AUTH-4: the filter in deploy matches an exchange that is abandoned after the
// upstream's challenge.
func TestFail2banAbandoned(t *testing.T) {
	t.Parallel()
	s := saslDovecot(t)
	g := saslGateway(t, s, "scram-sha-256")
	filter, err := filepath.Abs("../../deploy/fail2ban/filter.d/popgate.conf")
	if err != nil {
		t.Fatal(err)
	}
	first := base64.StdEncoding.EncodeToString([]byte("n,,n=joe,r=abcdefgh"))
	out := client{dir: clientDir(t), stdin: "AUTH SCRAM-SHA-256 " + first + "\n*\nQUIT\n"}.run(t, "openssl", openSSL(s, g)...)
	if !strings.Contains(out, "-ERR authentication cancelled\r\n") {
		t.Fatalf("answers %q", out)
	}
	log := filepath.Join(t.TempDir(), "log")
	writeFile(t, log, g.Stderr.String()+"\n", 0o600)
	got := strings.TrimSpace(client{dir: clientDir(t)}.run(t, "fail2ban-regex", "-o", "ip", log, filter))
	if got != "127.0.0.1" || !strings.Contains(g.Stderr.String(), " user=joe cause=abandoned ") {
		t.Errorf("%q, want one address, of\n%s", got, g.Stderr.String())
	}
}

// mustHaveLoggedIn checks that joe has logged in upstream by each mechanism.
func mustHaveLoggedIn(t *testing.T, s *dovecottest.Server, mechanisms ...string) {
	t.Helper()
	for _, m := range mechanisms {
		if !strings.Contains(s.Log(), "Login: user=<joe>, method="+m+",") {
			t.Errorf("no upstream login by %s", m)
		}
	}
}

// P-SASL-5, P-SASL-6: mpop, whose SCRAM verifies the upstream's signature.
func TestMpopMechanisms(t *testing.T) {
	t.Parallel()
	s := saslDovecot(t)
	g := saslGateway(t, s, saslMechanisms...)
	for _, m := range []string{"plain", "login", "cram-md5", "scram-sha-1", "scram-sha-256", "oauthbearer", "xoauth2", "user"} {
		dir := clientDir(t)
		password := dovecottest.Password
		if m == "oauthbearer" || m == "xoauth2" {
			password = s.Token("joe", soon())
		}
		rc := filepath.Join(dir, "mpoprc")
		writeFile(t, rc, fmt.Sprintf("account x\nhost localhost\nport %s\ntls on\ntls_starttls off\ntls_trust_file %s\nuser joe\npassword %s\nauth %s\n"+
			"keep on\ndelivery maildir %s/out\nuidls_file %s/uidls\n", g.port(), copyCA(t, s, dir), password, m, dir, dir), 0o600)
		client{dir: dir, unprivileged: true}.run(t, "mpop", "--file="+rc, "--quiet", "x")
		files, err := filepath.Glob(filepath.Join(dir, "out", "new", "*"))
		if err != nil || len(files) != 1 {
			t.Errorf("%s: %d messages, %v", m, len(files), err)
		}
	}
	mustHaveLoggedIn(t, s, "PLAIN", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "OAUTHBEARER", "XOAUTH2")
}

// P-USER-1, P-SASL-5: fetchmail, which prefers CRAM-MD5 if it is listed.
func TestFetchmailMechanisms(t *testing.T) {
	t.Parallel()
	s := saslDovecot(t)
	g := saslGateway(t, s, saslMechanisms...)
	for _, auth := range []string{"password", "cram-md5"} {
		dir := clientDir(t)
		rc := filepath.Join(dir, "rc")
		writeFile(t, rc, fmt.Sprintf("poll localhost protocol pop3 port %s auth %s\nuser joe password %s is joe ssl sslcertfile %s sslcertck keep\nmda \"cat > %s/out/new/1\"\n",
			g.port(), auth, dovecottest.Password, copyCA(t, s, dir), dir), 0o600)
		client{dir: dir, unprivileged: true}.run(t, "fetchmail", "--fetchmailrc", rc, "--nodetach", "--pidfile", filepath.Join(dir, "pid"))
		if got := string(mustRead(t, filepath.Join(dir, "out", "new", "1"))); !strings.Contains(got, "Subject: x\n") {
			t.Errorf("%s: %q", auth, got)
		}
	}
	mustHaveLoggedIn(t, s, "PLAIN", "CRAM-MD5")
}

// P-SASL-2, P-SASL-3, P-SASL-4, P-AUTH-4, P-AUTH-8, P-UTF8-1: exchanges written
// out, line by line.
func TestOpenSSLMechanisms(t *testing.T) {
	t.Parallel()
	s := saslDovecot(t)
	g := saslGateway(t, s, saslMechanisms...)
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	token, old := s.Token("joe", soon()), s.Token("joe", time.Now().Add(-time.Hour))
	bearer := func(token string) string {
		return b64("n,a=joe,\x01host=localhost\x01port=995\x01auth=Bearer " + token + "\x01\x01")
	}
	xoauth2 := func(token string) string { return b64("user=joe\x01auth=Bearer " + token + "\x01\x01") }
	const in = "+OK maildrop has 1 messages (17 octets)\r\n+OK 1 17\r\n+OK"
	for _, tt := range []struct{ name, script, want string }{
		{"PLAIN", "AUTH PLAIN " + b64("\x00joe\x00"+dovecottest.Password), in},
		{"LOGIN", "AUTH LOGIN\n" + b64("joe") + "\n" + b64(dovecottest.Password), "+ VXNlcm5hbWU6\r\n+ UGFzc3dvcmQ6\r\n" + in},
		{"XOAUTH2", "AUTH XOAUTH2 " + xoauth2(token), in},
		{"OAUTHBEARER", "AUTH OAUTHBEARER\n" + bearer(token), "+ \r\n" + in},
		{"XOAUTH2, old", "AUTH XOAUTH2 " + xoauth2(old) + "\n", "-ERR [AUTH] authentication failed\r\n"},
		{"OAUTHBEARER, old, cancelled", "AUTH OAUTHBEARER " + bearer(old) + "\n*", "-ERR [AUTH] authentication failed\r\n"},
		{"OAUTHBEARER, then PLAIN", "AUTH OAUTHBEARER " + bearer(old) + "\nAQ==\nAUTH PLAIN " + b64("\x00joe\x00"+dovecottest.Password),
			"-ERR [AUTH] authentication failed\r\n" + in},
		{"SCRAM-SHA-256, cancelled", "AUTH SCRAM-SHA-256 " + b64("n,,n=joe,r=abc") + "\n*", "-ERR authentication cancelled\r\n"},
	} {
		out := client{dir: clientDir(t), stdin: tt.script + "\nSTAT\nQUIT\n"}.run(t, "openssl", openSSL(s, g)...)
		if !strings.Contains(out, tt.want) {
			t.Errorf("%s: no %q in\n%s", tt.name, tt.want, out)
		}
		// The challenge is JSON: in base64 it begins as "{" does.
		if strings.Contains(tt.name, "old") && !strings.Contains(out, "+ ey") {
			t.Errorf("%s: P-SASL-4: no error challenge in\n%s", tt.name, out)
		}
	}
}

// O-ID-2: Dovecot's log has the address and session of the POP3 client if the
// gateway sends them, and the gateway's own address otherwise.
func TestClientAddressUpstream(t *testing.T) {
	t.Parallel()
	s := dovecottest.Start(t, dovecottest.WithTrustedClients())
	const address = "127.0.0.9"
	for _, tt := range []struct{ key, want string }{
		{"send_client_id = true\n", "rip=" + address + ","},
		{"", "rip=127.0.0.1,"},
	} {
		g := startGateway(t, plainConfig(s.Addr)+tt.key)
		conn, err := dialFrom(t.Context(), address, g.addr)
		if err != nil {
			t.Fatal(err)
		}
		c := proxytest.NewClient(t, conn)
		c.Greeting()
		user := "joe" + fmt.Sprint(len(tt.key))
		c.OK("USER "+user, "PASS "+dovecottest.Password, "QUIT")
		c.Conn.Close()
		var line string
		var session []string
		record := regexp.MustCompile(`session=([0-9a-f]{16}) client=` + address + ":")
		g.await("the records of both", func() bool {
			for l := range strings.Lines(s.Log()) {
				if strings.Contains(l, "Login: user=<"+user+">") {
					line = l
				}
			}
			session = record.FindStringSubmatch(g.Stderr.String())
			return line != "" && session != nil
		})
		if !strings.Contains(line, tt.want) || strings.Contains(line, "session=<"+session[1]+">") != (tt.key != "") {
			t.Errorf("%q: %q, want %q and perhaps session %s", tt.key, line, tt.want, session[1])
		}
	}
}
