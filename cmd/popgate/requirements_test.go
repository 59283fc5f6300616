package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	// requirementID is an entry of the catalogue, in bold.
	requirementID = regexp.MustCompile(`(?m)^- \*\*((?:[PIO]-[A-Z0-9]+|M)-[0-9]+|Q[0-9]+)\*\*`)

	// requirementState is a row of its last section: id, state, tests, note.
	requirementState = regexp.MustCompile(`(?m)^\| ([A-Z][A-Z0-9-]+) \| (done|later|not offered) \|([^|]*)\|([^|]*)\|$`)
)

// docs/requirements.md states for each requirement whether it is done, and which
// test shows it: a transcript, or a test function in a file. That test exists
// and names the requirement.
func TestRequirements(t *testing.T) {
	root := filepath.Join("..", "..")
	text, err := os.ReadFile(filepath.Join(root, "docs", "requirements.md"))
	if err != nil {
		t.Fatal(err)
	}
	catalogue := string(text)
	states := make(map[string]bool)
	for _, row := range requirementState.FindAllStringSubmatch(catalogue, -1) {
		id, state, tests := row[1], row[2], strings.TrimSpace(row[3])
		if states[id] {
			t.Errorf("%s: two rows", id)
		}
		states[id] = true
		switch {
		case state == "done" && tests == "":
			t.Errorf("%s: done, and no test shows it", id)
		case state == "later" && strings.TrimSpace(row[4]) == "":
			t.Errorf("%s: later, and no note says what is missing", id)
		case tests != "":
			for _, evidence := range strings.Split(tests, ", ") {
				checkEvidence(t, root, id, evidence)
			}
		}
	}
	defined := make(map[string]bool)
	for _, m := range requirementID.FindAllStringSubmatch(catalogue, -1) {
		if defined[m[1]] {
			t.Errorf("%s: defined twice", m[1])
		}
		defined[m[1]] = true
		if !states[m[1]] {
			t.Errorf("%s: no row for its state", m[1])
		}
	}
	for id := range states {
		if !defined[id] {
			t.Errorf("%s: a row, but no such requirement", id)
		}
	}
	if len(defined) < 200 {
		t.Errorf("%d requirements found, the catalogue has more", len(defined))
	}
}

// checkEvidence checks that evidence, "path" or "path:Test", exists and that the
// file names the requirement id.
func checkEvidence(t *testing.T, root, id, evidence string) {
	t.Helper()
	path, function, isGo := strings.Cut(strings.Trim(evidence, "`"), ":")
	text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(path)))
	switch {
	case err != nil:
		t.Errorf("%s: %v", id, err)
	case isGo && !strings.Contains(string(text), "func "+function+"("):
		t.Errorf("%s: %s has no %s", id, path, function)
	case !isGo && !strings.HasSuffix(path, ".txtar"):
		t.Errorf("%s: %s names no test", id, path)
	case !regexp.MustCompile(`\b` + id + `\b`).Match(text):
		t.Errorf("%s: %s does not name it", id, path)
	}
}
