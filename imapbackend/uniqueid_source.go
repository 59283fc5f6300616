package imapbackend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"popgate/imapbackend/store"
	"popgate/imapbackend/uniqueid"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

const textNoUniqueIDs = "mail server gives no unique-ids"

// nameMessages gives the messages of a mailbox, hidden ones too, their
// unique-ids where a template alone does not make them.
func (o *opening) nameMessages(ctx context.Context, s *snapshot, all []proxy.Message) error {
	source := o.b.source
	if source != uniqueid.NoKind && !o.offers(source) {
		s.noUniqueIDs = &proxy.Error{Code: proxy.CodeSysPerm, Text: textNoUniqueIDs,
			Err: fmt.Errorf("imap: the upstream does not have the ids that uidl = %q needs", o.b.opts.UIDL)}
		proxy.Logger(ctx).ErrorContext(ctx, "no unique-ids", "upstream", o.key.Upstream, "error", s.noUniqueIDs)
		return nil
	}
	switch {
	case o.b.opts.UIDLMemory:
		return o.recall(ctx, s, all)
	case source != uniqueid.NoKind:
		return o.nameBySource(ctx, s, all)
	}
	return nil
}

// nameBySource makes unique-ids from identities of one kind. They are
// remembered, so that a copy keeps its number when another copy is removed.
func (o *opening) nameBySource(ctx context.Context, s *snapshot, all []proxy.Message) error {
	source := o.b.source
	byTemplate := o.b.form.Bind(s.uidValidity)
	key := o.key
	key.UTF8 = false // a message has one unique-id, in UTF8 mode or not
	known := o.b.store.Identities(key, s.uidValidity, o.b.opts.UIDL)
	named, fresh := stillNamed(known, all)
	if len(fresh) > 0 {
		found, status, err := o.identify(ctx, all, fresh, []uniqueid.Kind{source})
		if err != nil {
			return err
		}
		if !status.OK() {
			s.noUniqueIDs = o.noIdentities(ctx, status)
		}
		used := make(map[string]bool, len(all))
		for _, id := range named {
			used[id.ID] = true
		}
		for _, uid := range fresh {
			ids, answered := found[uid]
			if !answered {
				continue
			}
			name := string(byTemplate(nil, uid)) // without an identity
			if id := ids[source]; id != "" {
				name = uniqueid.FromIdentity(source, id)
			}
			name = uniqueid.Unused(name, func(name string) bool { return used[name] })
			used[name] = true
			named = append(named, store.Identity{UID: uid, ID: name})
		}
		slices.SortFunc(named, func(a, b store.Identity) int { return cmp.Compare(a.UID, b.UID) })
	}
	if len(fresh) > 0 || len(named) != len(known) {
		o.b.store.PutIdentities(key, s.uidValidity, o.b.opts.UIDL, named)
	}
	s.named = func(dst []byte, uid uint64) []byte {
		if i, ok := slices.BinarySearchFunc(named, uid, func(id store.Identity, uid uint64) int { return cmp.Compare(id.UID, uid) }); ok {
			return append(dst, named[i].ID...)
		}
		return byTemplate(dst, uid) // expunged by now
	}
	return nil
}

// stillNamed returns those of known that are among all, and the UIDs of all
// that are not among known; all are ascending.
func stillNamed(known []store.Identity, all []proxy.Message) (named []store.Identity, fresh []uint64) {
	named = make([]store.Identity, 0, len(all))
	for _, msg := range all {
		for len(known) > 0 && known[0].UID < msg.UID {
			known = known[1:]
		}
		if len(known) > 0 && known[0].UID == msg.UID {
			named = append(named, known[0])
		} else {
			fresh = append(fresh, msg.UID)
		}
	}
	return named, fresh
}

// noIdentities returns why this session has no unique-ids: others would make
// clients download everything again.
func (o *opening) noIdentities(ctx context.Context, status wire.Status) error {
	err := &proxy.Error{Code: proxy.CodeSysTemp, Text: "mail server gives no unique-ids now, try again later",
		Err: errors.New("imap: identities of messages: " + o.Clean(status.String()))}
	proxy.Logger(ctx).ErrorContext(ctx, "no unique-ids", "upstream", o.key.Upstream, "error", err)
	return err
}
