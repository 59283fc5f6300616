package imapbackend

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"popgate/proxy"
)

// utf8Only is the beginning of a script up to a snapshot of UID 7 on an
// upstream that is UTF8=ONLY.
var utf8Only = strings.Replace(strings.Replace(opened, "IMAP4rev1 UIDPLUS", "IMAP4rev1 UIDPLUS UTF8=ONLY", 1),
	"C: <s> SELECT", "C: <e> ENABLE UTF8=ACCEPT\nS: * ENABLED UTF8=ACCEPT\nS: <e> OK x\nC: <s> SELECT", 1)

// I-UTF8-1, P-EXT-5: on an upstream with UTF8=ONLY the header is read before
// +OK.
func TestUTF8Only(t *testing.T) {
	looking := topCommand("h", "BODY.PEEK[HEADER]")
	header := func(h string) string {
		return "S: * 1 FETCH (UID 7 BODY[HEADER] " + lit(h) + "\nS: )\nS: <h> OK x\n"
	}
	body := retr + "S: * 1 FETCH (UID 7 BODY[] \"body \xe4\")\nS: <r> OK x\n"
	long := strings.Repeat("X: y\r\n", 30_000)
	needsUTF8 := proxy.CodeUTF8
	for _, tt := range []struct {
		name, script string
		want         proxy.Code
		ok           bool
	}{
		{"ASCII header, 8-bit body", looking + header("A: b\r\n\r\n") + body, "", true},
		{"long ASCII header", looking + header(long+"\r\n") + body, "", true},
		{"0x7F is ASCII", looking + header("A: \x7f\r\n\r\n") + body, "", true},
		{"quoted, UID after it", looking + "S: * 1 FETCH (BODY[HEADER] \"A: b\" UID 7)\nS: <h> OK x\n" + body, "", true},
		{"8-bit header", looking + header("A: \u00e4\r\n\r\n"), needsUTF8, false},
		{"8-bit at the end of a long header", looking + header(long+"A: \u00e4\r\n\r\n"), needsUTF8, false},
		{"8-bit, quoted, UID after it", looking + "S: * 1 FETCH (BODY[HEADER] \"A: \u00e4\" UID 7)\nS: <h> OK x\n", needsUTF8, false},
		{"8-bit header of another message", looking + "S: * 1 FETCH (BODY[HEADER] \"A: \u00e4\" UID 9)\nS: <h> OK x\n", temp, false},
		{"gone", looking + "S: <h> OK x\n", proxy.CodeNone, false},
		{"NIL, gone", looking + "S: * 1 FETCH (UID 7 BODY[HEADER] NIL)\nS: <h> OK x\n" + absent, proxy.CodeNone, false},
		{"refused, present", looking + "S: <h> NO [UNAVAILABLE] zebra\n" + present, temp, false},
		{"BAD", looking + "S: <h> BAD zebra\n", perm, false},
	} {
		play(t, "I-UTF8-1 RETR "+tt.name, utf8Only+tt.script+bye, Options{}, func(s *session) {
			got, err := s.open().Read(s.ctx, 7)
			if !tt.ok {
				s.fails(err, tt.want)
				if tt.want == needsUTF8 && !errors.Is(err, errNeedsUTF8) {
					s.Errorf("error %v", err)
				}
				return
			}
			if text := s.text(got, err); text != "body \xe4" {
				s.Errorf("message %q", text)
			}
		})
	}
	play(t, "P-EXT-5 TOP", utf8Only+looking+header("A: \u00e4\r\n\r\n")+looking+header("A: b\r\n\r\n")+looking+header("A: b\r\n\r\n")+bye, Options{}, func(s *session) {
		d := s.open()
		_, err := d.Top(s.ctx, 7, 0)
		s.fails(err, needsUTF8)
		if got := s.text(d.Top(s.ctx, 7, 0)); got != "A: b\r\n\r\n" {
			s.Errorf("top %q", got)
		}
	})
	for i, end := range []string{"X:\n", "S: * 1 FETCH (UID 7 BODY[HEADER] {9}\nS+: A\nX:\n", "S: * 1 FETCH (BODY[HEADER] {1}\nS+: A\nX:\n"} {
		play(t, fmt.Sprint("I-UTF8-1 lost ", i), utf8Only+looking+end, Options{}, func(s *session) {
			_, err := s.open().Read(s.ctx, 7)
			s.fails(err, temp)
		})
	}
}

// I-LOGIN-3: on other upstreams the header is not read before +OK.
func TestUTF8NotEnabled(t *testing.T) {
	play(t, "I-UTF8-1", opened+retr+"S: * 1 FETCH (UID 7 BODY[] \"A: \u00e4\")\nS: <r> OK x\n"+bye, Options{}, func(s *session) {
		if got := s.text(s.open().Read(s.ctx, 7)); got != "A: \u00e4" {
			s.Errorf("message %q", got)
		}
	})
}

// I-LOGIN-3, P-UTF8-1, P-EXT-5: in UTF8 mode UTF8=ACCEPT is enabled if it is
// offered, and messages pass unchanged. If the upstream refuses, the session
// continues.
func TestUTF8Mode(t *testing.T) {
	const enabled = "C: <e> ENABLE UTF8=ACCEPT\nS: * ENABLED UTF8=ACCEPT\nS: <e> OK x\n"
	with := func(capability, enable string) string {
		return strings.Replace(strings.Replace(opened, "IMAP4rev1 UIDPLUS", "IMAP4rev1 UIDPLUS "+capability, 1), "C: <s> SELECT", enable+"C: <s> SELECT", 1)
	}
	const message = retr + "S: * 1 FETCH (UID 7 BODY[] \"A: \u00e4\")\nS: <r> OK x\n" + bye
	for name, script := range map[string]string{
		"I-LOGIN-3 ACCEPT":         with("ENABLE UTF8=ACCEPT", enabled),
		"I-LOGIN-3 ONLY":           with("ENABLE UTF8=ONLY", enabled),
		"I-LOGIN-3 not offered":    opened,
		"I-LOGIN-3 ACCEPT refused": with("UTF8=ACCEPT", "C: <e> ENABLE UTF8=ACCEPT\nS: <e> NO zebra\n"),
	} {
		play(t, name, script+message, Options{}, func(s *session) {
			l, err := s.b.Login(s.ctx, proxy.Credential{Username: "joe", Password: "secret", UTF8: true})
			if err != nil {
				s.Fatal(err)
			}
			d, err := l.Open(s.ctx)
			if err != nil {
				l.Close()
				s.Fatal(err)
			}
			defer d.Close()
			if got := s.text(d.Read(s.ctx, 7)); got != "A: \u00e4" {
				s.Errorf("message %q", got)
			}
		})
	}
}

// P-EXT-6: each mode remembers its own sizes; numbers and unique-ids are the
// same.
func TestUTF8Sizes(t *testing.T) {
	in := strings.Replace(opened, "IMAP4rev1 UIDPLUS", "IMAP4rev1 UIDPLUS ENABLE UTF8=ACCEPT", 1)
	utf8 := strings.Replace(strings.Replace(in, "SIZE 100", "SIZE 90", 1), "C: <s> SELECT", "C: <e> ENABLE UTF8=ACCEPT\nS: <e> OK x\nC: <s> SELECT", 1)
	play(t, "P-EXT-6", in+bye+"-- connection 2 --\n"+utf8+bye, Options{}, func(s *session) {
		for _, tt := range []struct {
			utf8   bool
			octets int64
		}{{false, 100}, {true, 90}} {
			l, err := s.b.Login(s.ctx, proxy.Credential{Username: "joe", Password: "secret", UTF8: tt.utf8})
			if err != nil {
				s.Fatal(err)
			}
			d, err := l.Open(s.ctx)
			if err != nil {
				s.Fatal(err)
			}
			uniqueID, err := d.UniqueIDs()
			if err != nil {
				s.Fatal(err)
			}
			if m := d.Messages(); len(m) != 1 || m[0].Octets != tt.octets || string(uniqueID(nil, m[0].UID)) != "9.7" {
				s.Errorf("UTF8 %v: %v", tt.utf8, m)
			}
			d.Close()
		}
	})
}
