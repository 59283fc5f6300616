package imapbackend

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"popgate/imapbackend/imapmodel"
)

// event is what another client does to the mailbox.
type event struct {
	name string
	do   func(w *faultWorld)

	// rebuilt reports that INBOX is another mailbox afterwards, in which
	// the session must change nothing.
	rebuilt bool
	// ends reports that the connection ends, or may end.
	ends bool
}

var events = []event{
	{name: "one expunged", do: func(w *faultWorld) { w.expunge(w.uid(4)) }},
	{name: "all expunged", do: func(w *faultWorld) {
		for _, msg := range w.inbox.Messages() {
			w.expunge(msg.UID)
		}
	}},
	{name: "new mail", do: func(w *faultWorld) { w.inbox.Add(mail(100, 50)) }},
	{name: "flags", do: func(w *faultWorld) {
		w.inbox.SetFlag(w.uid(1), `\Answered`, true)
		w.inbox.SetFlag(w.uid(2), `\Seen`, false)
	}},
	{name: "all at once", do: func(w *faultWorld) {
		w.expunge(w.uid(1))
		w.inbox.Add(mail(100, 50))
		w.expunge(w.uid(7))
		w.inbox.SetFlag(w.uid(4), `\Flagged`, true)
	}},
	{name: "read-only", do: func(w *faultWorld) { w.inbox.SetReadOnly(true) }},
	{name: "BYE", ends: true, do: func(w *faultWorld) { w.m.Push("* BYE zebra", true) }},
	{name: "rebuilt", rebuilt: true, ends: true, do: func(w *faultWorld) { w.inbox.Rebuild() }},
	{name: "rebuilt, and announced", rebuilt: true, do: func(w *faultWorld) {
		w.m.AnnounceRebuilt = true
		w.inbox.Rebuild()
	}},
	{name: "rebuilt, and BYE", rebuilt: true, ends: true, do: func(w *faultWorld) {
		w.inbox.Rebuild()
		w.m.Push("* BYE zebra", true)
	}},
	{name: "renamed", do: func(w *faultWorld) { w.inbox.Rename("Old") }},
	{name: "replaced by another of that name", rebuilt: true, ends: true, do: func(w *faultWorld) {
		w.inbox.Rename("Old")
		for i := range 9 {
			w.m.Inbox().Add(mail(200+i, 80))
		}
		w.m.Push("* BYE zebra", true)
	}},
}

// expunge removes a message for another client.
func (w *faultWorld) expunge(uid uint64) {
	if w.inbox.Remove(uid) {
		w.removed[uid] = true
	}
}

// contents describes the messages of the mailbox now named INBOX, with their
// flags.
func (w *faultWorld) contents() string {
	var all strings.Builder
	for _, msg := range w.m.Inbox().Messages() {
		fmt.Fprintf(&all, "%d %q %.20q\n", msg.UID, msg.Flags, msg.Body)
	}
	return all.String()
}

// runEvent runs the event of the case.
func (w *faultWorld) runEvent() {
	e := w.fc.event
	e.do(w)
	if e.rebuilt {
		w.frozen = w.contents()
	}
}

// comparing is a session that checks that numbers, unique-ids and sizes stay
// the same.
var comparing = faultSession{name: "comparing", play: func(c *popSession) {
	list := func() (all string) {
		for _, command := range []string{"LIST", "UIDL"} {
			if c.do(command) {
				all += c.text()
			}
		}
		return all
	}
	first := list()
	for n := 1; n <= len(c.uidOf); n++ {
		if n%2 == 0 {
			c.top(n, 2)
		}
		c.retr(n)
		if now := list(); !c.lost && now != first {
			c.changed = append(c.changed, fmt.Sprintf("after RETR %d:\n%s\nbefore:\n%s", n, now, first))
		}
	}
	for n := 1; n <= len(c.uidOf); n += 2 {
		c.dele(n)
	}
	c.leave()
}}

// I-CONC-1, I-CONC-2, I-CONC-3, I-CONC-5, I-SNAP-9, I-UIDV-1, I-DEL-4,
// P-QUIT-3: whatever another client does before any command of a session,
// numbers, unique-ids and sizes stay the same, no message is cut, and only
// marked messages are removed, from the mailbox in which they were marked.
func TestSnapshotOtherClient(t *testing.T) {
	var total atomic.Int64
	t.Run("each", func(t *testing.T) {
		sessions := []faultSession{comparing}
		for _, s := range faultSessions {
			if slices.Contains([]string{"walk", "DELE only", "idle"}, s.name) {
				sessions = append(sessions, s)
			}
		}
		for p, policy := range faultPolicies {
			t.Run(policy.name, func(t *testing.T) {
				t.Parallel()
				r := rand.New(rand.NewPCG(faultSeed, uint64(p)))
				for _, session := range sessions {
					rate, base := 12, faultCase{policy: policy, session: session}
					if p == 0 {
						rate = 1
					} else {
						// After an EXPUNGE nothing proves which
						// message a response without UID is about.
						base.quirks, base.before = imapmodel.RandomQuirks(r), uint64(r.IntN(2))<<33
						base.quirks.UIDMissing = false
					}
					for _, fc := range sample(r, eventCases(t, base), rate) {
						fc.run(t)
						total.Add(1)
					}
				}
			})
		}
	})
	t.Logf("%d cases, POPGATE_FAULT_SEED=%d", total.Load(), faultSeed)
}

// eventCases returns the cases of one session: each event before each command,
// and expunges in each style. Until the maildrop is open its UIDs are not
// fixed, and there are no events that rebuild it.
func eventCases(t *testing.T, base faultCase) []faultCase {
	h := base.run(t)
	var all []faultCase
	for i := range events {
		styles := []imapmodel.Style{imapmodel.Omitted}
		if strings.Contains(events[i].name, "expunged") {
			styles = append(styles, imapmodel.Served, imapmodel.Refused, imapmodel.Nil, imapmodel.Kept)
		}
		for at := 1; at <= len(h.commands); at++ {
			if (events[i].rebuilt || events[i].ends || events[i].name == "renamed") && at <= h.loginCommands {
				continue
			}
			for _, style := range styles {
				fc := base
				fc.event, fc.at, fc.style = &events[i], at, style
				all = append(all, fc)
			}
		}
	}
	return all
}
