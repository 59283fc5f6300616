package imapbackend

import (
	"context"
	"slices"

	"popgate/imapbackend/internal/uidset"
	"popgate/imapbackend/store"
	"popgate/imapbackend/upstream"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// extend returns the remembered messages that are still there and the newer
// ones, or nil where they cannot be proved to be all. The proof is by
// counting: UIDs only grow and are never reused, so below the remembered
// UIDNEXT messages can only have disappeared, and SELECT has announced how
// many there are below its own UIDNEXT.
func (o *opening) extend(ctx context.Context, mb wire.Mailbox, l *listing) ([]proxy.Message, error) {
	if !mb.Counted || mb.UIDValidity == 0 || mb.UIDValidity != o.cached.UIDValidity || mb.UIDNotSticky ||
		mb.UIDNext == 0 || mb.UIDNext < o.cached.UIDNext {
		return nil, nil
	}
	// n:* also brings the last message where its UID is below n, and
	// messages that have arrived since SELECT.
	fresh := slices.DeleteFunc(l.sorted(), func(e entry) bool { return e.uid < o.cached.UIDNext || l.isNext(mb, e.uid) })
	if slices.ContainsFunc(fresh, func(e entry) bool { return unsized(e) || e.uid >= mb.UIDNext }) {
		return nil, nil
	}
	o.known = o.cached.UIDNext
	old := o.cached.Messages
	if l.expunged || uint32(len(old)+len(fresh)) != o.Wire.Mailbox().Remaining {
		var err error
		if old, fresh, err = o.stillThere(ctx, mb, old, fresh); err != nil || old == nil {
			return nil, err
		}
	}
	if len(fresh) == 0 && old != nil {
		return old, nil // shared with the store and other sessions
	}
	all := append(make([]proxy.Message, 0, len(old)+len(fresh)), old...)
	for _, e := range fresh {
		all = append(all, proxy.Message{UID: e.uid, Octets: e.octets})
	}
	return all, nil
}

// stillThere asks which messages there are and returns the ones of old and
// fresh among them, or nil if there are others.
func (o *opening) stillThere(ctx context.Context, mb wire.Mailbox, old []proxy.Message, fresh []entry) ([]proxy.Message, []entry, error) {
	ranges, err := o.Search(ctx, upstream.AtList, "", upstream.Any)
	if err != nil {
		return nil, nil, err
	}
	exists := o.Wire.Mailbox().Exists
	present, err := uidset.Expand(ranges, o.Wire.Mailbox().Bound())
	if err != nil {
		return nil, nil, upstream.SetupError(err)
	}
	has := func(uid uint64) bool {
		_, ok := slices.BinarySearch(present, uid)
		return ok
	}
	kept := make([]proxy.Message, 0, len(old))
	for _, msg := range old {
		if has(msg.UID) {
			kept = append(kept, msg)
		}
	}
	fresh = slices.DeleteFunc(fresh, func(e entry) bool { return !has(e.uid) })
	below, _ := slices.BinarySearch(present, mb.UIDNext)
	if len(kept)+len(fresh) != below || uint32(below) != o.Wire.Mailbox().Remaining || uint32(len(present)) != exists {
		return nil, nil, nil
	}
	o.known = 0
	return kept, fresh, nil
}

// forget takes removed messages, ascending, out of what is remembered, so that
// the counts agree at the next login. If hidden is set, they may still be there,
// flagged \Deleted.
func (b *Backend) forget(key store.Key, removed []uint64, hidden bool) {
	b.forgetUniqueIDs(key, removed, hidden)
	l, ok := b.store.Listing(key)
	if !ok || hidden || len(removed) == 0 {
		return
	}
	kept := make([]proxy.Message, 0, len(l.Messages))
	for _, msg := range l.Messages {
		if _, gone := slices.BinarySearch(removed, msg.UID); !gone {
			kept = append(kept, msg)
		}
	}
	l.Messages = kept
	b.store.PutListing(key, l)
}
