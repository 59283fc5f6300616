//go:build integration

package dovecottest

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"popgate/proxy/proxytest"
)

// Password is the password of every user.
const Password = "secret"

const (
	startTimeout = 20 * time.Second // until the first greeting
	startTries   = 5                // another process may take a port before dovecot binds it
	logTail      = 32 << 10         // octets of the log that a failed test prints
)

// Server is a private Dovecot. On any error its methods fail the test that
// started it; only that test's goroutine may call them.
type Server struct {
	// Addr is the host:port of IMAP, with STARTTLS offered and login
	// allowed without it. TLSAddr is that of IMAP over implicit TLS.
	Addr, TLSAddr string

	// POP3Addr is the host:port of POP3, for a server WithPOP3.
	POP3Addr string

	// RootCAs holds the CA that signed the server's certificate, which is
	// for localhost and 127.0.0.1; CAFile is the same CA in PEM. CertFile
	// and KeyFile are the certificate itself, which a gateway may use too.
	RootCAs           *x509.CertPool
	CAFile            string
	CertFile, KeyFile string

	t       testing.TB
	dir     string
	options options
	cmd     *exec.Cmd
	done    chan struct{} // closed when cmd has ended
}

// Start runs a server until the end of the test. A missing dovecot fails the
// test.
func Start(t testing.TB, opts ...Option) *Server {
	t.Helper()
	program, err := findDovecot()
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: the mail user must be able to traverse the path, and
	// the names of Unix sockets are short.
	dir, err := os.MkdirTemp("", "dovecot")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{t: t, dir: dir, options: defaults()}
	t.Cleanup(s.cleanup)
	for _, o := range opts {
		o(&s.options)
	}
	s.options.program = program
	s.prepare()
	for range startTries {
		s.Addr, s.TLSAddr, s.POP3Addr = freeAddr(t), freeAddr(t), freeAddr(t)
		if err = s.launch(); !errors.Is(err, errInUse) {
			break
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// findDovecot also looks in the directories of system programs, which the PATH
// of an ordinary user may lack.
func findDovecot() (string, error) {
	for _, name := range []string{"dovecot", "/usr/sbin/dovecot", "/usr/local/sbin/dovecot"} {
		if path, err := exec.LookPath(name); err == nil {
			return path, nil
		}
	}
	return "", errors.New("dovecottest: no dovecot program; install it: apt-get install dovecot-imapd")
}

// Version returns the version of Dovecot, for instance 2.3.19.1.
func (s *Server) Version() string {
	s.t.Helper()
	out, err := exec.Command(s.options.program, "--version").Output()
	if err != nil {
		s.t.Fatalf("dovecottest: %v", err)
	}
	version, _, _ := strings.Cut(strings.TrimSpace(string(out)), " ")
	return version
}

func (s *Server) prepare() {
	s.t.Helper()
	check := func(err error) {
		if err != nil {
			s.t.Fatalf("dovecottest: %v", err)
		}
	}
	check(os.Chmod(s.dir, 0o711))
	check(os.Mkdir(s.path("mail"), 0o700))
	if os.Geteuid() == 0 {
		check(os.Chown(s.path("mail"), mailID, mailID))
	}
	cert := proxytest.NewCertificate(s.t, proxytest.CertificateOptions{})
	cert.WriteFiles(s.t, s.dir)
	s.RootCAs, s.CAFile = cert.CA, s.path("ca.pem")
	s.CertFile, s.KeyFile = s.path("cert.pem"), s.path("key.pem")
	if s.options.tokens {
		check(s.writeTokenKey())
	}
}

func (s *Server) path(name string) string { return filepath.Join(s.dir, name) }

var errInUse = errors.New("address already in use")

// launch starts dovecot on the server's addresses and returns once it greets.
func (s *Server) launch() error {
	conf := s.path("dovecot.conf")
	if err := os.WriteFile(conf, []byte(s.config()), 0o600); err != nil {
		return err
	}
	var output bytes.Buffer
	s.cmd = exec.Command(s.options.program, "-F", "-c", conf)
	s.cmd.Stdout, s.cmd.Stderr = &output, &output
	// A process group of its own, so that cleanup ends the whole tree; and a
	// signal if the test's process is killed.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	if err := s.cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	cmd := s.cmd
	go func() {
		_ = cmd.Wait() // the log says more than the exit status
		close(done)
	}()
	s.done = done

	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	err := AwaitGreeting(ctx, s.Addr, done)
	if err == nil {
		return nil
	}
	s.Kill()
	report := output.String() + s.Log()
	if strings.Contains(report, "Address already in use") {
		return errInUse
	}
	return fmt.Errorf("dovecottest: %s does not start: %w\n%s", s.options.program, err, report)
}

// freeAddr returns an address of 127.0.0.1 with a port that is free now.
func freeAddr(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// Restart kills the server and starts it again, on the same addresses and with
// the same mail.
func (s *Server) Restart() {
	s.t.Helper()
	s.Kill()
	if err := s.launch(); err != nil {
		s.t.Fatalf("dovecottest: restart: %v", err)
	}
}

// Kill ends the server and all its sessions by SIGKILL, as a crash of the
// machine would.
func (s *Server) Kill() {
	if s.cmd == nil || s.cmd.Process == nil {
		return
	}
	// An error means that the group has ended already.
	_ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL)
	<-s.done
}

// KillSessions ends the processes of all IMAP sessions by SIGKILL, waits until
// they have ended, and returns how many there were. The server keeps running.
func (s *Server) KillSessions() int {
	s.t.Helper()
	pids, err := children(s.cmd.Process.Pid, "imap")
	if err != nil {
		s.t.Fatalf("dovecottest: %v", err)
	}
	for _, pid := range pids {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
			s.t.Fatalf("dovecottest: %v", err)
		}
	}
	// Dovecot may still give a login to a process that has not quite ended.
	tick, limit := time.NewTicker(time.Millisecond), time.Now().Add(startTimeout)
	defer tick.Stop()
	for _, pid := range pids {
		for !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			if <-tick.C; time.Now().After(limit) {
				s.t.Fatalf("dovecottest: process %d does not end", pid)
			}
		}
	}
	return len(pids)
}

// cleanup ends the server, prints its log if the test failed, and removes its
// files. SIGTERM would take a second and keep nothing that is needed.
func (s *Server) cleanup() {
	s.Kill()
	if s.t.Failed() {
		s.t.Logf("dovecot's log:\n%s", s.Log())
	}
	if err := os.RemoveAll(s.dir); err != nil {
		s.t.Errorf("dovecottest: %v", err)
	}
}

// Log returns the end of dovecot's log.
func (s *Server) Log() string {
	b, err := os.ReadFile(s.path("dovecot.log"))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-logTail):])
}
