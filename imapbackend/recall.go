package imapbackend

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"popgate/imapbackend/store"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// recall gives messages the unique-ids that were shown for them before, under
// whatever UIDVALIDITY, and remembers those of new ones (requirement I-UIDL-5).
// It asks the upstream only about messages that are new.
func (u *upstream) recall(ctx context.Context, key store.Key, s *snapshot, all []proxy.Message) error {
	old, _ := u.backend.store.UniqueIDs(key)
	r := newReunion(old, s.uidValidity, all, int32(time.Now().Unix()/86400))
	if len(r.fresh) > 0 {
		told, status, err := u.resumeIdentities(ctx, key, s.uidValidity, all, r.fresh, u.kindsFor(r))
		if err != nil {
			return err
		}
		lookedFor := status.Type == "NO" && (r.rebuilt || u.opts.UIDLImport != nil)
		if !status.OK() && len(told) == 0 && (lookedFor || u.backend.source != noKind) {
			s.noUniqueIDs = u.noIdentities(ctx, key, status)
			return nil
		}
		r.told, r.asked = told, status.OK()
	}
	r.imported = u.opts.UIDLImport.of(u.user)
	byTemplate := u.backend.form.bind(s.uidValidity)
	now, kept := r.reunite(func(uid uint32, id ids) string {
		if source := u.backend.source; source != noKind && id[source] != "" {
			return sourceName(source, id[source])
		}
		return string(byTemplate(nil, uid))
	})
	if r.rebuilt {
		// Requirement I-UIDV-3.
		proxy.Logger(ctx).WarnContext(ctx, "UIDVALIDITY has changed: unique-ids are remembered",
			"upstream", key.Upstream, "mailbox", key.Mailbox, "before", old.UIDValidity, "now", s.uidValidity,
			"messages", len(all), "kept", kept)
	}
	if r.changed {
		if err := u.backend.store.PutUniqueIDs(key, now); err != nil {
			proxy.Logger(ctx).ErrorContext(ctx, "unique-ids cannot be remembered", "upstream", key.Upstream, "error", err)
		}
	}
	s.named = func(dst []byte, uid uint32) []byte {
		i, _ := slices.BinarySearchFunc(now.Shown, uid, func(s store.Shown, uid uint32) int { return cmp.Compare(s.UID, uid) })
		return append(dst, now.Shown[i].String...)
	}
	return nil
}

// resumeIdentities is fetchIdentities in as many sessions as it takes: where the
// connection is lost, or the client gives up because its first login lasts too
// long, the next session goes on with what is missing.
func (u *upstream) resumeIdentities(ctx context.Context, key store.Key, uidValidity uint32, all []proxy.Message, uids []uint32, kinds []idKind) (map[uint32]ids, wire.Status, error) {
	key.UTF8 = false
	before := make(map[uint32]ids)
	for _, k := range kinds {
		for _, known := range u.backend.store.Identities(key, uidValidity, partial(k)) {
			id := before[known.UID]
			id[k] = known.ID
			before[known.UID] = id
		}
	}
	whole := func(id ids) bool { return !slices.ContainsFunc(kinds, func(k idKind) bool { return id[k] == "" }) }
	told, status := make(map[uint32]ids), wire.Status{Type: "OK"}
	missing := slices.DeleteFunc(slices.Clone(uids), func(uid uint32) bool { return whole(before[uid]) })
	var err error
	if len(missing) > 0 {
		told, status, err = u.fetchIdentities(ctx, all, missing, kinds)
	}
	for uid, id := range before {
		if whole(id) {
			told[uid] = id
		}
	}
	if err == nil && len(before) == 0 {
		return told, status, nil
	}
	for _, k := range kinds {
		var known []store.Identity // none when all is told
		for _, uid := range slices.Sorted(maps.Keys(told)) {
			if err != nil && whole(told[uid]) {
				known = append(known, store.Identity{UID: uid, ID: told[uid][k]})
			}
		}
		u.backend.store.PutIdentities(key, uidValidity, partial(k), known)
	}
	return told, status, err
}

// partial is the source under which identities are kept that are not all told.
func partial(k idKind) string { return "partial " + idPrefix[k] }

// kindsFor returns the kinds of identity to ask for: the best that the upstream
// tells, that of its unique-ids, and those by which r can find old ones.
func (u *upstream) kindsFor(r *reunion) []idKind {
	var wanted [idKinds]bool
	best := byHeader
	for k := byHeader; k >= byEmailID; k-- {
		if u.told(k) {
			best = k
		}
	}
	wanted[best], wanted[u.backend.source] = true, true
	for _, g := range r.gone {
		wanted[idKindOf(g.ID)] = true
	}
	for _, k := range u.opts.UIDLImport.kinds() {
		wanted[k] = true
	}
	var kinds []idKind
	for k := byEmailID; k < idKinds; k++ {
		if wanted[k] && u.told(k) {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

// forgetUniqueIDs drops the unique-ids of messages, ascending, that the client
// has removed: what comes back of them, from a trash or a backup, is new to it.
// Where a form without UIDVALIDITY could make them again they are kept from use.
func (b *Backend) forgetUniqueIDs(key store.Key, removed []uint32) {
	u, ok := b.store.UniqueIDs(key)
	if !ok {
		return
	}
	gone := slices.Clip(u.Gone)
	shown := make([]store.Shown, 0, len(u.Shown))
	for _, s := range u.Shown {
		if _, r := slices.BinarySearch(removed, s.UID); !r {
			shown = append(shown, s)
		} else if b.source == noKind && !b.form.HasUIDValidity() {
			gone = append(gone, store.Gone{ID: noIdentity, String: s.String, Day: int32(time.Now().Unix() / 86400)})
		}
	}
	u.Shown, u.Gone = shown, gone
	_ = b.store.PutUniqueIDs(key, u) // else the next session finds them vanished
}
