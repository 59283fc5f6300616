package imapbackend

import (
	"maps"

	"popgate/imapbackend/store"
	"popgate/proxy"
)

const (
	// goneDays is for how long the unique-id of a message that has vanished
	// is kept for it: a mailbox that is restored may take days to fill.
	goneDays = 60

	// goneMost bounds how many of them there are; the oldest go first.
	goneMost = 200_000

	// noIdentity is remembered of a message that has been asked for its
	// identity and has none.
	noIdentity = "-"
)

// reunion brings together the unique-ids that were shown and the messages that
// there are. It is pure code.
type reunion struct {
	uidValidity uint32
	today       int32
	all         []proxy.Message
	rebuilt     bool // under another UIDVALIDITY than before
	changed     bool // there is something to remember

	kept  []store.Shown // of messages that are still there, ascending
	gone  []store.Gone  // of those that are not, the oldest first
	lost  int           // index in gone of those that were there at the last session
	fresh []uint32      // to be asked for their identities, ascending

	told     map[uint32]ids // of fresh
	asked    bool           // what told lacks does not exist
	imported imported
}

// newReunion finds what is still there, by UID.
func newReunion(old store.UniqueIDs, uidValidity uint32, all []proxy.Message, today int32) *reunion {
	r := &reunion{uidValidity: uidValidity, today: today, all: all}
	r.rebuilt = old.UIDValidity != 0 && old.UIDValidity != uidValidity
	r.changed = old.UIDValidity != uidValidity
	for _, g := range old.Gone {
		if g.Day > today-goneDays {
			r.gone = append(r.gone, g)
		}
	}
	r.changed = r.changed || len(r.gone) != len(old.Gone)
	r.lost = len(r.gone)
	shown := old.Shown
	if r.rebuilt {
		r.lose(shown)
		shown = nil
	}
	for _, msg := range all {
		for len(shown) > 0 && shown[0].UID < msg.UID {
			r.lose(shown[:1])
			shown = shown[1:]
		}
		if len(shown) > 0 && shown[0].UID == msg.UID {
			r.kept = append(r.kept, shown[0])
			if shown[0].ID == "" {
				r.fresh = append(r.fresh, msg.UID)
			}
			shown = shown[1:]
			continue
		}
		r.fresh = append(r.fresh, msg.UID)
	}
	r.lose(shown)
	return r
}

// lose notes that messages have gone.
func (r *reunion) lose(shown []store.Shown) {
	for _, s := range shown {
		r.gone = append(r.gone, store.Gone{ID: s.ID, String: s.String, Day: r.today})
		r.changed = true
	}
}

// reunite gives each message its unique-id: the one it has; else that of the
// only vanished message with its identity, if no other message has that; else
// an imported one on the same terms; else base, made different where it was
// another message's. It returns what is to be remembered, and how many vanished
// ones have been found again.
func (r *reunion) reunite(base func(uint32, ids) string) (now store.UniqueIDs, found int) {
	if len(r.fresh) == 0 {
		return store.UniqueIDs{UIDValidity: r.uidValidity, Shown: r.kept, Gone: r.left(nil)}, 0
	}
	present := make(map[string]int) // messages by identity
	used := make(map[string]bool)
	names := make(map[uint32]store.Shown, len(r.fresh))
	for _, s := range r.kept {
		used[s.String] = true
		present[s.ID]++
		if s.ID == "" {
			names[s.UID] = s
		}
	}
	for _, uid := range r.fresh {
		for _, id := range r.told[uid] {
			present[id]++
			if short := sizeless(id); short != "" {
				present[short]++
			}
		}
	}
	for _, s := range r.kept {
		if short := sizeless(s.ID); short != "" {
			present[short]++
		}
	}
	for _, g := range r.gone {
		used[g.String] = true
	}
	pool := r.pool()
	back := make(map[int]bool) // of gone
	for _, uid := range r.fresh {
		if _, named := names[uid]; named {
			continue
		}
		name, i := r.former(r.told[uid], present, pool, used)
		if i >= 0 {
			back[i] = true
			found++
		}
		if name != "" {
			used[name] = true
			names[uid] = store.Shown{UID: uid, String: name}
		}
	}
	for _, uid := range r.fresh {
		s, named := names[uid]
		if !named {
			id := r.told[uid]
			s = store.Shown{UID: uid, String: unused(base(uid, id), func(name string) bool {
				return used[name] || r.imported.others(id, name)
			})}
			used[s.String] = true
		}
		s.ID = r.remembered(uid)
		r.changed = r.changed || !named || s.ID != ""
		names[uid] = s
	}
	return store.UniqueIDs{UIDValidity: r.uidValidity, Shown: r.shown(names), Gone: r.left(back)}, found
}

// pool returns the index of gone by identity, -1 where there are several. Those
// that were there at the last session come before what had gone by then.
func (r *reunion) pool() map[string]int {
	pool := make(map[string]int)
	add := func(from, to int, known func(id string) bool) {
		for i := from; i < to; i++ {
			id := r.gone[i].ID
			if known(id) {
				continue
			}
			if _, several := pool[id]; several {
				pool[id] = -1
			} else {
				pool[id] = i
			}
		}
	}
	add(r.lost, len(r.gone), func(string) bool { return false })
	last := maps.Clone(pool)
	add(0, r.lost, func(id string) bool { _, known := last[id]; return known })
	return pool
}

// former returns the unique-id that a message had before, "" if that cannot be
// said, and its index in gone, -1 if it is an imported one.
func (r *reunion) former(id ids, present, pool map[string]int, used map[string]bool) (name string, index int) {
	for _, one := range id {
		i, known := pool[one]
		if one == "" || !known {
			continue
		}
		if i < 0 || present[one] > 1 {
			return "", -1 // whose it was cannot be told
		}
		return r.gone[i].String, i
	}
	for _, one := range id {
		if name := r.imported.find(one, present); name != "" && !used[name] {
			return name, -1
		}
	}
	return "", -1
}

// remembered returns the identity by which a message is to be found again.
func (r *reunion) remembered(uid uint32) string {
	for _, one := range r.told[uid] {
		if one != "" {
			return one
		}
	}
	if r.asked {
		return noIdentity
	}
	return ""
}

// shown returns the unique-ids of all messages, those of names first.
func (r *reunion) shown(names map[uint32]store.Shown) []store.Shown {
	shown := make([]store.Shown, 0, len(r.all))
	kept := r.kept
	for _, msg := range r.all {
		s, ok := names[msg.UID]
		if len(kept) > 0 && kept[0].UID == msg.UID {
			if !ok {
				s = kept[0]
			}
			kept = kept[1:]
		}
		shown = append(shown, s)
	}
	return shown
}

// left returns what of gone is not back.
func (r *reunion) left(back map[int]bool) []store.Gone {
	var gone []store.Gone
	for i, g := range r.gone {
		if !back[i] {
			gone = append(gone, g)
		}
	}
	return gone[max(0, len(gone)-goneMost):]
}
