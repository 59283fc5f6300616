package imapbackend

import (
	"context"
	"fmt"
	"slices"

	"popgate/imapbackend/store"
	"popgate/imapbackend/uniqueid"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// DefaultStoreMemory bounds what a store keeps in memory, in octets, where
// nothing else is asked for.
const DefaultStoreMemory = 64 << 20

const (
	searchDeleted  = "UID SEARCH DELETED"
	esearchDeleted = "UID SEARCH RETURN (ALL) DELETED"
	fetchAll       = "UID FETCH 1:* (UID RFC822.SIZE)"
)

// flight is the listing that is sent along with SELECT: of everything, or of
// what is newer than the listing that is remembered (requirement I-SNAP-7).
type flight struct {
	search, fetch string
	key           store.Key
	cached        store.Listing
	warm          bool // cached is of use if the mailbox is still the same
}

func (u *upstream) planFlight(id proxy.Identity) flight {
	f := flight{
		search: searchDeleted,
		fetch:  fetchAll,
		// The user as the upstream knows him: two that differ in the case
		// of letters may be two.
		key: store.Key{Upstream: id.Upstream, User: u.user, Mailbox: id.Mailbox, UTF8: u.utf8},
	}
	if u.conn.Has("ESEARCH") || u.conn.Has("IMAP4REV2") {
		f.search = esearchDeleted
	}
	if f.cached, f.warm = u.backend.store.Listing(f.key); f.warm {
		f.fetch = fmt.Sprintf("UID FETCH %d:* (UID RFC822.SIZE)", f.cached.UIDNext)
	}
	return f
}

// expect is a guess at how many messages the listing tells of.
func (f flight) expect(mb wire.Mailbox) int {
	if f.warm {
		return 16
	}
	return int(min(mb.Exists, 1<<20))
}

// current returns all messages of the mailbox as it is now, from what is
// remembered and what the flight has told, or by a listing of everything, and
// remembers them.
func (u *upstream) current(ctx context.Context, f flight, mb wire.Mailbox, l *listing) ([]proxy.Message, error) {
	if f.warm && mb.UIDValidity != f.cached.UIDValidity && !u.opts.UIDLMemory && u.backend.source == uniqueid.NoKind {
		// Requirement I-UIDV-3: an operator should hear of it before the
		// users do.
		proxy.Logger(ctx).WarnContext(ctx, "UIDVALIDITY has changed: clients will download all mail again",
			"upstream", f.key.Upstream, "mailbox", f.key.Mailbox, "before", f.cached.UIDValidity, "now", mb.UIDValidity)
	}
	var all []proxy.Message
	var err error
	if f.warm {
		all, err = u.extend(ctx, f, mb, l)
		if err == nil && all == nil {
			*l = listing{}
			if mb.Exists > 0 {
				err = u.list(ctx, l)
			}
		}
	}
	if err == nil && all == nil {
		all, err = u.whole(ctx, mb, l)
	}
	if err != nil {
		return nil, err
	}
	if mb.UIDNext == 0 || mb.UIDValidity == 0 || mb.UIDNotSticky || len(l.vanished) > 0 {
		u.backend.store.DropListing(f.key)
	} else {
		u.backend.store.PutListing(f.key, store.Listing{UIDValidity: mb.UIDValidity, UIDNext: mb.UIDNext, Messages: all})
	}
	return all, nil
}

// extend returns the remembered messages that are still there and those newer,
// or nil where that cannot be proved to be all. The proof is arithmetic: UIDs
// only grow and are not used again, so what is below the remembered UIDNEXT
// can only have become less, and SELECT has told the number of all below its
// own UIDNEXT.
func (u *upstream) extend(ctx context.Context, f flight, mb wire.Mailbox, l *listing) ([]proxy.Message, error) {
	if mb.UIDValidity == 0 || mb.UIDValidity != f.cached.UIDValidity || mb.UIDNotSticky ||
		mb.UIDNext == 0 || mb.UIDNext < f.cached.UIDNext {
		return nil, nil
	}
	// n:* brings the last message also where that is below n, and messages
	// that have come since SELECT.
	fresh := slices.DeleteFunc(l.sorted(), func(e entry) bool { return e.uid < f.cached.UIDNext || e.uid >= mb.UIDNext })
	if slices.ContainsFunc(fresh, unsized) {
		return nil, nil
	}
	old := f.cached.Messages
	if l.expunged || uint32(len(old)+len(fresh)) != min(mb.Exists, u.conn.Mailbox().Exists) {
		var err error
		if old, fresh, err = u.stillThere(ctx, mb, old, fresh); err != nil || old == nil {
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

// stillThere asks which messages there are and returns those of old and fresh
// among them, or nil if these are not all.
func (u *upstream) stillThere(ctx context.Context, mb wire.Mailbox, old []proxy.Message, fresh []entry) ([]proxy.Message, []entry, error) {
	ranges, err := u.search(ctx, atList, "ALL")
	if err != nil {
		return nil, nil, err
	}
	exists := u.conn.Mailbox().Exists
	present, err := expandRanges(ranges, exists)
	if err != nil {
		return nil, nil, setupError(err)
	}
	has := func(uid uint32) bool {
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
	if len(kept)+len(fresh) != below || uint32(len(present)) != exists {
		return nil, nil, nil
	}
	return kept, fresh, nil
}

// forget takes removed messages, ascending, out of what is remembered, so that
// the next login finds the numbers to add up.
func (b *Backend) forget(key store.Key, removed []uint32) {
	if b.opts.UIDLMemory {
		b.forgetUniqueIDs(key, removed)
	}
	l, ok := b.store.Listing(key)
	if !ok {
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
