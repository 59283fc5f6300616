package main

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"popgate/proxy"
)

// TestMain makes this test binary the program popgate for scripts and for
// tests that start processes.
func TestMain(m *testing.M) {
	// Programs built with the race detector sleep for a second before they exit.
	os.Setenv(gorace, noSleep)
	testscript.Main(m, map[string]func(){"popgate": main})
}

const gorace, noSleep = "GORACE", "atexit_sleep_ms=0"

// The scripts find an IMAP server at $UPSTREAM, where alice has two messages,
// and a POP3 server at $POP3, where carol has two, the second without anything
// that identifies it. The passwords are "secret word".
func TestScripts(t *testing.T) {
	_, upstream := upstreamWithMail(t)
	_, pop3, _ := formerPOP3(t, proxy.TLSNone, "Message-ID: <1@example.com>\n\ntext\n", "Subject: b\n\n")
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv(gorace, noSleep)
			e.Setenv("UPSTREAM", upstream)
			e.Setenv("POP3", pop3)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"status":    cmdStatus,
			"expandenv": cmdExpandEnv,
		},
	})
}

// cmdExpandEnv replaces the environment variables in files: expandenv FILE...
func cmdExpandEnv(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: expandenv FILE...")
	}
	for _, file := range args {
		text := os.Expand(ts.ReadFile(file), ts.Getenv)
		ts.Check(os.WriteFile(ts.MkAbs(file), []byte(text), 0o600))
	}
}

// cmdStatus runs a command and checks its exit code: status CODE COMMAND...
func cmdStatus(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: status CODE COMMAND...")
	}
	err := ts.Exec(args[1], args[2:]...)
	code := "0"
	if err != nil {
		code = exitCode(err)
	}
	if code != args[0] {
		ts.Fatalf("exit code %s, want %s", code, args[0])
	}
}

func exitCode(err error) string {
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return strconv.Itoa(e.ExitCode())
	}
	return err.Error()
}
