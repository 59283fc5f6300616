package imapbackend

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"popgate/imapbackend/store"
	"popgate/proxy"
)

// uidsOf returns the UIDs of a maildrop's messages.
func uidsOf(d proxy.Maildrop) string {
	var uids []uint64
	for _, msg := range d.Messages() {
		uids = append(uids, msg.UID)
	}
	return strings.Trim(fmt.Sprint(uids), "[]")
}

// joesKey is where what is remembered of joe's INBOX is stored.
func joesKey(b *Backend) store.Key {
	return store.Key{Upstream: b.opts.Name, User: "\x00joe", Mailbox: "INBOX"}
}

// I-DEL-5, I-SNAP-3: what is remembered selects from the messages that this
// session has found flagged, under the same UIDVALIDITY. They are unflagged and
// shown; where the upstream refuses, they are shown all the same.
func TestUnflagFormer(t *testing.T) {
	five := mailbox("UIDPLUS", "8 12", "7", "8", "9", "12", "13")
	again := strings.Replace(five, "UID FETCH 1:*", "UID FETCH 4000000000:*", 1)
	again = strings.Replace(again, "S: * 1 FETCH", "S: * 5 FETCH", 1)
	for _, tt := range []struct {
		name, script string
		former       store.Flagged
		shown        string
		left         []uint64 // remembered afterwards
	}{
		{"flagged", five + unflagging("8") + "S: <u> OK x\n", store.Flagged{UIDValidity: 9, UIDs: []uint64{7, 8, 9, 100}}, "7 8 9 13", nil},
		{"all", five + unflagging("8,12") + "S: <u> OK x\n", store.Flagged{UIDValidity: 9, UIDs: []uint64{8, 12}}, "7 8 9 12 13", nil},
		{"none flagged", five, store.Flagged{UIDValidity: 9, UIDs: []uint64{7, 9}}, "7 9 13", nil},
		{"nothing remembered", five, store.Flagged{}, "7 9 13", nil},
		{"another UIDVALIDITY", five, store.Flagged{UIDValidity: 10, UIDs: []uint64{8, 12}}, "7 9 13", []uint64{8, 12}},
		{"refused", five + unflagging("8") + "S: <u> NO zebra\n", store.Flagged{UIDValidity: 9, UIDs: []uint64{7, 8}}, "7 8 9 13", []uint64{8}},
		{"UIDs that do not last", strings.Replace(five, "S: * OK [UIDNEXT 4000000000] x", "S: * NO [UIDNOTSTICKY] x", 1) +
			"C: <h> UID FETCH 1:* (UID BODY.PEEK[HEADER])\nS: <h> NO zebra\n", store.Flagged{UIDValidity: 9, UIDs: []uint64{8}}, "7 9 13", []uint64{8}},
	} {
		play(t, tt.name, tt.script+bye, Options{}, func(s *session) {
			s.b.store.PutFlagged(joesKey(s.b), tt.former)
			if got := uidsOf(s.open()); got != tt.shown {
				s.Errorf("shown are %s, want %s", got, tt.shown)
			}
			if f, _ := s.b.store.Flagged(joesKey(s.b)); !slices.Equal(f.UIDs, tt.left) {
				s.Errorf("remembered are %d, want %d", f.UIDs, tt.left)
			}
			if logged := strings.Contains(s.log.String(), "no longer flagged"); logged != strings.Contains(tt.script, "<u> OK") {
				s.Errorf("log: %s", s.log.String())
			}
		})
	}
	play(t, "lost", five+unflagging("8")+"X:\n-- connection 2 --\n"+strings.Replace(again, "S: * 5 FETCH (UID 7", "S: * 5 FETCH (UID 13", 1)+
		unflagging("8")+"S: <u> OK x\n"+bye, Options{}, func(s *session) {
		s.b.store.PutFlagged(joesKey(s.b), store.Flagged{UIDValidity: 9, UIDs: []uint64{8}})
		if got := uidsOf(s.open()); got != "7 8 9 13" {
			s.Errorf("shown are %s", got)
		}
	})
}

// I-DEL-5, I-DEL-11, P-QUIT-2: when UPDATE loses the upstream twice, at any octet
// of its answers, the next session shows all marked messages that are left. The
// flags of other clients stay; those that the policy leaves only after +OK.
func TestUnflagAfterLosses(t *testing.T) {
	for _, tt := range repeatTests {
		t.Run(tt.name, func(t *testing.T) {
			for cut, whole := 0, false; !whole; cut += 5 {
				synctest.Test(t, func(t *testing.T) {
					m, b, dials, err := cutUpdate(t, tt.caps, tt.opts, cut, 2)
					whole = dials == 1
					d := openMaildrop(t, b)
					defer d.Close()
					flags := b.opts.plan(func(c string) bool { return strings.Contains(tt.caps, c) }).flags
					for _, msg := range m.messages() {
						if mayBe := msg.UID == 3 || flags && err == nil && (msg.UID == 2 || msg.UID == 5); msg.Deleted() && !mayBe {
							t.Errorf("cut at %d: %v: UID %d is flagged", cut, err, msg.UID)
						}
						if shown := slices.Contains(strings.Fields(uidsOf(d)), fmt.Sprint(msg.UID)); shown == msg.Deleted() {
							t.Errorf("cut at %d: %v: UID %d, flags %q, is shown: %v", cut, err, msg.UID, msg.Flags, shown)
						}
					}
					if !strings.Contains(m.left(), "(3)") {
						t.Errorf("cut at %d: the flag of another client is gone", cut)
					}
					if f, ok := b.store.Flagged(joesKey(b)); ok {
						t.Errorf("cut at %d: still remembered: %v", cut, f)
					}
				})
			}
		})
	}
}

// I-DEL-5: before \Deleted is set the store knows which messages may be flagged,
// whatever the policy, and forgets them when UPDATE has ended well.
func TestFlaggedStored(t *testing.T) {
	for _, tt := range []struct {
		name, caps string
		opts       Options
		want       []uint64 // while UPDATE runs
	}{
		{"expunge", "UIDPLUS", Options{}, []uint64{2, 4}},
		{"shown with those of others", "UIDPLUS", Options{ShowDeleted: true, WithoutUIDPLUS: Refuse}, []uint64{2, 4}},
		{"trash", "UIDPLUS", Options{Delete: DeleteTrash, Trash: "Bin"}, []uint64{2, 4}},
		{"flag", "UIDPLUS", Options{Delete: DeleteFlag}, []uint64{2, 4}},
		{"expunge if alone", "", Options{WithoutUIDPLUS: ExpungeIfAlone}, []uint64{2, 4}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newModel()
				m.Caps = "IMAP4rev1 AUTH=PLAIN SASL-IR " + tt.caps
				m.Mailbox("", "Bin").SetTrash()
				for i := range 5 {
					m.add(mail(i, 10))
				}
				m.Inbox().SetFlag(3, `\Deleted`, true)
				b := m.backend(t, tt.opts)
				marked := []uint64{2, 4}
				if tt.opts.ShowDeleted {
					marked = []uint64{2, 3, 4}
				}
				d, stores := openMaildrop(t, b), 0
				m.Before = func(cmd string) {
					if strings.HasPrefix(cmd, "UID STORE") || strings.HasPrefix(cmd, "UID EXPUNGE") {
						stores++
						if f, _ := b.store.Flagged(joesKey(b)); !slices.Equal(f.UIDs, tt.want) || f.UIDValidity != m.Inbox().UIDValidity() {
							t.Errorf("%s: remembered are %v, want %d", cmd, f, tt.want)
						}
					}
				}
				if err := d.Update(t.Context(), marked); err != nil || stores == 0 {
					t.Errorf("%v after %d commands", err, stores)
				}
				d.Close()
				if f, ok := b.store.Flagged(joesKey(b)); ok {
					t.Errorf("remembered: %v", f)
				}
			})
		})
	}
}

// I-DEL-5: with a store on disk flagged messages are shown again by the next
// process.
func TestUnflagOnDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	m := newModel()
	for i := range 5 {
		m.add(mail(i, 10))
	}
	open := func() (*Backend, *store.Store) {
		s, err := store.Open(path, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return m.backend(t, Options{Store: s}), s
	}
	b, s := open()
	conns := cuttable(b)
	d := openMaildrop(t, b)
	m.Before = func(cmd string) {
		if strings.HasPrefix(cmd, "UID EXPUNGE") {
			conns.next = []int{0}
			conns.last.cut()
		}
	}
	if err := d.Update(t.Context(), []uint64{2, 4}); !errors.Is(err, proxy.ErrNotRemoved) {
		t.Error(err)
	}
	d.Close()
	m.Before = nil
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	present := len(m.messages())
	b, s = open()
	defer s.Close()
	d = openMaildrop(t, b)
	defer d.Close()
	if n := len(d.Messages()); n != present || strings.Contains(m.left(), "(") {
		t.Errorf("%d messages shown, left are %s", n, m.left())
	}
}

// I-DEL-5: what a former session could not unflag is no longer remembered when this
// one has unflagged it, removed it or flagged it for good: a flag that is set later
// is another client's.
func TestFormerSettled(t *testing.T) {
	for _, tt := range []struct {
		name    string
		opts    Options // of the second session
		refuses string  // in it
		left    string  // after it
		former  []uint64
	}{
		{"unflagged", Options{}, "UID EXPUNGE", "1 2 (3)", []uint64{3}},
		{"removed", Options{}, "no command", "2 (3)", []uint64{3}},
		{"flagged for good", Options{Delete: DeleteFlag}, "no command", "(1) 2 (3)", []uint64{3}},
		{"not unflagged", Options{}, "UID", "(1) 2 (3)", []uint64{1, 3}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newModel()
				for i := range 3 {
					m.add(mail(i, 10))
				}
				for _, uid := range []uint64{1, 3} {
					m.Inbox().SetFlag(uid, `\Deleted`, true)
				}
				b := m.backend(t, tt.opts)
				former := store.Flagged{UIDValidity: m.Inbox().UIDValidity(), UIDs: []uint64{1, 3}}
				b.store.PutFlagged(joesKey(b), former)
				refuses := "UID STORE"
				m.Refuse = func(cmd string) string {
					if strings.HasPrefix(cmd, refuses) {
						return "NO zebra"
					}
					return ""
				}
				d := openMaildrop(t, b)
				defer d.Close()
				if got := uidsOf(d); got != "1 2 3" {
					t.Fatalf("shown are %s", got)
				}
				refuses = tt.refuses
				err := d.Update(t.Context(), []uint64{1})
				if refused := tt.refuses != "no command"; (err != nil) != refused {
					t.Errorf("QUIT: %v", err)
				}
				if got := m.left(); got != tt.left {
					t.Errorf("left are %s, want %s", got, tt.left)
				}
				if f, _ := b.store.Flagged(joesKey(b)); !slices.Equal(f.UIDs, tt.former) {
					t.Errorf("remembered are %d, want %d", f.UIDs, tt.former)
				}
				if !slices.Equal(former.UIDs, []uint64{1, 3}) {
					t.Error("what the store shares has changed")
				}
			})
		})
	}
}
