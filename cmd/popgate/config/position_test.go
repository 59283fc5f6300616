package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/BurntSushi/toml"
	"github.com/google/go-cmp/cmp"
)

func TestLocate(t *testing.T) {
	src := strings.Join([]string{
		/* 1 */ `# a comment with [table] and key = "value"`,
		/* 2 */ `top = """`,
		/* 3 */ `[[listener]]`,
		/* 4 */ `\"""" # three quotes end it, a fourth belongs to it`,
		/* 5 */ `[[listener]]`,
		/* 6 */ `address = "a # b"`,
		/* 7 */ `insecure_login_from = [`,
		/* 8 */ `  "10.0.0.0/8", # office`,
		/* 9 */ `  "not ] the end",`,
		/* 10 */ `]`,
		/* 11 */ `[[listener]]`,
		/* 12 */ `'tls' = 'C:\'`,
		/* 13 */ `[listener.certificate]`,
		/* 14 */ `"f\u0069le" = 1`,
		/* 15 */ `[ session ]`,
		/* 16 */ `a . b = { c = 1, d = [ { e = 2 } ] }`,
	}, "\r\n")
	want := map[string]int{
		"top":                                2,
		"listener":                           5,
		"listener[0]":                        5,
		"listener[0].address":                6,
		"listener[0].insecure_login_from":    7,
		"listener[0].insecure_login_from[0]": 8,
		"listener[0].insecure_login_from[1]": 9,
		"listener[1]":                        11,
		"listener[1].tls":                    12,
		"listener[1].certificate":            13,
		"listener[1].certificate.file":       14,
		"session":                            15,
		"session.a":                          16,
		"session.a.b":                        16,
		"session.a.b.c":                      16,
		"session.a.b.d":                      16,
		"session.a.b.d[0]":                   16,
		"session.a.b.d[0].e":                 16,
	}
	if _, err := toml.Decode(src, &map[string]any{}); err != nil {
		t.Fatalf("the example is not TOML: %v", err)
	}
	if diff := cmp.Diff(want, locate(src)); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

// FuzzLocate checks that every key of a valid text gets one of its lines, and
// that no text makes the locator hang or panic.
func FuzzLocate(f *testing.F) {
	for _, s := range []string{
		"", "[[listener]]\naddress = \"x\"\n", "a.b.\"c d\" = [[1], {x = 1}]\n",
		"a = '''\n'''\nb = \"\"\"\\\"\"\"\"\"\n", "[a]\n[a.b]\n[[a.c]]\n[a.c.d]\ne=1979-05-27 07:32:00\n",
		"\ufeffa = 1", "a = [\n1, # x\n]\n", "[", "a", "a = [", "a = {", "\"", "= =", "a = \"\\",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, src string) {
		lines := locate(src)
		var v map[string]any
		if _, err := toml.Decode(src, &v); err != nil {
			return
		}
		last := strings.Count(src, "\n") + 1
		for _, path := range paths("", v) {
			if n := lines[path]; n < 1 || n > last {
				t.Errorf("%s: line %d of %d", path, n, last)
			}
		}
	})
}

// paths returns the paths of everything in v.
func paths(path string, v any) []string {
	var all []string
	switch v := v.(type) {
	case map[string]any:
		for k, e := range v {
			p := childPath(path, k)
			all = append(append(all, p), paths(p, e)...)
		}
	case []any:
		for i, e := range v {
			p := elementPath(path, i)
			all = append(append(all, p), paths(p, e)...)
		}
	case []map[string]any:
		for i, e := range v {
			p := elementPath(path, i)
			all = append(append(all, p), paths(p, e)...)
		}
	case string, int64, float64, bool, fmt.Stringer:
	default:
		panic(fmt.Sprintf("unknown type %T", v))
	}
	return all
}
