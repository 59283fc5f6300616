package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// module is a module whose test notices some mutants: abs at 0 and 1 is the same,
// count is not tested, and without its increment wait never ends.
var module = map[string]string{
	"go.mod": "module example.org/m\n\ngo 1.26\n",
	"p/p.go": `package p

var count int

func abs(n int) int {
	count++
	if n < 0 {
		return -n
	}
	return n
}

func wait(n int) (i int) {
	for i < n {
		i++
	}
	return i
}
`,
	"p/p_test.go": `package p

import "testing"

func TestAbs(t *testing.T) {
	if abs(-2) != 2 || abs(2) != 2 || wait(3) != 3 {
		t.Error("wrong")
	}
}
`,
	"q/q.go": "package q\n\nfunc Q() bool { return true }\n",
	"q/q_test.go": `package q

import "testing"

func TestNothing(t *testing.T) {}
`,
	"r/r_test.go": `package r

import (
	"testing"

	"example.org/m/q"
)

func TestQ(t *testing.T) {
	if !q.Q() {
		t.Error("not true")
	}
}
`,
}

func TestRun(t *testing.T) {
	dir := t.TempDir()
	for name, content := range module {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	for _, tt := range []struct {
		args string
		code int
		out  string // survivors and summary
		err  string // in what else is written
	}{
		{"p/p.go", 0, "p/p.go:6: left out: count++\np/p.go:7: < → <=\np/p.go:7: 0 → 1\n3 survived, 4 noticed, 1 of them by time; 0 do not compile\n", "p/p.go:7: < → >=: noticed TestAbs"},
		{"--list p/p.go", 0, "p/p.go:6: left out: count++\np/p.go:7: < → >=\np/p.go:7: < → <=\np/p.go:7: 0 → 1\np/p.go:14: < → >=\np/p.go:14: < → <=\np/p.go:15: left out: i++\n", ""},
		{"--skip Abs p/p.go --count 1 --seed 1", 0, "1 survived, 0 noticed", "1 of 7 mutants, --seed 1"},
		{"q/q.go", 0, "q/q.go:3: true → false\n1 survived", ""},
		{"--also ./r q/q.go", 0, "0 survived, 1 noticed", "noticed TestQ"},
		{"none.go", 1, "", "none.go"},
		{"", 2, "", "requires at least 1 arg"},
	} {
		var out, errOut bytes.Buffer
		code := run(t.Context(), strings.Fields("--jobs 1 --slack 1s "+tt.args), &out, &errOut)
		if code != tt.code || !strings.HasPrefix(out.String(), tt.out) && !strings.Contains(out.String(), tt.out) || !strings.Contains(errOut.String(), tt.err) {
			t.Errorf("popmutate %s: exit code %d, want %d\n%s%s\nwant\n%s%s", tt.args, code, tt.code, out.String(), errOut.String(), tt.out, tt.err)
		}
	}
	if err := os.WriteFile("p/more_test.go", []byte("package p\n\nimport \"testing\"\n\nfunc TestBad(t *testing.T) { t.Error() }\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	var out, errOut bytes.Buffer
	if code := run(t.Context(), []string{"p/p.go"}, &out, &errOut); code != 1 || !strings.Contains(errOut.String(), "the tests of the unchanged p fail: TestBad") {
		t.Errorf("exit code %d: %s", code, errOut.String())
	}
}
