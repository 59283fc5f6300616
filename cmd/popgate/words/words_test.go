package words

import "testing"

func TestNearest(t *testing.T) {
	names := []string{"address", "mailbox", "server_name", "tls", "trash"}
	for _, tt := range []struct{ word, want string }{
		{"adress", "address"},
		{"Mailbox", "mailbox"},
		{"serevr_name", "server_name"},
		{"tsl", "tls"},
		{"x", ""},
		{"zzz", ""},
		{"", ""},
	} {
		if got := Nearest(tt.word, names); got != tt.want {
			t.Errorf("Nearest(%q) = %q, want %q", tt.word, got, tt.want)
		}
	}
}
