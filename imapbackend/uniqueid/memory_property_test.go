package uniqueid

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"popgate/imapbackend/store"
	"popgate/proxy"
)

// modelled is a message of the model: its number, and the identity that it shares
// with its copies; "" if it has none.
type modelled struct {
	number   int
	identity string
}

// history is a mailbox in the model: the messages in it by UID, and those that
// were lost when it was rebuilt.
type history struct {
	*testing.T
	rnd         *rand.Rand
	base        string // form of new unique-ids
	uidValidity uint64
	uidNext     uint64
	uids        []uint64
	box         map[uint64]modelled
	lost        []modelled
	count       int
	identities  int
	remembered  store.UniqueIDs
	copied      map[string]bool   // identities that two messages have had
	owner       map[string]string // identity, or number, of the messages that had a unique-id
	first       map[int]string    // first unique-id of each message
	log         strings.Builder
}

func (h *history) note(format string, args ...any) { fmt.Fprintf(&h.log, format+"\n", args...) }

// put adds m to the mailbox.
func (h *history) put(m modelled) {
	h.note("put %d (%s) as %d", m.number, m.identity, h.uidNext)
	h.uids = append(h.uids, h.uidNext)
	h.box[h.uidNext] = m
	h.uidNext += 1 + h.rnd.Uint64N(3)
}

// arrive adds a message that is new, a copy of another one, or without identity.
func (h *history) arrive() {
	h.count++
	m := modelled{number: h.count}
	switch n := h.rnd.IntN(10); {
	case n == 0:
	case n < 3 && h.identities > 0:
		m.identity = "header:" + strconv.Itoa(h.rnd.IntN(h.identities)) + ":1"
		h.copied[m.identity] = true
	default:
		m.identity = "header:" + strconv.Itoa(h.identities) + ":1"
		h.identities++
	}
	h.put(m)
}

// expunge removes a message that never comes back.
func (h *history) expunge() {
	if len(h.uids) > 0 {
		i := h.rnd.IntN(len(h.uids))
		h.note("expunge %d", h.uids[i])
		delete(h.box, h.uids[i])
		h.uids = append(h.uids[:i], h.uids[i+1:]...)
	}
}

// rebuild replaces the mailbox by a new one. Messages that are not added at once
// are restored later, or never.
func (h *history) rebuild() {
	h.uidValidity += 1 + h.rnd.Uint64N(2)
	h.note("UIDVALIDITY %d", h.uidValidity)
	for _, uid := range h.uids {
		h.lost = append(h.lost, h.box[uid])
	}
	h.uids, h.box, h.uidNext = nil, make(map[uint64]modelled), 1
	h.restore(h.rnd.IntN(len(h.lost) + 1))
}

func (h *history) restore(n int) {
	h.rnd.Shuffle(len(h.lost), func(i, j int) { h.lost[i], h.lost[j] = h.lost[j], h.lost[i] })
	for _, m := range h.lost[:min(n, len(h.lost))] {
		h.put(m)
	}
	h.lost = h.lost[min(n, len(h.lost)):]
}

// session shows unique-ids, and checks them.
func (h *history) session() {
	var all []proxy.Message
	for _, uid := range h.uids {
		all = append(all, proxy.Message{UID: uid})
	}
	r := NewMemory(h.remembered, h.uidValidity, all, Imported{}, 20000)
	r.Identities, r.Complete = make(map[uint64]Identities), true
	for _, uid := range r.Fresh {
		r.Identities[uid] = Identities{Header: h.box[uid].identity}
	}
	form, err := Parse(h.base)
	if err != nil {
		h.Fatal(err)
	}
	append := form.Bind(h.uidValidity)
	now, _ := r.Assign(func(uid uint64, _ Identities) string { return string(append(nil, uid)) })
	if r.Changed {
		h.remembered = now
	}
	seen := make(map[string]bool)
	for i, uid := range h.uids {
		s := h.remembered.Shown[i]
		m := h.box[uid]
		h.note("session: %d is %s", uid, s.String)
		owner := m.identity
		if owner == "" {
			owner = strconv.Itoa(m.number)
		}
		switch before, shown := h.owner[s.String]; {
		case s.UID != uid || seen[s.String] || !importUniqueID.MatchString(s.String):
			h.Fatalf("unique-id %q of UID %d in place of UID %d\n%s", s.String, s.UID, uid, &h.log)
		case shown && before != owner:
			h.Fatalf("unique-id %q was shown for %s, now for %s\n%s", s.String, before, owner, &h.log)
		case h.first[m.number] == "":
			h.first[m.number] = s.String
		case h.first[m.number] != s.String && m.identity != "" && !h.copied[m.identity]:
			h.Fatalf("message %d had unique-id %q, now has %q\n%s", m.number, h.first[m.number], s.String, &h.log)
		}
		seen[s.String] = true
		h.owner[s.String] = owner
	}
}

// I-UIDL-5, P-UIDL-2: whatever messages arrive, vanish and come back, with any
// UIDVALIDITY, no unique-id is shown for two different messages, and a message
// without a copy keeps its own.
func TestRecallProperty(t *testing.T) {
	for seed := range uint64(400) {
		h := &history{
			T: t, rnd: rand.New(rand.NewPCG(seed, 1)), base: []string{Default, "{uid}", "{uid}.2"}[seed%3],
			uidValidity: 1 + seed%2<<40, uidNext: 1, box: make(map[uint64]modelled), copied: make(map[string]bool),
			owner: make(map[string]string), first: make(map[int]string),
		}
		h.note("seed %d", seed)
		for range (seed % 4) / 3 * 100 { // enough messages for an index
			h.arrive()
		}
		for range 60 {
			switch h.rnd.IntN(12) {
			case 0:
				h.rebuild()
			case 1:
				h.restore(1 + h.rnd.IntN(3))
			case 2, 3:
				h.expunge()
			case 4, 5, 6, 7:
				h.arrive()
			default:
				h.session()
			}
		}
	}
}
