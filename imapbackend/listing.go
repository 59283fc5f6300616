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
			*l, o.known = listing{at: o.at, conn: o.Wire}, 0
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
	proved := o.countsProve(mb, all)
	if !proved {
		o.known = nothingKnown
	}
	if mb.UIDNotSticky || len(l.vanished) > 0 || !proved {
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
	return all, o.checkWhole(ctx, l, all)
}

// checkWhole returns an error if all, of a listing, are fewer than the messages that
// EXISTS of SELECT counted and that have not been expunged since (requirement
// I-SNAP-4): a shortened maildrop would hide mail.
func (o *opening) checkWhole(ctx context.Context, l *listing, all []proxy.Message) error {
	listed := uint64(len(all) + len(l.vanished) + l.skipped + len(l.zeroes))
	for _, uid := range l.later {
		if _, ok := slices.BinarySearchFunc(all, uid, func(m proxy.Message, uid uint64) int { return cmp.Compare(m.UID, uid) }); ok {
			listed--
		}
	}
	isWhole := func() bool {
		mb := o.Wire.Mailbox()
		return !mb.Counted || mb.Vanished || listed >= uint64(mb.Remaining)
	}
	if isWhole() {
		return nil
	}
	if _, err := o.Noop(ctx); err != nil { // which announces what has been expunged
		return o.Lost(upstream.AtList, err)
	}
	if !isWhole() {
		return upstream.TempError(fmt.Errorf("imap: the upstream lists %d messages of %d", listed, o.Wire.Mailbox().Remaining))
	}
	return nil
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
	zeroes   map[uint32]bool  // by sequence number: listed with UID 0
	skipped  int              // were so before some were expunged
	conn     *wire.Conn

	// most and mostLater are how many entries, and UIDs in later, are kept before
	// they are compacted.
	most, mostLater int
}

// leastCompacted is how many entries are kept before they are compacted.
const leastCompacted = 4096

func (l *listing) add(ev wire.Event) {
	if ev.Kind == wire.Fetch && ev.UID != 0 && ev.Later {
		l.addLater(ev.UID)
	}
	switch {
	case ev.Kind == wire.Data && ev.Name == "EXPUNGE":
		l.expunged = true
		l.flush()
		l.skipped += len(l.zeroes)
		clear(l.zeroes)
	case ev.Kind != wire.Fetch:
	case ev.UIDZero:
		l.addZero(ev)
	case ev.UID != 0 && ev.Octets >= 0:
		l.append(entry{uid: ev.UID, octets: ev.Octets})
	case ev.UID != 0 || ev.Octets >= 0:
		l.addHalf(ev)
	}
}

// append adds an entry. Servers list messages in ascending order: one that is
// repeated is no progress.
func (l *listing) append(e entry) {
	l.keep(e)
	if e.uid > l.highest {
		l.highest = e.uid
		l.at.Arrived(1)
	}
}

// keep adds an entry. What comes twice is dropped before it takes more memory than a
// listing of the whole mailbox; more than that ends the connection.
func (l *listing) keep(e entry) {
	if l.entries = append(l.entries, e); len(l.entries) <= l.most {
		return
	}
	l.entries = mergeEntries(l.entries)
	l.limit(len(l.entries))
	l.most = max(leastCompacted, 2*len(l.entries))
}

// limit ends the connection if n messages are more than an answer may be about.
func (l *listing) limit(n int) {
	if n > l.conn.Mailbox().Bound() {
		l.conn.Exceed("a listing larger than the mailbox")
	}
}

func (l *listing) addLater(uid uint64) {
	if l.later = append(l.later, uid); len(l.later) <= l.mostLater {
		return
	}
	l.sortLater()
	l.limit(len(l.later))
	l.mostLater = max(leastCompacted, 2*len(l.later))
}

func (l *listing) sortLater() {
	slices.Sort(l.later)
	l.later = slices.Compact(l.later)
}

func (l *listing) addZero(ev wire.Event) {
	if ev.Later {
		return
	}
	if l.zeroes == nil {
		l.zeroes = make(map[uint32]bool)
	}
	l.zeroes[ev.Seq] = true
	l.limit(len(l.zeroes))
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
	l.limit(len(l.halves))
}

// flush keeps the UIDs without a size and forgets the sizes without a UID.
func (l *listing) flush() {
	for _, half := range l.halves {
		if half.uid != 0 {
			l.keep(half)
		}
	}
	l.halves = nil
}

// sorted returns the entries in ascending order, one for each UID.
func (l *listing) sorted() []entry {
	l.flush()
	l.sortLater()
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
	present, err := uidset.Expand(ranges, o.Wire.Mailbox().Bound())
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
