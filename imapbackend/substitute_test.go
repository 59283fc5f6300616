package imapbackend

import (
	"fmt"
	"strings"
	"testing"

	"popgate/proxy"
)

// P-RETR-8: what Courier sends in place of a message that another client has removed
// is not that message. What has another size than announced for another reason is
// delivered, and after a few such messages that means nothing.
func TestSubstitute(t *testing.T) {
	ask := func(uid int) string { return fmt.Sprintf("C: <r%d> UID FETCH %[1]d (UID BODY.PEEK[])\n", uid) }
	body := func(uid int, text string) string {
		return fmt.Sprintf("S: * 1 FETCH (UID %d BODY[] {%d}\nS+: %s)\nS: \n", uid, len(text), text)
	}
	ok := func(uid int) string { return fmt.Sprintf("S: <r%d> OK x\n", uid) }
	look := func(uid int, found string) string {
		return fmt.Sprintf("C: <n> NOOP\nS: <n> OK x\nC: <q> UID SEARCH UID %d\nS: * SEARCH %s\nS: <q> OK x\n", uid, found)
	}
	right, notice := strings.Repeat("x", 100), "From: Courier"
	uids := []string{"1", "2", "3", "4", "5", "6"}
	any := mailbox("UIDPLUS", "", uids...)
	courier := strings.Replace(any, "zebra ready", "Courier-IMAP ready.", 1)
	noAhead := Options{ReadAhead: -1}
	reads := func(t *testing.T, opts Options, script string, want ...string) {
		t.Helper()
		play(t, fmt.Sprint(len(want)), script+bye, opts, func(s *session) {
			d := s.open()
			for i, want := range want {
				got, err := d.Read(s.ctx, uint64(i+1))
				if want == "" {
					if e := s.fails(err, ""); e.Text != proxy.ErrGone.Text {
						s.Errorf("message %d: %v", i+1, err)
					}
					continue
				}
				if text := s.text(got, err); text != want {
					s.Errorf("message %d: %q", i+1, text)
				}
			}
		})
	}
	t.Run("gone, by its profile", func(t *testing.T) {
		reads(t, noAhead, courier+ask(1)+body(1, notice)+ok(1)+look(1, "")+ask(2)+body(2, right)+ok(2), "", right)
	})
	tops := func(name, script string, lines uint64, want string) {
		play(t, name, script+bye, noAhead, func(s *session) {
			body, err := s.open().Top(s.ctx, 1, lines)
			if err != nil {
				s.Fatal(err)
			}
			var got strings.Builder
			_, err = body.WriteTo(&got)
			body.Close()
			if want == "" {
				if e := s.fails(err, ""); e.Text != proxy.ErrGone.Text {
					s.Error(err)
				}
			} else if err != nil || got.String() != want {
				s.Errorf("%q, %v", got.String(), err)
			}
		})
	}
	header, octets := "Subject: message unavailable\r\n\r\n", func(n int) string {
		return fmt.Sprintf("C: <w> UID FETCH 1 (UID RFC822.SIZE)\nS: * 1 FETCH (UID 1 RFC822.SIZE %d)\nS: <w> OK x\n", n)
	}
	lit := fmt.Sprintf("{%d}\nS: Subject: message unavailable\nS: \n", len(header))
	zero := "C: <t> UID FETCH 1 (UID BODY.PEEK[HEADER])\nS: * 1 FETCH (UID 1 BODY[HEADER] " + lit + "S: )\nS: <t> OK x\n"
	one := "C: <t> UID FETCH 1 (UID BODY.PEEK[HEADER] BODY.PEEK[TEXT]<0.1024>)\nS: * 1 FETCH (UID 1 BODY[HEADER] " + lit + "S:  BODY[TEXT]<0> {4}\nS+: gone\nS: )\nS: <t> OK x\n" +
		"C: <p> UID FETCH 1 (UID BODY.PEEK[TEXT]<4.2048>)\nS: * 1 FETCH (UID 1 BODY[TEXT]<4> \"\")\nS: <p> OK x\n"
	tops("TOP 1 0, gone", courier+zero+octets(129)+look(1, ""), 0, "")
	tops("TOP 1 0, there", courier+zero+octets(100), 0, header)
	tops("TOP 1 0, there with another size", courier+zero+octets(129)+look(1, "1"), 0, header)
	tops("TOP 1 0, an upstream not known for it", any+zero, 0, header)
	tops("TOP 1 1, gone", courier+one+octets(129)+look(1, ""), 1, "")
	t.Run("an upstream not known for it", func(t *testing.T) {
		reads(t, noAhead, any+ask(1)+body(1, right)+ok(1)+ask(2)+body(2, notice)+ok(2), right, notice)
	})
	t.Run("there", func(t *testing.T) {
		script, want := courier, []string{}
		for uid := 1; uid <= 6; uid++ {
			text := fmt.Sprint("short ", uid)
			script += ask(uid) + body(uid, text) + ok(uid)
			if want = append(want, text); uid <= maxWrongSizes {
				script += look(uid, fmt.Sprint(uid))
			}
		}
		reads(t, noAhead, script, want...)
	})
	t.Run("too large", func(t *testing.T) {
		large := strings.Repeat("y", maxSubstitute+1)
		reads(t, noAhead, courier+ask(1)+body(1, large)+ok(1), large)
	})
	t.Run("in the read-ahead", func(t *testing.T) {
		reads(t, Options{}, courier+ask(1)+body(1, right)+ok(1)+ask(2)+"C: <a> UID FETCH 3:4 (UID BODY.PEEK[])\n"+body(2, right)+ok(2)+
			body(3, notice)+body(4, right)+"S: <a> OK x\n"+"C: <b> UID FETCH 5:6 (UID BODY.PEEK[])\n"+body(5, right)+body(6, right)+"S: <b> OK x\n"+look(3, ""), right, right, "", right)
	})
	t.Run("lost before the search", func(t *testing.T) {
		second := "-- connection 2 --\n" + strings.Split(courier, lists)[0] +
			"S: * 6 EXISTS\nS: * OK [UIDVALIDITY 9] x\nS: <s> OK x\n"
		reads(t, noAhead, courier+ask(1)+body(1, notice)+ok(1)+"C: <n> NOOP\nX:\n"+second+ask(1)+"S: <r1> OK x\n", "")
	})
	t.Run("lost within it", func(t *testing.T) {
		second := "-- connection 2 --\n" + strings.Split(courier, lists)[0] +
			"S: * 6 EXISTS\nS: * OK [UIDVALIDITY 9] x\nS: <s> OK x\n"
		reads(t, noAhead, courier+ask(1)+"S: * 1 FETCH (UID 1 BODY[] {13}\nS+: From: C\nX:\n"+second+ask(1)+body(1, right)+ok(1), right)
	})
}
