package imapbackend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/emersion/go-imap/client"

	"popgate/imapbackend/uniqueid"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// snapshot is the mailbox as it was when it was selected. It never changes.
type snapshot struct {
	messages    []proxy.Message // ascending by UID
	hidden      []uint32        // present but not shown, ascending
	deleted     []uint32        // flagged \Deleted by others before, ascending
	uidValidity uint32
	lasting     bool              // UIDs mean the same in the next session
	reported    map[uint32]int64  // by RFC822.SIZE, of messages that are announced otherwise
	hashes      map[uint32]string // unique-ids where UIDs do not last, else nil
	noUniqueIDs error
	form        *uniqueid.Template                  // of unique-ids
	named       func(dst []byte, uid uint32) []byte // in place of form; nil if it makes them
	maxLine     int                                 // octets of a command line
}

// entry is what a listing has told of one message.
type entry struct {
	uid    uint32
	octets int64 // -1: not told
}

// takeSnapshot reads the listing that was sent with SELECT (requirements
// I-SNAP-1 to 4, 7).
func (u *upstream) takeSnapshot(ctx context.Context, f flight) (*snapshot, error) {
	mb := u.conn.Mailbox()
	s := &snapshot{uidValidity: mb.UIDValidity, form: u.backend.form, maxLine: u.maxLine()}
	l := listing{entries: make([]entry, 0, f.expect(mb))}
	if err := u.read(ctx, &l, f.search, f.fetch); err != nil {
		return nil, err
	}
	deleted, err := expandRanges(l.ranges, max(mb.Exists, u.conn.Mailbox().Exists))
	if err != nil {
		return nil, setupError(err)
	}
	s.deleted = deleted
	all, err := u.current(ctx, f, mb, &l)
	if err != nil {
		return nil, err
	}
	s.hidden = l.vanished
	s.show(all, u.opts.ShowDeleted)
	s.lasting = !mb.UIDNotSticky && mb.UIDValidity != 0
	if err := u.trueSizes(ctx, f.key, s); err != nil {
		return nil, err
	}
	if !s.lasting {
		err = u.hashUniqueIDs(ctx, s)
	} else {
		err = u.nameMessages(ctx, f.key, s, all)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// show makes the messages of the snapshot from all that there are. The slice
// is shared where all are shown.
func (s *snapshot) show(all []proxy.Message, deletedToo bool) {
	if len(s.deleted) == 0 || deletedToo {
		s.messages = all
		return
	}
	s.messages = make([]proxy.Message, 0, len(all))
	for _, msg := range all {
		if _, isDeleted := slices.BinarySearch(s.deleted, msg.UID); isDeleted {
			s.hidden = append(s.hidden, msg.UID)
			continue
		}
		s.messages = append(s.messages, msg)
	}
	slices.Sort(s.hidden)
}

// list asks for the whole listing, in a flight of its own.
func (u *upstream) list(ctx context.Context, l *listing) error {
	if err := u.conn.Start(fetchAll); err != nil {
		return u.lost(atList, err)
	}
	return u.read(ctx, l, fetchAll)
}

// read reads the answers to the last commands of ours, ops, into l.
func (u *upstream) read(ctx context.Context, l *listing, ops ...string) error {
	results, err := u.answers(ctx, ops, l.add)
	if err != nil {
		return u.lost(atList, err)
	}
	for i, op := range ops {
		// An empty mailbox may refuse the listing.
		if !results[i].OK() && u.conn.Mailbox().Exists > 0 {
			return u.failed(atList, op, results[i], nil)
		}
	}
	return nil
}

// whole turns a listing of everything into messages: all of them, each once,
// in ascending order of UID, with their sizes. Messages above the UIDNEXT of
// SELECT belong to the next session.
func (u *upstream) whole(ctx context.Context, mb wire.Mailbox, l *listing) ([]proxy.Message, error) {
	entries := l.sorted()
	told, n := u.conn.Mailbox().Exists, len(entries)
	if mb.UIDNext != 0 { // then later messages do not count
		told = min(told, mb.Exists)
		n, _ = slices.BinarySearchFunc(entries, mb.UIDNext, func(e entry, uid uint32) int { return cmp.Compare(e.uid, uid) })
	}
	if l.expunged || uint32(n) != told || slices.ContainsFunc(entries, unsized) {
		var err error
		if entries, err = u.complete(ctx, entries); err != nil {
			return nil, err
		}
	}
	all := make([]proxy.Message, 0, len(entries))
	for _, e := range entries {
		switch {
		case mb.UIDNext != 0 && e.uid >= mb.UIDNext:
		case unsized(e):
			l.vanished = append(l.vanished, e.uid) // expunged, most likely
		default:
			all = append(all, proxy.Message{UID: e.uid, Octets: e.octets})
		}
	}
	return all, nil
}

func unsized(e entry) bool { return e.octets < 0 }

// listing collects the answers to listing and search. One message may be told
// of in several responses, which its sequence number holds together as long as
// nothing is expunged.
type listing struct {
	entries  []entry
	halves   map[uint32]entry // by sequence number: UID or size is missing
	ranges   []uidRange
	expunged bool     // messages were, meanwhile: their number proves nothing
	vanished []uint32 // told of, without a size to the end
}

func (l *listing) add(ev wire.Event) {
	switch {
	case ev.Kind == wire.Search:
		l.ranges = append(l.ranges, uidRange{ev.Low, ev.High})
	case ev.Kind == wire.Data && ev.Name == "EXPUNGE":
		l.expunged = true
		l.flush()
	case ev.Kind != wire.Fetch:
	case ev.UID != 0 && ev.Octets >= 0:
		l.entries = append(l.entries, entry{ev.UID, ev.Octets})
	case ev.UID != 0 || ev.Octets >= 0:
		l.addHalf(ev)
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
		l.entries = append(l.entries, half)
		delete(l.halves, ev.Seq)
		return
	}
	if l.halves == nil {
		l.halves = make(map[uint32]entry)
	}
	l.halves[ev.Seq] = half
}

// flush keeps what is known by UID without a size and forgets the rest.
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

// complete mends a listing that does not add up: it asks which UIDs there are
// and once more for those without a size. What then is still missing has been
// expunged, or the login fails: a shortened maildrop would hide mail.
func (u *upstream) complete(ctx context.Context, entries []entry) ([]entry, error) {
	if err := u.noop(ctx); err != nil {
		return nil, u.lost(atList, err)
	}
	ranges, err := u.search(ctx, atList, "ALL")
	if err != nil {
		return nil, err
	}
	present, err := expandRanges(ranges, u.conn.Mailbox().Exists)
	if err != nil {
		return nil, setupError(err)
	}
	missing := subtract(present, entries)
	if len(missing) == 0 {
		return entries, nil
	}
	l := listing{entries: entries}
	for _, set := range uidSets(missing, nil, u.maxLine()) {
		cmd := "UID FETCH " + set.text + " (UID RFC822.SIZE)"
		status, err := u.collect(ctx, cmd, l.add)
		// NO may tell that one of them has been expunged (RFC 2180 §4.1.2).
		if err != nil || status.Type == "BAD" {
			return nil, u.failed(atList, cmd, status, err)
		}
	}
	entries = l.sorted()
	if missing = subtract(present, entries); len(missing) == 0 {
		return entries, nil
	}
	still, err := u.searchAmong(ctx, atList, missing, "")
	if err != nil {
		return nil, err
	}
	if len(still) > 0 {
		return nil, tempError(fmt.Errorf("imap: the upstream tells no size of %d messages, UID %d the first", len(still), still[0]))
	}
	for _, uid := range missing {
		entries = append(entries, entry{uid, -1})
	}
	return mergeEntries(entries), nil
}

// subtract returns the UIDs of present whose size entries do not tell; both
// are ascending.
func subtract(present []uint32, entries []entry) []uint32 {
	var out []uint32
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

// collect runs a command of ours and hands over the events of its answer.
func (u *upstream) collect(ctx context.Context, cmd string, each func(wire.Event)) (wire.Status, error) {
	if err := u.conn.Start(cmd); err != nil {
		return wire.Status{}, err
	}
	results, err := u.answers(ctx, []string{cmd}, each)
	if err != nil {
		return wire.Status{}, err
	}
	return results[0], nil
}

func (u *upstream) noop(ctx context.Context) error {
	_, err := u.execute(ctx, "NOOP", (*client.Client).Noop)
	return err
}

// uidRange is a range of UIDs, both ends included.
type uidRange struct{ low, high uint32 }

// search returns the UIDs that match criteria, in the order of the answer.
func (u *upstream) search(ctx context.Context, ph phase, criteria string) ([]uidRange, error) {
	cmd := "UID SEARCH " + criteria
	if u.conn.Has("ESEARCH") || u.conn.Has("IMAP4REV2") {
		cmd = "UID SEARCH RETURN (ALL) " + criteria
	}
	var l listing
	status, err := u.collect(ctx, cmd, l.add)
	if err != nil || !status.OK() {
		return nil, u.failed(ph, cmd, status, err)
	}
	return l.ranges, nil
}

// searchAmong returns those of uids, which is ascending, that are in the
// mailbox and match key, "" for all. What a server answers beyond uids does
// not count.
func (u *upstream) searchAmong(ctx context.Context, ph phase, uids []uint32, key string) ([]uint32, error) {
	return u.searchSets(ctx, ph, uids, uidSets(uids, nil, u.maxLine()-setFrame), key)
}

// searchSets is searchAmong with uids written as sets already.
func (u *upstream) searchSets(ctx context.Context, ph phase, uids []uint32, sets []uidSet, key string) ([]uint32, error) {
	found := make(map[uint32]bool)
	for _, set := range sets {
		criteria := "UID " + set.text
		if key != "" {
			criteria += " " + key
		}
		ranges, err := u.search(ctx, ph, criteria)
		if err != nil {
			return nil, err
		}
		for _, r := range ranges {
			i, _ := slices.BinarySearch(uids, r.low)
			for ; i < len(uids) && uids[i] <= r.high; i++ {
				found[uids[i]] = true
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(uids), func(uid uint32) bool { return !found[uid] }), nil
}

// expandRanges returns the UIDs in ranges, ascending, each once. A result that
// cannot be that of a mailbox of exists messages is refused before it takes
// its memory.
func expandRanges(ranges []uidRange, exists uint32) ([]uint32, error) {
	var total uint64
	for _, r := range ranges {
		total += uint64(r.high-r.low) + 1
	}
	if total > 2*uint64(exists)+1000 {
		return nil, errors.New("imap: a search result larger than the mailbox")
	}
	uids := make([]uint32, 0, total)
	for _, r := range ranges {
		for uid := uint64(r.low); uid <= uint64(r.high); uid++ {
			uids = append(uids, uint32(uid))
		}
	}
	slices.Sort(uids)
	return slices.Compact(uids), nil
}

// maxLine is the longest command line that the upstream is sent, in octets
// (requirement I-CONN-4).
func (u *upstream) maxLine() int {
	if u.conn.Has("QRESYNC") {
		return 8000
	}
	return 950
}
