package proxy

import "testing"

// TestFindCommand shows that the letter case of a keyword does not matter, and
// that no other string is a keyword.
func TestFindCommand(t *testing.T) {
	for _, tt := range []struct{ verb, want string }{
		{"RETR", "RETR"}, {"top", "TOP"}, {"Quit", "QUIT"},
		{"", ""}, {"TO", ""}, {"TOPS", ""}, {"RETRIEVE", ""},
		{"\u017ftat", ""}, // folds to STAT
	} {
		cmd := findCommand(tt.verb)
		switch {
		case cmd == nil && tt.want != "", cmd != nil && cmd.verb != tt.want:
			t.Errorf("%q: %v, want %q", tt.verb, cmd, tt.want)
		}
	}
}
