package config

import (
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"
)

// locate returns the line, 1-based, of each key of a TOML text by its path:
// "session.autologout", "listener[0].tls". Tables and the elements of arrays
// have paths too. The decoder reports positions for syntax errors only. src must
// be valid TOML; in other texts only some keys are found.
func locate(src string) map[string]int {
	l := &locator{
		src:    strings.TrimPrefix(src, "\ufeff"),
		line:   1,
		lines:  map[string]int{},
		tables: map[string]int{},
	}
	base := ""
	for l.skipBlank(); l.pos < len(l.src); l.skipBlank() {
		switch {
		case strings.HasPrefix(l.src[l.pos:], "[["):
			base = l.arrayHeader()
		case l.src[l.pos] == '[':
			base = l.tableHeader()
		default:
			l.keyValue(base)
		}
	}
	return l.lines
}

type locator struct {
	src   string
	pos   int
	line  int
	lines map[string]int

	// tables counts the elements seen of each array of tables, by its path.
	tables map[string]int
}

// childPath returns the path of key in the table at path.
func childPath(path, key string) string {
	key = toml.Key{key}.String()
	if path == "" {
		return key
	}
	return path + "." + key
}

// elementPath returns the path of element i, 0-based, of the array at path.
func elementPath(path string, i int) string {
	return path + "[" + strconv.Itoa(i) + "]"
}

// found records the line of path unless it has one already.
func (l *locator) found(path string, line int) {
	if _, ok := l.lines[path]; !ok {
		l.lines[path] = line
	}
}

// arrayHeader reads [[a.b]] and returns the path of the element that it begins.
func (l *locator) arrayHeader() string {
	line := l.line
	l.pos += len("[[")
	keys := l.key()
	l.pos = min(l.pos+len("]]"), len(l.src))
	path := childPath(l.resolve(keys[:len(keys)-1], line), keys[len(keys)-1])
	element := elementPath(path, l.tables[path])
	l.tables[path]++
	l.found(path, line)
	l.found(element, line)
	return element
}

// tableHeader reads [a.b] and returns its path.
func (l *locator) tableHeader() string {
	line := l.line
	l.pos += len("[")
	keys := l.key()
	l.pos = min(l.pos+len("]"), len(l.src))
	return l.resolve(keys, line)
}

// resolve turns the keys of a header into a path. A key that names an array of
// tables refers to its last element.
func (l *locator) resolve(keys []string, line int) string {
	path := ""
	for _, k := range keys {
		path = childPath(path, k)
		if n := l.tables[path]; n > 0 {
			path = elementPath(path, n-1)
		}
		l.found(path, line)
	}
	return path
}

// keyValue reads one "key = value" in the table at path.
func (l *locator) keyValue(path string) {
	line := l.line
	for _, k := range l.key() {
		path = childPath(path, k)
		l.found(path, line)
	}
	if l.peek() == '=' {
		l.pos++
	}
	l.skipSpace()
	l.value(path)
}

// key reads a possibly dotted key and the white space after it. It consumes
// at least one octet where there is one, so that every loop ends.
func (l *locator) key() []string {
	start := l.pos
	var keys []string
	for {
		l.skipSpace()
		keys = append(keys, l.simpleKey())
		l.skipSpace()
		if l.peek() != '.' {
			break
		}
		l.pos++
	}
	if l.pos == start && l.pos < len(l.src) {
		l.pos++
	}
	return keys
}

func (l *locator) simpleKey() string {
	start := l.pos
	if c := l.peek(); c == '"' || c == '\'' {
		l.quoted(string(c))
		return unquote(l.src[start:l.pos])
	}
	for l.pos < len(l.src) && !strings.ContainsRune(" \t\r\n.=]#,}", rune(l.src[l.pos])) {
		l.pos++
	}
	return l.src[start:l.pos]
}

// unquote decodes a quoted key as the TOML decoder does.
func unquote(quoted string) string {
	var v struct{ K string }
	if _, err := toml.Decode("K = "+quoted, &v); err != nil {
		return quoted
	}
	return v.K
}

// value skips the value of the key at path and records the paths inside it.
func (l *locator) value(path string) {
	rest := l.src[l.pos:]
	switch {
	case strings.HasPrefix(rest, `"""`), strings.HasPrefix(rest, `'''`):
		l.quoted(rest[:3])
	case strings.HasPrefix(rest, `"`), strings.HasPrefix(rest, `'`):
		l.quoted(rest[:1])
	case strings.HasPrefix(rest, "["):
		l.array(path)
	case strings.HasPrefix(rest, "{"):
		l.inlineTable(path)
	default:
		for l.pos < len(l.src) && !strings.ContainsRune(",]}#\n", rune(l.src[l.pos])) {
			l.pos++
		}
	}
}

func (l *locator) array(path string) {
	l.pos++
	for i := 0; ; i++ {
		l.skipBlank()
		if l.pos >= len(l.src) {
			return
		}
		if l.peek() == ']' {
			l.pos++
			return
		}
		start, element := l.pos, elementPath(path, i)
		l.found(element, l.line)
		l.value(element)
		l.skipBlank()
		if l.peek() == ',' || l.pos == start {
			l.advance()
		}
	}
}

func (l *locator) inlineTable(path string) {
	l.pos++
	for {
		l.skipBlank()
		switch {
		case l.pos >= len(l.src):
			return
		case l.peek() == '}':
			l.pos++
			return
		case l.peek() == ',':
			l.pos++
		default:
			l.keyValue(path)
		}
	}
}

// quoted skips a string that begins and ends with delim. Only basic strings have
// escapes. A multi-line string may end in up to two more quotes, which belong to
// it.
func (l *locator) quoted(delim string) {
	l.pos += len(delim)
	for l.pos < len(l.src) && !strings.HasPrefix(l.src[l.pos:], delim) {
		if l.src[l.pos] == '\\' && delim[0] == '"' {
			l.advance()
		}
		l.advance()
	}
	l.pos = min(l.pos+len(delim), len(l.src))
	for len(delim) == 3 && l.peek() == delim[0] {
		l.pos++
	}
}

// peek returns the next octet, or 0 at the end.
func (l *locator) peek() byte {
	if l.pos < len(l.src) {
		return l.src[l.pos]
	}
	return 0
}

// advance skips one octet.
func (l *locator) advance() {
	if l.pos < len(l.src) {
		if l.src[l.pos] == '\n' {
			l.line++
		}
		l.pos++
	}
}

// skipSpace skips spaces and tabs.
func (l *locator) skipSpace() {
	for c := l.peek(); c == ' ' || c == '\t'; c = l.peek() {
		l.pos++
	}
}

// skipBlank skips white space, line ends and comments.
func (l *locator) skipBlank() {
	for l.pos < len(l.src) {
		switch l.src[l.pos] {
		case ' ', '\t', '\r', '\n':
			l.advance()
		case '#':
			for l.pos < len(l.src) && l.src[l.pos] != '\n' {
				l.pos++
			}
		default:
			return
		}
	}
}
