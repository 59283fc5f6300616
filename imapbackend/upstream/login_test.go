package upstream

import "testing"

// P-AUTH-6: two spellings of one user have one lock.
func TestCanonical(t *testing.T) {
	for _, tt := range []struct{ cred, want string }{
		{"joe", "joe"}, {"JOE", "joe"}, {"Joe@Example.ORG", "joe@example.org"},
		{"jo\u0308e", "j\u00f6e"}, {"\xff", "\xff"}, {"with space", "with space"}, {"", ""},
	} {
		if got := CanonicalUser("", tt.cred); got != tt.want {
			t.Errorf("CanonicalUser(%q) = %q, want %q", tt.cred, got, tt.want)
		}
	}
}
