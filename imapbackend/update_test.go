package imapbackend

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"popgate/imapbackend/internal/uidset"
	"popgate/proxy"
)

// Steps of UPDATE in scripts.
func storing(set string) string   { return "C: <st> UID STORE " + set + " +FLAGS.SILENT (\\Deleted)\n" }
func expunging(set string) string { return "C: <e> UID EXPUNGE " + set + "\n" }
func checking(set string) string  { return "C: <q> UID FETCH " + set + " (UID)\n" }
func unflagging(set string) string {
	return "C: <u> UID STORE " + set + " -FLAGS.SILENT (\\Deleted)\n"
}

const (
	stored   = "S: <st> OK x\n"
	expunged = "S: <e> OK x\n"
	nothing  = "S: <q> OK x\n"
)

func removing(set string) string {
	return storing(set) + stored + expunging(set) + expunged + checking(set) + nothing
}

// I-DEL-1, I-DEL-2, I-DEL-3, I-DEL-4, I-DEL-5, I-DEL-6, I-DEL-7, I-DEL-10,
// I-CONN-4, P-QUIT-4, section 13: the commands of UPDATE, and its result.
func TestUpdate(t *testing.T) {
	long := make([]string, 300)
	var marked []uint64
	for i := range long { // every other one is marked, so that there are no ranges
		uid := uint64(2000000000 + 2*i)
		long[i] = fmt.Sprint(uid)
		if i%2 == 0 {
			marked = append(marked, uid)
		}
	}
	sets := uidset.Split(marked, nil, 950-uidset.Frame)
	pieces, checks := "", ""
	for _, set := range sets {
		pieces += storing(set.Text) + stored + expunging(set.Text) + expunged
		checks += checking(set.Text) + nothing
	}
	longCheck := func(caps string) string { return mailbox(caps, "", long...) }

	for _, tt := range []struct {
		name, script string
		opts         Options
		marked       []uint64
		want         *proxy.Error
	}{
		{"I-DEL-2 one", mailbox("UIDPLUS", "", "7") + removing("7"), Options{}, []uint64{7}, nil},
		{"I-DEL-3 section 13, hidden 34", mailbox("UIDPLUS", "34", "7", "27", "34", "65") + removing("7,27,65"), Options{}, []uint64{7, 27, 65}, nil},
		{"I-DEL-3 section 13, shown 34", mailbox("UIDPLUS", "", "7", "27", "34", "65") + removing("7,27,65"), Options{}, []uint64{7, 27, 65}, nil},
		{"I-DEL-3 a range over a gap", mailbox("UIDPLUS", "", "7", "27", "65", "66") + removing("7:65"), Options{}, []uint64{7, 27, 65}, nil},
		{"I-DEL-2 IMAP4rev2 implies UIDPLUS", mailbox("IMAP4rev2", "", "7") + storing("7") + stored + expunging("7") + expunged +
			"C: <q> UID SEARCH RETURN (ALL) UID 7\nS: * ESEARCH (TAG \"<q>\") UID\nS: <q> OK x\n", Options{Dialect: bySearch}, []uint64{7}, nil},
		{"I-DEL-4 ESEARCH", mailbox("UIDPLUS ESEARCH", "", "7", "8") + storing("7:8") + stored + expunging("7:8") + "S: <e> NO [CANNOT] zebra\n" +
			"C: <q> UID SEARCH RETURN (ALL) UID 7:8\nS: * ESEARCH (TAG \"<q>\") UID ALL 7:8\nS: <q> OK x\n" + unflagging("7:8") + "S: <u> OK x\n",
			Options{Dialect: bySearch}, []uint64{7, 8}, &proxy.Error{Code: perm, Text: proxy.ErrNotRemoved.Text}},
		{"I-DEL-4, I-DEL-5 section 13, partial failure", mailbox("UIDPLUS", "", "101", "102") + storing("101:102") + stored +
			expunging("101:102") + "S: * 1 EXPUNGE\nS: <e> NO [INUSE] zebra\n" + checking("101:102") + left("102") +
			unflagging("102") + "S: <u> OK x\n", Options{}, []uint64{101, 102}, proxy.ErrNotRemoved},
		{"I-DEL-4 gone by others counts as removed", mailbox("UIDPLUS", "", "7", "8") + storing("7:8") + "S: * 1 EXPUNGE\nS: <st> NO [EXPUNGEISSUED] zebra\n" +
			checking("7:8") + nothing, Options{}, []uint64{7, 8}, nil},
		{"I-DEL-4 EXPUNGE responses are no proof", mailbox("UIDPLUS", "", "7") + storing("7") + stored + expunging("7") + "S: * 1 EXPUNGE\nS: <e> OK x\n" +
			checking("7") + left("7") + unflagging("7") + "S: <u> OK x\n", Options{}, []uint64{7}, proxy.ErrNotRemoved},
		{"I-DEL-4 flags of other messages do not count", mailbox("UIDPLUS", "", "7", "8") + storing("7") + stored + expunging("7") + expunged +
			checking("7") + left("8 9"), Options{}, []uint64{7}, nil},
		{"I-DEL-5 refusal of unflagging is logged only", mailbox("UIDPLUS", "", "7") + storing("7") + stored + expunging("7") + "S: <e> NO zebra\n" +
			checking("7") + left("7") + unflagging("7") + "S: <u> NO zebra\n", Options{}, []uint64{7}, proxy.ErrNotRemoved},
		{"I-DEL-5 flag of others stays", mailbox("UIDPLUS", "7", "7", "8") + storing("7:8") + stored + expunging("7:8") + "S: <e> NO zebra\n" +
			checking("7:8") + left("7 8") + unflagging("8") + "S: <u> OK x\n",
			Options{ShowDeleted: true, WithoutUIDPLUS: Refuse}, []uint64{7, 8}, proxy.ErrNotRemoved},
		{"I-DEL-10 STORE NO: no EXPUNGE", mailbox("UIDPLUS", "", "7") + storing("7") + "S: <st> NO zebra\n" + checking("7") +
			left("7") + unflagging("7") + "S: <u> OK x\n", Options{}, []uint64{7}, proxy.ErrNotRemoved},
		{"I-DEL-10 STORE OK [READ-ONLY]", mailbox("UIDPLUS", "", "7") + storing("7") + "S: <st> OK [READ-ONLY] zebra\n" + checking("7") +
			left("7") + unflagging("7") + "S: <u> NO zebra\n", Options{}, []uint64{7}, proxy.ErrNotRemoved},
		{"I-DEL-5 STORE NO, some flagged", mailbox("UIDPLUS", "", "7", "8", "9") + storing("7:8") + "S: * 1 FETCH (UID 7 FLAGS (\\Deleted))\nS: <st> NO [EXPUNGEISSUED] zebra\n" +
			checking("7:8") + left("7") + unflagging("7") + "S: <u> OK x\n", Options{}, []uint64{7, 8}, proxy.ErrNotRemoved},
		{"I-DEL-5 the check refused too", mailbox("UIDPLUS", "", "7", "8", "9") + storing("7:8") + stored + expunging("7:8") + "S: <e> NO [LIMIT] zebra\n" +
			checking("7:8") + "S: <q> NO [LIMIT] zebra\n" + noop + "C: <v> UID FETCH 1:* (UID)\nS: <v> NO [LIMIT] zebra\n" + unflagging("7:8") + "S: <u> OK x\n",
			Options{}, []uint64{7, 8}, proxy.ErrNotRemoved},
		{"I-DEL-4 the check refused until EXPUNGE is announced", mailbox("", "", "7", "8") + storing("7:8") + stored + "C: <q> UID FETCH 7:8 (UID FLAGS)\n" +
			"S: * 2 FETCH (UID 8 FLAGS (\\Deleted))\nS: <q> NO [EXPUNGEISSUED] zebra\nC: <k> NOOP\nS: * 1 EXPUNGE\nS: <k> OK x\nC: <v> UID FETCH 1:* (UID FLAGS)\n" +
			"S: * 1 FETCH (UID 8 FLAGS (\\Deleted))\nS: * 2 FETCH (UID 9 FLAGS ())\nS: <v> OK x\n", Options{}, []uint64{7, 8}, nil},
		{"I-DEL-2 UIDPLUS shown before the login only does not count", greeted + strings.TrimPrefix(mailbox("", "", "7"), greeted) + storing("7") + stored +
			"C: <q> UID FETCH 7 (UID FLAGS)\n" + nothing, Options{}, []uint64{7}, nil},
		{"I-DEL-7 flag", mailbox("", "", "7", "8") + storing("7:8") + stored + "C: <q> UID FETCH 7:8 (UID FLAGS)\n" + nothing, Options{}, []uint64{7, 8}, nil},
		{"I-DEL-7 flag, not set on all", mailbox("", "", "7", "8") + storing("7:8") + stored + "C: <q> UID FETCH 7:8 (UID FLAGS)\nS: * 1 FETCH (UID 8 FLAGS ())\nS: <q> OK x\n" + unflagging("7:8") + "S: <u> OK x\n",
			Options{}, []uint64{7, 8}, proxy.ErrNotRemoved},
		{"I-DEL-7 refuse", mailbox("", "", "7"), Options{WithoutUIDPLUS: Refuse}, []uint64{7}, &proxy.Error{Code: perm, Text: textNoPlus}},
		{"I-DEL-7 refuse does not concern UIDPLUS", mailbox("UIDPLUS", "", "7") + removing("7"), Options{WithoutUIDPLUS: Refuse}, []uint64{7}, nil},
		{"P-QUIT-4 none", mailbox("UIDPLUS", "", "7"), Options{}, nil, nil},
		{"P-QUIT-4 none, refuse", mailbox("", "", "7"), Options{WithoutUIDPLUS: Refuse}, nil, nil},
		{"I-CONN-4 long sets", longCheck("UIDPLUS") + pieces + checks, Options{}, marked, nil},
	} {
		play(t, tt.name, tt.script+bye, tt.opts, func(s *session) {
			err := s.open().Update(s.ctx, tt.marked)
			if tt.want == nil {
				if err != nil {
					s.Error(err)
				}
				return
			}
			if s.fails(err, tt.want.Code); !errors.Is(err, tt.want) {
				s.Errorf("%v, want %q", err, tt.want.Text)
			}
		})
	}
}

// I-DEL-10: after a refused set, the next ones are removed.
func TestUpdatePieces(t *testing.T) {
	var uids []string
	var marked []uint64
	for i := range 200 {
		uid := 3_000_000_000 + uint64(2*i)
		uids = append(uids, fmt.Sprint(uid), fmt.Sprint(uid+1))
		marked = append(marked, uid)
	}
	sets := uidset.Split(marked, nil, 950-uidset.Frame)
	if len(sets) < 3 {
		t.Fatalf("%d pieces", len(sets))
	}
	script, checks := mailbox("UIDPLUS", "", uids...), ""
	for i, set := range sets {
		left := ""
		switch i {
		case 0:
			script += storing(set.Text) + "S: <st> NO zebra\n"
			left = fmt.Sprint(set.UIDs[0])
		case 1:
			script += storing(set.Text) + stored + expunging(set.Text) + "S: <e> NO [UNAVAILABLE] zebra\n"
			left = fmt.Sprint(set.UIDs[1])
		default:
			script += storing(set.Text) + stored + expunging(set.Text) + expunged
		}
		checks += checking(set.Text) + shows("q", left)
	}
	script += checks + unflagging(fmt.Sprintf("%d,%d", sets[0].UIDs[0], sets[1].UIDs[1])) + "S: <u> OK x\n"
	play(t, "I-DEL-10", script+bye, Options{}, func(s *session) {
		s.fails(s.open().Update(s.ctx, marked), temp)
	})
}

// I-DEL-11: if the connection is lost at any step and cannot be replaced,
// UPDATE returns an error and sends nothing further.
func TestUpdateLost(t *testing.T) {
	steps := []string{storing("7:8"), stored, expunging("7:8"), expunged, checking("7:8"), left("7 8"), unflagging("7:8")}
	for _, end := range []struct{ name, script string }{{"closed", "X:\n"}, {"reset", "R:\n"}, {"silent", "W:\n"}, {"BYE", "S: * BYE zebra\nX:\n"}} {
		for i := 0; i < len(steps); i += 2 {
			script := mailbox("UIDPLUS", "", "7", "8") + strings.Join(steps[:i+1], "") + end.script
			play(t, "I-DEL-11 "+end.name+" at "+strings.Fields(steps[i])[3], "D: 1h\n"+script, Options{}, func(s *session) {
				d := s.open()
				err := d.Update(s.ctx, []uint64{7, 8})
				if s.fails(err, temp); !errors.Is(err, proxy.ErrNotRemoved) {
					s.Errorf("Update: %v", err)
				}
				if err := d.Close(); err != nil {
					s.Errorf("Close: %v", err)
				}
			})
		}
	}
	play(t, "I-DEL-11 lost before", opened+retr+"X:\n", Options{}, func(s *session) {
		d := s.open()
		if _, err := d.Read(s.ctx, 7); err == nil {
			s.Error("Read succeeded")
		}
		if err := d.Update(s.ctx, []uint64{7}); !errors.Is(err, proxy.ErrNotRemoved) {
			s.Errorf("Update: %v", err)
		}
	})
	play(t, "P-QUIT-6 silent", "D: 1h\n"+opened+storing("7")+"W:\n", Options{}, func(s *session) {
		d, began := s.open(), time.Now()
		err := d.Update(s.ctx, []uint64{7})
		// The refused reconnect takes a moment more.
		if took := time.Since(began); !errors.Is(err, proxy.ErrNotRemoved) || took < updateProgress || took > updateProgress+time.Second {
			s.Errorf("Update: %v after %v", err, took)
		}
	})
}

// I-FLAG-1, Q4: \Seen is set as the policy says, and a failure is only logged.
func TestSeen(t *testing.T) {
	seen := func(set string) string {
		return "C: <y> UID STORE " + set + " +FLAGS.SILENT (\\Seen)\nS: <y> OK x\n"
	}
	four := mailbox("UIDPLUS", "", "7", "8", "9", "20")
	for _, tt := range []struct {
		name, script string
		policy       Seen
		marked       []uint64
	}{
		{"P-RETR-6 never", four, SeenNever, nil},
		{"on-retr", four + seen("9") + seen("7") + seen("9"), SeenOnRetr, nil},
		{"on-retr, refused", four + seen("9") + strings.Replace(seen("7"), "OK", "NO", 1) + seen("9"), SeenOnRetr, nil},
		{"on-quit", four + seen("7,9"), SeenOnQuit, nil},
		{"on-quit, without what is removed", four + seen("9") + removing("7"), SeenOnQuit, []uint64{7}},
		{"on-quit, refused", four + strings.Replace(seen("9"), "OK", "BAD", 1) + removing("7"), SeenOnQuit, []uint64{7}},
		{"on-quit, all removed", four + removing("7:9"), SeenOnQuit, []uint64{7, 8, 9}},
	} {
		play(t, "I-FLAG-1 "+tt.name, tt.script+bye, Options{Seen: tt.policy}, func(s *session) {
			d := s.open()
			for _, uid := range []uint64{9, 7, 9} {
				d.Retrieved(s.ctx, uid, 100)
			}
			if err := d.Update(s.ctx, tt.marked); err != nil {
				s.Error(err)
			}
			if warned := strings.Contains(s.log.String(), "cannot set"); warned != strings.Contains(tt.name, "refused") {
				s.Errorf("log: %s", s.log.String())
			}
		})
	}
	play(t, "I-FLAG-1 P-SESS-5 no QUIT, no flag", four+bye, Options{Seen: SeenOnQuit}, func(s *session) {
		d := s.open()
		d.Retrieved(s.ctx, 7, 100)
		d.Close()
		if slices.Contains(s.up.Commands(), "UID STORE 7 +FLAGS.SILENT (\\Seen)") {
			s.Error("flagged")
		}
	})
}
