package main

import (
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// Each construct has its mutants, and each of them can be parsed.
func TestFind(t *testing.T) {
	for _, tt := range []struct {
		body string
		want []string // after "x.go:3: "
	}{
		{"if ok {}", []string{"ok → !(ok)"}},
		{"if !f() {}", []string{"!f() → !(!f())"}},
		{"if a == b {}", []string{"== → !="}},
		{"if a < b {}", []string{"< → >=", "< → <="}},
		{"if a && b {}", []string{"a && b → !(a && b)", "a && b → a", "a && b → b"}},
		{"for a > b {}", []string{"> → <=", "> → >="}},
		{"switch { case a != b: f() }", []string{"a != b → (a != b) && false", "!= → ==", "left out: f()"}},
		{"switch { default: }", nil},
		{"f(1, 0x10)", []string{"left out: f(1, 0x10)", "1 → 2", "0x10 → 17"}},
		{"return true", []string{"true → false"}},
		{"s = a + b", []string{"left out: s = a + b", "+ → -"}},
		{`s += "a" + b`, []string{`left out: s += "a" + b`}},
		{"i++", []string{"left out: i++"}},
		{"defer f()", []string{"left out: defer f()"}},
		{"x := f()", nil},
		{"_ = f()", nil},
		{"log.WarnContext(ctx, s)", nil},
		{`panic("x")`, nil},
		{"var p *[4]byte", nil},
		{"f(func() {\n})", []string{"left out: f(func() { ..."}},
	} {
		src := "package x\nfunc g() bool {\n" + tt.body + "\n}\n"
		found, err := findIn("x.go", []byte(src))
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, m := range found {
			got = append(got, strings.TrimPrefix(m.String(), "x.go:3: "))
			changed := m.apply([]byte(src))
			if string(changed) == src {
				t.Errorf("%v changes nothing", m)
			}
			if _, err := parser.ParseFile(token.NewFileSet(), "x.go", changed, 0); err != nil {
				t.Errorf("%v: %v in\n%s", m, err, changed)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.body, got, tt.want)
		}
	}
}

func TestSample(t *testing.T) {
	all, err := findIn("x.go", []byte("package x\nvar a = []int{1, 2, 3, 4, 5, 6, 7, 8, 9}\n"))
	if err != nil || len(all) != 9 {
		t.Fatalf("%d mutants, %v", len(all), err)
	}
	if got := sample(all, 0, 1); len(got) != 9 {
		t.Errorf("%d of all", len(got))
	}
	first := sample(all, 4, 1)
	if !slices.Equal(first, sample(all, 4, 1)) {
		t.Error("the sample of a seed is not always the same")
	}
	if len(first) != 4 || !slices.IsSortedFunc(first, func(a, b mutant) int { return a.start - b.start }) {
		t.Errorf("%v", first)
	}
	if slices.Equal(first, sample(all, 4, 2)) && slices.Equal(first, sample(all, 4, 3)) {
		t.Error("the seed makes no difference")
	}
}
