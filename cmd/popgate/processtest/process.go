// Package processtest runs the real program, and others, for tests.
// proxytest.Serve runs a gateway within the process of a test.
package processtest

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// Patience bounds every wait of this package; it is never reached unless a test
// fails.
const Patience = 30 * time.Second

// Process is a program that a test runs. Its methods, except Kill, may fail the
// test and must be called from its goroutine.
type Process struct {
	*exec.Cmd
	Stdout, Stderr *Output

	// Done is closed when the program has ended.
	Done <-chan struct{}

	t testing.TB
}

// Start starts cmd and records its output. It is killed at the end of the test if
// it still runs.
func Start(t testing.TB, cmd *exec.Cmd) *Process {
	t.Helper()
	done := make(chan struct{})
	p := &Process{Cmd: cmd, Stdout: newOutput(t, done), Stderr: newOutput(t, done), Done: done, t: t}
	cmd.Stdout, cmd.Stderr = p.Stdout, p.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = cmd.Wait() // only the exit code matters
		close(done)
	}()
	t.Cleanup(p.Kill)
	return p
}

// Signal sends a signal.
func (p *Process) Signal(sig os.Signal) {
	p.t.Helper()
	if err := p.Process.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

// Exit waits for the end of the program and checks its exit code.
func (p *Process) Exit(code int) {
	p.t.Helper()
	select {
	case <-p.Done:
	case <-time.After(Patience):
		p.t.Fatalf("the program does not end; its log:\n%s", p.Stderr)
	}
	if got := p.ProcessState.ExitCode(); got != code {
		p.t.Fatalf("exit code %d, want %d; its log:\n%s", got, code, p.Stderr)
	}
}

// Kill ends the program by SIGKILL and waits for its end. It may run in any
// goroutine.
func (p *Process) Kill() {
	_ = p.Process.Kill() // it may have ended already
	<-p.Done
}

// Output is what a program writes. It is safe for concurrent use, except Expect.
type Output struct {
	t    testing.TB
	done <-chan struct{} // of the program

	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{} // closed by the next Write

	read int // octets that Expect has read
}

func newOutput(t testing.TB, done <-chan struct{}) *Output {
	return &Output{t: t, done: done, changed: make(chan struct{})}
}

// Write implements io.Writer.
func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.text.Write(p)
}

// String returns all that has been written.
func (o *Output) String() string {
	text, _ := o.now()
	return text
}

func (o *Output) now() (text string, changed <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String(), o.changed
}

// Expect reads lines, beginning after the last one that it has read, until one
// matches expr, and returns its submatches.
func (o *Output) Expect(expr string) []string {
	o.t.Helper()
	re := regexp.MustCompile(expr)
	limit := time.NewTimer(Patience)
	defer limit.Stop()
	for ended := false; ; {
		text, changed := o.now()
		for {
			line, _, whole := strings.Cut(text[o.read:], "\n")
			if !whole {
				break
			}
			o.read += len(line) + 1
			if m := re.FindStringSubmatch(line); m != nil {
				return m
			}
		}
		if ended {
			o.t.Fatalf("no line matches %q in:\n%s", expr, text)
		}
		select {
		case <-changed:
		case <-o.done:
			ended = true
		case <-limit.C:
			o.t.Fatalf("no line matches %q so far:\n%s", expr, text)
		}
	}
}
