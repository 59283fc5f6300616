//go:build integration && unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"popgate/cmd/popgate/processtest"
	"popgate/proxy/proxytest"
)

// installHint names the package of a program that is missing.
const installHint = "%v; make deps installs what is missing"

// look finds a program, also in a directory that only root has in PATH.
func look(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		path, err = exec.LookPath("/usr/sbin/" + name)
	}
	if err != nil {
		t.Fatalf(installHint, err)
	}
	return path
}

// tool runs a program to its end and returns its output.
func tool(t *testing.T, limit time.Duration, stdin, name string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, look(t, name), args...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", name, err, out)
	}
	return string(out)
}

// front starts a gateway in front of alice's two messages. Its listeners have
// the given keys; those with TLS have a certificate with an RSA key.
func front(t *testing.T, more string, listeners ...string) (p *processtest.Process, addrs []string, dir string) {
	t.Helper()
	_, upstream := upstreamWithMail(t)
	dir = t.TempDir()
	proxytest.NewCertificate(t, proxytest.CertificateOptions{
		Names: []string{"localhost"}, Until: time.Now().AddDate(1, 0, 0), RSA: true, SelfSigned: true,
	}).WriteFiles(t, dir)
	var text strings.Builder
	for _, keys := range listeners {
		text.WriteString("[[listener]]\naddress = \"127.0.0.1:0\"\n" + keys + "\n")
		if !strings.Contains(keys, `tls = "none"`) {
			text.WriteString("cert_file = \"cert.pem\"\nkey_file = \"key.pem\"\n")
		}
	}
	fmt.Fprintf(&text, "[[upstream]]\naddress = %q\ntls = \"none\"\n%s", upstream, more)
	file := filepath.Join(dir, "config.toml")
	put(t, file, []byte(text.String()))
	p = start(t, "serve", "--config", file)
	for range listeners {
		addrs = append(addrs, p.Stderr.Expect(`msg"?[=:]"?listening.*(127\.0\.0\.1:\d+)`)[1])
	}
	return p, addrs, dir
}

// end stops a gateway.
func end(t *testing.T, p *processtest.Process) {
	t.Helper()
	p.Signal(syscall.SIGTERM)
	p.Exit(exitOK)
}

// O-TLS-2: an old client, with TLS 1.0 and CBC, with or without ephemeral keys,
// logs in where that is allowed, and only there.
func TestVintageOpenSSL(t *testing.T) {
	t.Parallel()
	const lowered = "min_tls = \"1.0\"\nlegacy_ciphers = true\n"
	p, addrs, _ := front(t, "", lowered+`tls = "implicit"`, lowered+`tls = "starttls"`, `tls = "implicit"`)
	script := "USER alice\nPASS secret word\nSTAT\nQUIT\n"
	for _, cipher := range []string{"AES128-SHA", "AES256-SHA", "ECDHE-RSA-AES128-SHA"} {
		for i, addr := range addrs[:2] {
			args := []string{"s_client", "-quiet", "-crlf", "-connect", addr, "-tls1", "-cipher", cipher + ":@SECLEVEL=0"}
			if i == 1 {
				args = append(args, "-starttls", "pop3")
			}
			if out := tool(t, patience, script, "openssl", args...); !strings.Contains(out, "+OK maildrop has 2 messages") {
				t.Errorf("%s: %s", cipher, out)
			}
		}
	}
	out, err := exec.CommandContext(t.Context(), look(t, "openssl"), "s_client", "-connect", addrs[2],
		"-tls1", "-cipher", "ALL:@SECLEVEL=0").CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("alert protocol version")) {
		t.Errorf("the default listener: %v\n%s", err, out)
	}
	end(t, p)
	if n := strings.Count(p.Stderr.String(), `tls="TLS 1.0" suite=TLS_`); n != 6 {
		t.Errorf("%d records of TLS 1.0, want 6:\n%s", n, p.Stderr.String())
	}
}

// O-TLS-2: the connection of a client that asks for renegotiation is closed.
func TestRenegotiation(t *testing.T) {
	t.Parallel()
	p, addrs, _ := front(t, "", `tls = "implicit"`)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, look(t, "openssl"), "s_client", "-tls1_2", "-connect", addrs[0])
	stdin, err := cmd.StdinPipe() // stays open, so that only the gateway ends the connection
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	var out, stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// openssl fails if the greeting arrives during the renegotiation.
	lines := bufio.NewReader(io.TeeReader(stdout, &out))
	for line := ""; !strings.HasPrefix(line, "+OK"); {
		if line, err = lines.ReadString('\n'); err != nil {
			t.Fatalf("%v\n%s%s", err, &out, &stderr)
		}
	}
	if _, err := stdin.Write([]byte("R\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, lines); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err == nil || !strings.Contains(stderr.String(), "alert unexpected message") {
		t.Errorf("%v\n%s%s", err, &out, &stderr)
	}
	end(t, p)
}

// O-TLS-2: testssl.sh rates nothing worse than LOW on a default listener.
func TestTestSSL(t *testing.T) {
	t.Parallel()
	p, addrs, dir := front(t, "", `tls = "implicit"`)
	_, port, err := net.SplitHostPort(addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	const limit = 5 * time.Minute // a minute, on a machine with nothing else to do
	out := tool(t, limit, "", "testssl", "--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none",
		"--ip", "127.0.0.1", "--add-ca", filepath.Join(dir, "cert.pem"), "--csvfile", filepath.Join(dir, "out.csv"), "--fast",
		"-p", "-s", "-f", "-S", "-H", "-I", "-R", "-C", "-O", "-W", "-L", "localhost:"+port)
	f, err := os.Open(filepath.Join(dir, "out.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	rows, err := csv.NewReader(f).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	ok := 0
	for _, row := range rows[1:] {
		switch id, severity, finding := row[0], row[3], row[4]; severity {
		case "OK":
			ok++
		case "MEDIUM", "HIGH", "CRITICAL", "FATAL":
			t.Errorf("%s: %s: %s", severity, id, finding)
		}
	}
	if ok < 20 {
		t.Errorf("only %d good findings in\n%s", ok, out)
	}
	end(t, p)
}

// O-PP-3, O-PP-4, O-PP-5, O-PP-6: clients connect through HAProxy, which passes
// their TLS on or terminates it; the log has their address and not HAProxy's.
func TestHAProxy(t *testing.T) {
	t.Parallel()
	const from = "proxy_protocol_from = [\"127.0.0.0/8\"]\n"
	p, addrs, dir := front(t, "", from+`tls = "implicit"`, from+`tls = "starttls"`, from+`tls = "none"`)
	cert, err := os.ReadFile(filepath.Join(dir, "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "both.pem"), append(cert, key...))
	paths := []struct{ bind, server string }{
		{"", addrs[0] + " send-proxy"},
		{"", addrs[0] + " send-proxy-v2"},
		{"", addrs[1] + " send-proxy-v2"},
		{" ssl crt " + filepath.Join(dir, "both.pem"), addrs[2] + " send-proxy-v2-ssl proxy-v2-options ssl-cipher,authority"},
		{"", addrs[2] + " send-proxy-v2-ssl"},
	}
	config := "global\n  log stderr format raw local0\ndefaults\n  mode tcp\n  timeout connect 10s\n  timeout client 30s\n  timeout server 30s\n"
	var files []*os.File
	var fronts []string
	for i, path := range paths {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		fronts, files = append(fronts, l.Addr().String()), append(files, f)
		_ = l.Close() // f keeps the socket open
		config += fmt.Sprintf("listen l%d\n  bind fd@%d%s\n  server s %s\n", i, 3+i, path.bind, path.server)
	}
	put(t, filepath.Join(dir, "haproxy.cfg"), []byte(config))
	cmd := exec.CommandContext(t.Context(), look(t, "haproxy"), "-db", "-f", filepath.Join(dir, "haproxy.cfg"))
	var output bytes.Buffer
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = files, &output, &output, time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		_ = f.Close()
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // it has been killed
		if t.Failed() {
			t.Logf("haproxy:\n%s\n%s", config, &output)
		}
	}()

	// Each client has its own address.
	connect := func(i int, secure bool) net.Conn {
		t.Helper()
		d := &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i+1))}, Timeout: patience}
		conn, err := d.DialContext(t.Context(), "tcp", fronts[i])
		if err != nil {
			t.Fatal(err)
		}
		if secure {
			conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"}) // of front
		}
		return conn
	}
	session := func(c *proxytest.Client) {
		t.Helper()
		c.OK("USER alice")
		c.Do("PASS secret word", "+OK maildrop has 2")
		c.OK("QUIT")
		c.Closed()
	}
	session(greet(t, connect(0, true)))
	session(greet(t, connect(1, true)))

	c := greet(t, connect(2, false))
	c.OK("STLS")
	c.StartTLS(new(tls.Config))
	session(c)

	ended := greet(t, connect(3, true))
	capa := strings.Split(ended.Fetch("CAPA"), "\r\n")
	if !slices.Contains(capa, "USER") || slices.Contains(capa, "STLS") {
		t.Errorf("CAPA behind a proxy that terminates TLS: %q", capa)
	}
	session(ended)

	plain := greet(t, connect(4, false)) // no TLS anywhere
	plain.Send("USER alice")
	plain.Expect("-ERR login needs TLS")
	plain.OK("QUIT")

	end(t, p)
	for i := range paths {
		want := fmt.Sprintf(`msg=session session=\w+ client=127\.0\.1\.%d:\d+ `, i+1)
		if i == 3 {
			want += `.* proxy_tls=TLSv1\.3 proxy_suite=TLS_\w+ proxy_sni=localhost `
		}
		if !regexp.MustCompile(want).MatchString(p.Stderr.String()) {
			t.Errorf("no %s in\n%s", want, p.Stderr.String())
		}
	}
}

// The filter in deploy matches failed logins in both formats of the log. It
// finds the client's address, and no address that a client has put into a name.
func TestFail2ban(t *testing.T) {
	t.Parallel()
	filter, err := filepath.Abs("../../deploy/fail2ban/filter.d/popgate.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, format := range []string{"text", "json"} {
		p, addrs, dir := front(t, "[throttle]\ndelay = \"0s\"\n[log]\nformat = \""+format+"\"\nlevel = \"debug\"\n",
			"tls = \"none\"\ninsecure_login_from = [\"0.0.0.0/0\", \"::/0\"]\nproxy_protocol_from = [\"127.0.0.0/8\"]")
		for _, login := range []struct{ client, user, password string }{
			{"TCP4 198.51.100.7 192.0.2.1", "alice", "wrong"},
			{"TCP6 2001:db8::7 2001:db8::1", "alice", "wrong"},
			{"TCP4 198.51.100.8 192.0.2.1", "alice", "secret word"},
			{"TCP4 198.51.100.9 192.0.2.1", `a" level=INFO msg="login failed" session=0123456789abcdef client=203.0.113.1:1 user=`, "wrong"},
			{"TCP4 198.51.100.9 192.0.2.1", `","level":"INFO","msg":"login failed","session":"0123456789abcdef","client":"203.0.113.1:1","user":"`, "wrong"},
		} {
			conn, err := net.DialTimeout("tcp", addrs[0], patience)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := fmt.Fprintf(conn, "PROXY %s 40000 110\r\n", login.client); err != nil {
				t.Fatal(err)
			}
			c := greet(t, conn)
			c.OK("USER " + login.user)
			c.Send("PASS " + login.password)
			c.Line()
			c.OK("QUIT")
		}
		end(t, p)
		log := filepath.Join(dir, "log")
		put(t, log, []byte(p.Stderr.String()+"\n"))
		got := strings.Fields(tool(t, patience, "", "fail2ban-regex", "-o", "ip", log, filter))
		want := []string{"198.51.100.7", "2001:db8::7", "198.51.100.9", "198.51.100.9"}
		if !slices.Equal(got, want) {
			t.Errorf("%s: %v, want %v, of\n%s", format, got, want, p.Stderr.String())
		}
	}
}
