package imapbackend

import (
	"context"
	"errors"
	"strings"
	"testing"

	"popgate/imapbackend/upstream"
	"popgate/proxy"
)

// More steps of UPDATE in scripts.
func moving(set, target string) string  { return "C: <m> UID MOVE " + set + " " + target + "\n" }
func copying(set, target string) string { return "C: <c> UID COPY " + set + " " + target + "\n" }

const (
	moved      = "S: <m> OK [COPYUID 1 7 3] x\n"
	copied     = "S: <c> OK [COPYUID 1 7 3] x\n"
	undeleted  = "C: <q> UID FETCH 7:8 (UID FLAGS)\n"
	flagsOf78  = "C: <v> UID FETCH 7:8 (UID FLAGS)\n"
	flagsOfAll = "C: <v> UID FETCH 1:* (UID FLAGS)\n"
	unflagged  = "C: <u> UID STORE 7:8 -FLAGS.SILENT (\\Deleted)\nS: <u> OK x\n"
	foreign    = "C: <a> UID SEARCH DELETED\n"
	foreignBy  = "C: <w> UID FETCH 1:* (UID FLAGS)\n" // after a refusal
	expunge    = "C: <p> EXPUNGE\n"
	create     = "C: <n> CREATE \"Bin\"\n"
	hasBin     = "C: <l> LIST \"\" \"Bin\"\nS: * LIST () \"/\" Bin\nS: <l> OK x\n"
	lacksBin   = "C: <l> LIST \"\" \"Bin\"\nS: <l> OK x\n"
)

// left is the answer to the check.
func left(uids string) string { return shows("q", uids) }

// policyTest is a policy and an upstream with two messages, 7 and 8, both
// marked. script is what follows the snapshot.
type policyTest struct {
	name, caps string
	opts       Options
	script     string
	want       *proxy.Error
}

var (
	bin       = Options{Delete: DeleteTrash, Trash: "Bin"}
	binFlag   = Options{WithoutUIDPLUS: Move, Trash: "Bin"}
	alone     = Options{WithoutUIDPLUS: ExpungeIfAlone}
	quota     = &proxy.Error{Code: proxy.CodeSysPerm, Text: upstream.TextQuota}
	notPerm   = &proxy.Error{Code: proxy.CodeSysPerm, Text: proxy.ErrNotRemoved.Text}
	noTrashes = &proxy.Error{Code: proxy.CodeSysPerm, Text: textNoTrash}
)

// policyTests have each policy with each of its steps accepted or refused. In
// addition, play checks that no forbidden command is sent.
var policyTests = []policyTest{
	// keep
	{"I-DEL-13 keep", "UIDPLUS MOVE", Options{Delete: DeleteKeep}, "", nil},
	{"I-DEL-13 keep, whatever else", "", Options{Delete: DeleteKeep, WithoutUIDPLUS: Refuse}, "", nil},

	// flag
	{"I-DEL-13 flag with UIDPLUS", "UIDPLUS MOVE", Options{Delete: DeleteFlag}, storing("7:8") + stored + undeleted + nothing, nil},
	{"I-DEL-13 flag refused", "UIDPLUS", Options{Delete: DeleteFlag}, storing("7:8") + "S: <st> NO zebra\n" + undeleted + left("7 8") + unflagged, proxy.ErrNotRemoved},
	{"I-DEL-13 flag BAD", "UIDPLUS", Options{Delete: DeleteFlag}, storing("7:8") + "S: <st> BAD zebra\n" + undeleted + left("7 8") + unflagged, notPerm},
	{"I-DEL-10 flag read-only", "UIDPLUS", Options{Delete: DeleteFlag}, storing("7:8") + "S: <st> OK [READ-ONLY] zebra\n" + undeleted + left("7 8") + unflagged, proxy.ErrNotRemoved},
	{"I-DEL-4 check refused", "UIDPLUS", Options{Delete: DeleteFlag}, storing("7:8") + stored + undeleted + "S: <q> NO zebra\n" + noop + flagsOfAll + "S: <v> NO zebra\n" + unflagged, proxy.ErrNotRemoved},
	{"I-DEL-4 check refused, flags of all", "UIDPLUS", Options{Delete: DeleteFlag}, storing("7:8") + stored + undeleted + "S: <q> BAD zebra\n" + noop + flagsOfAll +
		"S: * 1 FETCH (UID 7 FLAGS (\\Deleted))\nS: * 2 FETCH (UID 8 FLAGS (\\Deleted))\nS: * 3 FETCH (UID 9 FLAGS ())\nS: <v> OK x\n", nil},
	{"I-DEL-4 check refused, one not flagged", "UIDPLUS", Options{Delete: DeleteFlag}, storing("7:8") + stored + undeleted + "S: <q> BAD zebra\n" + noop + flagsOfAll +
		"S: * 1 FETCH (UID 7 FLAGS ())\nS: * 2 FETCH (UID 8 FLAGS (\\Deleted))\nS: * 3 FETCH (UID 9 FLAGS ())\nS: <v> OK x\n" + unflagged, proxy.ErrNotRemoved},
	{"I-DEL-4 flags not set", "UIDPLUS", Options{Delete: DeleteFlag}, storing("7:8") + stored + undeleted +
		"S: * 1 FETCH (UID 7 FLAGS (\\Deleted))\nS: * 2 FETCH (FLAGS () UID 8)\nS: <q> OK x\n" + unflagged, proxy.ErrNotRemoved},
	{"I-DEL-4 flags set", "UIDPLUS", Options{Delete: DeleteFlag}, storing("7:8") + stored + undeleted +
		"S: * 1 FETCH (UID 7 FLAGS (\\Deleted))\nS: * 2 FETCH (FLAGS (\\deleted) UID 8)\nS: <q> OK x\n", nil},
	{"I-DEL-4 UID missing", "UIDPLUS", Options{Delete: DeleteFlag}, storing("7:8") + stored + undeleted +
		"S: * 1 FETCH (UID 7 FLAGS (\\Deleted))\nS: * 2 FETCH (FLAGS ())\nS: <q> OK x\n" + noop + flagsOfAll +
		"S: * 1 FETCH (UID 7 FLAGS (\\Deleted))\nS: * 2 FETCH (FLAGS ())\nS: <v> OK x\n" + unflagged, proxy.ErrNotRemoved},
	{"I-DEL-4 no UID at all", "UIDPLUS", Options{}, storing("7:8") + stored + expunging("7:8") + expunged + checking("7:8") + "S: * 1 FETCH ()\nS: <q> OK x\n" + noop + "C: <v> UID FETCH 1:* (UID)\nS: * 1 FETCH ()\nS: <v> OK x\n" + unflagging("7:8") + "S: <u> OK x\n", proxy.ErrNotRemoved},
	{"I-DEL-4 other messages only", "UIDPLUS", Options{}, storing("7:8") + stored + expunging("7:8") + expunged + checking("7:8") + "S: * 3 FETCH (UID 9)\nS: <q> OK x\n" + noop +
		"C: <v> UID FETCH 1:* (UID)\nS: * 2 FETCH (UID 8)\nS: * 3 FETCH (UID 9)\nS: <v> OK x\n" + unflagging("8") + "S: <u> OK x\n", proxy.ErrNotRemoved},
	{"I-DEL-4 UID missing once", "UIDPLUS", Options{Delete: DeleteFlag}, storing("7:8") + stored + undeleted + "S: * 2 FETCH (FLAGS ())\nS: <q> OK x\n" + noop + flagsOfAll +
		"S: * 1 FETCH (UID 7 FLAGS (\\Deleted))\nS: * 2 FETCH (UID 8 FLAGS (\\Deleted))\nS: <v> OK x\n", nil},
	{"I-DEL-4 flags missing", "UIDPLUS", Options{Delete: DeleteFlag}, storing("7:8") + stored + undeleted +
		"S: * 1 FETCH (UID 7 FLAGS (\\Deleted))\nS: * 2 FETCH (UID 8)\nS: <q> OK x\n" + unflagged, proxy.ErrNotRemoved},

	// trash by MOVE
	{"I-DEL-8 MOVE", "UIDPLUS MOVE", bin, moving("7:8", `"Bin"`) + moved + checking("7:8") + nothing, nil},
	{"I-DEL-8 MOVE by IMAP4rev2", "IMAP4rev2", bin, moving("7:8", `"Bin"`) + moved + checking("7:8") + nothing, nil},
	{"I-DEL-8 MOVE without UIDPLUS, refuse", "MOVE", Options{Delete: DeleteTrash, Trash: "Bin", WithoutUIDPLUS: Refuse}, moving("7:8", `"Bin"`) + moved + checking("7:8") + nothing, nil},
	{"I-DEL-8 MOVE refused", "UIDPLUS MOVE", bin, moving("7:8", `"Bin"`) + "S: <m> NO zebra\n" + hasBin + checking("7:8") + left("7 8"), proxy.ErrNotRemoved},
	{"I-DEL-8 MOVE BAD", "UIDPLUS MOVE", bin, moving("7:8", `"Bin"`) + "S: <m> BAD zebra\n" + checking("7:8") + left("7 8"), notPerm},
	{"I-DEL-8 MOVE over quota", "UIDPLUS MOVE", bin, moving("7:8", `"Bin"`) + "S: <m> NO [OVERQUOTA] zebra\n" + checking("7:8") + left("7 8"), quota},
	{"I-DEL-9 MOVE refused, one moved", "UIDPLUS MOVE", bin, moving("7:8", `"Bin"`) + "S: * 1 EXPUNGE\nS: <m> NO zebra\n" + hasBin + checking("7:8") + left("8"), proxy.ErrNotRemoved},
	{"I-DEL-9 MOVE refused, all moved", "UIDPLUS MOVE", bin, moving("7:8", `"Bin"`) + "S: <m> NO [SERVERBUG] zebra\n" + checking("7:8") + nothing, nil},
	{"I-DEL-9 MOVE OK, nothing moved", "UIDPLUS MOVE", bin, moving("7:8", `"Bin"`) + moved + checking("7:8") + left("7 8"), proxy.ErrNotRemoved},
	{"I-DEL-8 TRYCREATE", "UIDPLUS MOVE", bin, moving("7:8", `"Bin"`) + "S: <m> NO [TRYCREATE] zebra\n" + create + "S: <n> OK x\n" +
		"C: <k> UID MOVE 7:8 \"Bin\"\nS: <k> OK x\n" + checking("7:8") + nothing, nil},
	{"I-DEL-8 TRYCREATE, created by another client", "UIDPLUS MOVE", bin, moving("7:8", `"Bin"`) + "S: <m> NO [trycreate] zebra\n" + create + "S: <n> NO [ALREADYEXISTS] zebra\n" +
		"C: <k> UID MOVE 7:8 \"Bin\"\nS: <k> OK x\n" + checking("7:8") + nothing, nil},
	{"I-DEL-8 TRYCREATE, CREATE refused", "UIDPLUS MOVE", bin, moving("7:8", `"Bin"`) + "S: <m> NO [TRYCREATE] zebra\n" + create + "S: <n> NO [NOPERM] zebra\n" +
		checking("7:8") + left("7 8"), notPerm},
	{"I-DEL-8 TRYCREATE twice", "UIDPLUS MOVE", bin, moving("7:8", `"Bin"`) + "S: <m> NO [TRYCREATE] zebra\n" + create + "S: <n> OK x\n" +
		"C: <k> UID MOVE 7:8 \"Bin\"\nS: <k> NO [TRYCREATE] zebra\n" + checking("7:8") + left("7 8"), proxy.ErrNotRemoved},

	{"I-DEL-8 MOVE refused without a code, no such mailbox", "UIDPLUS MOVE", bin, moving("7:8", `"Bin"`) + "S: <m> NO zebra\n" + lacksBin + create + "S: <n> OK x\n" +
		"C: <k> UID MOVE 7:8 \"Bin\"\nS: <k> OK x\n" + checking("7:8") + nothing, nil},
	{"I-DEL-8 MOVE refused without a code, LIST refused", "UIDPLUS MOVE", bin, moving("7:8", `"Bin"`) + "S: <m> NO zebra\n" +
		"C: <l> LIST \"\" \"Bin\"\nS: <l> NO zebra\n" + checking("7:8") + left("7 8"), proxy.ErrNotRemoved},

	// trash by COPY
	{"I-DEL-8 COPY", "UIDPLUS", bin, copying("7:8", `"Bin"`) + copied + removing("7:8"), nil},
	{"I-DEL-8 COPY refused", "UIDPLUS", bin, copying("7:8", `"Bin"`) + "S: <c> NO zebra\n" + hasBin + checking("7:8") + left("7 8"), proxy.ErrNotRemoved},
	{"I-DEL-8 COPY BAD", "UIDPLUS", bin, copying("7:8", `"Bin"`) + "S: <c> BAD zebra\n" + checking("7:8") + left("7 8"), notPerm},
	{"I-DEL-8 COPY over quota", "UIDPLUS", bin, copying("7:8", `"Bin"`) + "S: <c> NO [OVERQUOTA] zebra\n" + checking("7:8") + left("7 8"), quota},
	{"I-DEL-8 COPY, TRYCREATE", "UIDPLUS", bin, copying("7:8", `"Bin"`) + "S: <c> NO [TRYCREATE] zebra\n" + create + "S: <n> OK x\n" +
		"C: <k> UID COPY 7:8 \"Bin\"\nS: <k> OK x\n" + removing("7:8"), nil},
	{"I-DEL-8 COPY refused without a code, no such mailbox", "UIDPLUS", bin, copying("7:8", `"Bin"`) + "S: <c> NO zebra\n" + lacksBin + create + "S: <n> OK x\n" +
		"C: <k> UID COPY 7:8 \"Bin\"\nS: <k> OK x\n" + removing("7:8"), nil},
	{"I-DEL-8 COPY, STORE refused", "UIDPLUS", bin, copying("7:8", `"Bin"`) + copied + storing("7:8") + "S: <st> NO zebra\n" + checking("7:8") + left("7 8") +
		unflagging("7:8") + "S: <u> OK x\n", proxy.ErrNotRemoved},
	{"I-DEL-8 COPY, EXPUNGE refused", "UIDPLUS", bin, copying("7:8", `"Bin"`) + copied + storing("7:8") + stored + expunging("7:8") + "S: <e> NO zebra\n" +
		checking("7:8") + left("7 8") + unflagging("7:8") + "S: <u> OK x\n", proxy.ErrNotRemoved},
	{"I-DEL-8 COPY without UIDPLUS", "", bin, copying("7:8", `"Bin"`) + copied + storing("7:8") + stored + undeleted + nothing, nil},
	{"I-DEL-8 COPY without UIDPLUS, move", "", Options{Delete: DeleteTrash, Trash: "Bin", WithoutUIDPLUS: Move},
		copying("7:8", `"Bin"`) + copied + storing("7:8") + stored + undeleted + nothing, nil},
	{"I-DEL-8 COPY without UIDPLUS, expunge-if-alone", "", Options{Delete: DeleteTrash, Trash: "Bin", WithoutUIDPLUS: ExpungeIfAlone},
		copying("7:8", `"Bin"`) + copied + storing("7:8") + stored + foreign + "S: * SEARCH 7 8\nS: <a> OK x\n" + expunge + "S: <p> OK x\n" + undeleted + nothing, nil},
	{"I-DEL-8 COPY without UIDPLUS, refuse", "", Options{Delete: DeleteTrash, Trash: "Bin", WithoutUIDPLUS: Refuse}, "",
		&proxy.Error{Code: proxy.CodeSysPerm, Text: textNoPlus}},

	// without_uidplus = "move"
	{"I-DEL-7 move", "MOVE", binFlag, moving("7:8", `"Bin"`) + moved + checking("7:8") + nothing, nil},
	{"I-DEL-7 move, refused", "MOVE", binFlag, moving("7:8", `"Bin"`) + "S: <m> NO zebra\n" + hasBin + checking("7:8") + left("7 8"), proxy.ErrNotRemoved},
	{"I-DEL-7 move does not concern UIDPLUS", "MOVE UIDPLUS", binFlag, removing("7:8"), nil},
	{"I-DEL-7 move without MOVE", "", binFlag, copying("7:8", `"Bin"`) + copied + storing("7:8") + stored + undeleted + nothing, nil},
	{"I-DEL-7 move without MOVE, COPY refused", "", binFlag, copying("7:8", `"Bin"`) + "S: <c> NO zebra\n" + hasBin + undeleted + left("7 8"), proxy.ErrNotRemoved},

	// without_uidplus = "expunge-if-alone"
	{"I-DEL-7 alone", "", alone, storing("7:8") + stored + foreign + "S: * SEARCH 8 7\nS: <a> OK x\n" + expunge + "S: * 1 EXPUNGE\nS: * 1 EXPUNGE\nS: <p> OK x\n" + undeleted + nothing, nil},
	{"I-DEL-7 not alone", "", alone, storing("7:8") + stored + foreign + "S: * SEARCH 7 8 9\nS: <a> OK x\n" + undeleted + nothing, nil},
	{"I-DEL-7 alone, ESEARCH over others", "ESEARCH", alone, storing("7:8") + stored + "C: <a> UID SEARCH RETURN (ALL) DELETED\nS: * ESEARCH (TAG \"<a>\") UID ALL 6:8\nS: <a> OK x\n" +
		undeleted + nothing, nil},
	{"I-DEL-7 alone, STORE refused", "", alone, storing("7:8") + "S: <st> NO zebra\n" + foreign + "S: * SEARCH\nS: <a> OK x\n" + undeleted + left("7 8") + unflagged, proxy.ErrNotRemoved},
	{"I-DEL-7 alone, SEARCH refused", "", alone, storing("7:8") + stored + foreign + "S: <a> NO zebra\n" + foreignBy + "S: <w> NO zebra\n" + undeleted + nothing, nil},
	{"I-DEL-7 alone, by flags", "", alone, storing("7:8") + stored + foreign + "S: <a> OK x\n" + foreignBy +
		"S: * 1 FETCH (UID 7 FLAGS (\\Deleted))\nS: * 2 FETCH (UID 8 FLAGS (\\Deleted))\nS: <w> OK x\n" + expunge + "S: <p> OK x\n" + flagsOf78 + "S: <v> OK x\n", nil},
	{"I-DEL-7 not alone, by flags", "", alone, storing("7:8") + stored + foreign + "S: <a> OK x\n" + foreignBy +
		"S: * 1 FETCH (UID 7 FLAGS (\\Deleted))\nS: * 2 FETCH (UID 8 FLAGS (\\Deleted))\nS: * 3 FETCH (UID 9 FLAGS (\\Deleted))\nS: <w> OK x\n" +
		flagsOf78 + "S: * 1 FETCH (UID 7 FLAGS (\\Deleted))\nS: * 2 FETCH (UID 8 FLAGS (\\Deleted))\nS: <v> OK x\n", nil},
	{"I-DEL-7 alone, EXPUNGE refused", "", alone, storing("7:8") + stored + foreign + "S: * SEARCH 7 8\nS: <a> OK x\n" + expunge + "S: <p> NO zebra\n" + undeleted + nothing, nil},
	{"I-DEL-7 alone does not concern UIDPLUS", "UIDPLUS", alone, removing("7:8"), nil},
}

// I-DEL-5, I-DEL-7, I-DEL-8, I-DEL-9, I-DEL-10, I-DEL-12, I-DEL-13, M-1: each policy
// sends its steps and nothing else, and QUIT reports what is left.
func TestPolicies(t *testing.T) {
	for _, tt := range policyTests {
		play(t, tt.name, mailbox(tt.caps, "", "7", "8")+tt.script+bye, tt.opts, func(s *session) {
			s.wants(s.open().Update(s.ctx, []uint64{7, 8}), tt.want)
		})
	}
}

// wants checks that err is want, nil for none.
func (s *session) wants(err error, want *proxy.Error) {
	s.Helper()
	if want == nil {
		if err != nil {
			s.Error(err)
		}
		return
	}
	if s.fails(err, want.Code); !errors.Is(err, want) {
		s.Errorf("%v, want %q", err, want.Text)
	}
}

// I-DEL-7, P-QUIT-3: what others had flagged at SELECT must be known to be gone before
// a plain EXPUNGE, whatever a search for flagged messages finds.
func TestAloneProved(t *testing.T) {
	all := "C: <b> UID SEARCH ALL\n"
	for _, tt := range []struct{ name, script string }{
		{"found", "S: * SEARCH 7 8 9\nS: <a> OK x\n"},
		{"not found, but there", "S: * SEARCH 7 8\nS: <a> OK x\n" + all + "S: * SEARCH 7 8 9\nS: <b> OK x\n"},
		{"gone", "S: * SEARCH 7 8\nS: * 3 EXPUNGE\nS: <a> OK x\n" + all + "S: * SEARCH 7 8\nS: <b> OK x\n" + expunge + "S: <p> OK x\n"},
		{"gone, but the count differs", "S: * SEARCH 7 8\nS: <a> OK x\n" + all + "S: * SEARCH 7 8\nS: <b> OK x\n"},
		{"refused", "S: * SEARCH 7 8\nS: <a> OK x\n" + all + "S: <b> NO zebra\nC: <w> UID FETCH 1:* (UID)\nS: <w> NO zebra\n"},
	} {
		play(t, tt.name, mailbox("", "9", "7", "8", "9")+storing("7:8")+stored+foreign+tt.script+undeleted+nothing+bye, alone, func(s *session) {
			s.wants(s.open().Update(s.ctx, []uint64{7, 8}), nil)
		})
	}
}

// I-DEL-11, P-QUIT-2: whatever the policy, a connection that is lost after any
// command and cannot be replaced is reported, and nothing follows.
func TestPoliciesLost(t *testing.T) {
	for _, tt := range policyTests {
		if tt.want != nil {
			continue
		}
		lines := strings.SplitAfter(tt.script, "\n")
		for i, line := range lines {
			if !strings.HasPrefix(line, "C: ") {
				continue
			}
			for _, end := range []string{"X:\n", "R:\n", "S: * BYE [UNAVAILABLE] zebra\nX:\n"} {
				script := mailbox(tt.caps, "", "7", "8") + strings.Join(lines[:i+1], "") + end
				play(t, tt.name+" "+strings.Fields(end)[0]+" at "+strings.TrimSpace(line), script, tt.opts, func(s *session) {
					s.wants(s.open().Update(s.ctx, []uint64{7, 8}), proxy.ErrNotRemoved)
				})
			}
		}
	}
}

// I-UIDV-1: after an upstream has announced another UIDVALIDITY in the answer
// to any command, it gets no further command about messages, and QUIT fails,
// even if the final search has found none of them.
func TestPoliciesRebuilt(t *testing.T) {
	rebuilt := &proxy.Error{Code: proxy.CodeSysTemp, Text: textRebuilt}
	for _, tt := range policyTests {
		if tt.want != nil {
			continue
		}
		lines := strings.SplitAfter(tt.script, "\n")
		for i, line := range lines {
			if !strings.HasPrefix(line, "C: ") {
				continue
			}
			end := i + 1
			for end < len(lines) && strings.HasPrefix(lines[end], "S: ") {
				end++
			}
			script := mailbox(tt.caps, "", "7", "8") + strings.Join(lines[:i+1], "") + "S: * OK [UIDVALIDITY 10] zebra\n" + strings.Join(lines[i+1:end], "")
			play(t, tt.name+" at "+strings.TrimSpace(line), script+bye, tt.opts, func(s *session) {
				s.wants(s.open().Update(s.ctx, []uint64{7, 8}), rebuilt)
			})
		}
	}
}

// I-RO-1: PERMANENTFLAGS without \Deleted makes a maildrop read-only where \Deleted
// has to last beyond the session. go-imap lists \* and stores all flags.
func TestReadOnlyByPolicy(t *testing.T) {
	for _, tt := range []struct {
		name, caps, code, flags string
		opts                    Options
		want                    bool
	}{
		{"expunge", "UIDPLUS MOVE", "READ-WRITE", `(\Seen)`, Options{}, false},
		{"expunge, READ-ONLY", "UIDPLUS MOVE", "READ-ONLY", `(\Seen \Deleted)`, Options{}, true},
		{"trash by MOVE", "UIDPLUS MOVE", "READ-WRITE", `(\Seen)`, bin, false},
		{"trash by MOVE, READ-ONLY", "UIDPLUS MOVE", "READ-ONLY", `(\Seen \Deleted)`, bin, true},
		{"trash by COPY", "UIDPLUS", "READ-WRITE", `(\Seen)`, bin, false},
		{"trash by COPY, no UIDPLUS", "", "READ-WRITE", `(\Seen)`, binFlag, true},
		{"move", "MOVE", "READ-WRITE", `()`, binFlag, false},
		{"keep", "UIDPLUS", "READ-WRITE", `()`, Options{Delete: DeleteKeep}, false},
		{"flag", "UIDPLUS", "READ-WRITE", `(\Seen)`, Options{Delete: DeleteFlag}, true},
		{"flag, \\*", "UIDPLUS", "READ-WRITE", `(\Seen \*)`, Options{Delete: DeleteFlag}, false},
		{"flag, \\Deleted", "UIDPLUS", "READ-WRITE", `(\deleted)`, Options{Delete: DeleteFlag}, false},
		{"no UIDPLUS", "", "READ-WRITE", `()`, Options{}, true},
		{"no UIDPLUS, \\*", "", "READ-WRITE", `(\*)`, Options{}, false},
		{"no UIDPLUS, expunge-if-alone", "", "READ-WRITE", `()`, Options{WithoutUIDPLUS: ExpungeIfAlone}, true},
	} {
		script := strings.Replace(mailbox(tt.caps, "", "7"), "[READ-WRITE]", "["+tt.code+"]", 1)
		script = strings.Replace(script, "S: * OK [UIDNEXT", "S: * OK [PERMANENTFLAGS "+tt.flags+"] x\nS: * OK [UIDNEXT", 1)
		play(t, "I-RO-1 "+tt.name, script+bye, tt.opts, func(s *session) {
			if got := s.open().ReadOnly(); got != tt.want {
				s.Errorf("read-only: %v, want %v", got, tt.want)
			}
		})
	}
}

// I-RO-1, I-DEL-4: where \Deleted is refused after all, QUIT says so.
func TestDeletedRefused(t *testing.T) {
	without := strings.Replace(mailbox("UIDPLUS", "", "7"), "S: * OK [UIDNEXT", "S: * OK [PERMANENTFLAGS ()] x\nS: * OK [UIDNEXT", 1)
	play(t, "stored", without+removing("7")+bye, Options{}, func(s *session) {
		s.wants(s.open().Update(s.ctx, []uint64{7}), nil)
	})
	refused := "C: <t> UID STORE 7 +FLAGS.SILENT (\\Deleted)\nS: <t> NO zebra\n" +
		"C: <c> UID FETCH 7 (UID)\nS: * 1 FETCH (UID 7)\nS: <c> OK x\n" + unflagging("7") + "S: <u> NO zebra\n"
	play(t, "refused", without+refused+bye, Options{}, func(s *session) {
		s.fails(s.open().Update(s.ctx, []uint64{7}), temp)
	})
}

// I-DEL-8, I-DEL-11: if the answer to CREATE is lost with the connection,
// UPDATE is repeated, whether the trash mailbox was created or not.
func TestCreateLost(t *testing.T) {
	lost := opened + copying("7", `"Bin"`) + "S: <c> NO [TRYCREATE] zebra\n" + create + "X:\n" + another + reselected
	play(t, "not created", lost+copying("7", `"Bin"`)+"S: <c> NO [TRYCREATE] zebra\n"+create+"S: <n> OK x\n"+
		"C: <k> UID COPY 7 \"Bin\"\nS: <k> OK x\n"+removing("7")+bye, bin, func(s *session) {
		s.wants(s.open().Update(s.ctx, []uint64{7}), nil)
	})
	play(t, "created", lost+copying("7", `"Bin"`)+copied+removing("7")+bye, bin, func(s *session) {
		s.wants(s.open().Update(s.ctx, []uint64{7}), nil)
	})
	play(t, "lost again", lost+copying("7", `"Bin"`)+"S: <c> NO [TRYCREATE] zebra\n"+create+"X:\n", bin, func(s *session) {
		s.fails(s.open().Update(s.ctx, []uint64{7}), temp)
	})
}

// O-LOCK-5: no command of a removal is sent once its context has ended, which it
// does when the lock of the maildrop is lost.
func TestRemovalEnds(t *testing.T) {
	play(t, "O-LOCK-5", opened+bye, Options{}, func(s *session) {
		ctx, cancel := context.WithCancel(s.ctx)
		cancel()
		r := &removal{m: s.open().(*maildrop)}
		before := len(s.up.Commands())
		_, err := r.send(ctx, "EXPUNGE", "7")
		s.fails(err, temp)
		_, err = r.sendPlain(ctx, "EXPUNGE", "")
		s.fails(err, temp)
		if sent := s.up.Commands()[before:]; len(sent) > 0 {
			s.Errorf("sent %q", sent)
		}
		r.m.Close()
	})
}
