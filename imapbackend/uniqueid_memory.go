package imapbackend

import (
	"cmp"
	"context"
	"io"
	"maps"
	"slices"
	"time"

	"popgate/imapbackend/store"
	"popgate/imapbackend/uniqueid"
	"popgate/imapbackend/upstream"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// recall gives messages the unique-ids that clients have seen before, whatever
// the UIDVALIDITY was, and remembers those of new ones (requirement I-UIDL-5).
// It asks the upstream about new messages only.
func (o *opening) recall(ctx context.Context, s *snapshot, all []proxy.Message) error {
	old, _ := o.b.store.UniqueIDs(o.key)
	memory := uniqueid.NewMemory(old, s.uidValidity, all, o.b.opts.UIDLImport.For(o.user), today())
	if len(memory.Fresh) > 0 {
		found, status, err := o.resumeIdentities(ctx, s.uidValidity, all, memory.Fresh, memory.Kinds(o.b.source, o.offers))
		if err != nil {
			return err
		}
		if !status.OK() && (o.isTemporary(status) && memory.LooksFor() || o.b.source != uniqueid.NoKind) {
			s.noUniqueIDs = o.noIdentities(ctx, status)
			return nil
		}
		memory.Identities, memory.Complete = found, status.OK()
	}
	byTemplate := o.b.form.Bind(s.uidValidity)
	now, kept := memory.Assign(func(uid uint64, id uniqueid.Identities) string {
		if source := o.b.source; source != uniqueid.NoKind && id[source] != "" {
			return uniqueid.FromIdentity(source, id[source])
		}
		return string(byTemplate(nil, uid))
	})
	if memory.Rebuilt {
		// Requirement I-UIDV-3.
		proxy.Logger(ctx).WarnContext(ctx, "UIDVALIDITY has changed: unique-ids are remembered",
			"upstream", o.key.Upstream, "mailbox", o.key.Mailbox, "before", old.UIDValidity, "now", s.uidValidity,
			"messages", len(all), "kept", kept)
	}
	if memory.Changed {
		if err := o.b.store.PutUniqueIDs(o.key, now); err != nil {
			proxy.Logger(ctx).ErrorContext(ctx, "unique-ids cannot be remembered", "upstream", o.key.Upstream, "error", err)
		}
	}
	s.named = func(dst []byte, uid uint64) []byte {
		i, _ := slices.BinarySearchFunc(now.Shown, uid, func(s store.Shown, uid uint64) int { return cmp.Compare(s.UID, uid) })
		return append(dst, now.Shown[i].String...)
	}
	return nil
}

// isTemporary reports whether the refusal of identities may pass: any NO, and a BAD
// that says so. An upstream that does not know the command will not learn it.
func (o *opening) isTemporary(status wire.Status) bool {
	return status.Type == "NO" || o.Failed(upstream.AtList, "FETCH", status, nil).Code == proxy.CodeSysTemp
}

// resumeIdentities is identify over as many sessions as needed: after a lost
// connection or a refusal, or if the client gives up because its first login takes
// too long, the next session asks for what is still missing.
func (o *opening) resumeIdentities(ctx context.Context, uidValidity uint64, all []proxy.Message, uids []uint64, kinds []uniqueid.Kind) (map[uint64]uniqueid.Identities, wire.Status, error) {
	key := o.key
	key.UTF8 = false
	before := make(map[uint64]uniqueid.Identities)
	for _, k := range kinds {
		for _, known := range o.b.store.Identities(key, uidValidity, partial(k)) {
			id := before[known.UID]
			id[k] = known.ID
			before[known.UID] = id
		}
	}
	whole := func(id uniqueid.Identities) bool {
		return !slices.ContainsFunc(kinds, func(k uniqueid.Kind) bool { return id[k] == "" })
	}
	found, status := make(map[uint64]uniqueid.Identities), wire.Status{Type: "OK"}
	missing := slices.DeleteFunc(slices.Clone(uids), func(uid uint64) bool { return whole(before[uid]) })
	var err error
	if len(missing) > 0 {
		found, status, err = o.identify(ctx, all, missing, kinds)
	}
	for uid, id := range before {
		if whole(id) {
			found[uid] = id
		}
	}
	isPartial := err != nil || !status.OK()
	if !isPartial && len(before) == 0 {
		return found, status, nil
	}
	for _, k := range kinds {
		var known []store.Identity // none when all are found
		for _, uid := range slices.Sorted(maps.Keys(found)) {
			if isPartial && whole(found[uid]) {
				known = append(known, store.Identity{UID: uid, ID: found[uid][k]})
			}
		}
		o.b.store.PutIdentities(key, uidValidity, partial(k), known)
	}
	return found, status, err
}

// partial is the source under which identities are stored while some are
// missing.
func partial(k uniqueid.Kind) string { return "partial " + k.String() }

// forgetUniqueIDs drops the unique-ids of messages, ascending, that the client
// has removed: one that comes back, from the trash or a backup, is new to the
// client. Where a form without UIDVALIDITY, or an import, could produce them again
// they are blocked. If hidden is set, the messages may still be there.
func (b *Backend) forgetUniqueIDs(key store.Key, removed []uint64, hidden bool) {
	u, ok := b.store.UniqueIDs(key)
	switch {
	case !ok || !b.opts.UIDLMemory || len(removed) == 0:
		return
	case hidden:
		u = uniqueid.Detach(u, removed)
	default:
		again := b.source == uniqueid.NoKind && !b.form.HasUIDValidity()
		u = uniqueid.Forget(u, removed, func(name string) bool { return again || b.opts.UIDLImport.Has(name) }, today())
	}
	_ = b.store.PutUniqueIDs(key, u) // else the next session finds them vanished
}

func today() int32 { return int32(time.Now().Unix() / 86400) }

// ReadImport is uniqueid.ReadImport with login names compared as in a login.
// Errors begin with name and the line number.
func ReadImport(name string, r io.Reader) (*uniqueid.Import, error) {
	return uniqueid.ReadImport(name, r, func(user string) string { return upstream.CanonicalUser("", user) })
}
