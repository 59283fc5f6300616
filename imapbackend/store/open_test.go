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

// A file of a format before is read as it is, and then has the current format. Of
// records without digest only unique-ids are used: the rest can be asked for.
func TestFormatBefore(t *testing.T) {
	for _, before := range formatsBefore {
		path := filepath.Join(t.TempDir(), "store.db")
		s, _ := openStore(t, path, Options{})
		m := newSample(100)
		m.put(t, s, key("a"))
		closeStore(t, s)
		edit(t, path, func(b *bolt.Bucket) error {
			for _, r := range []record{m.listing, sizes{7, m.sizes}, identities{7, m.ids}, m.unique, m.flagged} {
				if err := putBefore(b, r); err != nil {
					return err
				}
			}
			return b.Tx().Bucket(bucketMeta).Put(keyFormat, []byte(before))
		})
		if got, err := Inspect(path); got != "good" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		s, log := openStore(t, path, Options{})
		sample{unique: m.unique}.check(t, s, key("a"))
		m.put(t, s, key("a"))
		closeStore(t, s)
		if log.String() != "" {
			t.Errorf("log: %s", log)
		}
		s, _ = openStore(t, path, Options{})
		m.check(t, s, key("a"))
		closeStore(t, s)
		edit(t, path, func(b *bolt.Bucket) error {
			if got := string(b.Tx().Bucket(bucketMeta).Get(keyFormat)); got != "popgate store 3" {
				t.Errorf("format %q", got)
			}
			return nil
		})
	}
}

// putBefore writes a record as the formats before have it: the head without version
// and digest, and chunks of unique-ids without UIDVALIDITY.
func putBefore(b *bolt.Bucket, r record) error {
	id := recordID{Key: key("a")}
	switch r.(type) {
	case Listing:
		id.kind = kindListing
	case sizes:
		id.kind = kindSizes
	case identities:
		id.kind, id.source = kindIdentities, "emailid"
	case Flagged:
		id.kind = kindFlagged
	case UniqueIDs:
		id.kind = kindUniqueIDs
	}
	for _, c := range r.chunks() {
		at, body := append(id.prefix(), c.suffix...), c.body
		switch {
		case c.suffix == "":
			body = body[:len(body)-digestSize-1]
		case id.kind == kindUniqueIDs:
			body = body[1:]
		}
		if err := b.Put(at, addChecksum(at, body)); err != nil {
			return err
		}
	}
	return nil
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
		good:                             "good",
		used:                             "in use by a running popgate",
		at("new", ""):                    "does not exist yet; serve will create it",
		at("damaged", "popgate store 3"): "damaged; serve will set it aside and create a new one: ",
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
		"not a directory":           at("damaged/store.db", ""),
		"not a store of popgate":    at("foreign", "mail"),
	} {
		if got, err := Inspect(path); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}
