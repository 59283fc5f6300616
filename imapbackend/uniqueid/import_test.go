package uniqueid

import (
	"regexp"
	"strings"
	"testing"
)

// I-UIDL-5: the identity of a message does not depend on folding, the order of
// different fields, the case of names, or other fields, but on all else.
func TestHeaderIdentity(t *testing.T) {
	const header = "Received: from a by b; 1\r\nReceived: from c by a; 0\r\nFrom: joe <joe@x>\r\nSubject: a b\r\nDate: now\r\nMessage-ID: <1@x>\r\n\r\n"
	want := HeaderIdentity([]byte(header), 100)
	if !regexp.MustCompile(`^header:[A-Za-z0-9_-]{43}:100$`).MatchString(want) {
		t.Fatalf("identity %q", want)
	}
	for name, same := range map[string]string{
		"bare LF":            strings.ReplaceAll(header, "\r", ""),
		"no empty line":      strings.TrimSuffix(header, "\r\n"),
		"with a text":        header + "Subject: not of the header\r\n",
		"folded":             strings.Replace(header, "from a by", "from a\r\n\t by", 1),
		"unfolded":           strings.Replace(header, "a b\r\n", "  a \t b \r\n", 1),
		"case of names":      strings.Replace(header, "Message-ID", "message-Id", 1),
		"space before colon": strings.Replace(header, "Date:", "Date :", 1),
		"other fields":       "X-A: 1\r\n folded\r\nStatus: RO\r\n" + header,
		"no field":           "From the mailbox\r\n" + header,
		"another order":      "Message-ID: <1@x>\r\n" + strings.Replace(header, "Message-ID: <1@x>\r\n", "", 1),
	} {
		if got := HeaderIdentity([]byte(same), 100); got != want {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
	for name, other := range map[string]string{
		"case of values":    strings.Replace(header, "a b", "A b", 1),
		"Received reversed": "Received: from c by a; 0\r\nReceived: from a by b; 1\r\n" + header[strings.Index(header, "From:"):],
		"one field less":    strings.Replace(header, "Date: now\r\n", "", 1),
		"value elsewhere":   strings.Replace(header, "Subject: a b\r\nDate: now", "Subject: now\r\nDate: a b", 1),
	} {
		if got := HeaderIdentity([]byte(other), 100); got == want {
			t.Errorf("%s: the same identity", name)
		}
	}
	if HeaderIdentity([]byte(header), 101) == want {
		t.Error("the same identity for another size")
	}
	for _, header := range []string{"", "\r\n", "Subject: a\r\nFrom: b\r\n\r\n", ": x\r\n\r\n", "Subject: a\r\n\r\nDate: b\r\n"} {
		if got := HeaderIdentity([]byte(header), 1); got != "" {
			t.Errorf("%q has identity %s", header, got)
		}
	}
}

// importOf returns an Import of lines.
func importOf(t *testing.T, lines ...string) *Import {
	t.Helper()
	im, err := ReadImport("former.uidl", strings.NewReader(strings.Join(lines, "\n")), strings.ToLower)
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// I-UIDL-5: mistakes in a file of former unique-ids are reported with the line.
func TestReadImport(t *testing.T) {
	good := HeaderIdentity([]byte("Date: x\r\n"), 1)
	importOf(t, "# comment", "", good+"\ta", "emailid:M1\tb", "gmail:1\tc\tjoe", good+"\ta")
	for _, tt := range []struct{ line, want string }{
		{"a", "want IDENTITY<tab>"},
		{good + "\ta\tjoe\tx", "want IDENTITY<tab>"},
		{good + " a", "want IDENTITY<tab>"},
		{"1234\ta", `"1234" is not an identity`},
		{"header:short:1\ta", "is not an identity"},
		{good + "\t", `"" is not a unique-id`},
		{good + "\ta b", `"a b" is not a unique-id`},
		{good + "\t" + strings.Repeat("a", 71), "is not a unique-id"},
		{good + "\ta\t", "without a user"},
		{strings.Repeat("a", 5000), "more than 4096 octets"},
	} {
		_, err := ReadImport("f", strings.NewReader("# x\n"+tt.line+"\n"), strings.ToLower)
		if err == nil || !strings.HasPrefix(err.Error(), "f:2: ") || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.50q: %v, want %q", tt.line, err, tt.want)
		}
	}
}

// I-UIDL-5: an identity is empty or valid in a file of former unique-ids, and it
// depends neither on line ends nor on the text after the header.
func FuzzHeaderIdentity(f *testing.F) {
	f.Add("Received: a\r\n\tb\r\nDate: x\r\nSubject: y\r\n\r\n", int64(7))
	f.Add(" folded: before\n: no name\nmessage-id", int64(0))
	f.Fuzz(func(t *testing.T, header string, octets int64) {
		if octets < 0 || strings.Contains(header, "\r") {
			return
		}
		id := HeaderIdentity([]byte(header), octets)
		if id != "" && !importID.MatchString(id) {
			t.Errorf("identity %q", id)
		}
		whole := strings.ReplaceAll(strings.TrimRight(header, "\n"), "\n", "\r\n") + "\r\n\r\nDate: text\r\n"
		if got := HeaderIdentity([]byte(whole), octets); got != id {
			t.Errorf("%q with CRLF and a text: %q, want %q", header, got, id)
		}
	})
}
