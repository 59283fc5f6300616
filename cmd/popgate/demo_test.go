//go:build unix

package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"popgate/cmd/popgate/processtest"
	"popgate/imapbackend/demo"
	"popgate/proxy/proxytest"
)

// startDemo starts popgate demo on a free port and returns its address and the
// lines that it prints.
func startDemo(t *testing.T, args ...string) (p *processtest.Process, addr string, lines []string) {
	t.Helper()
	p = start(t, append([]string{"demo", "--listen", "127.0.0.1:0"}, args...)...)
	addr = p.Stdout.Expect(`curl -u demo:demo pop3://(\S+)/$`)[1]
	p.Stdout.Expect(`curl -u demo:demo pop3://` + addr + `/1$`)
	p.Stdout.Expect(`telnet ` + strings.Replace(addr, ":", " ", 1))
	p.Stdout.Expect(`own configuration: `)
	return p, addr, strings.Split(strings.TrimSpace(p.Stdout.String()), "\n")
}

// login logs in as the demo's user and returns the lines of LIST.
func login(t *testing.T, addr string) (c *proxytest.Client, listing []string) {
	t.Helper()
	c = dial(t, addr)
	c.OK("USER demo", "PASS demo")
	return c, strings.Split(strings.TrimSuffix(c.Fetch("LIST"), "\r\n"), "\r\n")
}

// The demo prints four lines, and what they promise works. P-RETR-3 for each
// sample.
func TestDemo(t *testing.T) {
	p, addr, lines := startDemo(t)
	if len(lines) != 4 {
		t.Errorf("%d lines, want 4:\n%s", len(lines), strings.Join(lines, "\n"))
	}
	c, listing := login(t, addr)
	samples := demo.Samples()
	if len(listing) != len(samples) || len(samples) < 12 {
		t.Fatalf("%d messages listed of %d samples", len(listing), len(samples))
	}
	for i, line := range listing {
		number, _, _ := strings.Cut(line, " ")
		got, want := c.Fetch("RETR "+number), string(proxytest.Repair(samples[i]))
		if got != want {
			t.Errorf("sample %d: got\n%q\nwant\n%q", i+1, got, want)
		}
	}
	c.OK("DELE 1", "QUIT")
	c.Closed()
	c, listing = login(t, addr)
	if len(listing) != len(samples)-1 {
		t.Errorf("%d messages after one was deleted of %d", len(listing), len(samples))
	}
	c.OK("QUIT")
	p.Signal(syscall.SIGTERM)
	p.Exit(exitOK)
	if log := p.Stderr.String(); log != "" {
		t.Errorf("the demo is not quiet:\n%s", log)
	}
}

// --mbox serves the messages of a file and leaves the file as it is.
func TestDemoMbox(t *testing.T) {
	const mbox = "From a@b Thu Jan  1 00:00:00 1970\nSubject: mine\n\n>From here on\n\n" +
		"From a@b Thu Jan  1 00:00:00 1970\nSubject: second\n\ntext\n"
	file := filepath.Join(t.TempDir(), "mbox")
	if err := os.WriteFile(file, []byte(mbox), 0o600); err != nil {
		t.Fatal(err)
	}
	p, addr, _ := startDemo(t, "--mbox", file)
	c, listing := login(t, addr)
	if len(listing) != 2 {
		t.Errorf("%d messages, want 2", len(listing))
	}
	if got := c.Fetch("RETR 1"); got != "Subject: mine\r\n\r\nFrom here on\r\n" {
		t.Errorf("message %q", got)
	}
	c.OK("DELE 1", "QUIT")
	p.Signal(os.Interrupt)
	p.Exit(exitOK)
	if left, err := os.ReadFile(file); err != nil || string(left) != mbox {
		t.Errorf("the file is now %q, %v", left, err)
	}
}

func TestDemoAddressInUse(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	p := start(t, "demo", "--listen", taken.Addr().String())
	p.Exit(exitFailure)
	if log := p.Stderr.String(); !strings.HasPrefix(log, "error: listen tcp "+taken.Addr().String()) ||
		!strings.Contains(log, "\nhint: another program uses this address: choose a free one, as in popgate demo --listen ") {
		t.Errorf("log:\n%s", log)
	}
}

// The demo's IMAP server is an upstream for README's first configuration, at the
// address that it names, or at the one that the demo prints if that is taken.
func TestDemoUpstream(t *testing.T) {
	if !strings.Contains(smallest, demoIMAP) {
		t.Errorf("README's first configuration does not have %s", demoIMAP)
	}
	if l, err := net.Listen("tcp", demoIMAP); err == nil {
		defer l.Close()
	} // else it is taken already
	_, _, lines := startDemo(t)
	_, line, _ := strings.Cut(lines[3], "own configuration:  ")
	imap, rest, _ := strings.Cut(line, ",")
	if want := " as " + demoIMAP + " is taken   (IMAP without TLS, the same user and password)"; rest != want {
		t.Errorf("%q, want %q", rest, want)
	}
	p := start(t, "serve", "--config", writeConfig(t, strings.Replace(smallestOnFreePort(), demoIMAP, imap, 1)))
	addr := p.Stderr.Expect(`msg=listening address=(\S+)`)[1]
	c, listing := login(t, addr)
	if len(listing) != len(demo.Samples()) {
		t.Errorf("%d messages", len(listing))
	}
	c.OK("QUIT")
}

// --mbox serves a maildir, too.
func TestDemoMaildir(t *testing.T) {
	dir := t.TempDir()
	for _, sub := range []string{"new", "cur", "tmp"} {
		if err := os.Mkdir(filepath.Join(dir, sub), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	put(t, filepath.Join(dir, "new", "1.a.host"), []byte("Subject: mine\n\ntext\n"))
	_, addr, _ := startDemo(t, "--mbox", dir)
	c, listing := login(t, addr)
	if got := c.Fetch("RETR 1"); len(listing) != 1 || got != "Subject: mine\r\n\r\ntext\r\n" {
		t.Errorf("%q, message %q", listing, got)
	}
}
