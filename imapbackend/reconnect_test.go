package imapbackend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"popgate/imapbackend/upstream"
	"popgate/proxy"
)

// Parts of scripts for the connection that replaces a lost one.
const (
	another    = "-- connection 2 --\n"
	reselected = loggedIn + "C: <s> SELECT INBOX\nS: * 1 EXISTS\nS: * OK [UIDVALIDITY 9] x\nS: * OK [UIDNEXT 9] x\n" +
		"S: <s> OK [READ-WRITE] selected\n"
	hello    = "S: * 1 FETCH (UID 7 BODY[] {7}\nS: hello\nS: )\nS: <r> OK x\n"
	announce = "C: <a> UID FETCH 7 (UID RFC822.SIZE)\nS: * 1 FETCH (UID 7 RFC822.SIZE 100)\nS: <a> OK x\n"
)

// losses are the ways in which a connection is lost.
var losses = []struct{ name, script string }{
	{"closed", "X:\n"},
	{"reset", "R:\n"},
	{"BYE", "S: * BYE zebra\nX:\n"},
	{"silent", "W: stall\n"},
}

// I-CONC-4, I-FETCH-5, I-DEL-11: a connection lost between two commands or
// before the answer is replaced, and the client does not notice.
func TestReconnect(t *testing.T) {
	for _, loss := range losses {
		for name, before := range map[string]string{"command sent": "C: <x> UID FETCH 7 (UID BODY.PEEK[])\n",
			"after other responses": "C: <x> UID FETCH 7 (UID BODY.PEEK[])\nS: * 1 FETCH (FLAGS (\\Seen))\n"} {
			play(t, name+", "+loss.name, "D: 1h\n"+opened+before+loss.script+another+reselected+retr+hello+bye, Options{}, func(s *session) {
				d := s.open()
				if got := s.text(d.Read(s.ctx, 7)); got != "hello\r\n" {
					s.Errorf("%q", got)
				}
				if !strings.Contains(s.log.String(), "upstream connection lost and replaced") {
					s.Errorf("log: %s", s.log.String())
				}
			})
		}
	}
	play(t, "between two commands", opened+retr+hello+"S: * BYE zebra\nX:\n"+another+reselected+retr+hello+bye, Options{}, func(s *session) {
		d := s.open()
		s.text(d.Read(s.ctx, 7))
		if got := s.text(d.Read(s.ctx, 7)); got != "hello\r\n" {
			s.Errorf("%q", got)
		}
	})
	play(t, "I-KEEP-1 at the keep-alive, which continues", opened+"C: <k> NOOP\nX:\n"+another+reselected+retr+hello+"C: <k> NOOP\nS: <k> OK x\n"+bye, Options{}, func(s *session) {
		d := s.open()
		s.after(2 * keepAlive)
		s.text(d.Read(s.ctx, 7))
		s.after(keepAlive)
	})
	play(t, "TOP", opened+"C: <t> UID FETCH 7 (UID BODY.PEEK[HEADER])\nX:\n"+another+reselected+
		"C: <t> UID FETCH 7 (UID BODY.PEEK[HEADER])\nS: * 1 FETCH (UID 7 BODY[HEADER] {8}\nS: A: b\nS: \nS: )\nS: <t> OK x\n"+bye, Options{}, func(s *session) {
		if got := s.text(s.open().Top(s.ctx, 7, 0)); got != "A: b\r\n\r\n" {
			s.Errorf("%q", got)
		}
	})
	play(t, "I-DEL-11 at UPDATE, long after RETR", opened+retr+hello+"C: <n> NOOP\nX:\n"+another+reselected+removing("7")+bye, Options{}, func(s *session) {
		d := s.open()
		s.text(d.Read(s.ctx, 7))
		s.after(keepAlive - time.Minute)
		if err := d.Update(s.ctx, []uint64{7}); err != nil {
			s.Error(err)
		}
	})
	play(t, "I-DEL-11 at UPDATE", opened+"C: <st> UID STORE 7 +FLAGS.SILENT (\\Deleted)\nX:\n"+another+reselected+removing("7")+bye, Options{}, func(s *session) {
		if err := s.open().Update(s.ctx, []uint64{7}); err != nil {
			s.Error(err)
		}
	})
	play(t, "SELECT wants ID first", strings.ReplaceAll(opened, "IMAP4rev1 UIDPLUS", "IMAP4rev1 UIDPLUS ID")+"X:\n"+another+
		strings.ReplaceAll(loggedIn, "IMAP4rev1 UIDPLUS", "IMAP4rev1 UIDPLUS ID")+"C: <s> SELECT INBOX\nS: <s> NO zebra\nC: <i> ID ...\nS: <i> OK x\n"+
		strings.TrimPrefix(reselected, loggedIn)+retr+hello+bye, Options{}, func(s *session) {
		s.text(s.open().Read(s.ctx, 7))
	})
}

// P-QUIT-6, I-DEL-11: UPDATE does not spend its time on a half-open connection.
func TestUpdateHalfOpen(t *testing.T) {
	script := "D: 1h\n" + opened + "C: <n> NOOP\nW: stall\n" + another + reselected + removing("7") + bye
	play(t, "P-QUIT-6", script, Options{}, func(s *session) {
		d := s.open()
		s.after(probeAfter)
		began := time.Now()
		if err := d.Update(s.ctx, []uint64{7}); err != nil {
			s.Error(err)
		}
		if took := time.Since(began); took > probeTimeout+time.Second {
			s.Errorf("%v", took)
		}
	})
	play(t, "P-QUIT-6 alive", opened+"C: <n> NOOP\nS: <n> OK x\n"+removing("7")+bye, Options{}, func(s *session) {
		d := s.open()
		s.after(probeAfter)
		if err := d.Update(s.ctx, []uint64{7}); err != nil {
			s.Error(err)
		}
	})
}

// I-FETCH-6, M-1: the error of a command whose connection cannot be replaced;
// the next command tries again.
func TestReconnectFails(t *testing.T) {
	login := greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\n"
	selecting := loggedIn + "C: <s> SELECT INBOX\n"
	for _, tt := range []struct {
		name, script string
		want         proxy.Code
	}{
		{"M-1 password changed", login + "S: <l> NO [AUTHENTICATIONFAILED] zebra\n" + bye, temp},
		{"M-1 locked upstream", selecting + "S: <s> NO [INUSE] zebra\n" + bye, temp},
		{"M-1 unavailable", login + "S: <l> NO [UNAVAILABLE] zebra\n" + bye, temp},
		{"M-1 too many connections", "S: * BYE too many connections, zebra\nX:\n", temp},
		{"M-1 right removed", selecting + "S: <s> NO [NOPERM] zebra\n" + bye, perm},
		{"I-CONC-5 mailbox removed", selecting + "S: <s> NO [NONEXISTENT] zebra\n" + bye, perm},
		{"I-CONC-5 mailbox renamed", selecting + "S: <s> NO zebra\n" + bye, perm},
		{"lost again", reselected + retr + "X:\n", temp},
		{"lost again within the answer", reselected + retr + "S+: * 1 FETCH (UID 7 BODY[\nX:\n", temp},
	} {
		play(t, tt.name, opened+retr+"X:\n"+another+tt.script+"-- connection 3 --\n"+reselected+retr+hello+bye, Options{}, func(s *session) {
			d := s.open()
			_, err := d.Read(s.ctx, 7)
			s.fails(err, tt.want)
			if got := s.text(d.Read(s.ctx, 7)); got != "hello\r\n" {
				s.Errorf("I-FETCH-6: %q", got)
			}
		})
	}
}

// I-UIDV-1, I-CONC-4, I-CONC-5: if the name is now that of another mailbox, the
// snapshot is no longer valid: nothing is read from the mailbox or removed.
func TestReconnectRebuilt(t *testing.T) {
	withID := strings.ReplaceAll(opened, "S: <s> OK [READ-WRITE]", "S: * OK [MAILBOXID (F1)] x\nS: <s> OK [READ-WRITE]")
	withID = strings.ReplaceAll(withID, "UIDPLUS] zebra\n", "UIDPLUS OBJECTID] zebra\n")
	status := func(id string) string {
		return "C: <m> STATUS INBOX (MAILBOXID)\nS: * STATUS INBOX (MAILBOXID (" + id + "))\nS: <m> OK x\n"
	}
	withID = strings.Replace(withID, "C: <s> SELECT", status("F1")+"C: <s> SELECT", 1)
	otherID := strings.ReplaceAll(reselected, "UIDPLUS] zebra\n", "UIDPLUS OBJECTID] zebra\nC: <m> STATUS INBOX (MAILBOXID)\nS: * STATUS INBOX (MAILBOXID (F2))\nS: <m> OK x\n")
	statusRefused := strings.Replace(otherID, "S: * STATUS INBOX (MAILBOXID (F2))\nS: <m> OK x\n", "S: <m> NO [UNAVAILABLE] zebra\n", 1)
	statusRefused = strings.Replace(statusRefused, "S: <s> OK", "S: * OK [MAILBOXID (F2)] x\nS: <s> OK", 1)
	for _, tt := range []struct{ name, first, second string }{
		{"UIDVALIDITY", opened, strings.ReplaceAll(reselected, "UIDVALIDITY 9", "UIDVALIDITY 10")},
		{"no UIDVALIDITY", opened, strings.ReplaceAll(reselected, "S: * OK [UIDVALIDITY 9] x\n", "")},
		{"UIDs do not last any more", opened, strings.ReplaceAll(reselected, "S: <s> OK", "S: * OK [UIDNOTSTICKY] x\nS: <s> OK")},
		{"MAILBOXID", withID, otherID},
		{"MAILBOXID of SELECT only", withID, statusRefused},
	} {
		play(t, tt.name, tt.first+"X:\n"+another+tt.second+bye, Options{}, func(s *session) {
			d := s.open()
			for range 2 {
				_, err := d.Read(s.ctx, 7)
				if e := s.fails(err, temp); e.Text != textRebuilt {
					s.Errorf("%q", e.Text)
				}
			}
			s.fails(d.Update(s.ctx, []uint64{7}), temp)
		})
	}
	play(t, "at UPDATE", opened+"C: <st> UID STORE 7 +FLAGS.SILENT (\\Deleted)\nX:\n"+another+
		strings.ReplaceAll(reselected, "UIDVALIDITY 9", "UIDVALIDITY 10")+bye, Options{}, func(s *session) {
		s.fails(s.open().Update(s.ctx, []uint64{7}), temp)
	})
}

// I-DEL-1, I-CONC-5, I-UIDV-2: a mailbox that can be deleted is selected again
// before anything is removed from it; another one of its name keeps its
// messages.
func TestUpdateConfirms(t *testing.T) {
	first := strings.ReplaceAll(opened, "SELECT INBOX", `SELECT "Work"`)
	again := strings.TrimPrefix(strings.ReplaceAll(reselected, "SELECT INBOX", `SELECT "Work"`), loggedIn)
	for _, tt := range []struct {
		name, script string
		want         proxy.Code
	}{
		{"created again", strings.ReplaceAll(again, "UIDVALIDITY 9", "UIDVALIDITY 10") + bye, temp},
		{"deleted", "C: <s> SELECT \"Work\"\nS: <s> NO [NONEXISTENT] zebra\n" + bye, perm},
		{"in use", "C: <s> SELECT \"Work\"\nS: <s> NO [INUSE] zebra\n" + bye, temp},
	} {
		play(t, tt.name, first+tt.script, Options{Mailbox: "Work"}, func(s *session) {
			s.fails(s.open().Update(s.ctx, []uint64{7}), tt.want)
		})
	}
	play(t, "the same", first+again+removing("7")+bye, Options{Mailbox: "Work"}, func(s *session) {
		if err := s.open().Update(s.ctx, []uint64{7}); err != nil {
			s.Error(err)
		}
	})
	// I-FLAG-1: \Seen is a change too, and one SELECT confirms the mailbox for all.
	two := strings.ReplaceAll(mailbox("UIDPLUS", "", "7", "9"), "SELECT INBOX", `SELECT "Work"`)
	seen := "C: <y> UID STORE 9 +FLAGS.SILENT (\\Seen)\nS: <y> OK x\n"
	for _, tt := range []struct {
		name, script string
		marked       []uint64
		want         proxy.Code
	}{
		{"\\Seen, created again", strings.ReplaceAll(again, "UIDVALIDITY 9", "UIDVALIDITY 10"), []uint64{7}, temp},
		{"\\Seen, created again, nothing marked", strings.ReplaceAll(again, "UIDVALIDITY 9", "UIDVALIDITY 10"), nil, proxy.CodeNone},
		{"\\Seen, the same", again + seen + removing("7"), []uint64{7}, proxy.CodeNone},
		{"\\Seen, the same, nothing marked", again + seen, nil, proxy.CodeNone},
	} {
		play(t, tt.name, two+tt.script+bye, Options{Mailbox: "Work", Seen: SeenOnQuit}, func(s *session) {
			d := s.open()
			d.Retrieved(s.ctx, 9, 100)
			if err := d.Update(s.ctx, tt.marked); tt.want != proxy.CodeNone {
				s.fails(err, tt.want)
			} else if err != nil {
				s.Error(err)
			}
		})
	}
	// I-UIDV-2: UIDs that do not last are valid until the next SELECT only.
	for name, validity := range map[string]string{
		"without UIDVALIDITY": "",
		"UIDNOTSTICKY":        "S: * OK [UIDVALIDITY 9] x\nS: * NO [UIDNOTSTICKY] x\n",
	} {
		script := strings.Replace(first, "S: * OK [UIDVALIDITY 9] x\n", validity, 1) +
			"C: <h> UID FETCH 1:* (UID BODY.PEEK[HEADER])\nS: * 1 FETCH (UID 7 BODY[HEADER] \"a\")\nS: <h> OK x\n"
		play(t, name, script+removing("7")+bye, Options{Mailbox: "Work"}, func(s *session) {
			if err := s.open().Update(s.ctx, []uint64{7}); err != nil {
				s.Error(err)
			}
		})
	}
	lost := first + "C: <s> SELECT \"Work\"\nX:\n" + another + strings.ReplaceAll(reselected, "SELECT INBOX", `SELECT "Work"`) + removing("7") + bye
	play(t, "lost in between", lost, Options{Mailbox: "Work"}, func(s *session) {
		if err := s.open().Update(s.ctx, []uint64{7}); err != nil {
			s.Error(err)
		}
	})
}

// I-UIDV-2: where UIDs do not last, a lost connection is not replaced, as the
// UIDs of the snapshot are not valid on another.
func TestReconnectWithoutUIDValidity(t *testing.T) {
	script := strings.ReplaceAll(opened, "S: * OK [UIDVALIDITY 9] x\n", "") +
		"C: <h> UID FETCH 1:* (UID BODY.PEEK[HEADER])\nS: * 1 FETCH (UID 7 BODY[HEADER] \"a\")\nS: <h> OK x\n"
	play(t, "I-UIDV-2", script+"X:\n", Options{}, func(s *session) {
		d := s.open()
		_, err := d.Read(s.ctx, 7)
		s.fails(err, temp)
		s.fails(d.Update(s.ctx, []uint64{7}), temp)
	})
	// Another connection would work, and remove what has these UIDs there.
	synctest.Test(t, func(t *testing.T) {
		m := newModel()
		m.Inbox().SetUIDValidity(0)
		m.add("A: b\r\n\r\n")
		b := m.backend(t, Options{})
		conns := cuttable(b)
		d := openMaildrop(t, b)
		defer d.Close()
		conns.last.left = 0
		if body, err := d.Read(t.Context(), 1); err == nil {
			t.Error("a message of another connection is read")
			body.Close()
		}
		if err := d.Update(t.Context(), []uint64{1}); err == nil || len(m.messages()) != 1 {
			t.Errorf("%v, %d messages are left", err, len(m.messages()))
		}
		if m.Dials() != 1 {
			t.Errorf("%d connections", m.Dials())
		}
	})
}

// P-RETR-7, I-FETCH-7: a body that breaks off resumes at the octet where it
// broke off, if it is still the same message. Otherwise it ends in an error.
func TestResume(t *testing.T) {
	begun := opened + retr + "S: * 1 FETCH (UID 7 BODY[] {20}\nS+: 0123456789\n"
	rest := announce + "C: <p> UID FETCH 7 (UID BODY.PEEK[]<0.20>)\n"
	const whole = "0123456789abcdefgh\r\n"
	for _, loss := range losses {
		if loss.name == "BYE" {
			continue // within a literal it is content
		}
		play(t, loss.name, "D: 1h\n"+begun+"T: 1s\n"+loss.script+another+reselected+rest+
			"S: * 1 FETCH (UID 7 BODY[]<0> {20}\nS: 0123456789abcdefgh\nS: )\nS: <p> OK x\n"+bye, Options{}, func(s *session) {
			body, err := s.open().Read(s.ctx, 7)
			if err != nil {
				s.Fatal(err)
			}
			if body.Octets() != int64(len(whole)) {
				s.Errorf("%d octets", body.Octets())
			}
			if got := s.text(body, nil); got != whole {
				s.Errorf("%q", got)
			}
		})
	}
	for _, tt := range []struct{ name, answer string }{
		{"other content before the break", "S: * 1 FETCH (UID 7 BODY[]<0> {20}\nS: 012345678Xabcdefgh\nS: )\nS: <p> OK x\n"},
		{"shorter", "S: * 1 FETCH (UID 7 BODY[]<0> {19}\nS: 0123456789abcdefg\nS: )\nS: <p> OK x\n"},
		{"longer", "S: * 1 FETCH (UID 7 BODY[]<0> {21}\nS: 0123456789abcdefghi\nS: )\nS: <p> OK x\n"},
		{"NIL", "S: * 1 FETCH (UID 7 BODY[]<0> NIL)\nS: <p> OK x\n"},
		{"another message", "S: * 1 FETCH (UID 8 BODY[]<0> {20}\nS: 0123456789abcdefgh\nS: )\nS: <p> OK x\n"},
		{"UID of another after it", "S: * 1 FETCH (BODY[]<0> {20}\nS: 0123456789abcdefgh\nS:  UID 8)\nS: <p> OK x\n"},
		{"another origin", "S: * 1 FETCH (UID 7 BODY[]<1> {20}\nS: 0123456789abcdefgh\nS: )\nS: <p> OK x\n"},
		{"whole, not in part", "S: * 1 FETCH (UID 7 BODY[] {20}\nS: 0123456789abcdefgh\nS: )\nS: <p> OK x\n"},
		{"gone", "S: <p> OK x\n"},
		{"refused", "S: <p> NO zebra\n"},
		{"lost again", "S: * 1 FETCH (UID 7 BODY[]<0> {20}\nS+: 0123456789a\nX:\n"},
	} {
		end := bye
		if strings.Contains(tt.answer, "X:") {
			end = ""
		}
		play(t, "not "+tt.name, begun+"X:\n"+another+reselected+rest+tt.answer+end, Options{}, func(s *session) { s.breaks(whole) })
	}
	for _, tt := range []struct{ name, script string }{
		{"RFC822.SIZE has changed", reselected + strings.ReplaceAll(announce, "SIZE 100", "SIZE 101") + bye},
		{"RFC822.SIZE is not given", reselected + "C: <a> UID FETCH 7 (UID RFC822.SIZE)\nS: <a> OK x\n" + bye},
		{"another UIDVALIDITY", strings.ReplaceAll(reselected, "UIDVALIDITY 9", "UIDVALIDITY 10") + bye},
		{"mailbox removed", loggedIn + "C: <s> SELECT INBOX\nS: <s> NO [NONEXISTENT] zebra\n" + bye},
		{"login refused", greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\nS: <l> NO zebra\n" + bye},
	} {
		play(t, "not "+tt.name, begun+"X:\n"+another+tt.script, Options{}, func(s *session) { s.breaks(whole) })
	}
	play(t, "not after broken grammar", opened+retr+"S: * 1 FETCH (BODY[] {5}\nS+: hello\nS: )x\nW:\n", Options{}, func(s *session) { s.breaks("hello") })
}

// breaks reads message 7, and checks that it ends in an error after a part of
// whole.
func (s *session) breaks(whole string) {
	s.Helper()
	dials := s.countDials()
	body, err := s.open().Read(s.ctx, 7)
	if err != nil {
		s.Fatal(err)
	}
	defer body.Close()
	defer func() {
		if *dials > 2 {
			s.Errorf("%d connections for a message that makes no progress", *dials)
		}
	}()
	var got bytes.Buffer
	if _, err := body.WriteTo(&got); err == nil {
		s.Errorf("a message that cannot be continued counts as whole: %q", got.String())
	}
	if !strings.HasPrefix(whole, got.String()) {
		s.Errorf("%q was sent of %q", got.String(), whole)
	}
}

// I-FETCH-7: a message of 100 MiB arrives unchanged from an upstream whose
// connections break every 3 MiB.
func TestResumeOften(t *testing.T) {
	const (
		line  = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcd\r\n"
		size  = 100 << 20
		piece = 3 << 20
	)
	content := func(n int) string { return fmt.Sprintf("S*: %d %q\n", n, line) }
	script := fmt.Sprintf("%s%sS: * 1 FETCH (UID 7 BODY[] {%d}\n%sX:\n", opened, retr, size, content(piece))
	for done := piece; done < size; done += piece {
		offset := done - overlap
		script += fmt.Sprintf("-- connection %d --\n%s%sC: <p> UID FETCH 7 (UID BODY.PEEK[]<%d.%d>)\nS: * 1 FETCH (UID 7 BODY[]<%[4]d> {%[5]d}\n",
			done/piece+1, reselected, announce, offset, size-offset)
		if done+piece < size {
			script += content(overlap+piece) + "X:\n"
			continue
		}
		script += content(size-offset) + "S: )\nS: <p> OK x\n" + bye
	}
	play(t, "I-FETCH-7", script, Options{}, func(s *session) {
		body, err := s.open().Read(s.ctx, 7)
		if err != nil {
			s.Fatal(err)
		}
		defer body.Close()
		got := &repeating{of: line}
		if n, err := body.WriteTo(got); err != nil || n != size || got.err != nil {
			s.Errorf("%d of %d octets: %v, %v", n, size, err, got.err)
		}
	})
}

// repeating is a writer that expects one text again and again.
type repeating struct {
	of  string
	n   int
	err error
}

func (r *repeating) Write(p []byte) (int, error) {
	for q := p; len(q) > 0 && r.err == nil; {
		want := r.of[r.n%len(r.of):]
		k := min(len(q), len(want))
		if string(q[:k]) != want[:k] {
			r.err = fmt.Errorf("wrong octets at %d", r.n)
		}
		r.n += k
		q = q[k:]
	}
	return len(p), nil
}

// P-TOP-2, P-RETR-7: a TOP that breaks off anywhere resumes there, or ends in
// an error.
func TestResumeTop(t *testing.T) {
	text := "Subject: zebra\r\nTo: joe\r\n\r\n" + strings.Repeat("line of the text\r\n", 200)
	top := func(t *testing.T, uidLast bool, cut int, lines uint64, change string) (got string, dials int, err error) {
		synctest.Test(t, func(t *testing.T) {
			m := newModel()
			m.UIDLast = uidLast
			uid := m.add(text)
			b := m.backend(t, Options{ReadAhead: -1})
			conns := cuttable(b)
			d := openMaildrop(t, b)
			defer d.Close()
			conns.last.left = cut
			body, e := d.Top(t.Context(), uid, lines)
			if e != nil {
				t.Fatal(e)
			}
			defer body.Close()
			if change != "" {
				m.Inbox().Replace(uid, change)
			}
			var w bytes.Buffer
			_, err = body.WriteTo(&w)
			got, dials = w.String(), m.Dials()
		})
		return got, dials, err
	}
	resumes := func(uidLast bool, lines uint64) {
		t.Helper()
		want, _, _ := top(t, uidLast, 1<<30, lines, "")
		for cut := 0; cut < len(text)+400; cut += 37 {
			got, dials, err := top(t, uidLast, cut, lines, "")
			if err != nil || got != want {
				t.Fatalf("TOP %d cut at %d: %v, %d of %d octets", lines, cut, err, len(got), len(want))
			}
			if dials == 1 {
				break // it was whole before the cut
			}
		}
	}
	for _, lines := range []uint64{0, 1, 150} {
		resumes(false, lines)
		resumes(true, lines)
	}
	for name, change := range map[string]string{"other": strings.ToUpper(text), "shorter": text[:60]} {
		got, _, err := top(t, false, 300, 150, change)
		if !errors.Is(err, errChanged) || len(got) <= 60 || !strings.HasPrefix(text, got) {
			t.Errorf("%s: a message that has changed resumes: %v, %d octets", name, err, len(got))
		}
	}
	// The whole message is asked for, but only the first of its lines are wanted.
	text = "A: b\n" + strings.Repeat("\n", 5000)
	resumes(false, 3000)
	resumes(true, 3000)
}

// I-CONC-4: after a loss, a walk continues with the messages in memory, and the
// read-ahead starts again.
func TestReadAheadAfterLoss(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel()
		m.RTT = 20 * time.Millisecond
		var uids []uint64
		for i := range 200 {
			uids = append(uids, m.add(fmt.Sprintf("Subject: %d\r\n\r\n%s", i, strings.Repeat("x", 3000))))
		}
		b := m.backend(t, Options{})
		conns := cuttable(b)
		d := openMaildrop(t, b)
		defer d.Close()
		began := time.Now()
		for i, uid := range uids {
			if i == 50 || i == 120 {
				conns.last.left = 10000 // within the read-ahead
			}
			body, err := d.Read(t.Context(), uid)
			if err != nil {
				t.Fatalf("message %d: %v", i, err)
			}
			var w strings.Builder
			if _, err := body.WriteTo(&w); err != nil || w.String() != m.messages()[i].Body {
				t.Fatalf("message %d: %v, %d octets", i, err, w.Len())
			}
			body.Close()
			d.Retrieved(t.Context(), uid, int64(w.Len()))
		}
		if m.Dials() != 3 {
			t.Errorf("%d connections", m.Dials())
		}
		if d := time.Since(began); d > 60*m.RTT {
			t.Errorf("%v for %d messages: there was no read-ahead", d, len(uids))
		}
	})
}

// P-QUIT-6: the end of a session waits at most two seconds for a reconnect.
func TestCloseDuringReconnect(t *testing.T) {
	play(t, "P-QUIT-6", opened+"X:\n", Options{}, func(s *session) {
		d := s.open()
		s.b.dial = func(ctx context.Context) (net.Conn, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		done := make(chan error)
		go func() { done <- d.Update(s.ctx, []uint64{7}) }()
		synctest.Wait()
		began := time.Now()
		d.Close()
		s.fails(<-done, temp)
		if waited := time.Since(began); waited > upstream.LogoutTimeout {
			s.Errorf("%v", waited)
		}
	})
}

// O-OAUTH-3: a reconnect sends the token again. The answer to a challenge
// cannot be sent again, so there is no reconnect.
func TestReconnectExchange(t *testing.T) {
	caps := "S: * OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2 AUTH=CRAM-MD5 SASL-IR] x\n"
	xoauth2 := caps + "C: <l> AUTHENTICATE XOAUTH2 dXNlcj1qb2UBYXV0aD1CZWFyZXIgdG9rAQE=\nS: <l> OK [CAPABILITY IMAP4rev1 UIDPLUS] x\n"
	token := proxy.Exchange{Mechanism: "XOAUTH2", Username: "joe", Authorization: "Bearer tok",
		Challenge: func(context.Context, string) (string, error) { return "", errors.New("the client is asked") }}
	open := func(s *session, ex proxy.Exchange) proxy.Maildrop {
		l, err := s.b.Exchange(s.ctx, &ex)
		if err != nil {
			s.Fatal(err)
		}
		d, err := l.Open(s.ctx)
		if err != nil {
			s.Fatal(err)
		}
		s.Cleanup(func() { d.Close() })
		return d
	}
	play(t, "XOAUTH2", xoauth2+strings.TrimPrefix(opened, loggedIn)+"X:\n"+another+xoauth2+strings.TrimPrefix(reselected, loggedIn)+retr+hello+bye, Options{}, func(s *session) {
		s.text(open(s, token).Read(s.ctx, 7))
	})
	refused := strings.Replace(xoauth2, "S: <l> OK [CAPABILITY IMAP4rev1 UIDPLUS] x\n", "S: + e30=\nC: *\nS: <l> BAD x\n", 1)
	play(t, "XOAUTH2 expired", xoauth2+strings.TrimPrefix(opened, loggedIn)+"X:\n"+another+refused+bye, Options{}, func(s *session) {
		_, err := open(s, token).Read(s.ctx, 7)
		s.fails(err, temp)
	})
	cram := caps + "C: <l> AUTHENTICATE CRAM-MD5\nS: + PDFAeD4=\nC: eA==\nS: <l> OK [CAPABILITY IMAP4rev1 UIDPLUS] x\n"
	play(t, "CRAM-MD5", cram+strings.TrimPrefix(opened, loggedIn)+"X:\n", Options{}, func(s *session) {
		d := open(s, proxy.Exchange{Mechanism: "CRAM-MD5", Challenge: func(context.Context, string) (string, error) { return "x", nil }})
		_, err := d.Read(s.ctx, 7)
		s.fails(err, temp)
	})
}
