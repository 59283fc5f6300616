package dialect

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the profiles into docs/upstreams.md")

// TestDocument: docs/upstreams.md has all profiles. "go test ./imapbackend/dialect
// -update" writes them.
func TestDocument(t *testing.T) {
	const document, start, end = "../../docs/upstreams.md", "<!-- profiles, generated -->\n\n", "\n<!-- end -->\n"
	text, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(text), start)
	got, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no part for the profiles", document)
	}
	var b strings.Builder
	b.WriteString("| profile | recognised by | how the server differs | settings that it needs | source |\n|---|---|---|---|---|\n")
	cell := strings.NewReplacer("|", `\|`, "\n", " ")
	for _, p := range Profiles() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", p.Name, cell.Replace(p.Recognised()), cell.Replace(p.Differs), cell.Replace(p.Advice), cell.Replace(p.Source))
	}
	if want := b.String(); *update {
		err = os.WriteFile(document, []byte(before+start+want+end+after), 0o644)
		if err != nil {
			t.Fatal(err)
		}
	} else if got != want {
		t.Errorf("the profiles in %s differ; run: go test ./imapbackend/dialect -update\nthey are\n%s, want\n%s", document, got, want)
	}
}
