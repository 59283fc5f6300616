package imapbackend

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"popgate/imapbackend/internal/imapfault"
	"popgate/imapbackend/store"
	"popgate/proxy"
)

// keyOf names the mailbox of a model in the store of b.
func keyOf(b *Backend) store.Key {
	return store.Key{Upstream: b.opts.Name, User: "\x00joe", Mailbox: "INBOX"}
}

// I-DEL-3, P-QUIT-3: what is remembered of a mailbox may be wrong although all its
// numbers are right. Only marked messages are removed all the same, be it with the
// UIDs of a few messages or by ranges, after the upstream has been asked.
func TestWrongListing(t *testing.T) {
	for _, n := range []int{9, 1500} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newModel()
				for i := range 2 * n {
					m.add(fmt.Sprintf("Subject: %d\r\n\r\n", i))
				}
				for range n {
					m.remove(n)
				}
				b := m.backend(t, Options{})
				// Half of the messages that are there, and as many that are not.
				l := store.Listing{UIDValidity: m.Inbox().UIDValidity(), UIDNext: uint64(2*n + 1)}
				var marked []uint64
				for uid := uint64(1); int(uid) <= n; uid += 2 {
					marked = append(marked, uid)
				}
				for _, uid := range marked {
					l.Messages = append(l.Messages, proxy.Message{UID: uid, Octets: 14})
				}
				for uid := uint64(n + 1); len(l.Messages) < n; uid++ {
					l.Messages = append(l.Messages, proxy.Message{UID: uid, Octets: 14})
				}
				b.store.PutListing(keyOf(b), l)
				d := openMaildrop(t, b)
				if got := d.Messages(); !slices.Equal(got, l.Messages) {
					t.Fatalf("the listing is not used: %d messages", len(got))
				}
				if err := d.Update(t.Context(), marked); err != nil {
					t.Error(err)
				}
				d.Close()
				if left := len(m.messages()); left != n-len(marked) {
					t.Errorf("%d of %d messages are left, want %d", left, n, n-len(marked))
				}
				_, known := b.store.Listing(keyOf(b))
				if asked := strings.Contains(strings.Join(m.Commands(), "\n"), "UID SEARCH RETURN (ALL) UID 1:"); n > 9 && (known || !asked) {
					t.Errorf("the wrong listing is known: %v; the upstream was asked: %v", known, asked)
				}
			})
		})
	}
}

// I-DEL-3, P-QUIT-3: where UIDNEXT does not prove the listing, a UID in it may be wrong.
// The message that has another one is not removed: commands name consecutive UIDs that
// are listed and marked, or the upstream is asked what there is between them.
func TestUnprovedListing(t *testing.T) {
	for _, n := range []int{9, 1500} {
		for _, next := range []string{"0", "1", "x"} {
			t.Run(fmt.Sprintf("%d, UIDNEXT %s", n, next), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					m := newModel()
					m.Quirks.WrongUIDNext = next
					for i := range 2 * n { // which get all UIDs, and then only the odd ones stay
						if uid := m.add(fmt.Sprintf("Subject: %d\r\n\r\n", i)); uid%2 == 0 {
							m.Inbox().Remove(uid)
						}
					}
					hidden := uint64(2*n - 3) // is listed with the next UID
					in := imapfault.New()
					b := m.backend(t, Options{})
					b.dial = in.Dial(m.Dial)
					openMaildrop(t, b).Close()
					at := slices.IndexFunc(in.Responses(), func(response []byte) bool {
						return strings.Contains(string(response), fmt.Sprintf("UID %d RFC822.SIZE", hidden))
					})
					b = m.backend(t, Options{})
					b.dial = imapfault.New(imapfault.Fault{Kind: imapfault.OtherUID, Response: at + 1}).Dial(m.Dial)
					d := openMaildrop(t, b)
					var marked []uint64
					for _, msg := range d.Messages() {
						marked = append(marked, msg.UID)
					}
					if len(marked) != n || slices.Contains(marked, hidden) {
						t.Fatalf("%d messages are listed, UID %d among them: %v", len(marked), hidden, slices.Contains(marked, hidden))
					}
					before := len(m.Commands())
					if err := d.Update(t.Context(), marked); err != nil {
						t.Error(err)
					}
					d.Close()
					if got := m.messages(); len(got) != 1 || got[0].UID != hidden || got[0].Deleted() {
						t.Errorf("%d messages are left, want UID %d without flag", len(got), hidden)
					}
					if got := m.Commands()[before:]; len(got) > 5 {
						t.Errorf("%d commands", len(got))
					}
				})
			})
		}
	}
}

// I-DEL-3, I-CONN-4: what the sets of an UPDATE cost, in octets of the commands, in
// a session that has listed the mailbox and in one that relies on what is
// remembered.
func TestCostOfSets(t *testing.T) {
	const n = 2500
	all := func(int) bool { return true }
	second := func(i int) bool { return i%2 == 0 }
	for _, tt := range []struct {
		name       string
		keep, mark func(i int) bool // which of 2n messages there are, and which of these are marked
		cold, warm int64            // octets at most
	}{
		{"all of consecutive UIDs", func(i int) bool { return i < n }, all, 400, 400},
		{"every second of consecutive UIDs", func(i int) bool { return i < n }, second, 20_000, 20_000},
		{"all of every second UID", second, all, 400, 600},
		{"ten of every second UID", func(i int) bool { return i < 20 && second(i) }, all, 400, 600},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, warm := range []bool{false, true} {
				synctest.Test(t, func(t *testing.T) {
					m := newModel()
					m.Caps += " QRESYNC" // for long lines
					for i := range 2 * n {
						if uid := m.add("x\r\n"); !tt.keep(i) {
							m.Inbox().Remove(uid)
						}
					}
					b := m.backend(t, Options{})
					if warm {
						openMaildrop(t, b).Close()
					}
					d := openMaildrop(t, b)
					var marked []uint64
					for i, msg := range d.Messages() {
						if tt.mark(i) {
							marked = append(marked, msg.UID)
						}
					}
					before := len(m.Commands())
					if err := d.Update(t.Context(), marked); err != nil {
						t.Error(err)
					}
					d.Close()
					commands := m.Commands()[before:]
					octets, limit := int64(len(strings.Join(commands, ""))), tt.cold
					if warm {
						limit = tt.warm
					}
					t.Logf("warm %v: %d commands, %d octets", warm, len(commands), octets)
					if octets > limit {
						t.Errorf("warm %v: %d octets in %d commands, want at most %d", warm, octets, len(commands), limit)
					}
				})
			}
		})
	}
}
