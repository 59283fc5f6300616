package main

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"popgate/proxy/proxytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestCommandLine checks exit codes and messages.
func TestCommandLine(t *testing.T) {
	for _, tt := range []struct {
		args string
		code int
		want string // in the output
	}{
		{"list", 0, "login.c64"},
		{"run --help", 0, "ENDPOINT"},
		{"nonsense", 2, "unknown command"},
		{"run", 2, "requires at least 1 arg"},
		{"run --nonsense a=b", 2, "unknown flag"},
		{"seed", 2, `"imap" not set`},
		{"delay --listen x", 2, `"to" not set`},
		{"run --scenarios nonsense a=127.0.0.1:1", 2, `no scenario is called "nonsense"`},
		{"run --scenarios dele a=127.0.0.1:1", 2, "needs --imap"},
		{"run --scenarios top --window 0 a=127.0.0.1:1", 2, "must be positive"},
		{"run --scenarios top --variant x a=127.0.0.1:1", 2, `unknown variant "x"`},
		{"run --scenarios top 127.0.0.1:1", 2, "is not NAME=HOST:PORT"},
		{"run --scenarios top a=127.0.0.1:1,pid=x", 2, "not a process id"},
		{"table nonsense.json", 1, "nonsense.json"},
		{"ports --count 0", 2, "out of range"},
	} {
		var out bytes.Buffer
		code := run(strings.Fields(tt.args), &out, &out)
		if code != tt.code || !strings.Contains(out.String(), tt.want) {
			t.Errorf("popbench %s: exit code %d, want %d and %q in\n%s", tt.args, code, tt.code, tt.want, out.String())
		}
	}
}

// TestRunAndTable measures a server from the command line and reads the result.
func TestRunAndTable(t *testing.T) {
	s := startServers(t)
	g := testGenerator()
	for i := range testUsers {
		if _, err := seedBox(s.imap, g, userBox(i)); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "r.json")
	var out, progress bytes.Buffer
	args := []string{"run", "--scenarios", "login.c1", "--duration", "20ms", "--users", strconv.Itoa(testUsers),
		"--json", file, fmt.Sprintf("popgate=%s", s.pop)}
	if code := run(args, &out, &progress); code != exitOK {
		t.Fatalf("exit code %d\n%s%s", code, out.String(), progress.String())
	}
	if !strings.Contains(progress.String(), "scenario 1/1: login.c1") {
		t.Errorf("no progress in\n%s", progress.String())
	}
	out.Reset()
	if code := run([]string{"table", file}, &out, &progress); code != exitOK || !strings.Contains(out.String(), "| login.c1 | sessions/s ") {
		t.Errorf("exit code %d\n%s", code, out.String())
	}
}

func TestParseEndpoint(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want endpoint
		ok   bool
	}{
		{"a=127.0.0.1:110", endpoint{Name: "a", Addr: "127.0.0.1:110"}, true},
		{"a=[::1]:110,pid=7,tls", endpoint{Name: "a", Addr: "[::1]:110", PID: 7, TLS: true}, true},
		{"127.0.0.1:110", endpoint{}, false},
		{"a=127.0.0.1:110,pid=0", endpoint{}, false},
		{"a=127.0.0.1:110,pid=x", endpoint{}, false},
		{"a=127.0.0.1:110,", endpoint{}, false},
		{"a=127.0.0.1:110,tsl", endpoint{}, false},
	} {
		got, err := parseEndpoint(tt.in)
		if (err == nil) != tt.ok || tt.ok && got != tt.want {
			t.Errorf("%s: %+v, %v", tt.in, got, err)
		}
	}
}

// TestAwait checks that the wait for a server that does not greet is bounded.
func TestAwait(t *testing.T) {
	ep := endpoint{Name: "gone", Addr: proxytest.Loopback(t).Addr().String()} // accepts and says nothing
	if err := ep.await(30 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "gone does not answer") {
		t.Error(err)
	}
	ep.Addr = startServers(t).pop
	if err := ep.await(10 * time.Second); err != nil {
		t.Error(err)
	}
}

func TestSelected(t *testing.T) {
	for _, tt := range []struct {
		list, name string
		want       bool
	}{
		{"all", "x", true},
		{"login", "login.c1", true},
		{"login", "loginx", false},
		{"list*", "list10k", true},
		{"list.1k", "list.10k", false},
		{"top,dele", "dele", true},
		{"top,dele", "top.pipe", true},
		{"", "dele", false},
	} {
		if got := selected(tt.list, tt.name); got != tt.want {
			t.Errorf("%q in %q: %v", tt.name, tt.list, got)
		}
	}
}

// TestFreePorts checks that ports are found that can be bound, and that a taken
// one is noticed.
func TestFreePorts(t *testing.T) {
	first, err := freePorts(16)
	if err != nil || first < lowestPort || first+16 > highestPort {
		t.Errorf("%d, %v", first, err)
	}
	_, port, _ := strings.Cut(proxytest.Loopback(t).Addr().String(), ":")
	taken, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	if free(taken-1, 2) {
		t.Errorf("taken port %d is reported as free", taken)
	}
}
