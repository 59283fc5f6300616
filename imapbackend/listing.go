package imapbackend

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"popgate/imapbackend/internal/uidset"
	"popgate/imapbackend/store"
	"popgate/imapbackend/uniqueid"
	"popgate/imapbackend/upstream"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// maxUncounted is how many messages a mailbox without EXISTS is assumed to have at
// most, to bound the memory that a search result takes.
const maxUncounted = 1 << 20

const fetchAll = "UID FETCH 1:* (UID RFC822.SIZE)"

// current returns all messages of the mailbox as it is now, and remembers them:
// from the remembered listing and what SELECT's flight has brought, or from a
// listing of everything.
func (o *opening) current(ctx context.Context, mb wire.Mailbox, l *listing) ([]proxy.Message, error) {
	if o.warm && mb.UIDValidity != o.cached.UIDValidity && !o.b.opts.UIDLMemory && o.b.source == uniqueid.NoKind {
		// Requirement I-UIDV-3: the operator should know before the
		// users notice.
		proxy.Logger(ctx).WarnContext(ctx, "UIDVALIDITY has changed: clients will download all mail again",
			"upstream", o.key.Upstream, "mailbox", o.key.Mailbox, "before", o.cached.UIDValidity, "now", mb.UIDValidity)
	}
	var all []proxy.Message
	var err error
	if o.warm {
		all, err = o.extend(ctx, mb, l)
		if err == nil && all == nil {
			*l, o.known = listing{at: o.at}, 0
			if !mb.Empty() {
				err = o.listAll(ctx, l)
			}
		}
	}
	if err == nil && all == nil {
		all, err = o.fromListing(ctx, mb, l)
	}
	if err != nil {
		return nil, err
	}
	if mb.UIDNotSticky || len(l.vanished) > 0 || !o.countsProve(mb, all) {
		o.b.store.DropListing(o.key)
	} else {
		o.b.store.PutListing(o.key, store.Listing{UIDValidity: mb.UIDValidity, UIDNext: mb.UIDNext, Messages: all})
	}
	return all, nil
}

// countsProve reports whether UIDVALIDITY, UIDNEXT and EXISTS can prove a listing
// of all current. They cannot where UIDNEXT is not above all UIDs or has decreased,
// or where EXISTS is not given or counts a message without a UID.
func (o *opening) countsProve(mb wire.Mailbox, all []proxy.Message) bool {
	decreased := o.warm && mb.UIDValidity == o.cached.UIDValidity && mb.UIDNext < o.cached.UIDNext
	return mb.Counted && mb.UIDValidity != 0 && mb.UIDNext != 0 && !decreased && !o.Wire.Mailbox().UIDZero &&
		(len(all) == 0 || all[len(all)-1].UID < mb.UIDNext)
}

// entry is what a listing says of one message.
type entry struct {
	uid    uint64
	octets int64 // -1: unknown
}

// listAll asks for the whole listing, in its own flight.
func (o *opening) listAll(ctx context.Context, l *listing) error {
	if err := o.Wire.Start(fetchAll); err != nil {
		return o.Lost(upstream.AtList, err)
	}
	results, err := o.Answers(ctx, []string{fetchAll}, l.add)
	if err != nil {
		return o.Lost(upstream.AtList, err)
	}
	return o.checkListed(fetchAll, results[0])
}

// checkListed returns the error of a refused listing. Upstreams may refuse to list
// an empty mailbox; where it is not known whether it is, complete finds out.
func (o *opening) checkListed(cmd string, status wire.Status) error {
	if !status.OK() && o.Wire.Mailbox().Exists > 0 {
		return o.Failed(upstream.AtList, cmd, status, nil)
	}
	return nil
}

// fromListing turns a listing of everything into messages: all of them, each
// once, in ascending order of UID, with their sizes. Messages that came after
// SELECT belong to the next session, if UIDNEXT says so too: it alone may be
// wrong.
func (o *opening) fromListing(ctx context.Context, mb wire.Mailbox, l *listing) ([]proxy.Message, error) {
	entries := l.sorted()
	exists, n := o.Wire.Mailbox().Exists, len(entries)
	if mb.UIDNext != 0 {
		exists, n = o.Wire.Mailbox().Remaining, 0
		for _, e := range entries {
			if !l.isNext(mb, e.uid) {
				n++
			}
		}
	}
	if l.expunged || !mb.Counted || uint32(n) != exists || slices.ContainsFunc(entries, unsized) {
		var err error
		if entries, err = o.complete(ctx, l, entries); err != nil {
			return nil, err
		}
	}
	all := make([]proxy.Message, 0, len(entries))
	for _, e := range entries {
		switch {
		case l.isNext(mb, e.uid):
		case unsized(e):
			l.vanished = append(l.vanished, e.uid) // probably expunged
		default:
			all = append(all, proxy.Message{UID: e.uid, Octets: e.octets})
		}
	}
	return all, nil
}

func unsized(e entry) bool { return e.octets < 0 }

// isNext reports whether a message of sorted belongs to the next session; mb is the
// mailbox of SELECT.
func (l *listing) isNext(mb wire.Mailbox, uid uint64) bool {
	return mb.UIDNext != 0 && uid >= mb.UIDNext && uidset.Contains(l.later, uid)
}

// listing collects the answers to FETCH. Several responses may be about one
// message; its sequence number connects them as long as nothing is
// expunged.
type listing struct {
	at       *upstream.Attempt // is informed of new messages
	highest  uint64            // UID of those
	entries  []entry
	later    []uint64         // UIDs of messages that came after SELECT
	halves   map[uint32]entry // by sequence number: UID or size is missing
	expunged bool             // some messages were: the count proves nothing
	vanished []uint64         // listed, but never with a size
}

func (l *listing) add(ev wire.Event) {
	if ev.Kind == wire.Fetch && ev.UID != 0 && ev.Later {
		l.later = append(l.later, ev.UID)
	}
	switch {
	case ev.Kind == wire.Data && ev.Name == "EXPUNGE":
		l.expunged = true
		l.flush()
	case ev.Kind != wire.Fetch:
	case ev.UID != 0 && ev.Octets >= 0:
		l.append(entry{uid: ev.UID, octets: ev.Octets})
	case ev.UID != 0 || ev.Octets >= 0:
		l.addHalf(ev)
	}
}

// append adds an entry. Servers list messages in ascending order: one that is
// repeated is no progress.
func (l *listing) append(e entry) {
	l.entries = append(l.entries, e)
	if e.uid > l.highest {
		l.highest = e.uid
		l.at.Arrived(1)
	}
}

func (l *listing) addHalf(ev wire.Event) {
	half, ok := l.halves[ev.Seq]
	if !ok {
		half.octets = -1
	}
	if ev.UID != 0 {
		half.uid = ev.UID
	}
	if ev.Octets >= 0 {
		half.octets = ev.Octets
	}
	if half.uid != 0 && half.octets >= 0 {
		l.append(half)
		delete(l.halves, ev.Seq)
		return
	}
	if l.halves == nil {
		l.halves = make(map[uint32]entry)
	}
	l.halves[ev.Seq] = half
}

// flush keeps the UIDs without a size and forgets the sizes without a UID.
func (l *listing) flush() {
	for _, half := range l.halves {
		if half.uid != 0 {
			l.entries = append(l.entries, half)
		}
	}
	l.halves = nil
}

// sorted returns the entries in ascending order, one for each UID.
func (l *listing) sorted() []entry {
	l.flush()
	slices.Sort(l.later)
	return mergeEntries(l.entries)
}

func mergeEntries(entries []entry) []entry {
	byUID := func(a, b entry) int {
		if c := cmp.Compare(a.uid, b.uid); c != 0 {
			return c
		}
		return cmp.Compare(b.octets, a.octets) // known sizes first
	}
	if !slices.IsSortedFunc(entries, byUID) {
		slices.SortFunc(entries, byUID)
	}
	return slices.CompactFunc(entries, func(a, b entry) bool { return a.uid == b.uid })
}

// complete completes a listing that does not add up: it asks which UIDs there
// are, and once more for those without a size. What is still missing then has
// been expunged, or the login fails: a shortened maildrop would hide mail.
func (o *opening) complete(ctx context.Context, l *listing, entries []entry) ([]entry, error) {
	if _, err := o.Noop(ctx); err != nil {
		return nil, o.Lost(upstream.AtList, err)
	}
	ranges, err := o.Search(ctx, upstream.AtList, "", upstream.Any)
	if err != nil {
		return nil, err
	}
	exists := o.Wire.Mailbox().Exists
	if !o.Wire.Mailbox().Counted {
		exists = max(exists, maxUncounted)
	}
	present, err := uidset.Expand(ranges, exists)
	if err != nil {
		return nil, upstream.SetupError(err)
	}
	missing := subtract(present, entries)
	if len(missing) == 0 {
		return entries, nil
	}
	l.entries = entries
	for _, set := range uidset.Split(missing, nil, o.MaxLine()) {
		cmd := "UID FETCH " + set.Text + " (UID RFC822.SIZE)"
		status, err := o.Collect(ctx, cmd, l.add)
		// NO may mean that one of them has been expunged (RFC 2180
		// §4.1.2).
		if err != nil || status.Type == "BAD" {
			return nil, o.Failed(upstream.AtList, cmd, status, err)
		}
	}
	entries = l.sorted()
	if missing = subtract(present, entries); len(missing) == 0 {
		return entries, nil
	}
	still, err := o.SearchAmong(ctx, upstream.AtList, missing, upstream.Any)
	if err != nil {
		return nil, err
	}
	if len(still) > 0 {
		return nil, upstream.TempError(fmt.Errorf("imap: the upstream gives no size for %d messages, the first is UID %d", len(still), still[0]))
	}
	for _, uid := range missing {
		entries = append(entries, entry{uid: uid, octets: -1})
	}
	return mergeEntries(entries), nil
}

// subtract returns the UIDs of present whose size is not in entries; both
// are ascending.
func subtract(present []uint64, entries []entry) []uint64 {
	var out []uint64
	for _, uid := range present {
		for len(entries) > 0 && entries[0].uid < uid {
			entries = entries[1:]
		}
		if len(entries) == 0 || entries[0].uid != uid || unsized(entries[0]) {
			out = append(out, uid)
		}
	}
	return out
}
