package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"popgate/cmd/popgate/config"
	"popgate/proxy/proxytest"
)

// A block is a fenced block of a document.
type block struct {
	file, language, text string
}

// documents returns the fenced blocks of README.md, CONTRIBUTING.md and the
// files in docs.
func documents(t *testing.T) []block {
	t.Helper()
	files, err := filepath.Glob("../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	fence := regexp.MustCompile("(?ms)^```(\\w+)\n(.*?)^```$")
	var blocks []block
	for _, file := range append(files, "../../README.md", "../../CONTRIBUTING.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range fence.FindAllStringSubmatch(string(text), -1) {
			blocks = append(blocks, block{filepath.Base(file), m[1], m[2]})
		}
	}
	return blocks
}

// readmeCommands returns the lines of the README's shell blocks.
func readmeCommands(t *testing.T) []string {
	t.Helper()
	var lines []string
	for _, b := range documents(t) {
		if b.file == "README.md" && b.language == "sh" {
			lines = append(lines, strings.Split(strings.TrimSpace(b.text), "\n")...)
		}
	}
	return lines
}

// Each configuration in a document loads; tables that it leaves out are those of
// the smallest file.
func TestDocumentedConfigurations(t *testing.T) {
	dir := t.TempDir()
	proxytest.NewCertificate(t, proxytest.CertificateOptions{}).WriteFiles(t, dir)
	for from, names := range map[string][]string{
		"cert.pem": {"fullchain.pem", "example.org.pem"},
		"key.pem":  {"privkey.pem", "example.org.key"},
	} {
		for _, to := range names {
			if err := os.Link(filepath.Join(dir, from), filepath.Join(dir, to)); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(t, filepath.Join(dir, "alice.uidl"), []byte("emailid:M1\t1.1\n"))
	put(t, filepath.Join(dir, "south.domains"), []byte("south.example\n"))
	put(t, filepath.Join(dir, "lookup.key"), []byte("secret\n"))
	l, u, _ := strings.Cut(smallest, "[[upstream]]")
	n := 0
	for _, b := range documents(t) {
		if b.language != "toml" {
			continue
		}
		n++
		text := b.text
		if !strings.Contains(text, "[[listener]]") {
			text += "\n" + l
		}
		if !strings.Contains(text, "[[upstream]]") {
			text += "\n[[upstream]]" + u
		}
		file := filepath.Join(dir, "config.toml")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := config.Load(file); err != nil {
			t.Errorf("%s: %v in\n%s", b.file, err, text)
		}
	}
	if n == 0 {
		t.Error("no configuration found")
	}
}

// The README's first configuration is the one that the tests run.
func TestReadmeSmallest(t *testing.T) {
	want, err := config.Load(writeConfig(t, smallest))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range documents(t) {
		if b.file != "README.md" || b.language != "toml" {
			continue
		}
		got, err := config.Load(writeConfig(t, b.text))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(config.Listener{}, config.Upstream{}),
			cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
			t.Errorf("(-smallest +README):\n%s", diff)
		}
		return
	}
	t.Error("no configuration found")
}

// The program and the Makefile have the commands, flags and targets that the
// documents name.
func TestDocumentedCommands(t *testing.T) {
	makefile, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, b := range documents(t) {
		if b.language != "sh" {
			continue
		}
		for _, line := range strings.Split(strings.TrimSpace(b.text), "\n") {
			n++
			line, _, _ = strings.Cut(line, " > ") // where the output goes
			words := strings.Fields(line)
			switch {
			case words[0] == "make":
				if !regexp.MustCompile(`(?m)^` + words[1] + `:`).Match(makefile) {
					t.Errorf("%s: %s: no such target", b.file, line)
				}
			case words[0] == "popgate", words[0] == "bin/popgate":
				parseCommand(t, b.file, line, words[1:])
			case strings.HasPrefix(line, "go run ./cmd/popgate "):
				parseCommand(t, b.file, line, words[3:])
			case words[0] == "curl", line == "go test ./...":
			default:
				t.Errorf("%s: this test cannot check %q", b.file, line)
			}
		}
	}
	if n == 0 {
		t.Error("no command found")
	}
}

func parseCommand(t *testing.T, file, line string, args []string) {
	t.Helper()
	cmd, rest, err := rootCommand().Find(args)
	if err == nil && !cmd.HasParent() {
		t.Errorf("%s: %s: no such command", file, line)
	}
	if err == nil {
		err = cmd.ParseFlags(rest)
	}
	if err == nil && cmd.Flags().NArg() > 0 {
		err = cmd.ValidateArgs(cmd.Flags().Args())
	}
	if err != nil {
		t.Errorf("%s: %s: %v", file, line, err)
	}
}

// The README's session uses the demo with its defaults.
func TestReadmeDemo(t *testing.T) {
	lines := readmeCommands(t)
	for _, want := range []string{
		"go run ./cmd/popgate demo",
		"curl -u demo:demo pop3://127.0.0.1:1110/",
		"curl -u demo:demo pop3://127.0.0.1:1110/1",
		"bin/popgate check --config config.toml --login demo",
		"bin/popgate serve --config config.toml",
		"curl -u demo:demo pop3://127.0.0.1:3110/",
		"make test",
	} {
		if !slices.Contains(lines, want) {
			t.Errorf("README lacks the line %q", want)
		}
	}
	if got := demoCommand().Flag("listen").DefValue; got != "127.0.0.1:1110" {
		t.Errorf("the demo listens on %s, the README says 127.0.0.1:1110", got)
	}
}
