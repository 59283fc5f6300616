package imapbackend

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"popgate/imapbackend/imapmodel"
	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// I-SNAP-3, I-DEL-4: whatever a server does wrong with SEARCH, messages that are
// flagged \Deleted are hidden, no others are, and QUIT is answered truly, in the
// first session and, without the form that has failed, in the next ones.
func TestSearchStyles(t *testing.T) {
	for style, want := range map[imapmodel.SearchStyle]struct {
		search string // in the flight of SELECT, once it is known
		dials  int    // of the first login
		warns  int
	}{
		imapmodel.Searches:       {"UID SEARCH RETURN (ALL) DELETED", 1, 0},
		imapmodel.CountOnly:      {"UID SEARCH DELETED", 1, 1},
		imapmodel.DeletedRefused: {"UID FETCH 1:* (UID FLAGS)", 1, 1},
		imapmodel.DeletedCloses:  {"UID FETCH 1:* (UID FLAGS)", 2, 1},
		imapmodel.SilentIfEmpty:  {"UID FETCH 1:* (UID FLAGS)", 1, 1},
		imapmodel.FindsOthers:    {"UID FETCH 1:* (UID FLAGS)", 1, 1},
	} {
		t.Run(fmt.Sprint(style), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newModel()
				m.Unknown = true
				m.setSearch(style)
				for i := range 10 {
					m.add(mail(i, 10))
				}
				m.remove(4) // which FindsOthers finds
				m.Inbox().SetFlag(2, `\Deleted`, true)
				b := m.backend(t, Options{})
				var log proxytest.Log
				ctx := proxy.WithLogger(t.Context(), log.Logger())
				for i := range 4 {
					dials, began := m.Dials(), len(m.Commands())
					l, err := b.Login(ctx, joe)
					if err != nil {
						t.Fatal(err)
					}
					d, err := l.Open(ctx)
					if err != nil {
						t.Fatal(err)
					}
					if got := d.Messages(); len(got) != 8-i || slices.ContainsFunc(got, func(msg proxy.Message) bool { return msg.UID == 2 }) {
						t.Errorf("session %d shows %v", i, got)
					}
					err = d.Update(ctx, []uint64{d.Messages()[0].UID})
					if n := len(m.messages()); err != nil || n != 8-i {
						t.Errorf("session %d: %v, %d messages", i, err, n)
					}
					d.Close()
					if n := m.Dials() - dials; i == 0 && n != want.dials || i > 0 && n != 1 {
						t.Errorf("session %d: %d connections", i, n)
					}
					sent := m.Commands()[began:]
					if at := slices.Index(sent, "SELECT INBOX"); i > 0 && sent[at+1] != want.search {
						t.Errorf("session %d: %q", i, sent)
					}
				}
				if n := strings.Count(log.String(), "does not search as it should"); n != want.warns {
					t.Errorf("logged %d times", n)
				}
			})
		})
	}
}

// I-SNAP-3, I-LOGIN-7: a server that never answers a search for \Deleted messages, or
// closes the connection, costs at most two logins, whatever it does with commands
// after SELECT and whether it was right before. Then FETCH of the flags is used.
func TestSearchHangs(t *testing.T) {
	for _, style := range []imapmodel.SearchStyle{imapmodel.DeletedHangs, imapmodel.DeletedCloses} {
		for flight := imapmodel.Executed; flight <= imapmodel.Rejected; flight++ {
			for _, right := range []int{0, 1, 2} {
				t.Run(fmt.Sprintf("%d, flight %d, right in %d sessions", style, flight, right), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) { testSearchHangs(t, style, flight, right) })
				})
			}
		}
	}
}

func testSearchHangs(t *testing.T, style imapmodel.SearchStyle, flight imapmodel.Flight, right int) {
	m := newModel()
	m.Unknown, m.AfterSelect = true, flight
	for i := range 10 {
		m.add(mail(i, 10))
	}
	m.Inbox().SetFlag(2, `\Deleted`, true)
	b := m.backend(t, Options{})
	paid, left := 0, 9
	for i := range right + 4 {
		if i == right {
			m.Search, paid = style, 0
		}
		began, dials := time.Now(), m.Dials()
		l, err := b.Login(t.Context(), joe)
		if err != nil {
			t.Fatal(err)
		}
		d, err := l.Open(t.Context())
		if time.Since(began) > 0 || m.Dials() > dials+1 {
			paid++
		}
		if err != nil {
			l.Close()
			continue
		}
		if n := len(d.Messages()); n != left {
			t.Errorf("login %d: %d messages, want %d", i, n, left)
		}
		left--
		if err := d.Update(t.Context(), []uint64{d.Messages()[0].UID}); err != nil {
			t.Error(err)
		}
		d.Close()
		if i == right+3 && (time.Since(began) > 0 || slices.Contains(m.Commands()[len(m.Commands())-6:], "UID SEARCH RETURN (ALL) DELETED")) {
			t.Errorf("the last login still searches: %q", m.Commands())
		}
	}
	if paid == 0 || paid > 2 {
		t.Errorf("%d logins pay", paid)
	}
}

// I-SNAP-3: a server that has answered SEARCH is asked by it again, whatever
// happens to a single one.
func TestSearchRefusedOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel()
		m.Unknown = true
		m.add(mail(1, 10))
		b := m.backend(t, Options{})
		for i := range 3 {
			m.Refuse = func(cmd string) string {
				if i == 1 && strings.Contains(cmd, "SEARCH") {
					return "NO [LIMIT] x"
				}
				return ""
			}
			began := len(m.Commands())
			openMaildrop(t, b).Close()
			if !slices.Contains(m.Commands()[began:], "UID SEARCH RETURN (ALL) DELETED") {
				t.Errorf("session %d: %q", i, m.Commands()[began:])
			}
		}
	})
}

// I-DEL-4, P-QUIT-2: whatever the policy, a check whose answer proves nothing is no
// success, be it with a COUNT, or with nothing but OK; nor is one by FETCH that
// shows the messages.
func TestPoliciesUnproved(t *testing.T) {
	for _, tt := range policyTests {
		before, check, found := strings.Cut(tt.script, "C: <q> ")
		if tt.want != nil || !found {
			continue
		}
		check, _, _ = strings.Cut(check, "\n")
		set := strings.Fields(strings.TrimPrefix(strings.Replace(check, "RETURN (ALL) ", "", 1), "UID SEARCH UID "))[0]
		fetch := "C: <v> UID FETCH " + set + " (UID)\n"
		if strings.HasSuffix(check, "UNDELETED") {
			fetch = "C: <v> UID FETCH " + set + " (UID FLAGS)\n"
		}
		still := ""
		if strings.Contains(before, "<st>") && strings.HasSuffix(fetch, "(UID)\n") {
			still = unflagging(set) + "S: <u> OK x\n"
		}
		for answer, script := range map[string]string{
			"nothing": "C: <q> " + check + "\nS: <q> OK x\n",
			"COUNT":   "C: <q> " + check + "\nS: * ESEARCH (TAG \"<q>\") UID COUNT 2\nS: <q> OK x\n",
		} {
			if strings.Contains(check, "RETURN") {
				script += "C: <r> " + strings.Replace(check, "RETURN (ALL) ", "", 1) + "\nS: <r> OK x\n"
			}
			script = mailbox(tt.caps, "", "7", "8") + before + script + fetch
			for end, rest := range map[string]string{
				"refused": "S: <v> NO zebra\n" + still,
				"there":   "S: * 1 FETCH (UID 7 FLAGS ())\nS: * 2 FETCH (UID 8)\nS: <v> OK x\n" + still,
			} {
				play(t, tt.name+", "+answer+", "+end, script+rest+bye, tt.opts, func(s *session) {
					err := s.open().Update(s.ctx, []uint64{7, 8})
					if e := s.fails(err, proxy.AsError(err).Code); e.Text != proxy.ErrNotRemoved.Text {
						s.Errorf("%v", e)
					}
				})
			}
		}
	}
}
