package uniqueid

import (
	"maps"
	"slices"

	"popgate/imapbackend/store"
	"popgate/proxy"
)

const (
	// goneDays is how many days the unique-id of a message that has vanished
	// is kept for it: a mailbox that is restored may take days to fill.
	goneDays = 60

	// maxGone bounds how many of them there are; the oldest go first.
	maxGone = 200_000

	// fewNames is the number of look-ups below which an index costs more than
	// it saves.
	fewNames = 64

	// noIdentity is remembered of a message that has been asked for its
	// identity and has none.
	noIdentity = "-"
)

// Memory brings together the unique-ids that were shown and the messages that
// there are. It is pure code.
type Memory struct {
	uidValidity uint32
	today       int32
	all         []proxy.Message
	Rebuilt     bool // under another UIDVALIDITY than before
	Changed     bool // there is something to remember

	kept  []store.Shown // of messages that are still there, ascending
	gone  []store.Gone  // of those that are not, the oldest first
	lost  int           // index in gone of those that were there at the last session
	Fresh []uint32      // to be asked for their identities, ascending

	Identities map[uint32]Identities // of fresh
	Complete   bool                  // what told lacks does not exist
	Imported   Imported
}

// NewMemory finds what is still there, by UID.
func NewMemory(old store.UniqueIDs, uidValidity uint32, all []proxy.Message, today int32) *Memory {
	m := &Memory{uidValidity: uidValidity, today: today, all: all}
	m.Rebuilt = old.UIDValidity != 0 && old.UIDValidity != uidValidity
	m.Changed = old.UIDValidity != uidValidity
	for _, g := range old.Gone {
		if g.Day > today-goneDays {
			m.gone = append(m.gone, g)
		}
	}
	m.Changed = m.Changed || len(m.gone) != len(old.Gone)
	m.lost = len(m.gone)
	shown := old.Shown
	if m.Rebuilt {
		m.lose(shown)
		shown = nil
	}
	if slices.EqualFunc(shown, all, func(s store.Shown, msg proxy.Message) bool { return s.UID == msg.UID && s.ID != "" }) {
		m.kept = shown // as most often
		return m
	}
	m.kept = make([]store.Shown, 0, len(shown))
	for _, msg := range all {
		for len(shown) > 0 && shown[0].UID < msg.UID {
			m.lose(shown[:1])
			shown = shown[1:]
		}
		if len(shown) > 0 && shown[0].UID == msg.UID {
			m.kept = append(m.kept, shown[0])
			if shown[0].ID == "" {
				m.Fresh = append(m.Fresh, msg.UID)
			}
			shown = shown[1:]
			continue
		}
		m.Fresh = append(m.Fresh, msg.UID)
	}
	m.lose(shown)
	return m
}

// lose records that messages have gone.
func (m *Memory) lose(shown []store.Shown) {
	for _, s := range shown {
		m.gone = append(m.gone, store.Gone{ID: s.ID, String: s.String, Day: m.today})
		m.Changed = true
	}
}

// Assign gives each message its unique-id: the one it has; else that of the
// only vanished message with its identity, if no other message has that; else
// an imported one on the same terms; else base of its UID and identities, made
// different where it was another message's. It returns what is to be
// remembered, and how many vanished messages have been found again.
func (m *Memory) Assign(base func(uint32, Identities) string) (now store.UniqueIDs, found int) {
	if len(m.Fresh) == 0 {
		return store.UniqueIDs{UIDValidity: m.uidValidity, Shown: m.kept, Gone: m.stillGone(nil)}, 0
	}
	names := make(map[uint32]store.Shown, len(m.Fresh))
	for _, s := range m.kept {
		if s.ID == "" {
			names[s.UID] = s
		}
	}
	present, pool, used := m.present(), m.pool(), m.used()
	back := make(map[int]bool) // of gone
	for _, uid := range m.Fresh {
		if _, named := names[uid]; named {
			continue
		}
		name, i := m.former(m.Identities[uid], present, pool, used)
		if i >= 0 {
			back[i] = true
			found++
		}
		if name != "" {
			used.add(name)
			names[uid] = store.Shown{UID: uid, String: name}
		}
	}
	for _, uid := range m.Fresh {
		s, named := names[uid]
		if !named {
			id := m.Identities[uid]
			s = store.Shown{UID: uid, String: Unused(base(uid, id), func(name string) bool {
				return used.has(name) || m.Imported.others(id, name)
			})}
			used.add(s.String)
		}
		s.ID = m.identity(uid)
		m.Changed = m.Changed || !named || s.ID != ""
		names[uid] = s
	}
	return store.UniqueIDs{UIDValidity: m.uidValidity, Shown: m.shown(names), Gone: m.stillGone(back)}, found
}

// present counts the messages that there are by identity, those of fresh ones.
func (m *Memory) present() map[string]int {
	present := make(map[string]int)
	for _, uid := range m.Fresh {
		for _, id := range m.Identities[uid] {
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
	for _, s := range m.kept {
		count(s.ID)
		if m.Imported.Import != nil {
			count(sizeless(s.ID))
		}
	}
	return present
}

// usedNames are the unique-ids that are remembered, and those assigned since.
// Few look-ups are answered by a scan, many by an index.
type usedNames struct {
	m     *Memory
	index map[string]bool
	all   bool // index holds those remembered too
}

func (m *Memory) used() *usedNames {
	u := &usedNames{m: m, index: make(map[string]bool)}
	if u.all = len(m.Fresh) > fewNames; u.all {
		for _, s := range m.kept {
			u.add(s.String)
		}
		for _, g := range m.gone {
			u.add(g.String)
		}
	}
	return u
}

func (u *usedNames) add(name string) { u.index[name] = true }

func (u *usedNames) has(name string) bool {
	return u.index[name] || !u.all &&
		(slices.ContainsFunc(u.m.kept, func(s store.Shown) bool { return s.String == name }) ||
			slices.ContainsFunc(u.m.gone, func(g store.Gone) bool { return g.String == name }))
}

// pool returns the index of gone by identity, -1 where there are several. Those
// that were there at the last session come before what had gone by then.
func (m *Memory) pool() map[string]int {
	pool := make(map[string]int)
	add := func(from, to int, known func(id string) bool) {
		for i := from; i < to; i++ {
			id := m.gone[i].ID
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
	add(m.lost, len(m.gone), func(string) bool { return false })
	last := maps.Clone(pool)
	add(0, m.lost, func(id string) bool { _, known := last[id]; return known })
	return pool
}

// former returns the unique-id that a message had before, "" if that is not
// known, and its index in gone, -1 if it is an imported one.
func (m *Memory) former(id Identities, present, pool map[string]int, used *usedNames) (name string, index int) {
	for _, one := range id {
		i, known := pool[one]
		if one == "" || !known {
			continue
		}
		if i < 0 || present[one] > 1 {
			return "", -1 // it is not known whose it was
		}
		return m.gone[i].String, i
	}
	for _, one := range id {
		if name := m.Imported.lookup(one, present); name != "" && !used.has(name) {
			return name, -1
		}
	}
	return "", -1
}

// identity returns the identity by which a message is to be found again.
func (m *Memory) identity(uid uint32) string {
	for _, one := range m.Identities[uid] {
		if one != "" {
			return one
		}
	}
	if m.Complete {
		return noIdentity
	}
	return ""
}

// shown returns the unique-ids of all messages, those of names first.
func (m *Memory) shown(names map[uint32]store.Shown) []store.Shown {
	shown := make([]store.Shown, 0, len(m.all))
	kept := m.kept
	for _, msg := range m.all {
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

// stillGone returns the entries of gone that are not in back.
func (m *Memory) stillGone(back map[int]bool) []store.Gone {
	var gone []store.Gone
	for i, g := range m.gone {
		if !back[i] {
			gone = append(gone, g)
		}
	}
	return gone[max(0, len(gone)-maxGone):]
}

// Kinds returns the kinds of identity to ask for: the best that is available,
// that of source, and those by which old ones can be found.
func (m *Memory) Kinds(source Kind, available func(Kind) bool) []Kind {
	var wanted [numKinds]bool
	best := Header
	for k := Header; k >= EmailID; k-- {
		if available(k) {
			best = k
		}
	}
	wanted[best], wanted[source] = true, true
	for _, g := range m.gone {
		wanted[kindOf(g.ID)] = true
	}
	for _, k := range m.Imported.Kinds() {
		wanted[k] = true
	}
	var kinds []Kind
	for k := EmailID; k < numKinds; k++ {
		if wanted[k] && available(k) {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

// Forget drops the unique-ids of messages, ascending, that the client has
// removed. Where keep is set they are kept from use again.
func Forget(u store.UniqueIDs, removed []uint32, keep bool, today int32) store.UniqueIDs {
	gone := slices.Clip(u.Gone)
	shown := make([]store.Shown, 0, len(u.Shown))
	for _, s := range u.Shown {
		if _, r := slices.BinarySearch(removed, s.UID); !r {
			shown = append(shown, s)
		} else if keep {
			gone = append(gone, store.Gone{ID: noIdentity, String: s.String, Day: today})
		}
	}
	u.Shown, u.Gone = shown, gone
	return u
}
