package main

import (
	"io"
	"os"
	"os/exec"
	"testing"
)

// TestProcessTree checks that a child, its memory and its end are noticed.
func TestProcessTree(t *testing.T) {
	cmd := exec.Command("cat")
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// An echo shows that the child has become cat.
	if _, err := stdin.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(stdout, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	child := cmd.Process.Pid
	tree, err := processTree(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if tree[child].parent != os.Getpid() {
		t.Errorf("process %d is not in %v", child, tree)
	}
	own, err := treePSS(child)
	if err != nil || own < 4<<10 || own > 64<<20 {
		t.Errorf("cat has %d octets, %v", own, err)
	}
	both, err := treePSS(os.Getpid())
	if err != nil || both <= own {
		t.Errorf("the test has %d octets, its child %d of them, %v", both, own, err)
	}
	stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	for what, f := range map[string]func() error{
		"tree":   func() error { _, err := processTree(child); return err },
		"memory": func() error { _, err := treePSS(child); return err },
		"cpu":    func() error { _, err := treeCPU(child); return err },
	} {
		if f() == nil {
			t.Errorf("%s of a process that has ended", what)
		}
	}
}

// TestTreeCPU checks that processor time of this process is counted.
func TestTreeCPU(t *testing.T) {
	before, err := treeCPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	g := testGenerator()
	for i := 0; ; i++ {
		g.message(box{"test", 1, small}, i, nil)
		if i%1000 != 0 {
			continue
		}
		after, err := treeCPU(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if after > before {
			return
		}
	}
}

// TestWatchMemory checks that the peak is at least the current use.
func TestWatchMemory(t *testing.T) {
	now, err := treePSS(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	if peak := watchMemory(os.Getpid()).end(); peak < now/2 {
		t.Errorf("peak of %d octets, %d before", peak, now)
	}
	if peak := watchMemory(0).end(); peak != 0 {
		t.Errorf("%d octets of no process", peak)
	}
}

func TestPSS(t *testing.T) {
	const rollup = "55d0-7ffc ---p 00000000 00:00 0    [rollup]\nRss:   2000 kB\nPss:   1234 kB\nPss_Dirty:  5 kB\n"
	if got := pss([]byte(rollup)); got != 1234<<10 {
		t.Errorf("%d octets", got)
	}
}

// TestIdle measures idle sessions of this process.
func TestIdle(t *testing.T) {
	g := testGenerator()
	s := seededServers(t, g)
	e := &env{settings: testSettings(s), ep: endpoint{Name: "test", Addr: s.pop, PID: os.Getpid()}, gen: g, tag: "new", log: progress{io.Discard}}
	if err := e.idle(testUsers); err != nil || e.failed > 0 {
		t.Fatalf("%v, %v", err, e.errs)
	}
	if m := e.metrics[0]; m.Name != "sessions" || m.Value != testUsers {
		t.Errorf("first figure: %v", m)
	}
	e.ep.PID = 0
	if err := e.idle(testUsers); err == nil {
		t.Error("memory of an unknown process")
	}
}
