package proxy

import "testing"

// TestFindCommand shows that a keyword is in any case, and that nothing but its
// own letters makes it one.
func TestFindCommand(t *testing.T) {
	for _, c := range []struct{ verb, want string }{
		{"RETR", "RETR"}, {"top", "TOP"}, {"Quit", "QUIT"},
		{"", ""}, {"TO", ""}, {"TOPS", ""}, {"RETRIEVE", ""},
		{"\u017ftat", ""}, // folds to STAT
	} {
		cmd := findCommand(c.verb)
		switch {
		case cmd == nil && c.want != "", cmd != nil && cmd.verb != c.want:
			t.Errorf("%q: %v, want %q", c.verb, cmd, c.want)
		}
	}
}
