package imapbackend

import (
	"maps"
	"slices"

	"popgate/imapbackend/store"
	"popgate/proxy"
)

const (
	// goneDays is for how long the unique-id of a message that has vanished
	// is kept for it: a mailbox that is restored may take days to fill.
	goneDays = 60

	// goneMost bounds how many of them there are; the oldest go first.
	goneMost = 200_000

	// fewNames is how many questions are cheaper without an index.
	fewNames = 64

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
	if slices.EqualFunc(shown, all, func(s store.Shown, msg proxy.Message) bool { return s.UID == msg.UID && s.ID != "" }) {
		r.kept = shown // as most often
		return r
	}
	r.kept = make([]store.Shown, 0, len(shown))
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
	names := make(map[uint32]store.Shown, len(r.fresh))
	for _, s := range r.kept {
		if s.ID == "" {
			names[s.UID] = s
		}
	}
	present, pool, used := r.present(), r.pool(), r.used()
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
			used.add(name)
			names[uid] = store.Shown{UID: uid, String: name}
		}
	}
	for _, uid := range r.fresh {
		s, named := names[uid]
		if !named {
			id := r.told[uid]
			s = store.Shown{UID: uid, String: unused(base(uid, id), func(name string) bool {
				return used.has(name) || r.imported.others(id, name)
			})}
			used.add(s.String)
		}
		s.ID = r.remembered(uid)
		r.changed = r.changed || !named || s.ID != ""
		names[uid] = s
	}
	return store.UniqueIDs{UIDValidity: r.uidValidity, Shown: r.shown(names), Gone: r.left(back)}, found
}

// present counts the messages that there are by identity, those of fresh ones.
func (r *reunion) present() map[string]int {
	present := make(map[string]int)
	for _, uid := range r.fresh {
		for _, id := range r.told[uid] {
			present[id]++
			if short := sizeless(id); short != "" {
				present[short]++
			}
		}
	}
	count := func(id string) {
		if n, asked := present[id]; asked {
			present[id] = n + 1
		}
	}
	for _, s := range r.kept {
		count(s.ID)
		if r.imported.Import != nil {
			count(sizeless(s.ID))
		}
	}
	return present
}

// usedNames are the unique-ids that are remembered, and those given since. Few
// questions are answered by looking, many by an index.
type usedNames struct {
	r     *reunion
	index map[string]bool
	all   bool // index holds those remembered too
}

func (r *reunion) used() *usedNames {
	u := &usedNames{r: r, index: make(map[string]bool)}
	if u.all = len(r.fresh) > fewNames; u.all {
		for _, s := range r.kept {
			u.add(s.String)
		}
		for _, g := range r.gone {
			u.add(g.String)
		}
	}
	return u
}

func (u *usedNames) add(name string) { u.index[name] = true }

func (u *usedNames) has(name string) bool {
	return u.index[name] || !u.all &&
		(slices.ContainsFunc(u.r.kept, func(s store.Shown) bool { return s.String == name }) ||
			slices.ContainsFunc(u.r.gone, func(g store.Gone) bool { return g.String == name }))
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
func (r *reunion) former(id ids, present, pool map[string]int, used *usedNames) (name string, index int) {
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
		if name := r.imported.find(one, present); name != "" && !used.has(name) {
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
