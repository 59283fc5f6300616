package config

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/BurntSushi/toml"

	"popgate/proxy"
)

// Config is a configuration file without mistakes: each value is in its range,
// and the files it names have been read.
type Config struct {
	Listeners []Listener
	Session   Session
	Limits    Limits
	Throttle  proxy.ThrottleOptions // Delay 0: off
	Upstreams []Upstream            // at least one, each with a Name of its own
	Routes    []Route
	Lookups   []Lookup
	Store     Store
	Log       Log
}

// defaults returns the Config of a file without tables.
func defaults() *Config {
	return &Config{
		Session:  defaultSession(),
		Limits:   defaultLimits(),
		Throttle: defaultThrottle(),
		Store:    defaultStore(),
		Log:      defaultLog(),
	}
}

// Load reads a file. For mistakes in it the error is *Problems, with all of
// them; if the text is not TOML, with the first syntax error only.
func Load(file string) (*Config, error) {
	src, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	return parse(file, string(src))
}

// parse is Load for the text src of file.
func parse(file, src string) (*Config, error) {
	var top map[string]any
	if _, err := toml.Decode(src, &top); err != nil {
		return nil, syntaxProblem(file, src, err)
	}
	l := &loader{
		Problems: Problems{file: file},
		lines:    locate(src),
		dir:      filepath.Dir(file),
	}
	c := defaults()
	l.decode(c, top)
	for _, t := range tables() {
		if t.check != nil {
			t.check(l, c)
		}
	}
	if len(l.list) > 0 {
		return nil, l.sorted()
	}
	return c, nil
}

func syntaxProblem(file, src string, err error) error {
	p := problem{line: 1, what: "not TOML: " + err.Error(), remedy: "see https://toml.io"}
	if pe, ok := errors.AsType[toml.ParseError](err); ok {
		// Position.Line is one too high if the error is at a line end.
		before := src[:min(max(pe.Position.Start, 0), len(src))]
		p.line, p.key = 1+strings.Count(before, "\n"), pe.LastKey
		p.what = "not TOML: " + strings.TrimSuffix(pe.Message, ".")
		if key, word := unquoted(src, p.line, p.key); word != "" {
			p.key, p.what = key, word+" is not in quotes"
			p.remedy = fmt.Sprintf("put it in quotes: %q", word)
		}
	}
	return &Problems{file: file, list: []problem{p}}
}

// unquoted returns the key of a line of src and the first of its values that is a
// word without quotes, or with those of a word processor; "" if there is none. In a
// line of an array the key is that of the array.
func unquoted(src string, line int, array string) (key, word string) {
	lines := strings.Split(src, "\n")
	key, value, ok := strings.Cut(lines[min(line, len(lines))-1], "=")
	if !ok {
		key, value = array, key
	}
	if key == "" {
		return "", ""
	}
	value, _, _ = strings.Cut(value, "#")
	for one := range strings.SplitSeq(strings.Trim(value, "[] \t\r"), ",") {
		one = strings.TrimSpace(one)
		if one == "" || strings.ContainsAny(one, "\"'{}=") {
			continue
		}
		var value map[string]any
		if _, err := toml.Decode("x = "+one, &value); err != nil {
			return strings.TrimSpace(key), strings.Trim(one, "\u201c\u201d\u201e\u2018\u2019")
		}
	}
	return "", ""
}

// loader reads one file and collects its mistakes.
type loader struct {
	Problems
	lines map[string]int // of each path
	meant []string       // paths of keys and tables whose names are misspelt in the file
	dir   string         // what relative file names are relative to
}

// decode sets the values of the file in c, which has the defaults.
func (l *loader) decode(c *Config, top map[string]any) {
	all := tables()
	for _, name := range slices.Sorted(maps.Keys(top)) {
		i := slices.IndexFunc(all, func(t table) bool { return t.name == name && t.decode != nil })
		if i < 0 {
			l.unknownTable(name, top[name])
			continue
		}
		all[i].decode(l, c, top[name])
	}
	for _, t := range all {
		if _, ok := top[t.name]; t.required && !ok && !l.wrong(t.name) {
			l.fail(t.name, "missing", fmt.Sprintf("add a %s with its address", t.header))
		}
	}
}

// fail records a mistake at path. If path is not in the file, its line is that
// of the table to which it belongs.
func (l *loader) fail(path, what, remedy string) {
	l.list = append(l.list, problem{line: l.lineOf(path), key: path, what: what, remedy: remedy})
}

func (l *loader) lineOf(path string) int {
	for i := len(path); i > 0; i-- {
		if i < len(path) && path[i] != '.' && path[i] != '[' {
			continue
		}
		if line, ok := l.lines[path[:i]]; ok {
			return line
		}
	}
	return 1
}

// wrong reports whether a mistake at path or below it has been recorded, or in its
// name. The
// field then has its default instead of the intended value, so it must not be
// the reason for a further mistake.
func (l *loader) wrong(path string) bool {
	if slices.Contains(l.meant, path) {
		return true
	}
	for _, p := range l.list {
		if p.key == path || strings.HasPrefix(p.key, path+"[") {
			return true
		}
	}
	return false
}

// given reports whether the file has the key at path.
func (l *loader) given(path string) bool {
	_, ok := l.lines[path]
	return ok
}
