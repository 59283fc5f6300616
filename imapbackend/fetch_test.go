package imapbackend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"popgate/imapbackend/internal/imapscript"
	"popgate/imapbackend/upstream"
	"popgate/proxy"
)

const (
	retr     = "C: <r> UID FETCH 7 (UID BODY.PEEK[])\n"
	recheck  = "C: <n> NOOP\nS: <n> OK x\nC: <q> UID FETCH 7 (UID)\n"
	present  = recheck + "S: * 1 FETCH (UID 7)\nS: <q> OK x\n"
	research = "C: <n> NOOP\nS: <n> OK x\nC: <q> UID SEARCH UID 7\n"
	refetch  = "C: <v> UID FETCH 7 (UID)\n"
	allUIDs  = noop + "C: <w> UID FETCH 1:* (UID)\n"
	flagsNo  = "C: <g> UID FETCH 7 (UID FLAGS)\nS: <g> NO zebra\n"
	absent   = recheck + "S: <q> OK x\n"
)

// I-FETCH-1, I-FETCH-2, I-FETCH-4, P-RETR-3, P-RETR-4: the forms in which a
// message can arrive.
func TestRead(t *testing.T) {
	for _, tt := range []struct{ name, answer, want string }{
		{"I-FETCH-5 literal", "S: * 1 FETCH (UID 7 BODY[] {5}\nS+: hello\nS: )\n", "hello"},
		{"I-FETCH-2 UID after the body", "S: * 1 FETCH (BODY[] {5}\nS+: hello\nS:  UID 7)\n", "hello"},
		{"I-FETCH-2 UID in an earlier response", "S: * 1 FETCH (UID 7)\nS: * 1 FETCH (BODY[] {5}\nS+: hello\nS: )\n", "hello"},
		{"I-FETCH-2 UID in a later response", "S: * 1 FETCH (BODY[] {5}\nS+: hello\nS: )\nS: * 1 FETCH (UID 7)\n", "hello"},
		{"I-FETCH-2 no UID, the sequence number proves the message", "S: * 1 FETCH (BODY[] {5}\nS+: hello\nS: )\n", "hello"},
		{"I-CONN-3 no space in front of a literal", "S: * 1 FETCH (UID 7 BODY[]{5}\nS+: hello\nS: )\n", "hello"},
		{"I-CONN-3 no space in front of a quoted string", "S: * 1 FETCH(FLAGS(\\Seen) BODY[]\"hello\" UID 7)\n", "hello"},
		{"I-CONN-3 empty lines", "S: \nS: * 1 FETCH (UID 7 BODY[] {5}\nS: hello\nS: )\nS: \nS: \n", "hello"},
		{"I-FETCH-2 UIDFETCH", "S: * 7 UIDFETCH (BODY[] {5}\nS+: hello\nS: )\n", "hello"},
		{"I-CONN-3 quoted", "S: * 1 FETCH (UID 7 BODY[] \"he\\\"llo\\\\\")\n", `he"llo\`},
		{"I-CONN-3 unknown items, other case", "S: * 1 fetch (flags (a]b \\Seen) X-GM-MSGID 12 X (\"(\" {2}\nS+: )(\nS:  NIL) uid 7 body[] {5}\nS+: hello\nS:  MODSEQ (5))\n", "hello"},
		{"I-FETCH-2 other messages' flags", "S: * 2 FETCH (FLAGS ())\nS: * 3 FETCH (UID 9 FLAGS ())\nS: * 1 FETCH (UID 7 BODY[] {2}\nS+: hi\nS: )\nS: * 1 EXPUNGE\n", "hi"},
		{"I-FETCH-2 other message's body first", "S: * 2 FETCH (UID 9 BODY[] {5}\nS+: wrong\nS: )\nS: * 1 FETCH (UID 7 BODY[] {5}\nS+: right\nS: )\n", "right"},
		{"I-FETCH-2 other sections first", "S: * 1 FETCH (UID 7 BODY[HEADER] {2}\nS+: no\nS:  BODY[]<0> {2}\nS+: no\nS:  BODY[] {3}\nS+: yes\nS: )\n", "yes"},
		{"I-FETCH-4 protocol and NUL in the body", "S: * 1 FETCH (UID 7 BODY[] {28}\nS: * 9 EXISTS\nS: P4 OK done\nS64: AAD/\nS: )\n", "* 9 EXISTS\r\nP4 OK done\r\n\x00\x00\xff"},
		{"P-RETR-4 longer than announced", "S: * 1 FETCH (UID 7 RFC822.SIZE 100 BODY[] {103}\nS*: 103 x\nS: )\n", strings.Repeat("x", 103)},
		{"I-CONC-2 still served, EXPUNGEISSUED", "S: * 1 FETCH (UID 7 BODY[] {2}\nS+: hi\nS: )\nS: * NO [EXPUNGEISSUED] x\n", "hi"},
	} {
		answer := strings.Replace(tt.answer, "{28}", "{"+itoa(len(tt.want))+"}", 1)
		play(t, tt.name, opened+retr+answer+"S: <r> OK x\n"+bye, Options{}, func(s *session) {
			body, err := s.open().Read(s.ctx, 7)
			if err != nil {
				s.Fatal(err)
			}
			if n := body.Octets(); n != int64(len(tt.want)) {
				s.Errorf("%d octets announced", n)
			}
			if got := s.text(body, nil); got != tt.want {
				s.Errorf("message %q, want %q", got, tt.want)
			}
		})
	}
}

// P-RETR-3: a message may have no octets.
func TestReadEmpty(t *testing.T) {
	empty := strings.Replace(opened, "RFC822.SIZE 100", "RFC822.SIZE 0", 1) + retr
	for _, form := range []string{"\"\"", "NIL", "{0}\nS: "} {
		play(t, "P-RETR-3 "+form[:2], empty+"S: * 1 FETCH (UID 7 BODY[] "+form+")\nS: <r> OK x\n"+bye, Options{}, func(s *session) {
			body, err := s.open().Read(s.ctx, 7)
			if err != nil {
				s.Fatal(err)
			}
			if got := s.text(body, nil); got != "" || body.Octets() != 0 {
				s.Errorf("message %q", got)
			}
		})
	}
}

// I-FETCH-5, I-CONC-2, I-FETCH-6: the error says why there is no body, and the
// session continues if the connection is not lost. The codes of NO are in
// TestFailures.
func TestReadOutcomes(t *testing.T) {
	gone := proxy.CodeNone
	for _, tt := range []struct {
		name, answer string
		want         proxy.Code
		lost         bool
	}{
		{"OK without FETCH", "S: <r> OK x\n", gone, false},
		{"OK with others only", "S: * 2 FETCH (UID 9 BODY[] {2}\nS+: no\nS: )\nS: <r> OK [EXPUNGEISSUED] x\n", gone, false},
		{"expunged in the answer", "S: * 1 EXPUNGE\nS: <r> OK x\n", gone, false},
		{"NIL, absent", "S: * 1 FETCH (UID 7 BODY[] NIL)\nS: <r> OK [EXPUNGEISSUED] x\n" + absent, gone, false},
		{"NIL, present", "S: * 1 FETCH (UID 7 BODY[] NIL)\nS: <r> OK x\n" + present + flagsNo, temp, false},
		{"NIL, UID after it", "S: * 1 FETCH (BODY[] NIL UID 7)\nS: <r> OK x\n" + absent, gone, false},
		{"empty, absent", "S: * 1 FETCH (UID 7 BODY[] \"\")\nS: <r> OK x\n" + absent, gone, false},
		{"empty, present", "S: * 1 FETCH (UID 7 BODY[] {0}\nS: )\nS: <r> OK x\n" + present + flagsNo, temp, false},
		{"FETCH without body, absent", "S: * 1 FETCH (UID 7 FLAGS ())\nS: <r> OK x\n" + absent, gone, false},
		{"FETCH without body, present", "S: * 1 FETCH (UID 7)\nS: <r> OK x\n" + present + flagsNo, temp, false},
		{"NO, absent", "S: <r> NO [EXPUNGEISSUED] zebra\n" + absent, gone, false},
		{"NO, present", "S: <r> NO [EXPUNGEISSUED] zebra\n" + present, temp, false},
		{"NO, others only", "S: <r> NO zebra\n" + recheck + "S: * 2 FETCH (UID 8)\nS: <q> OK x\n" + allUIDs + "S: * 1 FETCH (UID 8)\nS: <w> OK x\n", gone, false},
		{"NO, flags of others", "S: <r> NO zebra\n" + recheck + "S: * 2 FETCH (UID 8 FLAGS (\\Seen))\nS: <q> OK x\n", gone, false},
		{"NO, FETCH of all UIDs refused", "S: <r> NO zebra\n" + recheck + "S: <q> NO zebra\n" + allUIDs + "S: <w> NO zebra\n", temp, false},
		{"NO, FETCH of the UID refused, absent", "S: <r> NO zebra\n" + recheck + "S: <q> BAD zebra\n" + allUIDs + "S: * 1 FETCH (UID 8)\nS: <w> OK x\n", gone, false},
		{"NO, FETCH of the UID refused, present", "S: <r> NO zebra\n" + recheck + "S: <q> BAD zebra\n" + allUIDs + "S: * 1 FETCH (UID 7)\nS: <w> OK x\n", temp, false},
		{"NO, lost at FETCH of all UIDs", "S: <r> NO zebra\n" + recheck + "S: <q> NO zebra\nC: <k> NOOP\nX:\n", temp, true},
		{"search, NO, present", "S: <r> NO zebra\n" + research + "S: * SEARCH 7\nS: <q> OK x\n", temp, false},
		{"search, NO, absent", "S: <r> NO zebra\n" + research + "S: * SEARCH\nS: <q> OK x\n", gone, false},
		{"search, NO, others only, present", "S: <r> NO zebra\n" + research + "S: * SEARCH 8:9\nS: <q> OK x\n" + refetch + "S: * 1 FETCH (UID 7)\nS: <v> OK x\n", temp, false},
		{"search, NO, a range around it, absent", "S: <r> NO zebra\n" + research + "S: * SEARCH 6:8\nS: <q> OK x\n" + refetch + "S: <v> OK x\n", gone, false},
		{"search, NO, search and FETCH of the UID refused", "S: <r> NO zebra\n" + research + "S: <q> NO zebra\n" + refetch + "S: <v> NO zebra\n" + allUIDs + "S: <w> NO zebra\n", temp, false},
		{"search, NO, search refused, present", "S: <r> NO zebra\n" + research + "S: <q> NO zebra\n" + refetch + "S: * 1 FETCH (UID 7)\nS: <v> OK x\n", temp, false},
		{"search, NO, search not answered, absent", "S: <r> NO zebra\n" + research + "S: <q> OK x\n" + refetch + "S: <v> OK x\n", gone, false},
		{"BAD", "S: <r> BAD zebra\n", perm, false},
		{"BYE", "S: * BYE zebra\nX:\n", temp, true},
		{"lost", "X:\n", temp, true},
		{"reset", "R:\n", temp, true},
		{"lost in the response", "S+: * 1 FETCH (UID 7 BODY[] {5\nX:\n", temp, true},
		{"lost at NOOP", "S: <r> NO zebra\nC: <n> NOOP\nX:\n", temp, true},
		{"lost at FETCH of the UID", "S: <r> NO zebra\n" + recheck + "X:\n", temp, true},
		{"protocol violation", "S: * 1 FETCH (UID 7 BODY[] hello)\nW:\n", perm, true},
		{"timeout", "W:\n", temp, true},
	} {
		after := retr + "S: * 1 FETCH (UID 7 BODY[] {4}\nS+: next\nS: )\nS: <r> OK x\n" + bye
		if tt.lost {
			after = ""
		}
		var opts Options
		if strings.HasPrefix(tt.name, "search") {
			opts.Dialect = bySearch
		}
		play(t, "I-FETCH-5 "+tt.name, opened+retr+tt.answer+after, opts, func(s *session) {
			d := s.open()
			_, err := d.Read(s.ctx, 7)
			s.fails(err, tt.want)
			if tt.want == gone && !errors.Is(err, proxy.ErrGone) {
				s.Errorf("error %v, want ErrGone", err)
			}
			body, err := d.Read(s.ctx, 7)
			if tt.lost {
				s.fails(err, tt.want) // and so does UPDATE
				s.fails(d.Update(s.ctx, []uint64{7}), tt.want)
			} else if got := s.text(body, err); got != "next" {
				s.Errorf("I-FETCH-6: then %q", got)
			}
		})
	}
}

// calls are RETR and each way of TOP: the command, and its answer up to the status.
var calls = []struct {
	name, command, answer string
	run                   func(*session, proxy.Maildrop) (proxy.Body, error)
}{
	{"RETR", retr, "S: * 1 FETCH (UID 7 BODY[] {9}\nS: A: b\nS: \nS+: c\nS: )\n",
		func(s *session, d proxy.Maildrop) (proxy.Body, error) { return d.Read(s.ctx, 7) }},
	{"TOP 0", topCommand("r", "BODY.PEEK[HEADER]"), "S: * 1 FETCH (UID 7 BODY[HEADER] {8}\nS: A: b\nS: \nS: )\n",
		func(s *session, d proxy.Maildrop) (proxy.Body, error) { return d.Top(s.ctx, 7, 0) }},
	{"TOP 1", topCommand("r", "BODY.PEEK[HEADER] BODY.PEEK[TEXT]<0.1024>"), "S: * 1 FETCH (UID 7 BODY[HEADER] {8}\nS: A: b\nS: \nS:  BODY[TEXT]<0> {3}\nS: c\nS: )\n",
		func(s *session, d proxy.Maildrop) (proxy.Body, error) { return d.Top(s.ctx, 7, 1) }},
	{"TOP 99", retr, "S: * 1 FETCH (UID 7 BODY[] {9}\nS: A: b\nS: \nS+: c\nS: )\n",
		func(s *session, d proxy.Maildrop) (proxy.Body, error) { return d.Top(s.ctx, 7, 99) }},
}

// P-RETR-7: a message whose own command ends in NO or BAD is not whole.
func TestReadThenRefused(t *testing.T) {
	for _, call := range calls {
		for status, want := range map[string]proxy.Code{"NO [SERVERBUG] zebra": perm, "NO": temp, "BAD zebra": perm} {
			play(t, call.name+", "+status, opened+call.command+call.answer+"S: <r> "+status+"\n"+
				call.command+call.answer+"S: <r> OK x\n"+bye, Options{}, func(s *session) {
				d := s.open()
				body, err := call.run(s, d)
				if err != nil {
					s.Fatal(err)
				}
				_, err = body.WriteTo(io.Discard)
				s.fails(err, want)
				body.Close()
				if got := s.text(call.run(s, d)); !strings.HasPrefix(got, "A: b\r\n\r\n") {
					s.Errorf("I-FETCH-6: then %q", got)
				}
			})
		}
		for end, script := range map[string]string{"lost": "X:\n", "silent": "W: stall\n"} {
			play(t, call.name+", "+end+" after it", opened+call.command+call.answer+script, Options{}, func(s *session) {
				body, err := call.run(s, s.open())
				s.timed(0, closeTime, func() {
					if got := s.text(body, err); !strings.HasPrefix(got, "A: b\r\n\r\n") {
						s.Errorf("%q", got)
					}
				})
			})
		}
	}
	piece := strings.Replace(calls[2].answer, "{3}\nS: c", "{1}\nS+: c", 1)
	play(t, "TOP 1, before the next piece", opened+calls[2].command+piece+"S: <r> NO zebra\n"+bye, Options{}, func(s *session) {
		body, err := calls[2].run(s, s.open())
		if err != nil {
			s.Fatal(err)
		}
		_, err = body.WriteTo(io.Discard)
		s.fails(err, temp)
		body.Close()
	})
	ahead := mailbox("UIDPLUS", "", "7", "8", "9") + retr + hello + strings.Replace(retr, "7", "8", 1) + "C: <a> UID FETCH 9 (UID BODY.PEEK[])\n" +
		"S: * 2 FETCH (UID 8 BODY[] {5}\nS+: hello\nS: )\nW: stall\n"
	play(t, "not waited for where more is on its way", ahead, Options{}, func(s *session) {
		d := s.open()
		s.text(d.Read(s.ctx, 7))
		body, err := d.Read(s.ctx, 8)
		s.timed(0, 0, func() {
			if _, err = body.WriteTo(io.Discard); err != nil {
				s.Error(err)
			}
		})
		body.Close()
	})
}

// I-UIDV-1: UIDVALIDITY announced again in the answer to RETR or TOP makes the
// message one of another mailbox.
func TestReadRebuilt(t *testing.T) {
	const rebuilt = "S: * OK [UIDVALIDITY 10] zebra\n"
	for _, call := range calls {
		play(t, call.name+", before the message", opened+call.command+rebuilt+call.answer+"S: <r> OK x\n"+bye, Options{}, func(s *session) {
			d := s.open()
			_, err := call.run(s, d)
			s.rebuilt(err)
			_, err = call.run(s, d)
			s.rebuilt(err)
		})
		play(t, call.name+", after it", opened+call.command+call.answer+rebuilt+"S: <r> OK x\n"+bye, Options{}, func(s *session) {
			d := s.open()
			body, err := call.run(s, d)
			if err != nil {
				s.Fatal(err)
			}
			_, err = body.WriteTo(io.Discard)
			s.rebuilt(err)
			body.Close()
			_, err = call.run(s, d)
			s.rebuilt(err)
		})
		play(t, call.name+", the same", opened+call.command+strings.Replace(rebuilt, "10", "9", 1)+call.answer+"S: <r> OK x\n"+bye, Options{}, func(s *session) {
			s.text(call.run(s, s.open()))
		})
	}
}

// rebuilt checks that err is the one of a snapshot that is no longer valid.
func (s *session) rebuilt(err error) {
	s.Helper()
	if s.fails(err, temp).Text != textRebuilt {
		s.Errorf("%v", err)
	}
}

// I-FETCH-5, P-RETR-6, P-TOP-4: a message that is empty by BODY.PEEK[] is asked for once more
// by BODY[], if its flags are known, and \Seen is as before then.
func TestReadUnpeeked(t *testing.T) {
	flags := func(list string) string {
		return "C: <g> UID FETCH 7 (UID FLAGS)\nS: * 1 FETCH (UID 7 FLAGS (" + list + "))\nS: <g> OK x\n"
	}
	const (
		again = "C: <w> UID FETCH 7 (UID BODY[])\n"
		body  = "S: * 1 FETCH (FLAGS (\\Seen) UID 7 BODY[] {5}\nS+: hello\nS: )\nS: <w> OK x\n"
		clear = "C: <u> UID STORE 7 -FLAGS.SILENT (\\Seen)\nS: <u> OK x\n"
		set   = "C: <v> UID STORE 7 +FLAGS.SILENT (\\Seen)\nS: <v> OK x\n"
	)
	empties := map[string]string{
		"empty":          "S: * 1 FETCH (UID 7 BODY[] {0}\nS: )\nS: <r> OK x\n" + present,
		"NIL":            "S: * 1 FETCH (UID 7 BODY[] NIL)\nS: <r> OK x\n" + present,
		"without a body": "S: * 1 FETCH (UID 7 FLAGS ())\nS: <r> OK x\n" + present,
	}
	for empty, answer := range empties {
		for _, tt := range []struct{ name, script string }{
			{"not seen before", flags(`\Answered`) + again + body + clear},
			{"seen before", flags(`\seen \Answered`) + again + body},
			{"clearing is refused", flags("") + again + body + strings.Replace(clear, "OK", "NO", 1)},
			{"UID after the body", flags("") + again + strings.Replace(strings.Replace(body, "UID 7 ", "", 1), "S: )", "S:  UID 7)", 1) + clear},
		} {
			play(t, empty+", "+tt.name, opened+retr+answer+tt.script+bye, Options{}, func(s *session) {
				if got := s.text(s.open().Read(s.ctx, 7)); got != "hello" {
					s.Errorf("%q", got)
				}
			})
		}
		for _, tt := range []struct{ name, script string }{
			{"flags refused", flagsNo},
			{"flags of another message", "C: <g> UID FETCH 7 (UID FLAGS)\nS: * 2 FETCH (UID 9 FLAGS ())\nS: <g> OK x\n"},
			{"flags left out", "C: <g> UID FETCH 7 (UID FLAGS)\nS: * 1 FETCH (UID 7)\nS: <g> OK x\n"},
			{"still empty", flags("") + again + "S: * 1 FETCH (UID 7 BODY[] \"\")\nS: <w> OK x\n" + clear},
			{"still empty, seen before", flags(`\Seen`) + again + "S: * 1 FETCH (UID 7 BODY[] NIL)\nS: <w> OK x\n"},
			{"refused", flags("") + again + "S: <w> NO zebra\n" + clear},
		} {
			play(t, empty+", "+tt.name, opened+retr+answer+tt.script+bye, Options{}, func(s *session) {
				_, err := s.open().Read(s.ctx, 7)
				s.fails(err, temp)
			})
		}
	}
	start := opened + retr + empties["empty"] + flags("") + again
	for _, tt := range []struct {
		name, script string
		seen         Seen
	}{
		{"on-retr", start + body + clear + set, SeenOnRetr},
		{"on-quit", start + body + clear + set, SeenOnQuit},
	} {
		play(t, tt.name, tt.script+bye, Options{Seen: tt.seen}, func(s *session) {
			d := s.open()
			if got := s.text(d.Read(s.ctx, 7)); got != "hello" {
				s.Errorf("%q", got)
			}
			d.Retrieved(s.ctx, 7, 5)
			if err := d.Update(s.ctx, nil); err != nil {
				s.Error(err)
			}
		})
	}
	lost := start + "S: * 1 FETCH (UID 7 BODY[] {9}\nS+: hello\nX:\n" + another + reselected + announce +
		"C: <p> UID FETCH 7 (UID BODY.PEEK[]<0.9>)\nS: * 1 FETCH (UID 7 BODY[] {0}\nS: )\nS: <p> OK x\n"
	play(t, "lost on the way", lost+clear+bye, Options{}, func(s *session) {
		body, err := s.open().Read(s.ctx, 7)
		if err != nil {
			s.Fatal(err)
		}
		if _, err := body.WriteTo(io.Discard); !errors.Is(err, errChanged) {
			s.Errorf("%v", err)
		}
		body.Close()
	})
	play(t, "read-only", strings.Replace(start, "[READ-WRITE]", "[READ-ONLY]", 1)+body+bye, Options{}, func(s *session) {
		if got := s.text(s.open().Read(s.ctx, 7)); got != "hello" {
			s.Errorf("%q", got)
		}
	})
	play(t, "TOP does not", openedSize(100)+topCommand("r", "BODY.PEEK[]")+empties["empty"]+bye, Options{}, func(s *session) {
		_, err := s.open().Top(s.ctx, 7, 1000)
		s.fails(err, temp)
	})
}

// broken reads an incomplete message: the part that arrives is passed on, and
// an error says that it is not whole (P-RETR-7).
func (s *session) broken(d proxy.Maildrop, want string, code proxy.Code) {
	s.Helper()
	body, err := d.Read(s.ctx, 7)
	if err != nil {
		s.Fatal(err)
	}
	var b bytes.Buffer
	_, err = body.WriteTo(&b)
	s.fails(err, code)
	if b.String() != want {
		s.Errorf("wrote %q, want %q", b.String(), want)
	}
	if err := body.Close(); err != nil {
		s.Errorf("Close: %v", err)
	}
}

// P-RETR-7, I-FETCH-2, I-KEEP-2: a body that breaks off, or is that of another
// message, ends in an error.
func TestReadBroken(t *testing.T) {
	for _, tt := range []struct {
		name, answer, want string
		code               proxy.Code
	}{
		{"P-RETR-7 lost in the body", "S: * 1 FETCH (UID 7 BODY[] {9}\nS+: hello\nX:\n", "hello", temp},
		{"I-KEEP-2 silent in the body", "S: * 1 FETCH (UID 7 BODY[] {9}\nS+: hello\nW:\n", "hello", temp},
		{"I-FETCH-2 lost between the body and its UID", "S: * 1 FETCH (BODY[] {5}\nS+: hello\nX:\n", "hello", temp},
		{"I-FETCH-4 grammar broken before the UID", "S: * 1 FETCH (BODY[] {5}\nS+: hello\nS: )x\nW:\n", "hello", perm},
	} {
		play(t, tt.name, opened+retr+tt.answer, Options{}, func(s *session) {
			d := s.open()
			s.broken(d, tt.want, tt.code)
			_, err := d.Read(s.ctx, 7)
			s.fails(err, tt.code)
			if err := d.Update(s.ctx, nil); err != nil { // P-QUIT-4
				s.Errorf("Update with none: %v", err)
			}
			if err := d.Close(); err != nil {
				s.Errorf("Close: %v", err)
			}
		})
	}
	for name, answer := range map[string]string{
		"wrong UID after the body": "S: * 1 FETCH (BODY[] {5}\nS+: hello\nS:  UID 9)\n",
		"no UID, after an EXPUNGE": "S: * 2 EXPUNGE\nS: * 1 FETCH (BODY[] {5}\nS+: hello\nS: )\n",
		"no UID, unknown number":   "S: * 2 FETCH (BODY[] {5}\nS+: hello\nS: )\n",
		"no UID, then an EXPUNGE":  "S: * 1 FETCH (BODY[] {5}\nS+: hello\nS: )\nS: * 1 EXPUNGE\n",
		"number of another before": "S: * 2 FETCH (UID 7 FLAGS ())\nS: * 1 EXPUNGE\nS: * 2 FETCH (BODY[] {5}\nS+: hello\nS: )\n",
		"expunge before the UID":   "S: * 1 FETCH (BODY[] {5}\nS+: hello\nS: )\nS: * 1 EXPUNGE\nS: * 2 FETCH (UID 7)\n",
	} {
		play(t, "I-FETCH-2 "+name, opened+retr+answer+"S: <r> OK x\n"+bye, Options{}, func(s *session) {
			body, err := s.open().Read(s.ctx, 7)
			if err != nil {
				s.Fatal(err)
			}
			if _, err := body.WriteTo(io.Discard); !errors.Is(err, errOther) {
				s.Errorf("WriteTo: %v", err)
			}
			body.Close()
		})
	}
}

// P-RETR-5, I-KEEP-2: a slow client does not make the upstream seem silent.
func TestReadSlowClient(t *testing.T) {
	play(t, "P-RETR-5", opened+retr+"S: * 1 FETCH (UID 7 BODY[] {1000000}\nS*: 1000000 x\nS: )\nS: <r> OK x\n"+bye, Options{}, func(s *session) {
		body, err := s.open().Read(s.ctx, 7)
		if err != nil {
			s.Fatal(err)
		}
		w := &slowWriter{}
		if n, err := body.WriteTo(w); n != 1000000 || err != nil {
			s.Errorf("%d octets, %v", n, err)
		}
		body.Close()
	})
}

type slowWriter struct{ n int }

func (w *slowWriter) Write(p []byte) (int, error) {
	<-time.After(2 * upstream.ProgressTimeout)
	w.n += len(p)
	return len(p), nil
}

// I-FETCH-6: the rest of an abandoned message is read and discarded if it has
// at most drainLimit octets. Otherwise the connection ends.
func TestReadAbandoned(t *testing.T) {
	big := fmt.Sprintf("S: * 1 FETCH (UID 7 BODY[] {%d}\nS*: %[1]d x\n", drainLimit)
	next := "C: <r> UID FETCH 7 (UID BODY.PEEK[])\nS: * 1 FETCH (UID 7 BODY[] \"next\")\nS: <r> OK x\n" + bye
	for _, written := range []int{0, 1} {
		play(t, "short", opened+retr+big+"S: )\nS: <r> OK x\n"+next, Options{}, func(s *session) {
			d := s.open()
			s.abandon(d, written)
			if got := s.text(d.Read(s.ctx, 7)); got != "next" {
				s.Errorf("then %q", got)
			}
		})
	}
	huge := fmt.Sprintf("S: * 1 FETCH (UID 7 BODY[] {%d}\nS*: 100000 x\nW:\n", drainLimit+200_000)
	play(t, "long", opened+retr+huge, Options{}, func(s *session) {
		d := s.open()
		s.abandon(d, 1)
		_, err := d.Read(s.ctx, 7)
		s.fails(err, temp)
	})
	play(t, "upstream silent", opened+retr+"S: * 1 FETCH (UID 7 BODY[] {100}\nS+: x\nW:\n", Options{}, func(s *session) {
		d := s.open()
		s.abandon(d, 1)
		_, err := d.Read(s.ctx, 7)
		s.fails(err, temp)
	})
}

var errFull = errors.New("full")

// fullWriter accepts n writes, then fails.
type fullWriter struct{ n int }

func (w *fullWriter) Write(p []byte) (int, error) {
	if w.n--; w.n < 0 {
		return 0, errFull
	}
	return len(p), nil
}

// abandon reads n pieces of message 7 and closes it; with 0 it reads nothing.
func (s *session) abandon(d proxy.Maildrop, n int) {
	s.Helper()
	body, err := d.Read(s.ctx, 7)
	if err != nil {
		s.Fatal(err)
	}
	if n > 0 {
		if _, err := body.WriteTo(&fullWriter{n - 1}); err != errFull {
			s.Errorf("WriteTo: %v, want the writer's error", err)
		}
	}
	body.Close()
}

// P-SESS-9: a cancelled context ends the reading. With a context that is
// cancelled before the call, nothing is sent and the connection stays.
func TestReadCancelled(t *testing.T) {
	play(t, "P-SESS-9 before", opened+bye, Options{}, func(s *session) {
		d := s.open()
		ctx, cancel := context.WithCancel(s.ctx)
		cancel()
		_, err := d.Read(ctx, 7)
		s.fails(err, temp)
		_, err = d.Top(ctx, 7, 1)
		s.fails(err, temp)
		s.fails(d.Update(ctx, []uint64{7}), temp)
	})
	play(t, "P-SESS-9 in the body", opened+retr+"S: * 1 FETCH (UID 7 BODY[] {9}\nS+: hello\nW:\n", Options{}, func(s *session) {
		d := s.open()
		ctx, cancel := context.WithTimeout(s.ctx, time.Second)
		defer cancel()
		s.ctx = ctx
		s.broken(d, "hello", temp)
	})
}

// P-RETR-7: wherever the upstream's answer is cut, a message counts as whole
// only if it is.
func TestReadCutAnywhere(t *testing.T) {
	const whole = "hello (UID 9)\r\n)\r\n"
	for name, answer := range map[string]string{
		"UID before": "S: * 1 FETCH (UID 7 BODY[] {18}\nS: hello (UID 9)\nS: )\nS: )\nS: <r> OK x\nW: stall\n",
		"UID after":  "S: * 1 FETCH (BODY[] {18}\nS: hello (UID 9)\nS: )\nS:  UID 7)\nS: <r> OK x\nW: stall\n",
	} {
		for cut := 0; ; cut++ {
			done := false
			t.Run(fmt.Sprintf("%s/%d", name, cut), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) { done = readCut(t, opened+retr+answer, cut, whole) })
			})
			if done {
				break
			}
		}
	}
}

// readCut reads message 7 from an upstream whose answer is cut after cut
// octets, and reports whether the answer was shorter.
func readCut(t *testing.T, script string, cut int, whole string) bool {
	up := imapscript.New(t, script)
	b := backend(t, Options{})
	b.dial = up.Dial
	conns := cuttable(b)
	d := openMaildrop(t, b)
	defer d.Close()
	conns.last.left = cut
	body, err := d.Read(t.Context(), 7)
	if err != nil {
		if errors.Is(err, proxy.ErrGone) {
			t.Errorf("after a loss the message counts as gone: %v", err)
		}
		return false
	}
	var got bytes.Buffer
	_, err = body.WriteTo(&got)
	body.Close()
	if err == nil && got.String() != whole || !strings.HasPrefix(whole, got.String()) {
		t.Errorf("%q counts as whole", got.String())
	}
	return err == nil && conns.last.left > 0
}
