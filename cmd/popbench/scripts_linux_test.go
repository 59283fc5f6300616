package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestScripts checks the syntax of the scripts, and that they refuse arguments
// that they do not know.
func TestScripts(t *testing.T) {
	scripts, err := filepath.Glob("scripts/*.sh")
	if err != nil || len(scripts) == 0 {
		t.Fatalf("%q, %v", scripts, err)
	}
	for _, script := range scripts {
		if out, err := exec.Command("sh", "-n", script).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", script, err, out)
		}
	}
	for _, tt := range []struct {
		args []string
		want string // in the usage
	}{
		{[]string{"scripts/bench.sh"}, "STAGES"},
		{[]string{"scripts/upstream.sh"}, "upstream.sh start DIR PORT"},
		{[]string{"scripts/upstream.sh", "nonsense", t.TempDir()}, "upstream.sh stop"},
		{[]string{"scripts/peer.sh"}, "peer.sh start DIR POP3PORT IMAPPORT VARIANT"},
		{[]string{"scripts/peer.sh", "start", t.TempDir(), "1", "2", "nonsense"}, "peer.sh pid"},
	} {
		cmd := exec.Command("sh", tt.args...)
		cmd.Env = append(os.Environ(), "STAGES=nonsense")
		out, err := cmd.CombinedOutput()
		if exit, ok := err.(*exec.ExitError); !ok || exit.ExitCode() != exitUsage {
			t.Errorf("%q: %v, want exit code %d", tt.args, err, exitUsage)
		}
		if !strings.Contains(string(out), tt.want) {
			t.Errorf("%q: no %q in\n%s", tt.args, tt.want, out)
		}
	}
}
