//go:build integration

package dovecottest_test

import (
	"testing"

	"popgate/imapbackend/dovecottest"
)

// P-RETR-3: Expected makes line ends CRLF.
func TestExpected(t *testing.T) {
	tests := []struct{ peek, want string }{
		{"", ""},
		{"a", "a\r\n"},
		{"a\r\n", "a\r\n"},
		{"a\n", "a\r\n"},
		{"a\r", "a\r\r\n"},
		{"\n", "\r\n"},
		{"\r", "\r\r\n"},
		{"a\n\nb\r\nc", "a\r\n\r\nb\r\nc\r\n"},
		{"a\rb\r\r\nc\r\n", "a\rb\r\r\nc\r\n"},
		{"\x00\xff\n.", "\x00\xff\r\n.\r\n"},
	}
	for _, test := range tests {
		if got := dovecottest.Expected([]byte(test.peek)); string(got) != test.want {
			t.Errorf("Expected(%q) = %q, want %q", test.peek, got, test.want)
		}
	}
}

func TestCorpus(t *testing.T) {
	corpus, again := dovecottest.Corpus(), dovecottest.Corpus()
	if len(corpus) != dovecottest.CorpusSize || len(again) != len(corpus) {
		t.Fatalf("%d messages, then %d, want %d", len(corpus), len(again), dovecottest.CorpusSize)
	}
	seen := make(map[string]string)
	largest := 0
	for i, s := range corpus {
		if difference(s.Octets, again[i].Octets) >= 0 {
			t.Errorf("%s: differs between two calls", s.Name)
		}
		if other, ok := seen[string(s.Octets)]; ok {
			t.Errorf("%s: equals %s", s.Name, other)
		}
		seen[string(s.Octets)] = s.Name
		largest = max(largest, len(s.Octets))
	}
	if largest < 30<<20 {
		t.Errorf("the largest message has %d octets, want 30 MB", largest)
	}
}
