package imapbackend

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"popgate/imapbackend/internal/imapscript"
	"popgate/proxy"
)

// show returns the snapshot as "uid/octets" for each message.
func show(d proxy.Maildrop) string {
	var out []string
	for _, m := range d.Messages() {
		out = append(out, fmt.Sprintf("%d/%d", m.UID, m.Octets))
	}
	return strings.Join(out, " ")
}

// listingOf3 is the beginning of a script up to the answer to SELECT of a
// mailbox of three messages; more is a part of that answer.
func listingOf3(more string) string {
	return selecting + "S: * 3 EXISTS\nS: * OK [UIDVALIDITY 9] x\n" + more + "S: <s> OK x\n"
}

const (
	found   = "S: * SEARCH\nS: <d> OK x\n"
	three   = "S: * 1 FETCH (UID 5 RFC822.SIZE 50)\nS: * 2 FETCH (UID 6 RFC822.SIZE 60)\nS: * 3 FETCH (UID 9 RFC822.SIZE 90)\n"
	flags   = "C: <v> UID FETCH 1:* (UID FLAGS)\n"
	allOf   = "C: <n> NOOP\nS: <n> OK x\nC: <q> UID SEARCH ALL\n"
	uidNext = "S: * OK [UIDNEXT 10] x\n"
	flagged = "S: * 2 FETCH (UID 6 FLAGS (\\Deleted))\nS: * 1 FETCH (UID 5 FLAGS (\\Seen))\nS: * 3 FETCH (UID 9 FLAGS ())\nS: <v> OK x\n"
)

// confirmed is the search for 5 and 6 that SEARCH DELETED has found, and its result.
func confirmed(uids string) string {
	return "C: <c> UID FETCH 5:6 (UID FLAGS)\n" + strings.ReplaceAll(shows("c", uids), "FLAGS ()", `FLAGS (\Deleted)`)
}

// I-SNAP-1, I-SNAP-2, I-SNAP-3, I-SNAP-4, I-CONN-3, I-CONC-2, I-CONC-3, Q9: the
// forms that a listing can have.
func TestSnapshot(t *testing.T) {
	last := "S: * 3 FETCH (UID 9 RFC822.SIZE 90)\n"
	for _, tt := range []struct{ name, script, want string }{
		{"I-SNAP-1 EXISTS 0", selecting + "S: * 0 EXISTS\nS: <s> OK x\nS: <d> OK x\nS: <f> BAD x\n", ""},
		{"I-SNAP-2 plain", listingOf3(uidNext) + found + three + "S: <f> OK x\n", "5/50 6/60 9/90"},
		{"I-SNAP-2 any order", listingOf3(uidNext) + found + "S: * 3 FETCH (RFC822.SIZE 90 UID 9)\nS: * 1 FETCH (UID 5 RFC822.SIZE 50)\n" +
			"S: * 2 FETCH (UID 6 RFC822.SIZE 60)\nS: <f> OK x\n", "5/50 6/60 9/90"},
		{"I-SNAP-2 duplicates merge", listingOf3(uidNext) + found + three + "S: * 1 FETCH (UID 5 RFC822.SIZE 50)\nS: <f> OK x\n", "5/50 6/60 9/90"},
		{"I-SNAP-2 split over responses", listingOf3(uidNext) + "S: * 2 FETCH (UID 6)\nS: * 1 FETCH (RFC822.SIZE 50)\n" + found +
			"S: * 2 FETCH (RFC822.SIZE 60 FLAGS (\\Seen))\nS: * 1 FETCH (UID 5)\nS: * 3 FETCH (UID 9)\nS: * 3 FETCH (FLAGS ())\n" +
			"S: * 3 FETCH (UID 9 RFC822.SIZE 90)\nS: <f> OK x\n", "5/50 6/60 9/90"},
		{"I-CONN-3 data between, answers mixed", listingOf3(uidNext) + "S: * 1 FETCH (FLAGS (a]b) UID 5)\n" + three + "S: * OK hi\nS: <f> OK x\n" +
			"S: * SEARCH 6 \nS: * 1 RECENT\nS: <d> OK x\n" +
			"C: <c> UID FETCH 6 (UID FLAGS)\nS: * 1 FETCH (UID 6 FLAGS (\\Deleted))\nS: <c> OK x\n", "5/50 9/90"},
		{"I-CONN-3 UIDFETCH", listingOf3(uidNext) + found + "S: * 5 UIDFETCH (RFC822.SIZE 50)\nS: * 6 UIDFETCH (UID 6 RFC822.SIZE 60)\n" +
			"S: * 9 UIDFETCH (RFC822.SIZE 90)\nS: <f> OK x\n", "5/50 6/60 9/90"},
		{"P-GRAM-10 sizes of 63 bits", selecting + "S: * 1 EXISTS\nS: * OK [UIDVALIDITY 9] x\nS: <s> OK x\n" + found +
			"S: * 1 FETCH (UID 4294967295 RFC822.SIZE 9223372036854775807)\nS: <f> OK x\n", "4294967295/9223372036854775807"},
		{"I-CONC-3 at or above UIDNEXT", listingOf3(uidNext) + found + three + "S: * 4 EXISTS\nS: * 4 FETCH (UID 10 RFC822.SIZE 1)\nS: <f> OK x\n",
			"5/50 6/60 9/90"},
		{"I-SNAP-1 no UIDNEXT", listingOf3("") + found + three + "S: * 4 EXISTS\nS: * 4 FETCH (UID 10 RFC822.SIZE 1)\nS: <f> OK x\n",
			"5/50 6/60 9/90 10/1"},
		{"I-SNAP-1 a second UIDNEXT does not count", listingOf3(uidNext) + "S: * OK [UIDNEXT 6] x\n" + found + three + "S: <f> OK x\n", "5/50 6/60 9/90"},
		{"I-SNAP-3 deleted hidden", listingOf3(uidNext) + "S: * SEARCH 6 5\nS: <d> OK x\n" + three + "S: <f> OK x\n" + confirmed("5 6"), "9/90"},
		{"I-SNAP-3 deleted hidden, by ESEARCH", listingOf3(uidNext) + "S: * ESEARCH (TAG \"<d>\") UID ALL 1:6\nS: <d> OK x\n" + three + "S: <f> OK x\n" + confirmed("5 6"), "9/90"},
		{"I-SNAP-3 a search that finds messages of other mailboxes", listingOf3(uidNext) + "S: * SEARCH 6 5\nS: <d> OK x\n" + three + "S: <f> OK x\n" +
			confirmed("6"), "5/50 9/90"},
		{"I-SNAP-3 a search that finds everything", listingOf3(uidNext) + "S: * SEARCH 1:4294967295\nS: <d> OK x\n" + three + "S: <f> OK x\n" +
			"C: <c> UID FETCH 5:6,9 (UID FLAGS)\nS: <c> OK x\n", "5/50 6/60 9/90"},
		{"I-SNAP-3 a search that finds what is not there", listingOf3(uidNext) + "S: * SEARCH 4 5 6\nS: <d> OK x\n" + three + "S: <f> OK x\n" + flags +
			"S: * 1 FETCH (UID 5 FLAGS ())\nS: * 2 FETCH (FLAGS (\\Seen \\deleted) UID 6)\nS: * 3 FETCH (FLAGS (\\Deleted))\nS: <v> OK x\n", "5/50 9/90"},
		{"I-SNAP-3 search finds what has arrived since", listingOf3(uidNext) + "S: * SEARCH 10\nS: <d> OK x\n" + three + "S: <f> OK x\n", "5/50 6/60 9/90"},
		{"I-SNAP-3 search NO", listingOf3(uidNext) + "S: <d> NO zebra\n" + three + "S: <f> OK x\n" + flags + flagged, "5/50 9/90"},
		{"I-SNAP-3 search BAD", listingOf3(uidNext) + three + "S: <f> OK x\nS: <d> BAD zebra\n" + flags + flagged, "5/50 9/90"},
		{"I-SNAP-3 search not answered", listingOf3(uidNext) + three + "S: <f> OK x\nS: <d> OK x\n" + flags + flagged, "5/50 9/90"},
		{"I-SNAP-3 ESEARCH for another command", listingOf3(uidNext) + "S: * ESEARCH (TAG \"zebra\") UID ALL 6\nS: <d> OK x\n" + three + "S: <f> OK x\n" +
			flags + "S: <v> OK x\n", "5/50 6/60 9/90"},
		{"I-SNAP-3 COUNT only, then FETCH", listingOf3(uidNext) + "S: * ESEARCH (TAG \"<d>\") UID COUNT 1\nS: <d> OK x\n" + three + "S: <f> OK x\n" +
			flags + flagged, "5/50 9/90"},
		{"I-SNAP-3 COUNT 0", listingOf3(uidNext) + "S: * ESEARCH (TAG \"<d>\") UID COUNT 0\nS: <d> OK x\n" + three + "S: <f> OK x\n", "5/50 6/60 9/90"},
		{"I-SNAP-4 one missing, then found", listingOf3(uidNext) + found +
			"S: * 1 FETCH (UID 5 RFC822.SIZE 50)\nS: * 3 FETCH (UID 9 RFC822.SIZE 90)\nS: <f> OK x\n" + allOf + "S: * SEARCH 5 6 9\nS: <q> OK x\n" +
			"C: <g> UID FETCH 6 (UID RFC822.SIZE)\nS: * 2 FETCH (UID 6 RFC822.SIZE 60)\nS: <g> OK x\n", "5/50 6/60 9/90"},
		{"I-SNAP-4 one missing, expunged in between", listingOf3(uidNext) + found +
			"S: * 1 FETCH (UID 5 RFC822.SIZE 50)\nS: * 3 FETCH (UID 9 RFC822.SIZE 90)\nS: <f> OK x\n" +
			"C: <n> NOOP\nS: * 2 EXPUNGE\nS: <n> OK x\nC: <q> UID SEARCH ALL\nS: * SEARCH 5 9\nS: <q> OK x\n", "5/50 9/90"},
		{"I-SNAP-4 sizes missing, then expunged", listingOf3(uidNext) + found +
			"S: * 1 FETCH (UID 5 RFC822.SIZE NIL)\nS: * 2 FETCH (UID 6)\nS: * 3 FETCH (UID 9 RFC822.SIZE 90)\nS: <f> OK x\n" +
			allOf + "S: * SEARCH 5 6 9\nS: <q> OK x\n" +
			"C: <g> UID FETCH 5:6 (UID RFC822.SIZE)\nS: * 1 FETCH (UID 5 RFC822.SIZE 50)\nS: <g> NO gone\n" +
			"C: <r> UID FETCH 6 (UID)\nS: <r> OK x\n", "5/50 9/90"},
		{"I-SNAP-4 all missing, then found", listingOf3(uidNext) + found + "S: <f> OK x\n" + allOf + "S: * SEARCH 5 6 9\nS: <q> OK x\n" +
			"C: <g> UID FETCH 5:6,9 (UID RFC822.SIZE)\n" + three + "S: <g> OK x\n", "5/50 6/60 9/90"},
		{"I-SNAP-4 expunge hides a loss", listingOf3(uidNext) + found + "S: * 1 FETCH (UID 5 RFC822.SIZE 50)\nS: * 2 FETCH (UID 6 RFC822.SIZE 60)\n" +
			"S: * 1 EXPUNGE\nS: <f> OK x\n" + allOf + "S: * SEARCH 6 9\nS: <q> OK x\n" +
			"C: <g> UID FETCH 9 (UID RFC822.SIZE)\nS: * 2 FETCH (UID 9 RFC822.SIZE 90)\nS: <g> OK x\n", "5/50 6/60 9/90"},
		{"I-CONC-2 expunge between UID and size", listingOf3(uidNext) + found + "S: * 2 FETCH (UID 6)\nS: * 1 EXPUNGE\n" +
			"S: * 2 FETCH (RFC822.SIZE 90)\nS: * 2 FETCH (UID 9)\nS: * 1 FETCH (UID 6 RFC822.SIZE 60)\nS: <f> OK x\n" +
			allOf + "S: * SEARCH 6 9\nS: <q> OK x\n", "6/60 9/90"},
		{"I-SNAP-4 an EXPUNGE that comes late explains it", listingOf3(uidNext) + found + last + "S: <f> OK x\n" + allOf + "S: * SEARCH 9\nS: <q> OK x\n" +
			"C: <m> NOOP\nS: * 1 EXPUNGE\nS: * 1 EXPUNGE\nS: <m> OK x\n", "9/90"},
		{"I-SNAP-4 VANISHED explains it", listingOf3(uidNext) + found + last + "S: * VANISHED 5:6\nS: <f> OK x\n" + allOf + "S: * SEARCH 9\nS: <q> OK x\n", "9/90"},
		{"I-SNAP-4 a lower EXISTS explains it", listingOf3(uidNext) + found + last + "S: * 1 EXISTS\nS: <f> OK x\n", "9/90"},
		{"I-SNAP-4 UID 0 explains it", listingOf3(uidNext) + found + last + "S: * 1 FETCH (UID 0 RFC822.SIZE 5)\nS: * 2 FETCH (UID 0)\nS: <f> OK x\n" +
			allOf + "S: * SEARCH 9\nS: <q> OK x\n", "9/90"},
		{"I-SNAP-4 UID 0, and an EXPUNGE", listingOf3(uidNext) + found + "S: * 3 FETCH (UID 9 RFC822.SIZE 90)\nS: * 1 FETCH (UID 0 RFC822.SIZE 5)\nS: * 2 EXPUNGE\nS: <f> OK x\n" +
			allOf + "S: * SEARCH 9\nS: <q> OK x\n", "9/90"},
		{"I-SNAP-1 emptied in between, NO", listingOf3(uidNext) + "S: * 1 EXPUNGE\nS: * 1 EXPUNGE\nS: * 1 EXPUNGE\n" + found + "S: <f> NO empty\n" +
			allOf + "S: * SEARCH\nS: <q> OK x\n", ""},
		{"I-SNAP-1 emptied in between, BAD", listingOf3(uidNext) + "S: * 0 EXISTS\nS: <d> BAD x\nS: <f> BAD empty\n", ""},
		{"I-SNAP-1 emptied in between, OK", listingOf3(uidNext) + found + "S: * 0 EXISTS\nS: <f> OK x\n", ""},
	} {
		play(t, tt.name, tt.script+bye, Options{}, func(s *session) {
			if got := show(s.open()); got != tt.want {
				s.Errorf("snapshot %s, want %s", got, tt.want)
			}
		})
	}
	play(t, "I-SNAP-3 deleted shown", listingOf3(uidNext)+"S: * SEARCH 6\nS: <d> OK x\n"+three+"S: <f> OK x\n"+
		"C: <c> UID FETCH 6 (UID FLAGS)\nS: * 1 FETCH (UID 6 FLAGS (\\Deleted))\nS: <c> OK x\n"+bye,
		Options{ShowDeleted: true, WithoutUIDPLUS: Refuse}, func(s *session) {
			if got := show(s.open()); got != "5/50 6/60 9/90" {
				s.Errorf("snapshot %s", got)
			}
		})
}

// I-SNAP-4, I-SNAP-5: the login fails if the listing is incomplete.
func TestSnapshotRefused(t *testing.T) {
	two := "S: * 1 FETCH (UID 5 RFC822.SIZE 50)\nS: * 3 FETCH (UID 9 RFC822.SIZE 90)\n"
	one, noop := "S: * 1 FETCH (UID 5 RFC822.SIZE 50)\n", "C: <m> NOOP\nS: <m> OK x\n"
	for _, tt := range []struct {
		name, script string
		want         proxy.Code
	}{
		{"I-SNAP-5 NO", listingOf3("") + found + three + "S: <f> NO zebra\n" + bye, temp},
		{"I-SNAP-5 BAD", listingOf3("") + found + three + "S: <f> BAD zebra\nC: <g> UID FETCH 1:* (UID RFC822.SIZE)\nS: <g> BAD zebra\n" + bye, perm},
		{"I-SNAP-5 search NO", listingOf3("") + three + "S: <f> OK x\nS: <d> NO zebra\n" + flags + "S: <v> BAD zebra\n" + bye, temp},
		{"I-SNAP-5 lost in between", listingOf3("") + found + two + "X:\n", temp},
		{"I-SNAP-4 size never given", listingOf3("") + found + two + "S: <f> OK x\n" + allOf + "S: * SEARCH 5 6 9\nS: <q> OK x\n" +
			"C: <g> UID FETCH 6 (UID RFC822.SIZE)\nS: <g> OK x\nC: <r> UID FETCH 6 (UID)\nS: * 1 FETCH (UID 6)\nS: <r> OK x\n" + bye, temp},
		{"I-SNAP-4 search of all refused", listingOf3("") + found + two + "S: <f> OK x\n" + allOf + "S: <q> NO zebra\n" +
			"C: <v> UID FETCH 1:* (UID)\nS: <v> NO zebra\n" + bye, temp},
		{"I-SNAP-4 repeat BAD", listingOf3("") + found + two + "S: <f> OK x\n" + allOf + "S: * SEARCH 6\nS: <q> OK x\n" +
			"C: <g> UID FETCH 6 (UID RFC822.SIZE)\nS: <g> BAD zebra\n" + bye, perm},
		{"I-SNAP-4 one of three", listingOf3(uidNext) + found + one + "S: <f> OK x\n" + allOf + "S: * SEARCH 5\nS: <q> OK x\n" + noop + bye, temp},
		{"I-SNAP-4 one of three, and none found", listingOf3("") + found + one + "S: <f> OK x\n" + allOf + "S: * SEARCH\nS: <q> OK x\n" + noop + bye, temp},
		{"I-SNAP-4 one UID for all", listingOf3(uidNext) + found + "S: * 1 FETCH (UID 5 RFC822.SIZE 50)\nS: * 2 FETCH (UID 5 RFC822.SIZE 50)\n" +
			"S: * 3 FETCH (UID 5 RFC822.SIZE 50)\nS: <f> OK x\n" + allOf + "S: * SEARCH 5\nS: <q> OK x\n" + noop + bye, temp},
		{"I-SNAP-4 new messages do not make up for it", listingOf3(uidNext) + found + one + "S: * 5 EXISTS\nS: * 4 FETCH (UID 10 RFC822.SIZE 1)\n" +
			"S: * 5 FETCH (UID 11 RFC822.SIZE 1)\nS: <f> OK x\n" + allOf + "S: * SEARCH 5 10 11\nS: <q> OK x\n" + noop + bye, temp},
		{"I-SNAP-4 one EXPUNGE, two missing", listingOf3(uidNext) + found + one + "S: * 3 EXPUNGE\nS: <f> OK x\n" + allOf + "S: * SEARCH 5\nS: <q> OK x\n" + noop + bye, temp},
		{"I-SNAP-4 one UID 0, two missing", listingOf3(uidNext) + found + one + strings.Repeat("S: * 2 FETCH (UID 0 RFC822.SIZE 50)\n", 2) + "S: <f> OK x\n" +
			allOf + "S: * SEARCH 5\nS: <q> OK x\n" + noop + bye, temp},
		{"I-SNAP-4 lost in NOOP", listingOf3("") + found + two + "S: <f> OK x\nC: <n> NOOP\nX:\n", temp},
		{"I-CONN-3 an impossible search result", listingOf3("") + found + two + "S: <f> OK x\n" + allOf + "S: * SEARCH 1:4294967295\nS: <q> OK x\n" + bye, perm},
		{"I-CONN-3 not FETCH data", listingOf3("") + "S: * 1 FETCH UID 5\nW:\n", perm},
		{"I-CONN-3 UID above 64 bits", listingOf3("") + "S: * 1 FETCH (UID 18446744073709551616 RFC822.SIZE 1)\nW:\n", perm},
		{"I-CONN-3 size above 63 bits", listingOf3("") + "S: * 1 FETCH (UID 1 RFC822.SIZE 9223372036854775808)\nW:\n", perm},
	} {
		play(t, tt.name, tt.script, Options{}, func(s *session) { s.fails(s.openFails(), tt.want) })
	}
}

// I-SNAP-7: where the counts do not prove a remembered listing, everything is
// listed again. In each case one count alone shows it.
func TestSnapshotDoubtful(t *testing.T) {
	first := listingOf3(uidNext) + found + three + "S: <f> OK x\n" + bye + another
	second := strings.Replace(selecting, "1:*", "10:*", 1) + "S: * 4 EXISTS\nS: * OK [UIDVALIDITY 9] x\nS: * OK [UIDNEXT 12] x\nS: <s> OK x\n" + found
	for _, tt := range []struct{ name, answer, rest, want string }{
		{"a message that FETCH has left out", "S: <f> OK x\nC: <q> UID SEARCH ALL\nS: * SEARCH 5 6 9 11\nS: <q> OK x\n",
			three + "S: * 4 FETCH (UID 11 RFC822.SIZE 110)\n", "5/50 6/60 9/90 11/110"},
		{"messages that SEARCH has left out", "S: * 5 EXISTS\nS: <f> OK x\nC: <q> UID SEARCH ALL\nS: * SEARCH 5 6 12 13 14\nS: <q> OK x\n",
			three + "S: * 4 FETCH (UID 11 RFC822.SIZE 110)\nS: * 5 FETCH (UID 12 RFC822.SIZE 1)\n", "5/50 6/60 9/90 11/110"},
		{"a new message that SEARCH has left out", "S: * 4 FETCH (UID 11 RFC822.SIZE 110)\nS: * 1 EXPUNGE\nS: * 4 EXISTS\nS: <f> OK x\n" +
			"C: <q> UID SEARCH ALL\nS: * SEARCH 6 9 11\nS: <q> OK x\n",
			"S: * 1 FETCH (UID 6 RFC822.SIZE 60)\nS: * 2 FETCH (UID 9 RFC822.SIZE 90)\nS: * 3 FETCH (UID 11 RFC822.SIZE 110)\nS: * 4 FETCH (UID 12 RFC822.SIZE 1)\n",
			"6/60 9/90 11/110"},
	} {
		script := first + second + tt.answer + "C: <g> UID FETCH 1:* (UID RFC822.SIZE)\n" + tt.rest + "S: <g> OK x\n" + bye
		play(t, tt.name, script, Options{}, func(s *session) {
			s.open().Close()
			if got := show(s.open()); got != tt.want {
				s.Errorf("snapshot %s, want %s", got, tt.want)
			}
		})
	}
}

// I-SNAP-7: a listing is not remembered where the next login could not rely on it.
func TestSnapshotNotRemembered(t *testing.T) {
	whole := listingOf3(uidNext) + found + three + "S: <f> OK x\n" + bye
	empty := selecting + "S: * 0 EXISTS\nS: * OK [UIDVALIDITY 9] x\nS: <s> OK x\nS: <d> OK x\nS: <f> BAD x\n" + bye
	decreased := strings.Replace(whole, "1:*", "20:*", 1)
	decreased = strings.Replace(decreased, bye, "C: <g> UID FETCH 1:* (UID RFC822.SIZE)\n"+three+"S: <g> OK x\n"+bye, 1)
	for _, tt := range []struct {
		name    string
		scripts []string // of the logins; each begins with its flight
	}{
		{"no UIDNEXT, no messages", []string{empty, empty}},
		{"a message without a size, which is gone", []string{vanishing + bye, whole}},
		{"UIDNEXT decreases", []string{strings.Replace(whole, "UIDNEXT 10", "UIDNEXT 20", 1), decreased, whole}},
	} {
		script := tt.scripts[0]
		for i, next := range tt.scripts[1:] {
			script += fmt.Sprintf("-- connection %d --\n", i+2) + next
		}
		play(t, tt.name, script, Options{}, func(s *session) {
			for range tt.scripts {
				s.open().Close()
			}
		})
	}
}

// vanishing is a listing of 4, 5, 6 and 9 in which 6 has no size, and SEARCH no
// longer finds it.
const vanishing = selecting + "S: * 4 EXISTS\nS: * OK [UIDVALIDITY 9] x\n" + uidNext + "S: <s> OK x\n" + found +
	"S: * 1 FETCH (UID 4 RFC822.SIZE 40)\nS: * 2 FETCH (UID 5 RFC822.SIZE 50)\nS: * 3 FETCH (UID 6)\nS: * 4 FETCH (UID 9 RFC822.SIZE 90)\nS: <f> OK x\n" +
	allOf + "S: * SEARCH 4 5 6 9\nS: <q> OK x\nC: <g> UID FETCH 6 (UID RFC822.SIZE)\nS: <g> NO gone\n" +
	"C: <r> UID FETCH 6 (UID)\nS: <r> OK x\n"

// I-DEL-3: no range covers a message that the listing has without a size.
func TestSnapshotVanished(t *testing.T) {
	play(t, "I-DEL-3", vanishing+removing("4:5,9")+bye, Options{}, func(s *session) {
		if err := s.open().Update(s.ctx, []uint64{4, 5, 9}); err != nil {
			s.Error(err)
		}
	})
}

// I-SNAP-9, I-CONC-1, I-CONC-2, I-CONC-3: no later response of the upstream
// changes the snapshot.
func TestSnapshotFixed(t *testing.T) {
	script := listingOf3(uidNext) + found + three + "S: <f> OK x\n" +
		"C: <r> UID FETCH 6 (UID BODY.PEEK[])\nS: * 7 EXISTS\nS: * 1 RECENT\nS: * 3 FETCH (FLAGS (\\Deleted))\nS: * 3 EXPUNGE\nS: * VANISHED 5\n" +
		"S: * 1 FETCH (UID 5 RFC822.SIZE 51)\nS: * 2 FETCH (UID 6 BODY[] {3}\nS+: abc\nS: )\nS: * 1 EXPUNGE\nS: <r> OK x\n" + bye
	play(t, "I-SNAP-9", script, Options{}, func(s *session) {
		d := s.open()
		if got := s.text(d.Read(s.ctx, 6)); got != "abc" {
			s.Errorf("message %q", got)
		}
		if got := show(d); got != "5/50 6/60 9/90" {
			s.Errorf("snapshot %s", got)
		}
	})
}

// I-SNAP-8: a large mailbox is shown whole. Its listing allocates two slices
// of 16 octets a message, and nothing for each message.
func TestSnapshotAllocations(t *testing.T) {
	const n = 100_000
	var b strings.Builder
	for i := 1; i <= n; i++ {
		fmt.Fprintf(&b, "* %d FETCH (UID %d RFC822.SIZE %d)\r\n", i, 3*i, 1000+i)
	}
	synctest.Test(t, func(t *testing.T) {
		script := fmt.Sprintf("%sS: * %d EXISTS\nS: * OK [UIDVALIDITY 9] x\nS: <s> OK x\n%sS*: %d %q\nS: <f> OK x\n%s",
			selecting, n, found, b.Len(), b.String(), bye)
		up := imapscript.New(t, script)
		back := backend(t, Options{})
		back.dial = up.Dial
		l, err := back.Login(t.Context(), joe)
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		d, err := l.Open(context.Background())
		runtime.ReadMemStats(&after)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		m := d.Messages()
		if len(m) != n || m[0] != (proxy.Message{UID: 3, Octets: 1001}) || m[n-1] != (proxy.Message{UID: 3 * n, Octets: 1000 + n}) {
			t.Errorf("%d messages, from %+v to %+v", len(m), m[0], m[len(m)-1])
		}
		// 16 octets a message for the listing, 16 for the snapshot,
		// and a copy of the text in the server of the test.
		bound := uint64(n*32 + b.Len() + 2<<20)
		mallocs, octets := after.Mallocs-before.Mallocs, after.TotalAlloc-before.TotalAlloc
		t.Logf("%d octets (bound %d) in %d allocations", octets, bound, mallocs)
		if octets > bound || mallocs > n/10 {
			t.Errorf("%d octets in %d allocations", octets, mallocs)
		}
	})
}

// I-SNAP-4: messages are missing if they have no entry, or one without a size.
func TestSubtract(t *testing.T) {
	entries := []entry{{uid: 2, octets: 10}, {uid: 3, octets: -1}, {uid: 5, octets: 10}, {uid: 9, octets: 10}}
	if got := subtract([]uint64{1, 2, 3, 4, 5, 10}, entries); !slices.Equal(got, []uint64{1, 3, 4, 10}) {
		t.Errorf("missing %d", got)
	}
}

// I-SNAP-7, I-FETCH-5: a remembered listing is forgotten if a message of it
// does not exist, as the upstream may have listed it by mistake.
func TestGoneListsAgain(t *testing.T) {
	play(t, "RETR", opened+retr+"S: <r> OK x\n"+bye+another+opened+bye, Options{}, func(s *session) {
		d := s.open()
		_, err := d.Read(s.ctx, 7)
		s.wants(err, proxy.ErrGone)
		d.Close()
		s.open()
	})
}
