package imapbackend

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"popgate/proxy"
)

// repeatTests are policies and what is left of five messages. The second and
// the fifth are marked, and another client has flagged the third. Flagged ones
// are in parentheses.
var repeatTests = []struct {
	name, caps string
	opts       Options
	left       string
	trash      int
}{
	{"expunge", "UIDPLUS", Options{}, "1 (3) 4", 0},
	{"trash, MOVE", "UIDPLUS MOVE", Options{Delete: DeleteTrash}, "1 (3) 4", 2},
	{"trash, COPY", "UIDPLUS", Options{Delete: DeleteTrash}, "1 (3) 4", 2},
	{"flag", "UIDPLUS", Options{Delete: DeleteFlag}, "1 (2) (3) 4 (5)", 0},
	{"expunge-if-alone, not alone", "", Options{WithoutUIDPLUS: ExpungeIfAlone}, "1 (2) (3) 4 (5)", 0},
}

// I-DEL-1, I-DEL-11, P-QUIT-3: a connection that is lost at any octet of the
// answers to UPDATE is replaced, and the steps are repeated. QUIT is +OK, and
// all marked messages are gone and no others. If the answer to COPY was lost,
// there are two copies.
func TestUpdateRepeated(t *testing.T) {
	for _, tt := range repeatTests {
		t.Run(tt.name, func(t *testing.T) {
			for cut, whole := 0, false; !whole; cut++ {
				synctest.Test(t, func(t *testing.T) {
					m, _, dials, err := cutUpdate(t, tt.caps, tt.opts, cut, 1)
					if whole = dials == 1; err != nil {
						t.Errorf("cut at %d: %v", cut, err)
					}
					if left := m.left(); left != tt.left {
						t.Errorf("cut at %d: left are %s, want %s", cut, left, tt.left)
					}
					trash := len(m.Mailbox("", "Trash").Messages())
					again := strings.Contains(tt.name, "COPY") && dials > 1
					if trash != tt.trash && !(again && trash == 2*tt.trash) {
						t.Errorf("cut at %d: %d messages in the trash, want %d", cut, trash, tt.trash)
					}
				})
			}
		})
	}
}

// I-DEL-11, P-QUIT-2: after a second loss, UPDATE claims no success that it
// did not have, and has not changed other messages.
func TestUpdateLostTwice(t *testing.T) {
	for _, tt := range repeatTests {
		t.Run(tt.name, func(t *testing.T) {
			for cut, whole := 0, false; !whole; cut += 7 {
				synctest.Test(t, func(t *testing.T) {
					m, _, dials, err := cutUpdate(t, tt.caps, tt.opts, cut, 2)
					whole = dials == 1
					if err != nil && !errors.Is(err, proxy.ErrNotRemoved) {
						t.Errorf("cut at %d: %v", cut, err)
					}
					if err == nil && m.left() != tt.left {
						t.Errorf("cut at %d: left are %s after +OK, want %s", cut, m.left(), tt.left)
					}
					kept := slices.DeleteFunc(strings.Fields(m.left()), func(uid string) bool { return strings.ContainsAny(uid, "25") })
					if got := strings.Join(kept, " "); got != "1 (3) 4" {
						t.Errorf("cut at %d: left of those not marked are %s", cut, got)
					}
				})
			}
		})
	}
}

// cutUpdate runs an UPDATE. Each of the first connections is cut after octets
// of its answers.
func cutUpdate(t *testing.T, caps string, opts Options, octets, connections int) (m *model, b *Backend, dials int, err error) {
	t.Helper()
	m = newModel()
	m.Caps = "IMAP4rev1 AUTH=PLAIN SASL-IR SPECIAL-USE " + caps
	m.Mailbox("", "Trash").SetTrash()
	for i := range 5 {
		m.add(fmt.Sprintf("A: %d\r\n\r\n", i))
	}
	m.Inbox().SetFlag(3, `\Deleted`, true)
	b = m.backend(t, opts)
	conns := cuttable(b)
	d := openMaildrop(t, b)
	defer d.Close()
	conns.last.left = octets
	conns.next = slices.Repeat([]int{octets}, connections-1)
	err = d.Update(t.Context(), []uint64{2, 5})
	conns.next = nil
	return m, b, m.Dials(), err
}

// I-DEL-5, I-DEL-10, I-DEL-11, I-UIDV-1: the second attempt takes the first
// into account.
func TestUpdateSecondAttempt(t *testing.T) {
	second := "-- connection 2 --\n" + strings.Split(mailbox("UIDPLUS", "", "7", "8"), lists)[0] +
		"S: * 2 EXISTS\nS: * OK [UIDVALIDITY 9] x\nS: * OK [UIDNEXT 4000000000] x\nS: <s> OK [READ-WRITE] x\n"
	first := mailbox("UIDPLUS", "", "7", "8")
	for _, tt := range []struct {
		name, script string
		opts         Options
		want         *proxy.Error
	}{
		{"I-DEL-5 perhaps flagged", first + storing("7:8") + "X:\n" + second + storing("7:8") + "S: <st> NO zebra\n" + checking("7:8") + left("8") +
			unflagging("8") + "S: <u> OK x\n" + bye, Options{}, proxy.ErrNotRemoved},
		{"I-DEL-11 an acknowledged copy", first + copying("7:8", `"Bin"`) + copied + storing("7:8") + "X:\n" + second + removing("7:8") + bye, bin, nil},
		{"I-DEL-11 the answer to the check is lost", first + storing("7:8") + stored + expunging("7:8") + expunged + checking("7:8") + "X:\n" + second + removing("7:8") + bye, Options{}, nil},
		{"I-UIDV-1 rebuilt in between", first + storing("7:8") + "X:\n" + strings.Replace(second, "UIDVALIDITY 9", "UIDVALIDITY 10", 1) + bye, Options{},
			&proxy.Error{Code: proxy.CodeSysTemp, Text: textRebuilt}},
		{"I-DEL-10 read-only in between", first + storing("7:8") + "X:\n" + strings.Replace(second, "READ-WRITE", "READ-ONLY", 1) + storing("7:8") + "S: <st> NO [READ-ONLY] zebra\n" +
			checking("7:8") + nothing + bye, Options{}, nil},
	} {
		play(t, tt.name, tt.script, tt.opts, func(s *session) {
			s.wants(s.open().Update(s.ctx, []uint64{7, 8}), tt.want)
		})
	}
}
