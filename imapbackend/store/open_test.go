package store

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
)

// Only one process at a time can open the file.
func TestLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	openStore(t, path, Options{})
	before := time.Now()
	_, err := Open(path, Options{})
	if err == nil || !strings.Contains(err.Error(), "another popgate uses it") || !strings.Contains(err.Error(), path) {
		t.Errorf("%v", err)
	}
	if d := time.Since(before); d > 5*time.Second {
		t.Errorf("after %v", d)
	}
}

// An error that the operator can fix prevents the start.
func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"not a regular file":        dir,
		"no such file or directory": filepath.Join(dir, "missing", "store.db"),
		"not a directory":           filepath.Join(dir, "file", "store.db"),
	} {
		if _, err := Open(path, Options{}); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Open(filepath.Join(dir, "x"), Options{MaxSize: 100}); err == nil {
		t.Error("a limit of 100 octets is accepted")
	}
}

// A file of the format before, in which UIDVALIDITY has at most 32 bits, is read
// as it is, and then has the current format.
func TestFormatBefore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, _ := openStore(t, path, Options{})
	m := newSample(100)
	m.put(t, s, key("a"))
	closeStore(t, s)
	format := func(change func(b *bolt.Bucket) error) {
		t.Helper()
		db, err := bolt.Open(path, 0o600, nil)
		if err == nil {
			err = db.Update(func(tx *bolt.Tx) error { return change(tx.Bucket(bucketMeta)) })
		}
		if err == nil {
			err = db.Close()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	format(func(b *bolt.Bucket) error { return b.Put(keyFormat, []byte("popgate store 1")) })
	if got, err := Inspect(path); got != "good" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	s, log := openStore(t, path, Options{})
	m.check(t, s, key("a"))
	closeStore(t, s)
	if log.String() != "" {
		t.Errorf("log: %s", log)
	}
	format(func(b *bolt.Bucket) error {
		if got := string(b.Get(keyFormat)); got != "popgate store 2" {
			t.Errorf("format %q", got)
		}
		return nil
	})
}

// What Inspect reports about a file.
func TestInspect(t *testing.T) {
	dir := t.TempDir()
	at := func(name, content string) string {
		path := filepath.Join(dir, name)
		if content != "" {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	good, used := at("good", ""), at("used", "")
	s, _ := openStore(t, good, Options{})
	closeStore(t, s)
	openStore(t, used, Options{})
	for path, want := range map[string]string{
		good:                  "good",
		used:                  "in use by a running popgate",
		at("new", ""):         "does not exist yet; serve will create it",
		at("foreign", "mail"): "damaged; serve will set it aside and create a new one: ",
	} {
		before, _ := os.ReadFile(path)
		got, err := Inspect(path)
		if err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, %v", path, got, err)
		}
		if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
			t.Errorf("%s has changed", path)
		}
	}
	for name, path := range map[string]string{
		"not a regular file":        dir,
		"no such file or directory": at("missing/store.db", ""),
		"not a directory":           at("foreign/store.db", ""),
	} {
		if got, err := Inspect(path); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
