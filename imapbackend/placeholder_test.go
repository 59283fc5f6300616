package imapbackend

import (
	"io"
	"slices"
	"strings"
	"testing"

	"popgate/proxy"
)

const placeholder = "Retrieval using the IMAP4 protocol failed"

var placeholderCases = []struct {
	name, message string
	want          bool
}{
	{"subject", "From: a\r\nSubject: " + placeholder + " for the following message: 1234\r\n\r\nx\r\n", true},
	{"case of the field", "SUBJECT:" + placeholder + "\r\n\r\n", true},
	{"folded", "Subject:\r\n\t" + placeholder + " for\r\n\r\n", true},
	{"bare LF", "Subject: a\n\n" + placeholder + "\n", true},
	{"line of the text", "Subject: a\r\n\r\nb\r\n" + placeholder, true},
	{"first line", placeholder, true},
	{"the last line scanned", strings.Repeat("x", placeholderHead-2-len(placeholder)) + "\r\n" + placeholder, true},
	{"one octet later", strings.Repeat("x", placeholderHead-1-len(placeholder)) + "\r\n" + placeholder, false},
	{"a reply to one", "Subject: Re: " + placeholder + "\r\n\r\n> " + placeholder + "\r\n", false},
	{"not at the start of a line", "Subject: a\r\n\r\nsee " + placeholder + "\r\n", false},
	{"shorter", "Subject: " + placeholder[:len(placeholder)-1] + "\r\n\r\n", false},
	{"another field", "X-Subject: " + placeholder + "\r\n\r\n", false},
	{"empty subject", "Subject:\r\nFrom: a\r\n\r\nb\r\n", false},
	{"long line", "Subject: " + strings.Repeat("y", 500) + placeholder + "\r\n\r\n", false},
	{"long, no placeholder", strings.Repeat("Subject: a\r\n", placeholderHead/10), false},
	{"empty", "", false},
	{"delivered", "Received: from a by b\r\nSubject: " + placeholder + "\r\n\r\n" + placeholder, false},
	{"delivered, by a field below", "Subject: " + placeholder + "\r\nreceived: from a by b\r\n\r\nx\r\n", false},
	{"delivered, in the text only", "Subject: " + placeholder + "\r\n\r\nReceived: from a by b\r\n", true},
}

// I-DEL-14: a placeholder is found wherever the message is cut, or octet by octet, and
// all octets are passed on.
func TestPlaceholderCuts(t *testing.T) {
	for _, tt := range placeholderCases {
		check := func(pieces ...string) {
			t.Helper()
			m := new(maildrop)
			var out strings.Builder
			w := &placeholderDetector{scanner: newScanner(), m: m, uid: 7, w: &out}
			for _, p := range pieces {
				if _, err := io.WriteString(w, p); err != nil {
					t.Fatal(err)
				}
			}
			if got := slices.Contains(m.placeholders, 7); got != tt.want || out.String() != tt.message {
				t.Errorf("%s in pieces of %d and more: found %v, want %v", tt.name, len(pieces[0]), got, tt.want)
			}
		}
		for cut := range len(tt.message) + 1 {
			check(tt.message[:cut], tt.message[cut:])
		}
		check(append(strings.Split(tt.message, ""), "")...)
	}
}

// exchange has a script greet as Microsoft Exchange does.
func exchange(script string) string {
	return strings.Replace(script, "zebra ready", "The Microsoft Exchange IMAP4 service is ready. [QQ==]", 1)
}

// subject asks for the Subject of a set.
func subject(set string) string {
	return "C: <x> UID FETCH " + set + " (UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])\n"
}

const (
	bad   = "BODY[HEADER.FIELDS (SUBJECT)] {54}\nS64: U3ViamVjdDogUmV0cmlldmFsIHVzaW5nIHRoZSBJTUFQNCBwcm90b2NvbCBmYWlsZWQNCg0K\nS: "
	fine  = "BODY[HEADER.FIELDS (SUBJECT)] {14}\nS64: U3ViamVjdDogYQ0KDQo=\nS: "
	asked = "S: <x> OK x\n"
	good7 = "S: * 1 FETCH (UID 7 " + fine + ")\n"
	good8 = "S: * 2 FETCH (" + fine + " UID 8)\n"
)

// I-DEL-14: whatever the policy, a message that the session has read as a placeholder is
// not removed, and QUIT says so.
func TestPlaceholderRead(t *testing.T) {
	whole := "S: * 1 FETCH (UID 7 BODY[] {61}\nS64: U3ViamVjdDogUmV0cmlldmFsIHVzaW5nIHRoZSBJTUFQNCBwcm90b2NvbCBmYWlsZWQgZm9yDQoNCngNCg==\nS: )\nS: <r> OK x\n"
	header := "S: * 1 FETCH (UID 7 BODY[HEADER] {56}\nS64: U3ViamVjdDogUmV0cmlldmFsIHVzaW5nIHRoZSBJTUFQNCBwcm90b2NvbCBmYWlsZWQgZg0KDQo=\nS: )\nS: <r> OK x\n"
	other := subject("8") + good8 + asked
	check := "C: <q> UID FETCH 7:8 (UID)\nS: * 1 FETCH (UID 7)\nS: <q> OK x\n"
	for _, tt := range []struct {
		name, caps, script string
		opts               Options
		top                bool
		want               *proxy.Error
	}{
		{"RETR, expunge", "UIDPLUS", retr + whole + other + storing("8") + stored + expunging("8") + expunged + check, Options{}, false, proxy.ErrNotRemoved},
		{"TOP, expunge", "UIDPLUS", topCommand("r", "BODY.PEEK[HEADER]") + header + other + storing("8") + stored + expunging("8") + expunged + check, Options{}, true, proxy.ErrNotRemoved},
		{"trash", "MOVE", retr + whole + other + moving("8", `"Bin"`) + moved + check, bin, false, proxy.ErrNotRemoved},
		{"flag", "UIDPLUS", retr + whole + other + storing("8") + stored + "C: <q> UID FETCH 7:8 (UID FLAGS)\nS: * 1 FETCH (UID 7 FLAGS ())\nS: <q> OK x\n" +
			unflagging("8") + "S: <u> OK x\n", Options{Delete: DeleteFlag}, false, proxy.ErrNotRemoved},
		{"expunge-if-alone, flagged by another client", "", retr + whole + other + storing("8") + stored + foreign + "S: * SEARCH 7 8\nS: <a> OK x\n" +
			"C: <q> UID FETCH 7:8 (UID FLAGS)\n" + nothing, alone, false, nil},
		{"removed by another client", "UIDPLUS", retr + whole + other + removing("8")[:len(removing("8"))-len(checking("8")+nothing)] + checking("7:8") + nothing, Options{}, false, nil},
		{"keep", "UIDPLUS", retr + whole, Options{Delete: DeleteKeep}, false, nil},
	} {
		play(t, tt.name, exchange(mailbox(tt.caps, "", "7", "8"))+tt.script+bye, tt.opts, func(s *session) {
			d := s.open()
			if tt.top {
				s.text(d.Top(s.ctx, 7, 0))
			} else {
				s.text(d.Read(s.ctx, 7))
			}
			s.wants(d.Update(s.ctx, []uint64{7, 8}), tt.want)
			if logged := strings.Contains(s.log.String(), "uid=7"); logged != (tt.opts.Delete != DeleteKeep) {
				s.Errorf("log:\n%s", s.log.String())
			}
		})
	}
}

// I-DEL-14: on Exchange one command asks for the Subject of the marked messages that
// have not been read.
func TestPlaceholderUnread(t *testing.T) {
	bad7 := "S: * 1 FETCH (" + bad + " UID 7)\n"
	received := func(fields string) string {
		return "C: <v> UID FETCH 7 (UID BODY.PEEK[HEADER.FIELDS (RECEIVED)])\nS: * 1 FETCH (UID 7 BODY[HEADER.FIELDS (RECEIVED)] " + fields + ")\nS: <v> OK x\n"
	}
	none, some := received("{2}\nS64: DQo=\nS: "), received("{25}\nS64: UmVjZWl2ZWQ6IGZyb20gYSBieSBiDQoNCg==\nS: ")
	rest := func(uids string) string { return checking("7:8") + left(uids) }
	for _, tt := range []struct {
		name, script string
		want         *proxy.Error
	}{
		{"none", subject("7:8") + good7 + good8 + asked + removing("7:8"), nil},
		{"one", subject("7:8") + bad7 + good8 + asked + none + storing("8") + stored + expunging("8") + expunged + rest("7"), proxy.ErrNotRemoved},
		{"one, delivered by mail", subject("7:8") + bad7 + good8 + asked + some + removing("7:8"), nil},
		{"not given", subject("7:8") + good8 + "S: <x> NO zebra\n" + storing("8") + stored + expunging("8") + expunged + rest("7"), proxy.ErrNotRemoved},
		{"gone", subject("7:8") + good8 + asked + storing("8") + stored + expunging("8") + expunged + rest(""), nil},
		{"NIL", subject("7:8") + "S: * 1 FETCH (UID 7 BODY[HEADER.FIELDS (SUBJECT)] NIL)\n" + good8 + asked + storing("8") + stored + expunging("8") + expunged + rest("7"), proxy.ErrNotRemoved},
		{"refused", subject("7:8") + "S: <x> BAD zebra\n" + rest("7 8"), proxy.ErrNotRemoved},
		{"lost", subject("7:8") + "X:\n", proxy.ErrNotRemoved},
	} {
		script := exchange(mailbox("UIDPLUS", "", "7", "8")) + tt.script
		if tt.name != "lost" {
			script += bye
		}
		play(t, tt.name, script, Options{}, func(s *session) {
			s.wants(s.open().Update(s.ctx, []uint64{7, 8}), tt.want)
		})
	}
	read := retr + "S: * 1 FETCH (UID 7 BODY[] \"a\")\nS: <r> OK x\n" + strings.Replace(strings.ReplaceAll(retr, "<r>", "<w>"), "FETCH 7", "FETCH 8", 1) +
		"S: * 2 FETCH (UID 8 BODY[] {11}\nS64: QTogYg0KDQp4DQo=\nS: )\nS: <w> OK x\n"
	play(t, "read, one without the end of its header", exchange(mailbox("UIDPLUS", "", "7", "8"))+read+subject("7")+good7+asked+removing("7:8")+bye,
		Options{ReadAhead: -1}, func(s *session) {
			d := s.open()
			s.text(d.Read(s.ctx, 7))
			s.text(d.Read(s.ctx, 8))
			s.wants(d.Update(s.ctx, []uint64{7, 8}), nil)
		})
}

// I-DEL-14: anybody can mail a message with the text of a placeholder: on other servers than
// Exchange it is removed, whether it has been read or not.
func TestPlaceholderElsewhere(t *testing.T) {
	whole := "S: * 1 FETCH (UID 7 BODY[] {61}\nS64: U3ViamVjdDogUmV0cmlldmFsIHVzaW5nIHRoZSBJTUFQNCBwcm90b2NvbCBmYWlsZWQgZm9yDQoNCngNCg==\nS: )\nS: <r> OK x\n"
	play(t, "read", mailbox("UIDPLUS", "", "7", "8")+retr+whole+removing("7:8")+bye, Options{}, func(s *session) {
		d := s.open()
		s.text(d.Read(s.ctx, 7))
		s.wants(d.Update(s.ctx, []uint64{7, 8}), nil)
	})
}
