//go:build unix

package store

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"
)

// O-FILE-1: a file that is no store is refused, and stays as it is, with its mode.
func TestForeign(t *testing.T) {
	bucket := func(name string) func(tx *bolt.Tx) error {
		return func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte(name)); return err }
	}
	for name, content := range map[string][]byte{
		"a line":                             []byte("hello\n"),
		"a configuration":                    []byte("[[listener]]\naddress = \":995\"\n[store]\npath = \"config.toml\"\n"),
		"a long text":                        bytes.Repeat([]byte("hello\n"), 100_000),
		"noise":                              bytes.Repeat([]byte{0xA5, 0}, 100_000),
		"another program's":                  database(t, bucket("x")),
		"another program's, of a known name": database(t, bucket("meta")),
	} {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Inspect(path); !errors.Is(err, ErrNotStore) {
			t.Errorf("%s: Inspect: %v", name, err)
		}
		if _, err := Open(path, Options{}); !errors.Is(err, ErrNotStore) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", name, err)
		}
		if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, content) {
			t.Errorf("%s: %d octets of %d are left: %v", name, len(b), len(content), err)
		}
		all, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*"))
		if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o644 || len(all) != 1 {
			t.Errorf("%s: %v, %v; files %q", name, fi.Mode(), err, all)
		}
	}
}

// O-FILE-1: a store is recognised by the name of its format, wherever that is in the file.
func TestForeignMark(t *testing.T) {
	for _, before := range []int{0, 1, 64<<10 - 20, 64<<10 - 14, 64<<10 - 7, 64 << 10, 200_000} {
		path := filepath.Join(t.TempDir(), "file")
		content := append(bytes.Repeat([]byte("x"), before), formatName...)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if other, err := foreign(path); other || err != nil {
			t.Errorf("after %d octets: %v, %v", before, other, err)
		}
	}
}

// O-FILE-2: a store, whole or damaged, that others may use is taken away from them,
// and logged.
func TestStoreMode(t *testing.T) {
	for name, content := range map[string][]byte{"whole": filled(t), "damaged": filled(t)[:5000]} {
		path := filepath.Join(t.TempDir(), "store.db")
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
		finding, err := Inspect(path)
		if err != nil || name == "whole" && finding != "good, but others may use it (mode 0644): serve will make that 0600" {
			t.Errorf("%s: %q, %v", name, finding, err)
		}
		s, log := openStore(t, path, Options{})
		closeStore(t, s)
		if !strings.Contains(log.String(), "others could use the store, its mode is 0600 now") || !strings.Contains(log.String(), "mode=0644") {
			t.Errorf("%s: log: %s", name, log)
		}
		files, _ := filepath.Glob(path + "*")
		for _, file := range files {
			if fi, err := os.Stat(file); err != nil || fi.Mode().Perm() != 0o600 {
				t.Errorf("%s: %s: %v, %v", name, file, fi.Mode(), err)
			}
		}
	}
}
