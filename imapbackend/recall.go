package imapbackend

import (
	"cmp"
	"context"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"popgate/imapbackend/store"
	"popgate/imapbackend/uniqueid"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// recall gives messages the unique-ids that were shown for them before, under
// whatever UIDVALIDITY, and remembers those of new ones (requirement I-UIDL-5).
// It asks the upstream only about messages that are new.
func (u *upstream) recall(ctx context.Context, key store.Key, s *snapshot, all []proxy.Message) error {
	old, _ := u.backend.store.UniqueIDs(key)
	memory := uniqueid.NewMemory(old, s.uidValidity, all, today())
	authzid, name, _ := strings.Cut(u.user, "\x00")
	memory.Imported = u.opts.UIDLImport.For(canonical(authzid, name))
	if len(memory.Fresh) > 0 {
		told, status, err := u.resumeIdentities(ctx, key, s.uidValidity, all, memory.Fresh, memory.Kinds(u.backend.source, u.told))
		if err != nil {
			return err
		}
		lookedFor := status.Type == "NO" && (memory.Rebuilt || u.opts.UIDLImport != nil)
		if !status.OK() && len(told) == 0 && (lookedFor || u.backend.source != uniqueid.NoKind) {
			s.noUniqueIDs = u.noIdentities(ctx, key, status)
			return nil
		}
		memory.Identities, memory.Complete = told, status.OK()
	}
	byTemplate := u.backend.form.Bind(s.uidValidity)
	now, kept := memory.Assign(func(uid uint32, id uniqueid.Identities) string {
		if source := u.backend.source; source != uniqueid.NoKind && id[source] != "" {
			return uniqueid.FromIdentity(source, id[source])
		}
		return string(byTemplate(nil, uid))
	})
	if memory.Rebuilt {
		// Requirement I-UIDV-3.
		proxy.Logger(ctx).WarnContext(ctx, "UIDVALIDITY has changed: unique-ids are remembered",
			"upstream", key.Upstream, "mailbox", key.Mailbox, "before", old.UIDValidity, "now", s.uidValidity,
			"messages", len(all), "kept", kept)
	}
	if memory.Changed {
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
func (u *upstream) resumeIdentities(ctx context.Context, key store.Key, uidValidity uint32, all []proxy.Message, uids []uint32, kinds []uniqueid.Kind) (map[uint32]uniqueid.Identities, wire.Status, error) {
	key.UTF8 = false
	before := make(map[uint32]uniqueid.Identities)
	for _, k := range kinds {
		for _, known := range u.backend.store.Identities(key, uidValidity, partial(k)) {
			id := before[known.UID]
			id[k] = known.ID
			before[known.UID] = id
		}
	}
	whole := func(id uniqueid.Identities) bool {
		return !slices.ContainsFunc(kinds, func(k uniqueid.Kind) bool { return id[k] == "" })
	}
	told, status := make(map[uint32]uniqueid.Identities), wire.Status{Type: "OK"}
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

// partial is the source under which identities are stored while some are missing.
func partial(k uniqueid.Kind) string { return "partial " + k.String() }

// forgetUniqueIDs drops the unique-ids of messages, ascending, that the client
// has removed: what comes back of them, from a trash or a backup, is new to it.
// Where a form without UIDVALIDITY could make them again they are kept from use.
func (b *Backend) forgetUniqueIDs(key store.Key, removed []uint32) {
	if u, ok := b.store.UniqueIDs(key); ok {
		keep := b.source == uniqueid.NoKind && !b.form.HasUIDValidity()
		_ = b.store.PutUniqueIDs(key, uniqueid.Forget(u, removed, keep, today())) // else the next session finds them vanished
	}
}

func today() int32 { return int32(time.Now().Unix() / 86400) }

// ReadImport is uniqueid.ReadImport with users compared as this package does.
func ReadImport(name string, r io.Reader) (*uniqueid.Import, error) {
	return uniqueid.ReadImport(name, r, func(user string) string { return canonical("", user) })
}
