//go:build unix

package reload

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// directories follows each link in a path once.
func TestDirectories(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(root, name) }
	for _, dir := range []string{"etc", "live", "archive", "secret/..2026"} {
		if err := os.MkdirAll(at(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	put(t, at("archive/cert1.pem"))
	put(t, at("secret/..2026/tls.crt"))
	for link, target := range map[string]string{
		"live/cert.pem":  "../archive/cert1.pem",
		"etc/cert.pem":   at("live/cert.pem"),
		"secret/..data":  "..2026",
		"secret/tls.crt": "..data/tls.crt",
		"certs":          "secret",
		"loop":           "loop",
	} {
		if err := os.Symlink(target, at(link)); err != nil {
			t.Fatal(err)
		}
	}
	for file, want := range map[string][]string{
		"archive/cert1.pem": {"archive"},
		"archive/none.pem":  {"archive"},
		"etc/cert.pem":      {"etc", "live", "archive"},
		"secret/tls.crt":    {"secret", "secret", "secret/..2026"},
		"certs/tls.crt":     {"", "secret", "secret", "secret/..2026"},
	} {
		for i := range want {
			want[i] = at(want[i])
		}
		if diff := cmp.Diff(want, directories(at(file))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", file, diff)
		}
	}
	if got := directories(at("loop")); len(got) > 41 || !slices.Contains(got, root) {
		t.Errorf("a loop: %v", got)
	}
}

// put creates an empty file.
func put(t *testing.T, file string) {
	t.Helper()
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
}
