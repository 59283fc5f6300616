package imapbackend

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"

	"popgate/proxy"
)

// fourMessages is a script up to a snapshot of four messages, the last of which
// is expunged then: sequence numbers prove nothing from then on.
func fourMessages(caps string) string {
	script := mailbox(caps, "", "1", "2", "3", "4")
	if strings.Contains(caps, "UTF8=ONLY") {
		script = strings.Replace(script, "C: <s> SELECT", "C: <e> ENABLE UTF8=ACCEPT\nS: * ENABLED UTF8=ACCEPT\nS: <e> OK x\nC: <s> SELECT", 1)
	}
	return script + "S: * 4 EXPUNGE\n"
}

// uidLast is a response with a body and the UID after it.
func uidLast(uid int, item, body string) string {
	return fmt.Sprintf("S: * %d FETCH (%s %s\nS:  UID %[1]d)\n", uid, item, lit(body))
}

// I-FETCH-2: a UID that follows the body, with other messages on their way and
// nothing else that shows which message it is.
func TestUIDLast(t *testing.T) {
	ahead := "C: <r> UID FETCH 1 (UID BODY.PEEK[])\nC: <c> UID FETCH 2:3 (UID BODY.PEEK[])\n" + uidLast(1, "BODY[]", "first") + "S: <r> OK x\n"
	rest := uidLast(2, "BODY[]", "second") + uidLast(3, "BODY[]", "third") + "S: <c> OK x\n"
	const header, text = "A: b\r\n\r\n", "one\r\ntwo\r\n"
	asked := "C: <t> UID FETCH 2 (UID BODY.PEEK[HEADER])\n"
	both := "C: <t> UID FETCH 2 (UID BODY.PEEK[HEADER] BODY.PEEK[TEXT]<0.1024>)\n"
	headers := uidLast(2, "BODY[HEADER]", header) + "S: <t> OK x\n"
	parts := uidLast(2, "BODY[HEADER] "+lit(header)+"\nS:  BODY[TEXT]<0>", text) + "S: <t> OK x\n"
	raw := fourMessages("UTF8=ONLY") + strings.ReplaceAll(asked, " 2 ", " 1 ") + uidLast(1, "BODY[HEADER]", header) + "S: <t> OK x\n"
	for _, tt := range []struct {
		name, script string
		memory       int64
		lines        int // of TOP 2, -1: RETR 2
		want         string
	}{
		{"RETR", fourMessages("") + ahead + rest, 1 << 20, -1, "second"},
		{"RETR, too large to be kept", fourMessages("") + ahead + rest + "C: <a> UID FETCH 2 (UID BODY.PEEK[])\n" + uidLast(2, "BODY[]", "second") + "S: <a> OK x\n", 5, -1, "second"},
		{"TOP 0, answered first", fourMessages("") + ahead + asked + headers + rest, 5, 0, header},
		{"TOP 1, answered first", fourMessages("") + ahead + both + parts + rest + both + parts, 1 << 20, 1, header + "one\r\n"},
		{"I-UTF8-1, answered first", raw + ahead + asked + headers + rest, 1 << 20, -1, "second"},
		{"I-UTF8-1, too large to be kept", raw + ahead + asked + headers + rest + asked + headers +
			"C: <a> UID FETCH 2 (UID BODY.PEEK[])\n" + uidLast(2, "BODY[]", "second") + "S: <a> OK x\n", 5, -1, "second"},
	} {
		if strings.HasPrefix(tt.name, "TOP 0") {
			// The whole message is on its way, but too large to be waited for.
			tt.script += asked + headers
		}
		play(t, tt.name, tt.script+bye, Options{ReadAhead: tt.memory}, func(s *session) {
			d := s.open()
			d.(proxy.Expecter).Expect([]uint64{2, 3})
			if got := s.text(d.Read(s.ctx, 1)); got != "first" {
				s.Errorf("message 1 is %q", got)
			}
			if tt.lines < 0 {
				if got := s.text(d.Read(s.ctx, 2)); got != tt.want {
					s.Errorf("message 2 is %q", got)
				}
				return
			}
			if got := s.text(d.Top(s.ctx, 2, uint64(tt.lines))); got != tt.want {
				s.Errorf("the top of message 2 is %q", got)
			}
		})
	}
}

// I-FETCH-2: a walk on an upstream that sends no UID with a body, where sequence
// numbers prove which message it is.
func TestUIDMissing(t *testing.T) {
	body := func(seq int, text string) string {
		return fmt.Sprintf("S: * %d FETCH (BODY[] %s\nS: )\n", seq, lit(text))
	}
	script := mailbox("", "", "5", "6", "9", "10") + "C: <r> UID FETCH 5 (UID BODY.PEEK[])\nC: <c> UID FETCH 6:10 (UID BODY.PEEK[])\n" +
		body(1, "first") + "S: <r> OK x\n" + body(2, "second") + body(3, "third") + body(4, "fourth") + "S: <c> OK x\n"
	play(t, "walk", script+bye, Options{}, func(s *session) {
		d := s.open()
		d.(proxy.Expecter).Expect([]uint64{6, 9, 10})
		for _, want := range []struct {
			uid  uint64
			text string
		}{{5, "first"}, {9, "third"}, {6, "second"}, {10, "fourth"}} {
			if got := s.text(d.Read(s.ctx, want.uid)); got != want.text {
				s.Errorf("UID %d is %q", want.uid, got)
			}
		}
	})
}

// I-FETCH-2: a walk on an upstream that puts the UID last, where sequence numbers
// prove nothing. Messages are read ahead until one is too large to be kept.
func TestUIDLastWalk(t *testing.T) {
	several := regexp.MustCompile(`^UID FETCH \d+[:,]`)
	for _, large := range []int{0, 20} { // the UID of a large one, 0: none
		for name, get := range map[string]func(t *testing.T, d proxy.Maildrop, uid uint64) string{
			"RETR": read,
			"TOP": func(t *testing.T, d proxy.Maildrop, uid uint64) string {
				return text(t)(d.Top(t.Context(), uid, 1<<20))
			},
		} {
			t.Run(fmt.Sprintf("%s, %d", name, large), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := newModel()
					m.UIDLast = true
					for i := range 400 {
						octets := 500
						if i+1 == large {
							octets = 100_000
						}
						m.add(mail(i, octets))
					}
					d := openMaildrop(t, m.backend(t, Options{ReadAhead: 50_000}))
					defer d.Close()
					m.remove(0)
					from := 0
					for _, msg := range m.messages() {
						if got := get(t, d, msg.UID); got != msg.Body {
							t.Fatalf("UID %d: %d octets, want %d", msg.UID, len(got), len(msg.Body))
						}
						if int(msg.UID) == large {
							from = len(m.Commands())
						}
					}
					ahead := 0
					for _, cmd := range m.Commands()[from:] {
						if several.MatchString(cmd) {
							ahead++
						}
					}
					if commands := len(m.Commands()); large == 0 && (ahead == 0 || commands > 100) {
						t.Errorf("%d commands, %d of them read ahead", commands, ahead)
					} else if large > 0 && ahead > 0 {
						t.Errorf("%d commands read ahead after a message that was too large", ahead)
					}
				})
			})
		}
	}
}
