package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"popgate/imapbackend"
	"popgate/imapbackend/demo"
	"popgate/imapbackend/uniqueid"
	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// formerPOP3 runs a POP3 server, which is the gateway itself, with messages for
// carol, and returns its address.
func formerPOP3(t *testing.T, mode proxy.TLSMode, messages ...string) (mail *demo.Server, addr, caFile string) {
	t.Helper()
	mail, imap := upstreamWithMail(t)
	mail.AddUser("carol", "secret word")
	for _, m := range messages {
		if _, err := mail.Append("carol", []byte(strings.ReplaceAll(m, "\n", "\r\n"))); err != nil {
			t.Fatal(err)
		}
	}
	opts := imapbackend.Defaults()
	opts.Address, opts.TLS, opts.UIDL = imap, imapbackend.TLSNone, "former-{uid}"
	backend, err := imapbackend.New(opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { backend.Close() })
	options := proxytest.Insecure
	if options.Mode = mode; mode != proxy.TLSNone {
		dir := t.TempDir()
		cert := proxytest.NewCertificate(t, proxytest.CertificateOptions{})
		cert.WriteFiles(t, dir)
		caFile = filepath.Join(dir, "ca.pem")
		options.TLS, options.InsecureLoginFrom = cert.Server(), nil
	}
	g := proxytest.Serve(t, proxytest.Loopback(t), proxy.Options{Backend: backend}, options)
	return mail, g.Addr(), caFile
}

// uidlRun runs popgate uidl.
func uidlRun(stdin string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = run(append([]string{"uidl"}, args...), strings.NewReader(stdin), &out, &errs)
	return code, out.String(), errs.String()
}

// I-UIDL-5: the command writes a file for uidl_import from a POP3 server, where
// nothing changes.
func TestUIDL(t *testing.T) {
	messages := []string{
		"Message-ID: <1@x>\nSubject: a\n\n.text\n",
		"Subject: nobody\n\ntext\n",
		"Date: now\nReceived: a\n\tb\n\n",
		"Date: now\nReceived: a b\n\n",
	}
	identity := func(i int) string {
		m := strings.ReplaceAll(messages[i], "\n", "\r\n")
		return uniqueid.HeaderIdentity([]byte(m), int64(len(m)))
	}
	want := fmt.Sprintf("%s\tformer-1\n%s\tformer-3\n%s\tformer-4\n", identity(0), identity(2), identity(3))
	for _, mode := range []proxy.TLSMode{proxy.TLSNone, proxy.TLSStartTLS, proxy.TLSImplicit} {
		t.Run(string(mode), func(t *testing.T) {
			mail, addr, ca := formerPOP3(t, mode, messages...)
			before := mail.Messages("carol")
			args := []string{"--server", addr, "--user", "carol", "--tls", string(mode)}
			if ca != "" {
				addr = strings.Replace(addr, "127.0.0.1", "localhost", 1) // as the certificate has it
				args[1] = addr
				args = append(args, "--ca-file", ca)
			}
			code, stdout, stderr := uidlRun("secret word\n", args...)
			if code != exitOK || stdout != "# unique-ids of carol at "+addr+"\n"+want {
				t.Errorf("code %d:\n%swant\n%s%s", code, stdout, want, stderr)
			}
			if !strings.Contains(stderr, "4 messages; clients will download again: 0 with duplicates, 1 without identity") {
				t.Errorf("summary: %s", stderr)
			}
			if _, err := imapbackend.ReadImport("x", strings.NewReader(stdout)); err != nil {
				t.Error(err)
			}
			if after := mail.Messages("carol"); len(after) != len(before) {
				t.Errorf("%d messages, there were %d", len(after), len(before))
			}
		})
	}
	t.Run("for a user, password in a file", func(t *testing.T) {
		_, addr, _ := formerPOP3(t, proxy.TLSNone, messages[0], messages[0])
		file := filepath.Join(t.TempDir(), "secret")
		if err := os.WriteFile(file, []byte("secret word\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr := uidlRun("", "--server", addr, "--user", "carol", "--tls", "none", "--password-file", file, "--for", "carol@example.com")
		if code != exitOK || !strings.HasSuffix(stdout, identity(0)+"\tformer-2\tcarol@example.com\n") || !strings.Contains(stderr, ": 2 with duplicates") {
			t.Errorf("code %d:\n%s%s", code, stdout, stderr)
		}
	})
}

// scriptedPOP3 runs a POP3 server for one session: each command gets the next of
// answers.
func scriptedPOP3(t *testing.T, answers ...string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		lines := bufio.NewReader(conn)
		for i, a := range answers {
			io.WriteString(conn, strings.ReplaceAll(a, "\n", "\r\n"))
			if i == len(answers)-1 {
				return
			}
			if _, err := lines.ReadString('\n'); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	return l.Addr().String()
}

// A server of another make: no PIPELINING, text after the sizes, and one message
// whose header it refuses.
func TestUIDLOld(t *testing.T) {
	addr := scriptedPOP3(t, "+OK\n", "+OK\n", "+OK\n", "+OK\n1 a\n2 b c\n3 d\n.\n", "+OK\n1 10 x\n2 20\n3 30\n.\n", "-ERR what?\n",
		"+OK\nDate: x\n\n.\n", "-ERR gone\n", "+OK\nDate: x\n\n.\n", "+OK\n")
	code, stdout, stderr := uidlRun("x\n", "--server", addr, "--user", "joe", "--tls", "none")
	want := uniqueid.HeaderIdentity([]byte("Date: x\n"), 10) + "\ta\n" + uniqueid.HeaderIdentity([]byte("Date: x\n"), 30) + "\td\n"
	if code != exitOK || !strings.HasSuffix(stdout, want) || !strings.Contains(stderr, "message 2: no header: the server says -ERR gone") {
		t.Errorf("code %d:\n%s%s", code, stdout, stderr)
	}
}

func TestUIDLBad(t *testing.T) {
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	plain := []string{"--user", "joe", "--tls", "none", "--server"}
	for _, tt := range []struct {
		name   string
		stdin  string
		args   []string
		code   int
		stderr string
	}{
		{"no server", "x", []string{"--user", "joe"}, exitUsage, `^error: --server is required\nhint: `},
		{"no port", "x", []string{"--user", "joe", "--server", "a"}, exitUsage, `^error: --server "a" is not host:port\nhint: `},
		{"no user", "x", []string{"--server", "a:1"}, exitUsage, `^error: --user is required\nhint: `},
		{"TLS mode", "x", []string{"--user", "joe", "--server", "a:1", "--tls", "ssl"}, exitUsage, `^error: --tls "ssl" is unknown\nhint: write implicit`},
		{"in the clear", "x", []string{"--user", "joe", "--server", "a:1", "--tls", "none"}, exitUsage, `^error: --tls none would send the password to a in the clear\nhint: .*--insecure`},
		{"no password", "", append(plain, "127.0.0.1:1"), exitUsage, `^error: read the password: it is empty\nhint: `},
		{"no password file", "", append(plain, "127.0.0.1:1", "--password-file", "none"), exitUsage, `^error: open none: .*\nhint: `},
		{"no CA", "x", append(plain, "127.0.0.1:1", "--ca-file", "uidl_test.go"), exitUsage, `^error: uidl_test.go contains no certificate\nhint: `},
		{"argument", "x", []string{"joe"}, exitUsage, `unexpected argument "joe"`},
		{"refused", "x", append(plain, dead.Addr().String()), exitFailure, `^error: .*: connect: dial tcp .*\nhint: no server listens there: check the port in --server`},
		{"not welcome", "x", append(plain, scriptedPOP3(t, "-ERR busy\x1b\n")), exitFailure, `^error: .*: connect: the server says -ERR busy\?\nhint: `},
		{"no STLS", "x", []string{"--user", "joe", "--tls", "starttls", "--server", scriptedPOP3(t, "+OK\n", "-ERR no\n")}, exitFailure, `: connect: the server says -ERR no\n`},
		{"wrong password", "x", append(plain, scriptedPOP3(t, "+OK\n", "+OK\n", "-ERR no\n")), exitFailure, `: log in: the server says -ERR no\nhint: the server refuses`},
		{"no UIDL", "x", append(plain, scriptedPOP3(t, "+OK\n", "+OK\n", "+OK\n", "-ERR what\n")), exitFailure, `: read the maildrop: UIDL: the server says -ERR what\nhint: nothing was written`},
		{"odd UIDL", "x", append(plain, scriptedPOP3(t, "+OK\n", "+OK\n", "+OK\n", "+OK\nx y\n.\n")), exitFailure, `UIDL: unexpected line "x y" in the listing\n`},
		{"lost", "x", append(plain, scriptedPOP3(t, "+OK\n", "+OK\n", "+OK\n", "+OK\n1 a\n.\n", "+OK\n1 1\n.\n", "-ERR\n", "+OK\nDate: x\n")), exitFailure, `: read the maildrop: TOP 1 0: `},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := uidlRun(tt.stdin, tt.args...)
			if code != tt.code || stdout != "" || !regexp.MustCompile(tt.stderr).MatchString(stderr) {
				t.Errorf("code %d, want %d: %s%s", code, tt.code, stdout, stderr)
			}
		})
	}
}

// Ctrl-C ends it.
func TestUIDLCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	f := &formerServer{address: scriptedPOP3(t), tls: "none", user: "joe"}
	if _, err := f.read(ctx, io.Discard); err == nil {
		t.Error("it continues")
	}
}
