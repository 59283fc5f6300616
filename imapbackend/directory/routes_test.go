package directory

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"popgate/proxy/proxytest"
)

// P-PASS-5: the first rule that matches is taken, whatever its form.
func TestRoutes(t *testing.T) {
	names := nameFile(t, "# domains and logins\n\nhosted.example\n  Guest@Other.example  \r\nprinter\n")
	routes, err := NewRoutes([]Route{
		{Match: "postmaster@*", Upstream: "0"},
		{Match: "Ann@North.Example", Upstream: "1"},
		{Match: "*@north.example", Upstream: "2"},
		{Names: names, Upstream: "3"},
		{Match: "ann@north.example", Upstream: "4"},
		{Match: "*@hosted.example", Upstream: "5"},
		{Match: "sales-*@*.example", Upstream: "6"},
		{Match: "*.south.example", Upstream: "7"},
		{Match: "bob", Upstream: "8"},
		{Match: "*", Upstream: "9"},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"postmaster@north.example": "0",
		"ann@north.example":        "1",
		"ANN@NORTH.EXAMPLE":        "1",
		"bob@north.example":        "2",
		"a@b@north.example":        "2",
		"x@hosted.example":         "3",
		"guest@other.example":      "3",
		"printer":                  "3",
		"sales-eu@x.example":       "6",
		"sales@x.example":          "9",
		"x@mail.south.example":     "7",
		"x@south.example":          "9",
		"bob":                      "8",
		"ｂｏｂ":                      "8", // full width
		"bob@elsewhere.example":    "9",
	} {
		if got, err := routes.Resolve(t.Context(), Login{Name: name}); err != nil || got.Upstream != want || got.User != name {
			t.Errorf("%q: %v, %v, want rule %s", name, got, err, want)
		}
	}
}

func TestTemplates(t *testing.T) {
	for _, test := range []struct{ user, login, want string }{
		{"", "Ann@north.example", "Ann@north.example"},
		{"{login}", "ann@north.example", "ann@north.example"},
		{"{local}", "ann@north.example", "ann"},
		{"{local}", "a@b@north.example", "a@b"},
		{"{domain}", "ann@north.example", "north.example"},
		{"{local}@{domain}", "ann", "ann@"},
		{"{local}@mail.example", "ann@north.example", "ann@mail.example"},
		{"{domain}-{local}{local}", "ann@n", "n-annann"},
		{"shared", "ann", "shared"},
		{"{local}", "{domain}@x", "{domain}"},
	} {
		template, err := parseTemplate(test.user)
		if err != nil {
			t.Errorf("%q: %v", test.user, err)
		} else if got := template.expand(test.login); got != test.want {
			t.Errorf("%q of %q is %q, want %q", test.user, test.login, got, test.want)
		}
	}
	for user, want := range map[string]string{
		"{user}":     `has "{user}", which is none of {login}, {local}, {domain}`,
		"{local":     `has "{local}", which is none of {login}, {local}, {domain}`,
		"a}":         `has a } without its {`,
		"{lo{local}": `has "{lo{local}", which is none of {login}, {local}, {domain}`,
	} {
		if err := CheckTemplate(user); err == nil || err.Error() != want {
			t.Errorf("%q: %v, want %s", user, err, want)
		}
	}
}

// A pattern is the regular expression with .* in place of each *.
func FuzzMatches(f *testing.F) {
	for _, seed := range [][2]string{{"*", "ann"}, {"*@n.example", "ann@n.example"}, {"a*b*c", "abbc"}, {"a*a", "a"}, {"**", ""}, {"", ""}} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, pattern, name string) {
		re, err := regexp.Compile(`(?s)\A` + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, `.*`) + `\z`)
		if err != nil || strings.ToValidUTF8(name, "") != name || strings.ToValidUTF8(pattern, "") != pattern {
			return
		}
		if got, want := matches(pattern, name), re.MatchString(name); got != want {
			t.Errorf("matches(%q, %q) = %v, want %v", pattern, name, got, want)
		}
	})
}

func nameFile(t testing.TB, text string) *NameFile {
	t.Helper()
	file := filepath.Join(t.TempDir(), "names")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := ReadNameFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// 10,000 rules and 100,000 names cost a login no more than a few do: no search
// through them.
func TestRoutesMany(t *testing.T) {
	few, many := manyRoutes(t, 1, 1), manyRoutes(t, 10_000, 100_000)
	resolve := func(r *Routes, name string) float64 {
		return testing.AllocsPerRun(100, func() {
			if _, err := r.Resolve(t.Context(), Login{Name: name}); err != nil {
				t.Fatal(err)
			}
		})
	}
	for _, name := range []string{"ann@d0.example", "ann@f0.example"} {
		if a, b := resolve(few, name), resolve(many, name); b > a {
			t.Errorf("%s: %v allocations with many rules, %v with few", name, b, a)
		}
	}
	if n := len(many.others); n != 1 {
		t.Errorf("%d rules are looked at one by one", n)
	}
}

func manyRoutes(t testing.TB, rules, names int) *Routes {
	t.Helper()
	var text strings.Builder
	for i := range names {
		fmt.Fprintf(&text, "f%d.example\n", i)
	}
	routes := []Route{{Names: nameFile(t, text.String()), Upstream: "file"}}
	for i := range rules {
		routes = append(routes, Route{Match: fmt.Sprintf("*@d%d.example", i), Upstream: "rule"})
	}
	r, err := NewRoutes(routes)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func BenchmarkRoutes(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			r := manyRoutes(b, n, 10*n)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := r.Resolve(b.Context(), Login{Name: "ann@d0.example"}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// A changed file is read again; one that is wrong or gone leaves the old names.
func TestNameFileReload(t *testing.T) {
	names := nameFile(t, "one.example\n")
	log := new(proxytest.Log)
	put := func(text string) {
		t.Helper()
		if err := os.WriteFile(names.file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		names.Reload(log.Logger())
	}
	for _, step := range []struct{ text, has string }{
		{"two.example\n", "two.example"},
		{"three.example\na b\n", "two.example"},
		{"*@three.example\n", "two.example"},
		{"two.example\n", "two.example"},
		{"", ""},
		{"four.example", "four.example"},
	} {
		put(step.text)
		if got := names.has("x@"+step.has, step.has); got != (step.has != "") {
			t.Errorf("after %q: has %q is %v", step.text, step.has, got)
		}
	}
	if err := os.Remove(names.file); err != nil {
		t.Fatal(err)
	}
	names.Reload(log.Logger())
	if !names.has("", "four.example") {
		t.Error("the names of a removed file are lost")
	}
	if n := len(log.Lines("level=ERROR", "not reloaded")); n != 3 {
		t.Errorf("%d errors are logged:\n%s", n, log)
	}
	if n := len(log.Lines("level=INFO", "reloaded")); n != 4 {
		t.Errorf("%d reloads are logged:\n%s", n, log)
	}
}

// Each mistake names file and line.
func TestNameFileMistakes(t *testing.T) {
	file := filepath.Join(t.TempDir(), "names")
	for text, want := range map[string]string{
		"a.example\nb c\n":         `:2: "b c" is neither a domain nor a login name`,
		"\xff\n":                   `:1: "\xff" is neither a domain nor a login name`,
		"*@a.example":              `:1: "*@a.example" is a pattern; write the domain alone, or a [[route]] with match`,
		strings.Repeat("a", 1<<17): ":1: bufio.Scanner: token too long",
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadNameFile(file); err == nil || err.Error() != file+want {
			t.Errorf("%.20q: %v, want %s", text, err, want)
		}
	}
}
