package uniqueid

import (
	"maps"
	"slices"

	"popgate/imapbackend/store"
	"popgate/proxy"
)

const (
	// goneDays is how many days the unique-id of a vanished message is kept
	// for it: a mailbox that is restored may take days to fill.
	goneDays = 60

	// maxGone limits the number of vanished messages; the oldest are dropped
	// first.
	maxGone = 200_000

	// fewNames is the number of look-ups below which an index costs more than
	// it saves.
	fewNames = 64

	// noIdentity marks a message whose identity was requested and that has
	// none.
	noIdentity = "-"
)

// Memory matches the unique-ids that were shown before with the messages that are
// in the mailbox. It does no I/O, and is not safe for concurrent use.
type Memory struct {
	uidValidity uint64
	today       int32
	all         []proxy.Message
	Rebuilt     bool // UIDVALIDITY is not the one before
	Changed     bool // the result of Assign is to be stored

	kept      []store.Shown // of messages that are still there, ascending
	gone      []store.Gone  // of those that are not, the oldest first
	newlyGone int           // index in gone of those that were there at the last session
	Fresh     []uint64      // UIDs whose identities are needed, ascending

	Identities map[uint64]Identities // of Fresh; set by the caller
	Complete   bool                  // an identity missing in Identities does not exist; set by the caller
	Imported   Imported
}

// NewMemory returns a Memory of what was stored and of all messages of the
// mailbox, ascending by UID. today is in days since 1970. An imported unique-id of a
// message that the client has removed is blocked for as long as it can be imported.
func NewMemory(old store.UniqueIDs, uidValidity uint64, all []proxy.Message, imported Imported, today int32) *Memory {
	m := &Memory{uidValidity: uidValidity, today: today, all: all, Imported: imported}
	m.Rebuilt = old.UIDValidity != 0 && old.UIDValidity != uidValidity
	m.Changed = old.UIDValidity != uidValidity
	for _, g := range old.Gone {
		if g.Day > today-goneDays || g.ID == noIdentity && imported.Has(g.String) {
			m.gone = append(m.gone, g)
		}
	}
	m.Changed = m.Changed || len(m.gone) != len(old.Gone)
	m.newlyGone = len(m.gone)
	shown := old.Shown
	if m.Rebuilt {
		m.addGone(shown)
		shown = nil
	}
	if slices.EqualFunc(shown, all, func(s store.Shown, msg proxy.Message) bool { return s.UID == msg.UID && s.ID != "" }) {
		m.kept = shown // the usual case
		return m
	}
	m.kept = make([]store.Shown, 0, len(shown))
	for _, msg := range all {
		for len(shown) > 0 && shown[0].UID < msg.UID {
			m.addGone(shown[:1])
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
	m.addGone(shown)
	return m
}

// LooksFor reports whether a message of Fresh may be one that had a unique-id
// before.
func (m *Memory) LooksFor() bool {
	return m.Rebuilt || m.Imported.Import != nil ||
		slices.ContainsFunc(m.gone, func(g store.Gone) bool { return g.ID != "" && g.ID != noIdentity })
}

// addGone records that messages are no longer in the mailbox.
func (m *Memory) addGone(shown []store.Shown) {
	for _, s := range shown {
		m.gone = append(m.gone, store.Gone{ID: s.ID, String: s.String, Day: m.today})
		m.Changed = true
	}
}

// Assign gives each message a unique-id: the one it has; else that of the only
// vanished message with its identity, if no other message has that identity; else
// an imported one on the same conditions; else the result of base, made different
// if it was shown for another message. It returns what is to be stored, and how
// many vanished messages have been found again.
func (m *Memory) Assign(base func(uint64, Identities) string) (now store.UniqueIDs, found int) {
	if len(m.Fresh) == 0 {
		return store.UniqueIDs{UIDValidity: m.uidValidity, Shown: m.kept, Gone: m.stillGone(nil)}, 0
	}
	names := m.named()
	present, goneByID, used := m.present(), m.goneByID(), m.used()
	back := make(map[int]bool) // of gone
	for n, uid := range m.Fresh {
		if names[n].String != "" {
			continue
		}
		name, i := m.former(m.Identities[uid], present, goneByID, used)
		if i >= 0 {
			back[i] = true
			found++
		}
		if name != "" {
			used.add(name)
			names[n].String = name
		}
	}
	for n, uid := range m.Fresh {
		s := &names[n]
		named := s.String != ""
		if !named {
			id := m.Identities[uid]
			s.String = Unused(base(uid, id), func(name string) bool {
				return used.has(name) || m.Imported.shownForOther(id, name)
			})
			used.add(s.String)
		}
		s.ID = m.identity(uid)
		m.Changed = m.Changed || !named || s.ID != ""
	}
	return store.UniqueIDs{UIDValidity: m.uidValidity, Shown: m.shown(names), Gone: m.stillGone(back)}, found
}

// named returns the messages of Fresh, with the unique-ids of those that have one
// and lack the identity only.
func (m *Memory) named() []store.Shown {
	names := make([]store.Shown, len(m.Fresh))
	kept := m.kept
	for n, uid := range m.Fresh {
		for len(kept) > 0 && kept[0].UID < uid {
			kept = kept[1:]
		}
		names[n].UID = uid
		if len(kept) > 0 && kept[0].UID == uid {
			names[n].String = kept[0].String
		}
	}
	return names
}

// present counts the messages of the mailbox by identity, for the identities of
// Fresh.
func (m *Memory) present() map[string]int {
	present := make(map[string]int)
	if len(m.gone) == 0 && m.Imported.Import == nil {
		return present // nothing is looked for
	}
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

// usedNames are the unique-ids that were shown before, and those assigned since.
// It scans for a few look-ups, and makes an index for many.
type usedNames struct {
	m     *Memory
	index map[string]bool
	all   bool // index contains those shown before too
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

// goneByID returns indexes of gone by identity, -1 where several messages had the
// identity. Messages that were there at the last session take precedence over
// those that had vanished by then.
func (m *Memory) goneByID() map[string]int {
	indexes := make(map[string]int)
	add := func(from, to int, known func(id string) bool) {
		for i := from; i < to; i++ {
			id := m.gone[i].ID
			if known(id) {
				continue
			}
			if _, several := indexes[id]; several {
				indexes[id] = -1
			} else {
				indexes[id] = i
			}
		}
	}
	add(m.newlyGone, len(m.gone), func(string) bool { return false })
	last := maps.Clone(indexes)
	add(0, m.newlyGone, func(id string) bool { _, known := last[id]; return known })
	return indexes
}

// former returns the unique-id that a message had before, "" if that is not known,
// and its index in gone, -1 if there is none or the unique-id is imported.
func (m *Memory) former(id Identities, present, goneByID map[string]int, used *usedNames) (name string, index int) {
	for _, one := range id {
		i, known := goneByID[one]
		if one == "" || !known {
			continue
		}
		if i < 0 || present[one] > 1 {
			return "", -1 // several messages could have had it
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

// identity returns the identity by which a message can be found again,
// noIdentity if it has none, "" if that is not known.
func (m *Memory) identity(uid uint64) string {
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

// shown returns the unique-ids of all messages. Those in names, of Fresh, replace
// older ones.
func (m *Memory) shown(names []store.Shown) []store.Shown {
	if len(names) == len(m.all) {
		return names
	}
	shown := make([]store.Shown, 0, len(m.all))
	for _, s := range m.kept {
		for len(names) > 0 && names[0].UID < s.UID {
			shown = append(shown, names[0])
			names = names[1:]
		}
		if len(names) > 0 && names[0].UID == s.UID {
			s, names = names[0], names[1:]
		}
		shown = append(shown, s)
	}
	return append(shown, names...)
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

// Kinds returns the kinds of identity to request: the best that is available,
// source, and those by which former unique-ids can be found.
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

// Forget drops the unique-ids of messages that the client has removed, ascending.
// Those for which keep returns true are kept so that they are not used again.
func Forget(u store.UniqueIDs, removed []uint64, keep func(name string) bool, today int32) store.UniqueIDs {
	gone := slices.Clip(u.Gone)
	shown := make([]store.Shown, 0, len(u.Shown))
	for _, s := range u.Shown {
		if _, r := slices.BinarySearch(removed, s.UID); !r {
			shown = append(shown, s)
		} else if keep(s.String) {
			gone = append(gone, store.Gone{ID: noIdentity, String: s.String, Day: today})
		}
	}
	u.Shown, u.Gone = shown, gone
	return u
}

// Detach is Forget for messages that may still be there, hidden: they keep their
// unique-ids as long as they are, and what comes back of them later is new.
func Detach(u store.UniqueIDs, removed []uint64) store.UniqueIDs {
	u.Shown = slices.Clone(u.Shown)
	for i, s := range u.Shown {
		if _, r := slices.BinarySearch(removed, s.UID); r {
			u.Shown[i].ID = noIdentity
		}
	}
	return u
}
