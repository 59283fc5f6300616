package imapbackend

import (
	"errors"
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
		imapmodel.SilentIfEmpty:  {"UID SEARCH RETURN (ALL) DELETED", 1, 0}, // no result is empty
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
// success, be it with a COUNT, with nothing but OK, or for other messages; nor is one
// by FETCH that shows the messages.
func TestPoliciesUnproved(t *testing.T) {
	for _, tt := range policyTests {
		before, check, found := strings.Cut(tt.script, "C: <q> ")
		if tt.want != nil || !found || strings.Contains(before, foreign) {
			continue
		}
		check, _, _ = strings.Cut(check, "\n")
		set, items, _ := strings.Cut(strings.TrimPrefix(check, "UID FETCH "), " ")
		key := map[string]string{"(UID)": "", "(UID FLAGS)": " UNDELETED"}[items]
		by := "C: <q> UID SEARCH "
		if strings.Contains(tt.caps, "ESEARCH") || strings.Contains(tt.caps, "IMAP4rev2") {
			by += "RETURN (ALL) "
		}
		by += "UID " + set + key + "\n"
		fetch := "C: <v> UID FETCH " + set + " " + items + "\n"
		still := ""
		if strings.Contains(before, "<st>") {
			still = unflagging(set) + "S: <u> OK x\n"
		}
		tt.opts.Dialect = bySearch
		for answer, script := range map[string]string{
			"nothing": by + "S: <q> OK x\n",
			"COUNT":   by + "S: * ESEARCH (TAG \"<q>\") UID COUNT 2\nS: <q> OK x\n",
			"others":  by + "S: * SEARCH 9\nS: <q> OK x\n",
		} {
			if strings.Contains(by, "RETURN") {
				script += strings.NewReplacer("<q>", "<r>", "RETURN (ALL) ", "").Replace(by) + "S: <r> OK x\n"
			}
			script = mailbox(tt.caps, "", "7", "8") + before + script + fetch
			for end, rest := range map[string]string{
				"refused": "S: <v> NO zebra\n" + noop + "C: <w> UID FETCH 1:* " + items + "\nS: <w> NO zebra\n" + still,
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

// I-SNAP-3, I-DEL-3, I-DEL-4, P-RETR-8: a server that takes the UIDs of a search as
// sequence numbers shows messages as gone that are there. It is not asked so, unless
// it is known to be right: what is flagged is hidden, nothing is left with +OK, no
// message that is there counts as removed, and no range reaches over one.
func TestSetsAreNumbers(t *testing.T) {
	world := func(t *testing.T, opts Options, messages int, gone ...uint64) (*model, *Backend) {
		m := newModel()
		m.Unknown, m.SetsAreNumbers = true, true
		for i := range messages {
			m.add(mail(i, 10))
		}
		for _, uid := range gone {
			m.Inbox().Remove(uid)
		}
		return m, m.backend(t, opts)
	}
	run := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) { synctest.Test(t, f) })
	}
	refuse := func(m *model, verb string) {
		m.Refuse = func(cmd string) string {
			if strings.HasPrefix(cmd, verb) {
				return "NO zebra"
			}
			return ""
		}
	}
	for name, opts := range map[string]Options{"expunge": {}, "flag": {Delete: DeleteFlag}} {
		for _, uid := range []uint64{1, 3, 5} {
			run(fmt.Sprintf("%s of UID %d refused", name, uid), func(t *testing.T) {
				m, b := world(t, opts, 5, 2)
				refuse(m, map[string]string{"expunge": "UID EXPUNGE", "flag": "UID STORE"}[name])
				d := openMaildrop(t, b)
				defer d.Close()
				if err := d.Update(t.Context(), []uint64{uid}); !errors.Is(err, proxy.ErrNotRemoved) {
					t.Errorf("QUIT: %v, left are %s", err, m.left())
				}
				if got := m.left(); got != "1 3 4 5" {
					t.Errorf("left are %s", got)
				}
			})
			run(fmt.Sprintf("%s of UID %d", name, uid), func(t *testing.T) {
				m, b := world(t, opts, 5, 2)
				d := openMaildrop(t, b)
				defer d.Close()
				if err := d.Update(t.Context(), []uint64{uid}); err != nil {
					t.Errorf("QUIT: %v, left are %s", err, m.left())
				}
			})
		}
	}
	run("RETR of an empty answer", func(t *testing.T) {
		m, b := world(t, Options{}, 5, 2)
		m.EmptyPeek = true
		d := openMaildrop(t, b)
		defer d.Close()
		if got := read(t, d, 5); got != m.messages()[3].Body {
			t.Errorf("%q", got)
		}
	})
	run("flagged by another client", func(t *testing.T) {
		m, b := world(t, Options{}, 6, 1)
		m.Inbox().SetFlag(5, `\Deleted`, true)
		d := openMaildrop(t, b)
		defer d.Close()
		if got := uidsOf(d); got != "2 3 4 6" {
			t.Errorf("shown are %s", got)
		}
	})
	run("a search that the server is said to take", func(t *testing.T) {
		m, b := world(t, Options{Dialect: bySearch}, 5, 2)
		refuse(m, "UID EXPUNGE")
		d := openMaildrop(t, b)
		defer d.Close()
		if err := d.Update(t.Context(), []uint64{3}); !errors.Is(err, proxy.ErrNotRemoved) { // it finds UID 4
			t.Errorf("QUIT: %v", err)
		}
	})
}
