package main

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// root is the directory of the repository.
const root = "../.."

// sources returns the files of the repository with one of the endings, by
// their paths from its root.
func sources(t *testing.T, endings ...string) []string {
	t.Helper()
	var paths []string
	err := filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "bin"):
			return fs.SkipDir
		case !entry.IsDir() && slices.Contains(endings, filepath.Ext(path)):
			path, err = filepath.Rel(root, path)
			paths = append(paths, filepath.ToSlash(path))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return paths
}

func source(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, path))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A comment is one comment of a Go file.
type comment struct {
	where, text string
}

func comments(t *testing.T) []comment {
	t.Helper()
	var all []comment
	for _, path := range sources(t, ".go") {
		files := token.NewFileSet()
		f, err := parser.ParseFile(files, path, source(t, path), parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, group := range f.Comments {
			line := files.Position(group.Pos()).Line
			all = append(all, comment{fmt.Sprintf("%s:%d", path, line), group.Text()})
		}
	}
	return all
}

// Requirements named in comments and transcripts are in the catalogue.
func TestCommentsNameRequirements(t *testing.T) {
	catalogue := make(map[string]bool)
	for _, m := range requirementID.FindAllStringSubmatch(source(t, "docs/requirements.md"), -1) {
		catalogue[m[1]] = true
	}
	named := comments(t)
	for _, path := range sources(t, ".txtar") {
		named = append(named, comment{path, source(t, path)})
	}
	id := regexp.MustCompile(`\b[PIO]-[A-Z][A-Z0-9]+-[0-9]+\b`)
	n := 0
	for _, c := range named {
		for _, id := range id.FindAllString(c.text, -1) {
			n++
			if !catalogue[id] {
				t.Errorf("%s: %s is no requirement", c.where, id)
			}
		}
	}
	if n < 200 {
		t.Errorf("%d requirements named, there are more", n)
	}
}

// Comments refer to no document outside the repository.
func TestCommentsNameDocuments(t *testing.T) {
	document := regexp.MustCompile(`[\w/.-]+\.md\b`)
	outside := regexp.MustCompile(`(?i)\bdesign\b`)
	for _, c := range comments(t) {
		for _, name := range document.FindAllString(c.text, -1) {
			_, atRoot := os.Stat(filepath.Join(root, name))
			_, inDocs := os.Stat(filepath.Join(root, "docs", name))
			if atRoot != nil && inDocs != nil {
				t.Errorf("%s: there is no %s", c.where, name)
			}
		}
		if word := outside.FindString(c.text); word != "" {
			t.Errorf("%s: %q: the repository has no such document", c.where, word)
		}
	}
}

// Flags named in comments are flags of the program. Integration tests name those
// of other programs too.
func TestCommentsNameFlags(t *testing.T) {
	known := map[string]bool{"--help": true, "--version": true}
	var visit func(*cobra.Command)
	visit = func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) { known["--"+f.Name] = true })
		for _, sub := range cmd.Commands() {
			visit(sub)
		}
	}
	visit(rootCommand())
	flag := regexp.MustCompile(`(?:^|\s)(--[a-z][a-z-]+)`)
	for _, c := range comments(t) {
		if !strings.HasPrefix(c.where, "cmd/popgate/") || strings.Contains(c.where, "_integration_test.go") {
			continue
		}
		for _, m := range flag.FindAllStringSubmatch(c.text, -1) {
			if !known[m[1]] {
				t.Errorf("%s: there is no flag %s", c.where, m[1])
			}
		}
	}
}

// Files, folders and packages named in documents exist.
func TestDocumentsNamePaths(t *testing.T) {
	named := regexp.MustCompile("`((?:\\./)?(?:cmd|proxy|imapbackend|docs|deploy)/[\\w./-]+|[a-z][\\w/-]*\\.(?:go|md|example))(?::\\w+)?`")
	link := regexp.MustCompile(`\]\(([^)#:]+)(?:#[^)]*)?\)`)
	n := 0
	for _, path := range sources(t, ".md") {
		for i, line := range strings.Split(source(t, path), "\n") {
			for _, m := range named.FindAllStringSubmatch(line, -1) {
				n++
				built := strings.HasPrefix(m[1], "bin/")
				if !built && !exists(m[1]) && !existsBeside(path, m[1]) {
					t.Errorf("%s:%d: there is no %s", path, i+1, m[1])
				}
			}
			for _, m := range link.FindAllStringSubmatch(line, -1) {
				n++
				if !existsBeside(path, m[1]) {
					t.Errorf("%s:%d: there is no %s", path, i+1, m[1])
				}
			}
		}
	}
	if n < 100 {
		t.Errorf("%d paths found, the documents name more", n)
	}
}

// Each package is in the table of CONTRIBUTING.md.
func TestPackagesListed(t *testing.T) {
	table := source(t, "CONTRIBUTING.md")
	for _, path := range sources(t, ".go") {
		dir := filepath.ToSlash(filepath.Dir(path))
		if !strings.Contains(dir, "/testdata/") && !strings.Contains(table, "`"+dir+"`") {
			t.Errorf("CONTRIBUTING.md does not list the package of %s", path)
		}
	}
}

func exists(path string) bool {
	_, err := os.Stat(filepath.Join(root, path))
	return err == nil
}

func existsBeside(file, path string) bool { return exists(filepath.Join(filepath.Dir(file), path)) }

// misleading are words that say something else to many readers, or nothing.
// CONTRIBUTING.md says what to write in their place.
var misleading = regexp.MustCompile(`(?i)\b(?:behind|anew|mend(?:s|ed|ing)?|of ours|at the most|by chance|at hand|` +
	`told|tells?|tak(?:e|es|ing) note|to no end|for so long|is there twice|before a (?:real )?Dovecot)\b`)

// ordinary are phrases in which such a word is the right one.
var ordinary = regexp.MustCompile(`(?i)behind[ -]a[ -]proxy|(?:told|tells?) [\w ]*apart`)

// Comments, messages and documents are in words that are read once.
func TestWords(t *testing.T) {
	quote := []string{"cmd/popgate/statements_test.go", "CONTRIBUTING.md", "CHANGELOG.md"}
	for _, path := range sources(t, ".go", ".md", ".toml", ".example", ".txtar") {
		text := source(t, path)
		if slices.Contains(quote, path) || !misleading.MatchString(text) {
			continue
		}
		for i, line := range strings.Split(text, "\n") {
			if word := misleading.FindString(ordinary.ReplaceAllString(line, "")); word != "" {
				t.Errorf("%s:%d: %q: CONTRIBUTING.md has a better word", path, i+1, word)
			}
		}
	}
}

const (
	maxFileLines     = 450
	maxFunctionLines = 60
	maxPackageFiles  = 28 // of imapbackend, the largest one
	maxMethods       = 50 // of a type of imapbackend
)

// Files, functions, types and packages stay small.
func TestSizes(t *testing.T) {
	perPackage := make(map[string]int)
	methods := make(map[string]int)
	for _, path := range sources(t, ".go") {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		text := source(t, path)
		perPackage[filepath.Dir(path)]++
		if n := strings.Count(text, "\n"); n > maxFileLines {
			t.Errorf("%s has %d lines, of at most %d", path, n, maxFileLines)
		}
		files := token.NewFileSet()
		f, err := parser.ParseFile(files, path, text, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, decl := range f.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := files.Position(fn.End()).Line - files.Position(fn.Pos()).Line + 1; n > maxFunctionLines {
				t.Errorf("%s: %s has %d lines, of at most %d", path, fn.Name.Name, n, maxFunctionLines)
			}
			if fn.Recv != nil {
				methods[filepath.Dir(path)+" "+receiver(fn.Recv.List[0].Type)]++
			}
		}
	}
	if n := perPackage["imapbackend"]; n > maxPackageFiles {
		t.Errorf("imapbackend has %d files, of at most %d", n, maxPackageFiles)
	}
	for typ, n := range methods {
		if n > maxMethods && strings.HasPrefix(typ, "imapbackend ") {
			t.Errorf("%s has %d methods, of at most %d", typ, n, maxMethods)
		}
	}
}

func receiver(t ast.Expr) string {
	switch t := t.(type) {
	case *ast.StarExpr:
		return receiver(t.X)
	case *ast.IndexExpr:
		return receiver(t.X)
	case *ast.Ident:
		return t.Name
	}
	return fmt.Sprintf("%T", t)
}
