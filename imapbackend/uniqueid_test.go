package imapbackend

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"math"
	"regexp"
	"strings"
	"testing"

	"popgate/imapbackend/uniqueid"
	"popgate/proxy"
)

// ids returns the unique-ids of the snapshot.
func (s *session) ids(d proxy.Maildrop) string {
	s.Helper()
	f, err := d.UniqueIDs()
	if err != nil {
		s.Fatalf("UniqueIDs: %v", err)
	}
	var out []string
	for _, m := range d.Messages() {
		out = append(out, string(f(nil, m.UID)))
	}
	return strings.Join(out, " ")
}

// I-UIDL-1: the default form of unique-ids.
func TestUniqueID(t *testing.T) {
	for _, tt := range []struct {
		mailbox     string
		uidValidity uint64
		uid         uint64
		want        string
	}{
		{"INBOX", 1, 1, "1.1"},
		{"inbox", 1234567890, 42, "1234567890.42"},
		{"INBOX", math.MaxUint32, math.MaxUint32, "4294967295.4294967295"},
		{"INBOX", math.MaxUint32 + 1, 1, "4294967296.1"},
		{"INBOX", 1700000000001, 7, "1700000000001.7"},
		{"Archive", 7, 8, "66f4804e.7.8"},
		{"Entw\u00fcrfe", math.MaxUint32, math.MaxUint32, "ab5ee809.4294967295.4294967295"},
		{"INBOX", 9, math.MaxUint32 + 1, "9.4294967296"},
		{"Entw\u00fcrfe", math.MaxUint64, math.MaxUint64, "ab5ee809.18446744073709551615.18446744073709551615"},
	} {
		s := &snapshot{form: backend(t, Options{Mailbox: tt.mailbox}).form, uidValidity: tt.uidValidity}
		f, err := s.UniqueIDs()
		if err != nil {
			t.Fatal(err)
		}
		if got := string(f([]byte("1 "), tt.uid)); got != "1 "+tt.want {
			t.Errorf("%s: %q, want %q", tt.mailbox, got, tt.want)
		}
	}
}

var uniqueID = regexp.MustCompile(`^[!-~]{1,70}$`)

// P-UIDL-2, I-UIDL-1: whatever the numbers and the mailbox, a unique-id is well
// formed, and no two messages have the same.
func FuzzUniqueID(f *testing.F) {
	f.Add("INBOX", uint64(1), uint64(2), uint64(3))
	f.Add("Entw\u00fcrfe/\x00\xff", uint64(math.MaxUint64), uint64(0), uint64(math.MaxUint64))
	f.Fuzz(func(t *testing.T, mailbox string, uidValidity uint64, a, b uint64) {
		form, err := uniqueid.ForMailbox("", mailbox)
		if err != nil {
			t.Fatal(err)
		}
		s := &snapshot{form: form, uidValidity: uidValidity}
		id, err := s.UniqueIDs()
		if err != nil {
			t.Fatal(err)
		}
		x, y := string(id(nil, a)), string(id(nil, b))
		if !uniqueID.MatchString(x) || a != b && x == y {
			t.Errorf("unique-ids %q and %q", x, y)
		}
	})
}

func hashOf(header string) string {
	sum := sha256.Sum256([]byte(header))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// I-UIDL-4, I-UIDV-2: where UIDs do not last, the unique-id is a hash of the
// header, and equal ones are numbered.
func TestUniqueIDFromHeader(t *testing.T) {
	const fetch = "C: <h> UID FETCH 1:* (UID BODY.PEEK[HEADER])\n"
	script := listingOf3("S: * NO [UIDNOTSTICKY] x\n") + found + three + "S: <f> OK x\n" + fetch +
		"S: * 1 FETCH (UID 5 BODY[HEADER] \"a\")\n" + // quoted, UID before
		"S: * 2 FETCH (BODY[HEADER] {6}\nS: b\nS: \nS+: x UID 6)\nS: \n" + // literal, UID after it
		"S: * 1 FETCH (FLAGS (\\Seen))\nS: * 3 FETCH (UID 9 BODY[HEADER] {1}\nS: a)\nS: <h> OK x\n" + bye
	play(t, "I-UIDV-2 UIDNOTSTICKY", script, Options{}, func(s *session) {
		a, b := hashOf("a"), hashOf("b\r\n\r\nx")
		if got := s.ids(s.open()); got != a+" "+b+" "+a+".2" {
			s.Errorf("unique-ids %s", got)
		}
	})
	noValidity := selecting + "S: * 3 EXISTS\nS: <s> OK x\n" + found + three + "S: <f> OK x\n" + fetch
	play(t, "I-UIDV-2 no UIDVALIDITY, a header is missing", noValidity+"S: * 1 FETCH (UID 5 BODY[HEADER] \"a\")\n"+
		"S: * 2 FETCH (UID 6 BODY[HEADER] NIL)\nS: <h> OK x\n"+bye, Options{}, func(s *session) {
		d := s.open() // LIST and RETR work all the same
		_, err := d.UniqueIDs()
		s.fails(err, perm)
	})
	play(t, "I-UIDL-4 a response without UID is ignored", noValidity+"S: * 1 FETCH (BODY[HEADER] \"a\")\n"+
		"S: * 1 FETCH (UID 5 FLAGS ())\nS: <h> OK x\n"+bye, Options{}, func(s *session) {
		_, err := s.open().UniqueIDs()
		s.fails(err, perm)
	})
	play(t, "I-UIDL-4 refused", noValidity+"S: <h> NO zebra\n"+bye, Options{}, func(s *session) {
		_, err := s.open().UniqueIDs()
		s.fails(err, perm)
	})
	play(t, "I-UIDL-4 lost", noValidity+"S: * 1 FETCH (UID 5 BODY[HEADER] {10}\nX:\n", Options{}, func(s *session) {
		s.fails(s.openFails(), temp)
	})
	play(t, "I-UIDL-4 empty maildrop", selecting+"S: * 0 EXISTS\nS: <s> OK x\nS: <d> OK x\nS: <f> OK x\n"+bye, Options{}, func(s *session) {
		if got := s.ids(s.open()); got != "" {
			s.Errorf("unique-ids %s", got)
		}
	})
}

// I-UIDV-1: when the upstream announces another UIDVALIDITY, the snapshot is no
// longer valid.
func TestRebuilt(t *testing.T) {
	rebuilt := func(s *session, err error) {
		s.Helper()
		e := s.fails(err, temp)
		if e.Text != textRebuilt {
			s.Errorf("text %q", e.Text)
		}
	}
	script := opened + "C: <r> UID FETCH 7 (UID BODY.PEEK[])\nS: * 1 FETCH (UID 7 BODY[] \"a\")\nS: * OK [UIDVALIDITY 10] x\nS: <r> OK x\n" + bye
	read := func(s *session, d proxy.Maildrop) {
		s.Helper()
		body, err := d.Read(s.ctx, 7)
		if err != nil {
			s.Fatal(err)
		}
		_, err = body.WriteTo(io.Discard)
		rebuilt(s, err)
		body.Close()
	}
	play(t, "I-UIDV-1 RETR, TOP, QUIT", script, Options{}, func(s *session) {
		d := s.open()
		read(s, d)
		_, err := d.Read(s.ctx, 7)
		rebuilt(s, err)
		_, err = d.Top(s.ctx, 7, 0)
		rebuilt(s, err)
		rebuilt(s, d.Update(s.ctx, []uint64{7}))
	})
	play(t, "I-UIDV-1 QUIT without marks", script, Options{}, func(s *session) {
		d := s.open()
		read(s, d)
		if err := d.Update(s.ctx, nil); err != nil {
			s.Error(err)
		}
	})
	play(t, "I-UIDV-1 announced by STORE: no EXPUNGE", opened+"C: <u> UID STORE 7 +FLAGS.SILENT (\\Deleted)\nS: * OK [UIDVALIDITY 10] x\nS: <u> OK x\n"+bye,
		Options{}, func(s *session) { rebuilt(s, s.open().Update(s.ctx, []uint64{7})) })
	play(t, "I-UIDV-1 announced by the keep-alive", opened+"C: <n> NOOP\nS: * OK [UIDVALIDITY 10] x\nS: <n> OK x\n"+bye, Options{}, func(s *session) {
		d := s.open()
		s.after(keepAlive)
		rebuilt(s, d.Update(s.ctx, []uint64{7}))
	})
	play(t, "I-UIDV-1 the same value again", opened+"C: <n> NOOP\nS: * OK [UIDVALIDITY 9] x\nS: <n> OK x\n"+
		"C: <r> UID FETCH 7 (UID BODY.PEEK[])\nS: * 1 FETCH (UID 7 BODY[] \"a\")\nS: <r> OK x\n"+bye, Options{}, func(s *session) {
		d := s.open()
		s.after(keepAlive)
		if got := s.text(d.Read(s.ctx, 7)); got != "a" {
			s.Errorf("message %q", got)
		}
	})
}

// I-UIDL-4: UniqueIDs returns the error that explains why there are none.
func TestNoUniqueIDs(t *testing.T) {
	want := &proxy.Error{Code: perm, Text: "x"}
	if _, err := (&snapshot{noUniqueIDs: want}).UniqueIDs(); !errors.Is(err, want) {
		t.Error(err)
	}
}
