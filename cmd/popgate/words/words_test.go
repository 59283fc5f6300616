package words

import "testing"

func TestNearest(t *testing.T) {
	names := []string{"address", "mailbox", "server_name", "tls", "trash"}
	for _, test := range []struct{ word, want string }{
		{"adress", "address"},
		{"Mailbox", "mailbox"},
		{"serevr_name", "server_name"},
		{"tsl", "tls"},
		{"x", ""},
		{"zzz", ""},
		{"", ""},
	} {
		if got := Nearest(test.word, names); got != test.want {
			t.Errorf("Nearest(%q) = %q, want %q", test.word, got, test.want)
		}
	}
}
