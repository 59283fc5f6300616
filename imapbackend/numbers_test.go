package imapbackend

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"popgate/imapbackend/imapmodel"
)

// wide replaces the UIDVALIDITY of a script.
func wide(script, uidValidity string) string {
	return strings.ReplaceAll(script, "UIDVALIDITY 9]", "UIDVALIDITY "+uidValidity+"]")
}

// I-CONN-3, P-GRAM-10, I-UIDL-1: UIDVALIDITY is kept as sent, up to 64 bits.
// UIDNEXT is compared as sent, and counts as not given if it is no number of 64
// bits.
func TestNumbers(t *testing.T) {
	const late = "S: * 4 EXISTS\nS: * 4 FETCH (UID 10 RFC822.SIZE 1)\n"
	next := func(args string) string { return listingOf3("S: * OK [UIDNEXT"+args+"] x\n") + found + three }
	for _, tt := range []struct{ name, script, want, ids string }{
		{"UIDVALIDITY of 33 bits", wide(next(" 10"), "4294967296"), "5/50 6/60 9/90", "4294967296.5 4294967296.6 4294967296.9"},
		{"UIDVALIDITY of 64 bits", wide(next(" 10"), "18446744073709551615"), "5/50 6/60 9/90",
			"18446744073709551615.5 18446744073709551615.6 18446744073709551615.9"},
		{"UIDNEXT above 32 bits", next(" 4294967296") + late, "5/50 6/60 9/90 10/1", "9.5 9.6 9.9 9.10"},
		{"UIDNEXT of 64 bits", next(" 18446744073709551615"), "5/50 6/60 9/90", "9.5 9.6 9.9"},
		{"UIDNEXT above 64 bits", next(" 18446744073709551616") + late, "5/50 6/60 9/90 10/1", "9.5 9.6 9.9 9.10"},
		{"UIDNEXT 0", next(" 0") + late, "5/50 6/60 9/90 10/1", "9.5 9.6 9.9 9.10"},
		{"UIDNEXT is a word", next(" soon") + late, "5/50 6/60 9/90 10/1", "9.5 9.6 9.9 9.10"},
		{"UIDNEXT is negative", next(" -1"), "5/50 6/60 9/90", "9.5 9.6 9.9"},
		{"UIDNEXT without a number", next(""), "5/50 6/60 9/90", "9.5 9.6 9.9"},
	} {
		script := tt.script + "S: <f> OK x\n"
		if strings.HasPrefix(tt.name, "UIDNEXT above 32") { // the count does not agree with EXISTS of SELECT
			script += "C: <n> NOOP\nS: <n> OK x\nC: <q> UID SEARCH ALL\nS: * SEARCH 5 6 9 10\nS: <q> OK x\n"
		}
		play(t, tt.name, script+bye, Options{}, func(s *session) {
			d := s.open()
			if got := show(d); got != tt.want {
				s.Errorf("snapshot %s, want %s", got, tt.want)
			}
			if got := s.ids(d); got != tt.ids {
				s.Errorf("unique-ids %s, want %s", got, tt.ids)
			}
		})
	}
}

// I-CONN-3: a UIDVALIDITY that is no number of 64 bits, and a UID above 64 bits,
// fail the login; the log says which.
func TestNumbersRefused(t *testing.T) {
	lost := "W:\n"
	for _, tt := range []struct{ name, script, cause string }{
		{"UIDVALIDITY above 64 bits", wide(selected, "18446744073709551616") + lost, `UIDVALIDITY "18446744073709551616" is not a number of 64 bits`},
		{"UIDVALIDITY is a word", wide(selected, "zebra") + lost, `UIDVALIDITY "zebra" is not a number of 64 bits`},
		{"UIDVALIDITY is negative", wide(selected, "-1") + lost, `UIDVALIDITY "-1" is not a number of 64 bits`},
		{"UIDVALIDITY without a number", strings.Replace(selected, "UIDVALIDITY 9]", "UIDVALIDITY]", 1) + lost, `UIDVALIDITY "" is not a number of 64 bits`},
		{"UIDVALIDITY, announced later", selected + "S: * OK [UIDVALIDITY 99999999999999999999] x\n" + lost, "is not a number of 64 bits"},
		{"UID above 64 bits", selected + "S: * 1 FETCH (UID 18446744073709551617 RFC822.SIZE 100)\n" + lost, "UID above 64 bits"},
		{"UID above 64 bits by SEARCH", selected + "S: * SEARCH 18446744073709551616\n" + lost, "UID above 64 bits"},
		{"UID above 64 bits by ESEARCH", selected + "S: * ESEARCH (TAG \"<d>\") UID ALL 7:99999999999999999999\n" + lost, "UID above 64 bits"},
	} {
		play(t, tt.name, tt.script, Options{}, func(s *session) {
			if e := s.fails(s.openFails(), perm); !strings.Contains(e.Error(), tt.cause) {
				s.Errorf("cause %q, want %q", e.Error(), tt.cause)
			}
		})
	}
}

// I-UIDV-1: two values of UIDVALIDITY above 32 bits are two mailboxes: after a
// reconnect into the other one nothing is read or removed.
func TestReconnectWideUIDValidity(t *testing.T) {
	script := wide(opened, "1700000000001") + "X:\n" + another
	play(t, "another", script+wide(reselected, "1800000000002")+bye, Options{}, func(s *session) {
		d := s.open()
		if e := s.fails(d.Update(s.ctx, []uint64{7}), temp); e.Text != textRebuilt {
			s.Errorf("%q", e.Text)
		}
	})
	play(t, "the same", script+wide(reselected, "1700000000001")+removing("7")+bye, Options{}, func(s *session) {
		if err := s.open().Update(s.ctx, []uint64{7}); err != nil {
			s.Error(err)
		}
	})
	play(t, "above 64 bits at the reconnect", script+wide(reselected[:strings.Index(reselected, "S: * OK [UIDNEXT")], "18446744073709551616")+"W:\n", Options{},
		func(s *session) { s.fails(s.open().Update(s.ctx, []uint64{7}), perm) })
}

// I-UIDV-3, I-SNAP-7: between two sessions a change of a UIDVALIDITY above 32
// bits is noticed: the messages that follow have other unique-ids and their own
// sizes, though UIDNEXT and EXISTS are the same.
func TestRebuiltWideBetween(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel()
		m.Inbox().SetUIDValidity(1_700_000_000_000)
		m.add("one")
		m.add("three")
		b := m.backend(t, Options{})
		for _, want := range []string{"1/3 2/5 1700000000000.1 1700000000000.2", "1/5 2/3 1700000000100.1 1700000000100.2"} {
			d := openMaildrop(t, b)
			if got := show(d) + " " + (&session{T: t}).ids(d); got != want {
				t.Errorf("%s, want %s", got, want)
			}
			d.Close()
			synctest.Wait()
			m.Inbox().Rebuild()
		}
	})
}

// I-SNAP-1, I-SNAP-7: where UIDNEXT is not above all UIDs, no message that EXISTS
// counts is hidden, and no session believes a listing of an earlier one.
func TestUIDNextTooSmall(t *testing.T) {
	for name, next := range map[string]string{"the highest UID": "9", "among the UIDs": "6", "below all UIDs": "1"} {
		list := func(uidNext, after string) string {
			return listingOf3("S: * OK [UIDNEXT "+uidNext+"] x\n") + found + three + after + "S: <f> OK x\n"
		}
		play(t, name, list(next, "")+bye+another+list(next, "S: * 4 EXISTS\nS: * 4 FETCH (UID 10 RFC822.SIZE 1)\n")+bye, Options{}, func(s *session) {
			for range 2 {
				d := s.open()
				if got := show(d); got != "5/50 6/60 9/90" {
					s.Errorf("snapshot %s", got)
				}
				d.Close()
			}
		})
	}
	backwards := strings.ReplaceAll(listingOf3("S: * OK [UIDNEXT 7] x\n"), "1:*", "10:*") + found + "S: * 3 FETCH (UID 9 RFC822.SIZE 90)\nS: <f> OK x\n" +
		"C: <g> UID FETCH 1:* (UID RFC822.SIZE)\n" + three + "S: <g> OK x\n"
	cold := listingOf3(uidNext) + found + three + "S: <f> OK x\n"
	play(t, "going backwards", cold+bye+another+backwards+bye+"-- connection 3 --\n"+cold+bye, Options{}, func(s *session) {
		for range 3 {
			d := s.open()
			if got := show(d); got != "5/50 6/60 9/90" {
				s.Errorf("snapshot %s", got)
			}
			d.Close()
		}
	})
}

// I-SNAP-1, I-SNAP-7: where SELECT is answered without EXISTS, a listing is complete
// only if a search says so, and none is remembered: no session hides a message.
func TestNoExists(t *testing.T) {
	flight := strings.Replace(listingOf3(uidNext), "S: * 3 EXISTS\n", "", 1) + found
	all := allOf + "S: * SEARCH 5 6 9\nS: <q> OK x\n"
	rest := func(result, fetched string) string {
		return allOf + "S: * SEARCH " + result + "\nS: <q> OK x\nC: <m> UID FETCH 9 (UID RFC822.SIZE)\n" + fetched + "S: <m> OK x\n"
	}
	const two = "S: * 1 FETCH (UID 5 RFC822.SIZE 50)\nS: * 2 FETCH (UID 6 RFC822.SIZE 60)\n"
	for _, tt := range []struct{ name, script, want string }{
		{"listed", flight + three + "S: <f> OK x\n" + all, "5/50 6/60 9/90"},
		{"one is not listed", flight + two + "S: <f> OK x\n" + rest("5 6 9", "S: * 3 FETCH (UID 9 RFC822.SIZE 90)\n"), "5/50 6/60 9/90"},
		{"EXISTS comes late", flight + "S: * 3 EXISTS\n" + three + "S: <f> OK x\n" + all, "5/50 6/60 9/90"},
		{"UIDNEXT is too small", strings.Replace(flight, "UIDNEXT 10", "UIDNEXT 6", 1) + three + "S: <f> OK x\n" + all, "5/50 6/60 9/90"},
		{"empty", flight + "S: <f> OK x\n" + allOf + "S: * SEARCH\nS: <q> OK x\n", ""},
		{"empty, the listing is refused", flight + "S: <f> NO x\n" + allOf + "S: * SEARCH\nS: <q> OK x\n", ""},
		{"the listing is refused", flight + "S: <f> NO x\n" + rest("9", "S: * 3 FETCH (UID 9 RFC822.SIZE 90)\n"), "9/90"},
	} {
		play(t, tt.name, tt.script+bye+another+tt.script+bye, Options{}, func(s *session) {
			for range 2 {
				d := s.open()
				if got := show(d); got != tt.want {
					s.Errorf("snapshot %s, want %s", got, tt.want)
				}
				d.Close()
			}
		})
	}
	// A listing that an earlier session has remembered proves nothing then.
	warm := strings.ReplaceAll(flight, "1:*", "10:*") + "S: * 3 FETCH (UID 9 RFC822.SIZE 90)\nS: <f> OK x\n"
	before := listingOf3(uidNext) + found + three + "S: <f> OK x\n" + bye + another
	play(t, "remembered", before+warm+"C: <g> UID FETCH 1:* (UID RFC822.SIZE)\n"+three+"S: <g> OK x\n"+all+bye, Options{}, func(s *session) {
		s.open().Close()
		if got := show(s.open()); got != "5/50 6/60 9/90" {
			s.Errorf("snapshot %s", got)
		}
	})
	play(t, "remembered, the listing is refused", before+warm+"C: <g> UID FETCH 1:* (UID RFC822.SIZE)\nS: <g> NO zebra\n"+allOf+
		"S: * SEARCH 5\nS: <q> OK x\nC: <m> UID FETCH 5 (UID RFC822.SIZE)\nS: <m> BAD zebra\n"+bye, Options{}, func(s *session) {
		s.open().Close()
		s.fails(s.openFails(), perm)
	})
}

// I-SNAP-7: a remembered UIDNEXT above 32 bits is compared as it is. It does not go
// into a command where all UIDs have 32 bits: the upstream may refuse it.
func TestWarmWideUIDNext(t *testing.T) {
	cold := listingOf3("S: * OK [UIDNEXT 4294967300] x\n") + found + three + "S: <f> OK x\n"
	warm := func(uidNext string) string {
		return strings.ReplaceAll(listingOf3("S: * OK [UIDNEXT "+uidNext+"] x\n"), "1:*", "10:*") + found +
			"S: * 3 FETCH (UID 9 RFC822.SIZE 90)\nS: <f> OK x\n"
	}
	play(t, "the same", cold+bye+another+warm("4294967300")+bye, Options{}, func(s *session) {
		for range 2 {
			d := s.open()
			if got := show(d); got != "5/50 6/60 9/90" {
				s.Errorf("snapshot %s", got)
			}
			d.Close()
		}
	})
	smaller := warm("4294967299") + "C: <g> UID FETCH 1:* (UID RFC822.SIZE)\n" + three + "S: <g> OK x\n"
	play(t, "smaller", cold+bye+another+smaller+bye, Options{}, func(s *session) {
		s.open().Close()
		if got := show(s.open()); got != "5/50 6/60 9/90" {
			s.Errorf("snapshot %s", got)
		}
	})
}

// wideMailbox is the beginning of a script up to a snapshot of three messages with
// UIDs up to the largest one.
const wideMailbox = selecting + "S: * 3 EXISTS\nS: * OK [UIDVALIDITY 9] x\nS: * OK [UIDNEXT 18446744073709551615] x\nS: <s> OK [READ-WRITE] x\n" +
	found + "S: * 1 FETCH (UID 7 RFC822.SIZE 7)\nS: * 2 FETCH (UID 4294967303 RFC822.SIZE 7)\n" +
	"S: * 3 FETCH (UID 18446744073709551614 RFC822.SIZE 7)\nS: <f> OK x\n"

// P-GRAM-10, I-CONN-3, I-UIDL-1, I-DEL-3: a UID above 32 bits is the one that is
// read, listed and removed, and not the one with the same lower 32 bits.
func TestWideUIDs(t *testing.T) {
	const retr = "C: <r> UID FETCH 4294967303 (UID BODY.PEEK[])\n" +
		"S: * 1 FETCH (UID 7 BODY[] {7}\nS: wrong\nS: )\nS: * 2 FETCH (UID 4294967303 BODY[] {7}\nS: right\nS: )\nS: <r> OK x\n"
	again := strings.ReplaceAll(wideMailbox[:strings.Index(wideMailbox, "S: * SEARCH")], "1:*", "18446744073709551615:*") + found +
		"S: * 3 FETCH (UID 18446744073709551614 RFC822.SIZE 7)\nS: <f> OK x\n"
	play(t, "read and remove", wideMailbox+retr+removing("4294967303,18446744073709551614")+bye, Options{}, func(s *session) {
		d := s.open()
		if got, want := s.ids(d), "9.7 9.4294967303 9.18446744073709551614"; got != want {
			s.Errorf("unique-ids %s, want %s", got, want)
		}
		if got := s.text(d.Read(s.ctx, 4294967303)); got != "right\r\n" {
			s.Errorf("%q", got)
		}
		if err := d.Update(s.ctx, []uint64{4294967303, 18446744073709551614}); err != nil {
			s.Error(err)
		}
	})
	play(t, "the next session", wideMailbox+bye+another+again+bye, Options{}, func(s *session) {
		for range 2 {
			d := s.open()
			if got := show(d); got != "7/7 4294967303/7 18446744073709551614/7" {
				s.Errorf("snapshot %s", got)
			}
			d.Close()
		}
	})
	largest := strings.ReplaceAll(wideMailbox, "551614", "551615")
	play(t, "the largest UID", largest+bye+another+largest+bye, Options{}, func(s *session) {
		for range 2 { // UIDNEXT cannot be above it: nothing is remembered
			d := s.open()
			if got := show(d); got != "7/7 4294967303/7 18446744073709551615/7" {
				s.Errorf("snapshot %s", got)
			}
			d.Close()
		}
	})
	play(t, "UIDFETCH", wideMailbox+strings.NewReplacer("1 FETCH (UID 7 ", "7 UIDFETCH (", "2 FETCH (UID 4294967303 ", "4294967303 UIDFETCH (").Replace(retr)+bye,
		Options{}, func(s *session) {
			if got := s.text(s.open().Read(s.ctx, 4294967303)); got != "right\r\n" {
				s.Errorf("%q", got)
			}
		})
}

// P-GRAM-10, I-UIDL-1, I-DEL-1, I-CONC-4: sessions with a mailbox whose UIDs pass 32
// bits list, read, reconnect, remember, and remove exactly what is marked.
func TestWideUIDSessions(t *testing.T) {
	inEachForm(t, "sessions", func(t *testing.T, m *model) {
		m.Inbox().SetUIDNext(1<<32 - 2)
		for i := range 6 {
			m.add(mail(i, 200+i))
		}
		b := m.backend(t, Options{})
		conns := cuttable(b)
		for range 2 {
			m.add(mail(len(m.messages()), 100))
			d, before := openMaildrop(t, b), m.messages()
			if n := len(d.Messages()); n != len(before) {
				t.Fatalf("%d messages, want %d", n, len(before))
			}
			check := func(got, want string) {
				t.Helper()
				if got != want {
					t.Errorf("%q, want %q", got, want)
				}
			}
			last := before[len(before)-1]
			for _, msg := range before[:3] {
				check(read(t, d, msg.UID), msg.Body)
			}
			conns.last.cut()
			check(read(t, d, last.UID), last.Body)
			check(text(t)(d.Top(t.Context(), last.UID, 100)), last.Body)
			conns.last.cut()
			if err := d.Update(t.Context(), []uint64{before[1].UID, before[3].UID}); err != nil {
				t.Error(err)
			}
			d.Close()
			synctest.Wait()
			want := slices.Concat(before[:1], before[2:3], before[4:])
			if !slices.EqualFunc(m.messages(), want, func(a, b imapmodel.Message) bool { return a.UID == b.UID && !a.Deleted() }) {
				t.Errorf("left are %v, want %v", m.messages(), want)
			}
		}
	})
}

// I-CONN-3: a message that is reported with UID 0 is skipped and logged, in a
// listing and in the results of SEARCH; the others are served.
func TestUIDZero(t *testing.T) {
	const two = "S: * 1 FETCH (UID 0 RFC822.SIZE 40)\nS: * 2 FETCH (UID 6 RFC822.SIZE 60)\nS: * 3 FETCH (UID 9 RFC822.SIZE 90)\nS: <f> OK x\n"
	all := func(result string) string { return allOf + "S: * SEARCH " + result + "\nS: <q> OK x\n" }
	for _, tt := range []struct{ name, listing, want string }{
		{"listing", found + two + all("6 9"), "6/60 9/90"},
		{"listing and SEARCH ALL", found + two + all("0 6 9"), "6/60 9/90"},
		{"size first", found + strings.Replace(two, "UID 0 RFC822.SIZE 40", "RFC822.SIZE 40 UID 0", 1) + all("0 6 9"), "6/60 9/90"},
		{"in two responses", found + strings.Replace(two, "UID 0 RFC822.SIZE 40)", "UID 0)\nS: * 1 FETCH (RFC822.SIZE 40)", 1) + all("0 6 9"), "6/60 9/90"},
		{"UIDFETCH", found + strings.Replace(two, "1 FETCH (UID 0 ", "0 UIDFETCH (", 1) + all("0 6 9"), "6/60 9/90"},
		{"SEARCH DELETED", "S: * SEARCH 0 6\nS: <d> OK x\n" + three + "S: <f> OK x\n" +
			"C: <c> UID FETCH 6 (UID FLAGS)\nS: * 1 FETCH (UID 6 FLAGS (\\Deleted))\nS: <c> OK x\n", "5/50 9/90"},
		{"ESEARCH DELETED", "S: * ESEARCH (TAG \"<d>\") UID ALL 0:5,0\nS: <d> OK x\n" + three + "S: <f> OK x\n" +
			"C: <c> UID FETCH 5 (UID FLAGS)\nS: * 1 FETCH (UID 5 FLAGS (\\Deleted))\nS: <c> OK x\n", "6/60 9/90"},
	} {
		// A second session lists everything again: EXISTS counts what has
		// no UID, and so proves nothing.
		script := listingOf3(uidNext) + tt.listing + bye
		play(t, tt.name, script+another+script, Options{}, func(s *session) {
			for range 2 {
				d := s.open()
				if got := show(d); got != tt.want {
					s.Errorf("snapshot %s, want %s", got, tt.want)
				}
				d.Close()
			}
			if n := strings.Count(s.log.String(), `level=WARN msg="message with UID 0 is skipped"`); n != 2 {
				s.Errorf("logged %d times in two sessions: %s", n, s.log.String())
			}
		})
	}
}

// I-FETCH-2: the body of a response with UID 0 is not that of the message which
// was requested.
func TestUIDZeroBody(t *testing.T) {
	for name, response := range map[string]string{
		"before the body": "S: * 1 FETCH (UID 0 BODY[] {7}\nS: hello\nS: )\n",
		"quoted":          "S: * 1 FETCH (UID 0 BODY[] \"hello\")\n",
	} {
		play(t, name, opened+retr+response+"S: * 1 FETCH (UID 7 BODY[] \"right\")\nS: <r> OK x\n"+bye, Options{}, func(s *session) {
			if got := s.text(s.open().Read(s.ctx, 7)); got != "right" {
				s.Errorf("%q", got)
			}
		})
	}
	play(t, "after the body", opened+retr+"S: * 1 FETCH (BODY[] {7}\nS: hello\nS:  UID 0)\nS: <r> OK x\n"+bye, Options{}, func(s *session) {
		body, err := s.open().Read(s.ctx, 7)
		if err != nil {
			s.Fatal(err)
		}
		defer body.Close()
		if _, err := body.WriteTo(io.Discard); !errors.Is(err, errOther) {
			s.Errorf("%v", err)
		}
	})
}
