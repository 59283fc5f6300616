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

	// void tells that INBOX is not what it was: nothing in it may change from
	// then on.
	void bool
	// ends tells that the connection ends, or can end, with it.
	ends bool
}

var events = []event{
	{name: "one expunged", do: func(w *faultWorld) { w.expunge(4) }},
	{name: "all expunged", do: func(w *faultWorld) {
		for _, msg := range w.inbox.Messages() {
			w.expunge(msg.UID)
		}
	}},
	{name: "new mail", do: func(w *faultWorld) { w.inbox.Add(mail(100, 50)) }},
	{name: "flags", do: func(w *faultWorld) {
		w.inbox.SetFlag(1, `\Answered`, true)
		w.inbox.SetFlag(2, `\Seen`, false)
	}},
	{name: "all at once", do: func(w *faultWorld) {
		w.expunge(1)
		w.inbox.Add(mail(100, 50))
		w.expunge(7)
		w.inbox.SetFlag(4, `\Flagged`, true)
	}},
	{name: "read-only", do: func(w *faultWorld) { w.inbox.SetReadOnly(true) }},
	{name: "BYE", ends: true, do: func(w *faultWorld) { w.m.Push("* BYE zebra", true) }},
	{name: "rebuilt", void: true, ends: true, do: func(w *faultWorld) { w.inbox.Rebuild() }},
	{name: "rebuilt, and told", void: true, do: func(w *faultWorld) {
		w.m.AnnounceRebuilt = true
		w.inbox.Rebuild()
	}},
	{name: "rebuilt, and BYE", void: true, ends: true, do: func(w *faultWorld) {
		w.inbox.Rebuild()
		w.m.Push("* BYE zebra", true)
	}},
	{name: "renamed", do: func(w *faultWorld) { w.inbox.Rename("Old") }},
	{name: "replaced by another of that name", void: true, ends: true, do: func(w *faultWorld) {
		w.inbox.Rename("Old")
		for i := range 9 {
			w.m.Inbox().Add(mail(200+i, 80))
		}
		w.m.Push("* BYE zebra", true)
	}},
}

// expunge removes a message for another client.
func (w *faultWorld) expunge(uid uint32) {
	if w.inbox.Remove(uid) {
		w.removed[uid] = true
	}
}

// contents is what is in the mailbox that is called INBOX now, flags included.
func (w *faultWorld) contents() string {
	var all strings.Builder
	for _, msg := range w.m.Inbox().Messages() {
		fmt.Fprintf(&all, "%d %q %.20q\n", msg.UID, msg.Flags, msg.Body)
	}
	return all.String()
}

// happen lets the event of the case happen.
func (w *faultWorld) happen() {
	e := w.fc.event
	e.do(w)
	if e.void {
		w.void = w.contents()
	}
}

// steady is a session that looks whether numbers, unique-ids and sizes stay as
// they are.
var steady = faultSession{name: "steady", play: func(c *popSession) {
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
			c.unsteady = append(c.unsteady, fmt.Sprintf("after RETR %d:\n%s\nbefore:\n%s", n, now, first))
		}
	}
	for n := 1; n <= len(c.uidOf); n += 2 {
		c.dele(n)
	}
	c.leave()
}}

// Snapshots under fire (I-CONC-1, I-CONC-2, I-CONC-3, I-CONC-5, I-SNAP-9,
// I-UIDV-1, I-DEL-4, P-QUIT-3): whatever other clients do before whichever
// command of a session, numbers, unique-ids and sizes stay, no message is cut,
// and nothing else is removed than what was marked, from the mailbox in which
// it was marked.
func TestSnapshotUnderFire(t *testing.T) {
	var total atomic.Int64
	t.Run("each", func(t *testing.T) {
		sessions := []faultSession{steady}
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
					rate := 12
					if p == 0 {
						rate = 1
					}
					for _, fc := range sample(r, underFire(t, faultCase{policy: policy, session: session}), rate) {
						fc.run(t)
						total.Add(1)
					}
				}
			})
		}
	})
	t.Logf("%d cases, POPGATE_FAULT_SEED=%d", total.Load(), faultSeed)
}

// underFire returns the cases of one session: each event before each command,
// what is expunged in each style. Until the maildrop is open its UIDs are not
// fixed, and nothing is rebuilt.
func underFire(t *testing.T, base faultCase) []faultCase {
	h := base.run(t)
	var all []faultCase
	for i := range events {
		styles := []imapmodel.Style{imapmodel.Omitted}
		if strings.Contains(events[i].name, "expunged") {
			styles = append(styles, imapmodel.Served, imapmodel.Refused, imapmodel.Nil, imapmodel.Kept)
		}
		for at := 1; at <= len(h.commands); at++ {
			if (events[i].void || events[i].ends || events[i].name == "renamed") && at <= h.loginCommands {
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
