//go:build integration

package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"popgate/cmd/popgate/processtest"
	"popgate/imapbackend/dovecottest"
	"popgate/proxy/proxytest"
)

const (
	gatewayTimeout = 30 * time.Second // for the start, the stop, and what happens after sessions
	pollInterval   = 20 * time.Millisecond
	outputTail     = 8 << 10 // octets of the gateway's output that a failed test prints
)

// The program, built once for all tests.
var (
	popgateRace  = sync.OnceValues(func() (*os.File, error) { return build("-race") })
	popgatePlain = sync.OnceValues(func() (*os.File, error) { return build() })
)

// build builds the program and returns it as an open file without a name. It can
// be run as long as this process lives, and no file remains after that.
func build(flags ...string) (*os.File, error) {
	dir, err := os.MkdirTemp("", "popgate")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "popgate")
	args := append([]string{"build", "-o", name}, flags...)
	if out, err := exec.Command("go", append(args, "popgate/cmd/popgate")...).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return os.Open(name)
}

// plainConfig returns the README's configuration of five keys, for an upstream
// without TLS and a listener on a free port.
func plainConfig(upstream string) string {
	return fmt.Sprintf(`[[listener]]
address = "127.0.0.1:0"
tls = "none"
insecure_login_from = ["127.0.0.0/8"]

[[upstream]]
address = %q
tls = "none"
`, upstream)
}

// gateway is a running "popgate serve".
type gateway struct {
	*processtest.Process
	addrs []string // of its listeners, as the configuration has them
	addr  string   // the first of them

	t      testing.TB
	dumped bool        // goroutines has ended it
	killed atomic.Bool // kill has ended it
}

// startGateway runs the program, built for the race detector, until the end of
// the test.
func startGateway(t testing.TB, config string) *gateway {
	t.Helper()
	return startBinary(t, popgateRace, config)
}

func startBinary(t testing.TB, binary func() (*os.File, error), config string) *gateway {
	t.Helper()
	file, err := binary()
	if err != nil {
		t.Fatal(err)
	}
	configFile := filepath.Join(t.TempDir(), "config.toml")
	if err := os.WriteFile(configFile, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), file.Fd()), "serve", "--config", configFile)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	g := &gateway{Process: processtest.Start(t, cmd), t: t}
	t.Cleanup(g.stop)
	for range strings.Count(config, "[[listener]]") {
		g.addrs = append(g.addrs, g.Stderr.Expect(`msg=listening address=(\S+)`)[1])
	}
	g.addr = g.addrs[0]
	return g
}

// await waits until condition holds. The test fails after gatewayTimeout or if
// the gateway ends.
func (g *gateway) await(what string, condition func() bool) {
	g.t.Helper()
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	timer := time.NewTimer(gatewayTimeout)
	defer timer.Stop()
	for !condition() {
		select {
		case <-g.Done:
			g.t.Fatalf("the gateway has ended, waiting for %s:\n%s", what, g.Stderr)
		case <-timer.C:
			g.t.Fatalf("waited %v for %s in vain", gatewayTimeout, what)
		case <-tick.C:
		}
	}
}

// stop ends the gateway as an operator would and checks its status and output.
func (g *gateway) stop() {
	// If it has ended already, the signal fails and that does not matter.
	_ = g.Process.Process.Signal(syscall.SIGTERM)
	timer := time.NewTimer(gatewayTimeout)
	defer timer.Stop()
	select {
	case <-g.Done:
	case <-timer.C:
		g.t.Errorf("the gateway does not end within %v of SIGTERM", gatewayTimeout)
		g.Kill()
	}
	if code := g.ProcessState.ExitCode(); code != 0 && !g.dumped && !g.killed.Load() {
		g.t.Errorf("the gateway ended with status %d", code)
	}
	output := g.Stderr.String()
	if g.dumped { // the dump names files of the runtime such as panic.go
		output, _, _ = strings.Cut(output, "SIGQUIT: quit")
	}
	for _, bad := range []string{"DATA RACE", "panic", dovecottest.Password} {
		if strings.Contains(output, bad) {
			g.t.Errorf("the gateway's output contains %q", bad)
		}
	}
	if g.t.Failed() {
		g.t.Logf("the gateway's output, at its end:\n%s", output[max(0, len(output)-outputTail):])
	}
}

// kill ends the gateway by SIGKILL. It may run in any goroutine.
func (g *gateway) kill() {
	g.killed.Store(true)
	g.Kill()
}

// goroutines ends the gateway with a dump of its goroutines, which the Go
// runtime writes on SIGQUIT. It returns the function that created each, except
// for those of the runtime itself.
func (g *gateway) goroutines() []string {
	g.t.Helper()
	if err := g.Process.Process.Signal(syscall.SIGQUIT); err != nil {
		g.t.Fatal(err)
	}
	<-g.Done
	g.dumped = true
	var creators []string
	for line := range strings.Lines(g.Stderr.String()) {
		by, ok := strings.CutPrefix(line, "created by ")
		if ok && !strings.HasPrefix(by, "runtime.") && !strings.HasPrefix(by, "os/signal.") {
			creators = append(creators, strings.TrimSpace(by))
		}
	}
	return creators
}

// records returns how many sessions have ended: each logs one line.
func (g *gateway) records() int { return strings.Count(g.Stderr.String(), " msg=session ") }

// descriptors returns the targets of the gateway's open file descriptors.
func (g *gateway) descriptors() []string {
	g.t.Helper()
	links, err := descriptors(g.Process.Process.Pid)
	if err != nil {
		g.t.Fatal(err)
	}
	return links
}

// peakMemory returns the largest resident memory that the gateway has had, in
// octets.
func (g *gateway) peakMemory() int64 {
	g.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.Process.Process.Pid))
	if err != nil {
		g.t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kB int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kB); n == 1 {
			return kB << 10
		}
	}
	g.t.Fatalf("no VmHWM in %s", status)
	return 0
}

// descriptors returns the targets of the links in /proc/PID/fd.
func descriptors(pid int) ([]string, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var links []string
	for _, e := range entries {
		// One that has been closed in the meantime does not count.
		if link, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil {
			links = append(links, link)
		}
	}
	return links, nil
}

// loginPOP returns a client that is logged in as user. Its connection is closed
// at the end of the test, without QUIT.
func loginPOP(t testing.TB, addr, user string) *proxytest.Client {
	t.Helper()
	c := proxytest.Dial(t, addr)
	c.Login(user, dovecottest.Password)
	return c
}
