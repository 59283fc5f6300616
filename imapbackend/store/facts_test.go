package store

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// I-PROF-3: what was learned of a server is kept across restarts, for the servers
// that an upstream had last, and can be looked at while no process uses the file.
func TestFacts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s, _ := openStore(t, path, Options{})
	for i := range maxFacts + 2 {
		s.PutFact("up", Fact{fmt.Sprint("f", i), fmt.Sprint("works=", i)})
		s.PutFact("other", Fact{"f9", "works=other"})
	}
	s.PutFact("up", Fact{"f5", "works=again"})
	s.PutFact("up", Fact{"long", strings.Repeat("x", textLimit+1)})
	if _, inUse, err := InspectFact(path, "up", "f9"); !inUse || err != nil {
		t.Errorf("in use: %v, %v", inUse, err)
	}
	closeStore(t, s)
	s, log := openStore(t, path, Options{})
	for fingerprint, want := range map[string]string{"f0": "", "f1": "", "f2": "works=2", "f5": "works=again", "f9": "works=9", "long": ""} {
		if got := s.Fact("up", fingerprint); got != want {
			t.Errorf("%s: %q, want %q", fingerprint, got, want)
		}
	}
	if got := s.Fact("other", "f9"); got != "works=other" {
		t.Errorf("other: %q", got)
	}
	closeStore(t, s)
	text, inUse, err := InspectFact(path, "up", "f5")
	if text != "works=again" || inUse || err != nil {
		t.Errorf("looked at: %q, %v, %v", text, inUse, err)
	}
	if text, _, err := InspectFact(filepath.Join(filepath.Dir(path), "none"), "up", "f5"); text != "" || err != nil {
		t.Errorf("no file: %q, %v", text, err)
	}
	if log.String() != "" {
		t.Error(log)
	}
}
