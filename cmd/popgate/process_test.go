//go:build unix

package main

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"popgate/cmd/popgate/processtest"
	"popgate/proxy/proxytest"
)

// patience bounds every wait of these tests.
const patience = processtest.Patience

// start starts popgate.
func start(t *testing.T, args ...string) *processtest.Process {
	t.Helper()
	return processtest.Start(t, exec.Command("popgate", args...))
}

// dial connects and reads the greeting.
func dial(t *testing.T, addr string) *proxytest.Client {
	t.Helper()
	c := proxytest.Dial(t, addr)
	c.Greeting()
	return c
}

// greet reads the greeting.
func greet(t *testing.T, conn net.Conn) *proxytest.Client {
	t.Helper()
	c := proxytest.NewClient(t, conn)
	c.Greeting()
	return c
}

// silentUpstream is an IMAP server that accepts one connection and sends
// nothing, so that a login waits for it.
func silentUpstream(t *testing.T) (addr string, accepted <-chan net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	conns := make(chan net.Conn, 1)
	go func() {
		if c, err := l.Accept(); err == nil {
			conns <- c
		}
	}()
	return l.Addr().String(), conns
}

// gateway starts popgate serve on a free port in front of the upstream.
func gateway(t *testing.T, upstream, more string) (p *processtest.Process, addr string) {
	t.Helper()
	p = start(t, "serve", "--config", writeConfig(t, `[[listener]]
address = "127.0.0.1:0"
tls = "none"
insecure_login_from = ["127.0.0.0/8"]
[[upstream]]
address = "`+upstream+`"
tls = "none"
`+more))
	return p, p.Stderr.Expect(`msg=listening address=(\S+)`)[1]
}

// busy returns a gateway with an idle client and one that waits for the
// upstream to greet.
func busy(t *testing.T, more string) (p *processtest.Process, idle, waiting *proxytest.Client, upstream net.Conn) {
	t.Helper()
	up, accepted := silentUpstream(t)
	p, addr := gateway(t, up, more)
	idle, waiting = dial(t, addr), dial(t, addr)
	// In one segment: the answer to USER shows that PASS is being executed.
	waiting.Send("USER alice", "PASS secret")
	waiting.Expect("+OK")
	select {
	case upstream = <-accepted:
		t.Cleanup(func() { upstream.Close() })
	case <-time.After(patience):
		t.Fatal("no connection to the upstream")
	}
	return p, idle, waiting, upstream
}

// P-SESS-9: SIGTERM ends sessions that wait for a command, and lets commands
// finish; the exit code is 0.
func TestServeDrains(t *testing.T) {
	p, idle, waiting, upstream := busy(t, "")
	p.Signal(syscall.SIGTERM)
	idle.Closed()
	if _, err := io.WriteString(upstream, "* BYE going down\r\n"); err != nil {
		t.Fatal(err)
	}
	waiting.Expect("-ERR [SYS/TEMP] ")
	waiting.Closed()
	p.Exit(exitOK)
}

// A second signal stops the gateway at once, whatever is in progress.
func TestServeSecondSignal(t *testing.T) {
	p, idle, waiting, _ := busy(t, "[session]\nshutdown_grace = \"1h\"\n")
	p.Signal(syscall.SIGTERM)
	idle.Closed()
	p.Signal(syscall.SIGINT)
	p.Stderr.Expect(`level=WARN msg="second signal, stopping at once"`)
	p.Exit(exitOK)
	if line, err := waiting.Conversation.Line(); err == nil {
		t.Errorf("the command that was cut off is answered by %q", line)
	}
}

// The end of the grace time cuts sessions off; the exit code is still 0.
func TestServeGrace(t *testing.T) {
	p, idle, _, _ := busy(t, "[session]\nshutdown_grace = \"0s\"\n")
	p.Signal(syscall.SIGTERM)
	idle.Closed()
	p.Stderr.Expect(`level=WARN msg="grace time is over`)
	p.Exit(exitOK)
}

// On SIGHUP the log says what is not read again, and the gateway continues.
func TestServeHangup(t *testing.T) {
	p, addr := gateway(t, "127.0.0.1:1", "[log]\nlevel = \"info\"\n")
	p.Signal(syscall.SIGHUP)
	p.Stderr.Expect(`level=INFO msg="reading certificates and match files again; other configuration changes need a restart"`)
	dial(t, addr).OK("QUIT")
	p.Signal(syscall.SIGTERM)
	p.Exit(exitOK)
}

// P-SESS-12: the upstream is not contacted before a client needs it, so the
// gateway starts without one; a login then gets [SYS/...].
func TestServeWithoutUpstream(t *testing.T) {
	p, addr := gateway(t, "upstream.invalid:143", "insecure = true\n")
	c := dial(t, addr)
	c.Fetch("CAPA")
	c.OK("USER alice")
	c.Send("PASS secret")
	c.Expect("-ERR [SYS/")
	p.Signal(syscall.SIGTERM)
	p.Exit(exitOK)
}

// O-TLS-8, O-LOCK-4, P-USER-3: what each start warns of.
func TestServeWarnings(t *testing.T) {
	p, _ := gateway(t, "upstream.invalid:143", "insecure = true\n[log]\nformat = \"text\"\n")
	p.Stderr.Expect(`listener accepts logins without TLS`) // the last one
	p.Signal(syscall.SIGTERM)
	p.Exit(exitOK)
	for _, want := range []string{
		`level=WARN msg="passwords go to the upstream without TLS" upstream=upstream.invalid`,
		`level=INFO msg="maildrop locks hold within this process only`,
		`level=WARN msg="listener accepts logins without TLS"`,
	} {
		if !strings.Contains(p.Stderr.String(), want) {
			t.Errorf("no %q in\n%s", want, p.Stderr.String())
		}
	}
}

// P-SESS-12: all listeners are bound before one accepts.
func TestServeAddressInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	text := `[[listener]]
address = "127.0.0.1:0"
tls = "none"
insecure_login_from = ["127.0.0.0/8"]
[[listener]]
address = "` + taken.Addr().String() + `"
tls = "none"
insecure_login_from = ["127.0.0.0/8"]
[[upstream]]
address = "127.0.0.1:1"
tls = "none"
`
	p := start(t, "serve", "--config", writeConfig(t, text))
	p.Exit(exitFailure)
	log := p.Stderr.String()
	if !strings.HasPrefix(log, "error: listen tcp "+taken.Addr().String()) ||
		!strings.Contains(log, "\nhint: another program uses this address") {
		t.Errorf("log:\n%s", log)
	}
	if strings.Contains(log, "listening") {
		t.Errorf("a listener accepts though another cannot be bound:\n%s", log)
	}
}

// The log may be JSON.
func TestServeJSON(t *testing.T) {
	p := start(t, "serve", "--config", writeConfig(t, smallestOnFreePort()+"[log]\nformat = \"json\"\n"))
	p.Stderr.Expect(`^\{"time":.*"msg":"listening"`)
	p.Signal(os.Interrupt)
	p.Exit(exitOK)
}

func smallestOnFreePort() string {
	return strings.Replace(smallest, "127.0.0.1:3110", "127.0.0.1:0", 1)
}

// A limit on open files that is too low for many sessions is logged at start.
func TestServeOpenFiles(t *testing.T) {
	file := writeConfig(t, smallestOnFreePort())
	p := processtest.Start(t, exec.Command("sh", "-c", `ulimit -n 500 && exec popgate serve --config "$1"`, "sh", file))
	p.Stderr.Expect(`level=WARN msg="the limit on open files is low" limit=500 recommended=20100$`)
	p.Stderr.Expect(`msg=listening`)
	p.Signal(syscall.SIGTERM)
	p.Exit(exitOK)
}

// O-TLS-1: implicit TLS and STLS, with the certificate of the file.
func TestServeTLS(t *testing.T) {
	dir := t.TempDir()
	cert := proxytest.NewCertificate(t, proxytest.CertificateOptions{})
	cert.WriteFiles(t, dir)
	file := filepath.Join(dir, "config.toml")
	text := `[[listener]]
address = "127.0.0.1:0"
tls = "implicit"
cert_file = "cert.pem"
key_file = "key.pem"
[[listener]]
address = "127.0.0.1:0"
cert_file = "cert.pem"
key_file = "key.pem"
[[upstream]]
address = "upstream.invalid:993"
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "serve", "--config", file)
	implicit := p.Stderr.Expect(`msg=listening address=(\S+) tls=implicit`)[1]
	plain := p.Stderr.Expect(`msg=listening address=(\S+) tls=starttls`)[1]
	clientTLS := &tls.Config{RootCAs: cert.CA, ServerName: "localhost", NextProtos: []string{"pop3"}}

	conn, err := tls.Dial("tcp", implicit, clientTLS)
	if err != nil {
		t.Fatal(err)
	}
	greet(t, conn).OK("QUIT")

	raw, err := net.DialTimeout("tcp", plain, patience)
	if err != nil {
		t.Fatal(err)
	}
	c := greet(t, raw)
	c.Send("USER alice") // P-USER-3
	c.Expect("-ERR use STLS first")
	c.OK("STLS")
	c.StartTLS(clientTLS)
	c.OK("USER alice", "QUIT")

	p.Signal(syscall.SIGTERM)
	p.Exit(exitOK)
}
