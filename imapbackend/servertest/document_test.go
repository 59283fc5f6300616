//go:build integration

package servertest_test

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"popgate/imapbackend/servertest"
)

var update = flag.Bool("update", false, "write docs/upstreams.md from what is found")

const (
	document = "../../docs/upstreams.md"
	head     = "| server | version | dialect before anything is learned | settings that suit it | what cannot be had |\n|---|---|---|---|---|\n"
)

// checkDocument compares the server's line of docs/upstreams.md with what has been
// found, or writes it.
func checkDocument(t *testing.T, s *servertest.Server) {
	report, err := serve(t, s, nil).backend.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	settings := "the defaults"
	if len(s.Settings()) > 0 {
		settings = "`" + strings.Join(s.Settings(), "`, `") + "`"
	}
	var lacks []string
	for limit, effect := range s.Limits() {
		lacks = append(lacks, fmt.Sprintf("It %s: %s.", limit, effect))
	}
	slices.Sort(lacks)
	if len(s.Refuses()) > 0 {
		lacks = append(lacks, "It takes no message with "+strings.Join(s.Refuses(), " or ")+".")
	}
	if len(lacks) == 0 {
		lacks = []string{"nothing"}
	}
	wantLine(t, s.Title(), fmt.Sprintf("| %s | %s | %s | %s | %s |\n", s.Title(), upstreamVersion(s.Version), report.Dialect, settings, strings.Join(lacks, " ")))
}

// upstreamVersion returns a version without what Debian adds to it, which
// changes with each security update.
func upstreamVersion(version string) string {
	if _, after, epoch := strings.Cut(version, ":"); epoch {
		version = after
	}
	if debian := regexp.MustCompile(`^[0-9.]+`).FindString(version); debian != "" {
		return debian
	}
	return version
}

var documentMu sync.Mutex // servers are tested at the same time

func wantLine(t *testing.T, title, line string) {
	t.Helper()
	documentMu.Lock()
	defer documentMu.Unlock()
	text, lines := readDocument(t)
	if *update {
		lines[title] = line
		writeDocument(t, text, lines)
	} else if lines[title] != line {
		t.Errorf("docs/upstreams.md differs; run: make upstreams-doc\nit says %s, found is\n%s", lines[title], line)
	}
}

// TestDocument checks what docs/upstreams.md says without a server.
func TestDocument(t *testing.T) {
	documentMu.Lock()
	defer documentMu.Unlock()
	text, lines := readDocument(t)
	if *update {
		writeDocument(t, text, lines)
		return
	}
	if got := between(t, text, "checks"); got != checkList() {
		t.Errorf("the list of checks differs; run: make upstreams-doc\nit is\n%s, want\n%s", got, checkList())
	}
	if got := between(t, text, "servers"); got != table(lines) {
		t.Errorf("the servers are not those of kinds.go; run: make upstreams-doc\nthey are\n%s, want\n%s", got, table(lines))
	}
}

// readDocument returns the text, and the lines of the table by their title.
func readDocument(t *testing.T) (text string, lines map[string]string) {
	t.Helper()
	octets, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	lines = map[string]string{}
	for line := range strings.Lines(strings.TrimPrefix(between(t, string(octets), "servers"), head)) {
		lines[strings.TrimSpace(strings.Split(line, "|")[1])] = line
	}
	return string(octets), lines
}

func writeDocument(t *testing.T, text string, lines map[string]string) {
	t.Helper()
	for name, part := range map[string]string{"checks": checkList(), "servers": table(lines)} {
		start := "<!-- " + name + ", generated -->\n\n"
		text = strings.Replace(text, start+between(t, text, name), start+part, 1)
	}
	if err := os.WriteFile(document, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// table has a line for each server.
func table(lines map[string]string) string {
	text := head
	for _, title := range servertest.Titles() {
		text += lines[title]
	}
	return text
}

func checkList() string {
	var b strings.Builder
	for _, c := range checks {
		fmt.Fprintf(&b, "- %s\n", c.name)
	}
	return b.String()
}

// between returns what is between the two comments that name a generated part.
func between(t *testing.T, text, name string) string {
	t.Helper()
	_, rest, found := strings.Cut(text, "<!-- "+name+", generated -->\n\n")
	part, _, ended := strings.Cut(rest, "\n<!-- end -->\n")
	if !found || !ended {
		t.Fatalf("docs/upstreams.md has no part %q", name)
	}
	return part
}
