package directory

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"unicode"
	"unicode/utf8"
)

// NameFile is a file with a domain or a login name on each line, which may be
// replaced while the NameFile is in use. Empty lines and lines that begin with #
// are skipped. It is safe for concurrent use.
type NameFile struct {
	file  string
	names atomic.Pointer[map[string]struct{}] // folded

	mu      sync.Mutex
	digest  [sha256.Size]byte // of the file when names was read
	problem string            // the last error logged about it, "" if it is good
}

// ReadNameFile reads a file.
func ReadNameFile(file string) (*NameFile, error) {
	f := &NameFile{file: file}
	_, err := f.read()
	return f, err
}

// Files returns the name of the file.
func (f *NameFile) Files() []string { return []string{f.file} }

// Len returns the number of names.
func (f *NameFile) Len() int { return len(*f.names.Load()) }

// has reports whether the file has a login name or its domain, both folded.
func (f *NameFile) has(login, domain string) bool {
	names := *f.names.Load()
	if _, ok := names[login]; ok {
		return true
	}
	_, ok := names[domain] // never ""
	return ok
}

// Reload reads the file again and logs the result; the same error is logged only
// once. After an error the old names stay in use.
func (f *NameFile) Reload(log *slog.Logger) {
	f.mu.Lock()
	defer f.mu.Unlock()
	changed, err := f.read()
	switch {
	case err != nil && err.Error() != f.problem:
		f.problem = err.Error()
		log.Error("names of a route not reloaded, the old ones stay in use", "match_file", f.file, "error", err)
	case err == nil && (changed || f.problem != ""):
		f.problem = ""
		log.Info("names of a route reloaded", "match_file", f.file, "names", f.Len())
	}
}

// read reads the file and reports whether it has changed; it then uses the new
// names.
func (f *NameFile) read() (changed bool, err error) {
	text, err := os.ReadFile(f.file)
	if err != nil {
		return false, err
	}
	digest := sha256.Sum256(text)
	if f.names.Load() != nil && digest == f.digest {
		return false, nil
	}
	names, err := parseNames(text)
	if err != nil {
		return false, fmt.Errorf("%s:%w", f.file, err)
	}
	f.names.Store(&names)
	f.digest = digest
	return true, nil
}

// parseNames returns the names in text, folded. The error begins with the number of
// the line.
func parseNames(text []byte) (map[string]struct{}, error) {
	names := make(map[string]struct{}, bytes.Count(text, []byte{'\n'})+1)
	lines := bufio.NewScanner(bytes.NewReader(text))
	n := 0
	for lines.Scan() {
		n++
		name := strings.TrimSpace(lines.Text())
		if name == "" || name[0] == '#' {
			continue
		}
		if !utf8.ValidString(name) || strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }) {
			return nil, fmt.Errorf("%d: %q is neither a domain nor a login name", n, name)
		}
		if strings.Contains(name, "*") {
			return nil, fmt.Errorf("%d: %q is a pattern; write the domain alone, or a [[route]] with match", n, name)
		}
		names[fold(name)] = struct{}{}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("%d: %w", n+1, err)
	}
	return names, nil
}
