package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// boundRow is a row of a table whose last cell is a test, "path:Test".
var boundRow = regexp.MustCompile("(?m)^\\|.*\\| `([^`|]*_test\\.go:[^`|]*)` \\|$")

// The table of docs/security.md names what is bounded of an answer of the upstream, and
// a test for each. These exist.
func TestBoundsHaveTests(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "docs", "security.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(text), "\n## What an upstream may send\n")
	section, _, _ = strings.Cut(section, "\n## ")
	rows := boundRow.FindAllStringSubmatch(section, -1)
	if n := strings.Count(section, "\n| "); len(rows) != n-1 || n < 15 {
		t.Errorf("%d rows, %d of which name a test", n-1, len(rows))
	}
	for _, row := range rows {
		path, function, _ := strings.Cut(row[1], ":")
		source, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(path)))
		if err != nil {
			t.Error(err)
		} else if !strings.Contains(string(source), "\nfunc "+function+"(") {
			t.Errorf("%s has no %s", path, function)
		}
	}
}
