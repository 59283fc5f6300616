package imapbackend

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"
	"sort"

	"popgate/imapbackend/internal/uidset"
	"popgate/imapbackend/store"
	"popgate/imapbackend/uniqueid"
	"popgate/imapbackend/upstream"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

var errForeign = errors.New("imap: SEARCH DELETED finds messages that are not in the mailbox")

// snapshot is the mailbox as it was when it was selected. It does not change
// after Open.
type snapshot struct {
	messages    []proxy.Message // ascending by UID
	hidden      []uint64        // present but not shown, ascending
	deleted     []uint64        // flagged \Deleted by others before, ascending
	uidValidity uint64
	lasting     bool              // UIDs mean the same in the next session
	reported    map[uint64]int64  // RFC822.SIZE of messages that LIST announces with another
	hashes      map[uint64]string // unique-ids where UIDs do not last, else nil
	noUniqueIDs error
	form        *uniqueid.Template                  // of unique-ids
	named       func(dst []byte, uid uint64) []byte // makes them instead of form, unless nil
	maxLine     int                                 // octets of a command line

	// known: the upstream has reported in this session which messages have UIDs
	// from this one on. Those below are remembered, or nothingKnown: listed without
	// a proof; except found, ascending, which it has reported for UPDATE, as far as
	// the marked ones reach.
	known uint64
	found []uint64

	// stillFlagged are messages that an UPDATE of a former session has flagged
	// \Deleted and not removed, and that could not be unflagged, ascending. They
	// are shown.
	stillFlagged []uint64
}

// nothingKnown, as known, is for a listing that no numbers prove (countsProve): a UID
// that is not in it may be that of a message.
const nothingKnown = math.MaxUint64

// takeSnapshot reads the listing that was sent with SELECT (requirements
// I-SNAP-1 to 4, 7).
func (o *opening) takeSnapshot(ctx context.Context) (*snapshot, error) {
	mb := o.Wire.Mailbox()
	s := &snapshot{uidValidity: mb.UIDValidity, form: o.b.form, maxLine: o.MaxLine()}
	l := listing{at: o.at, conn: o.Wire, entries: make([]entry, 0, o.expect(mb))}
	searched, err := o.readFlight(ctx, &l)
	if err != nil {
		return nil, err
	}
	all, err := o.current(ctx, mb, &l)
	if err != nil {
		return nil, err
	}
	if uint64(len(all)) >= uint64(mb.Exists) && len(l.vanished) == 0 {
		o.order = all
	}
	if s.deleted, err = o.flaggedDeleted(ctx, mb, all, searched); err != nil {
		return nil, err
	}
	s.lasting = !mb.UIDNotSticky && mb.UIDValidity != 0
	if err := o.unflagFormer(ctx, s); err != nil {
		return nil, err
	}
	s.hidden, s.known = l.vanished, o.known
	s.show(all, o.b.opts.ShowDeleted)
	if err := o.trueSizes(ctx, s); err != nil {
		return nil, err
	}
	if !s.lasting {
		err = o.hashUniqueIDs(ctx, s)
	} else {
		err = o.nameMessages(ctx, s, all)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

// readFlight reads the answers to the commands that were sent with SELECT: those to
// the listing into l, those to the search into o.search, whose status it returns.
func (o *opening) readFlight(ctx context.Context, l *listing) (searched wire.Status, err error) {
	each := func(ev wire.Event) {
		o.search.Add(ev)
		if !o.search.ByFetch() || !ev.Flags || ev.Octets >= 0 {
			l.add(ev)
		}
	}
	results, err := o.AnswersToTrailing(ctx, o.search, o.fetchCmd, each)
	if err != nil {
		return searched, o.Lost(upstream.AtList, err)
	}
	if !o.Wire.Mailbox().Empty() && o.RefusesFlight(results[1]) {
		return o.readAlone(ctx, l, results)
	}
	return results[0], o.checkListed(o.fetchCmd, results[1])
}

// readAlone sends the commands again that were refused in the flight of SELECT, each
// by itself.
func (o *opening) readAlone(ctx context.Context, l *listing, refused []wire.Status) (searched wire.Status, err error) {
	searched = refused[0]
	if o.RefusesFlight(searched) {
		o.search = o.NewSearch("", upstream.Deleted)
		if searched, err = o.SearchAlone(ctx, o.search, refused[1]); err != nil {
			return searched, o.Lost(upstream.AtList, err)
		}
	}
	status, err := o.Collect(ctx, o.fetchCmd, l.add)
	if err != nil {
		return searched, o.Lost(upstream.AtList, err)
	}
	if status.OK() {
		o.AvoidFlight(ctx, refused[1])
	}
	return searched, o.checkListed(o.fetchCmd, status)
}

// flaggedDeleted returns those of all, the messages of the mailbox, that are flagged
// \Deleted, ascending; the search for them was answered with searched (requirement
// I-SNAP-3). Mail must not be hidden because a search has found what it should not:
// where the upstream is not known to search the selected mailbox only, what was
// found is looked at by itself.
func (o *opening) flaggedDeleted(ctx context.Context, mb wire.Mailbox, all []proxy.Message, searched wire.Status) ([]uint64, error) {
	if len(all) == 0 {
		return nil, nil
	}
	ranges, err := o.search.Result(ctx, upstream.AtList, searched)
	if err != nil {
		return nil, err
	}
	deleted, foreign := among(all, ranges, mb.UIDNext)
	switch {
	case o.search.ByFetch() || o.Dialect().SearchesMailbox:
	case foreign:
		if o.Wire.Mailbox().Exists >= mb.Exists { // else another client has expunged them
			o.DistrustSearch(ctx, errForeign)
		}
		if ranges, err = o.FetchSearch(ctx, upstream.AtList, "", upstream.Deleted); err != nil {
			return nil, err
		}
		deleted, _ = among(all, ranges, mb.UIDNext)
	case len(deleted) > 0:
		return o.SearchAmong(ctx, upstream.AtList, deleted, upstream.Deleted)
	}
	return deleted, nil
}

// unflagFormer unflags and shows what an UPDATE of a former session has flagged
// \Deleted and neither removed nor unflagged, as its answer has promised
// (requirement I-DEL-5). What is remembered only selects from what this session has
// found flagged. Where the upstream refuses, the messages are shown all the same.
func (o *opening) unflagFormer(ctx context.Context, s *snapshot) error {
	former, ok := o.b.store.Flagged(o.key)
	if !ok || !s.lasting || former.UIDValidity != s.uidValidity || o.Wire.Mailbox().Rebuilt {
		return nil
	}
	var ours, others []uint64
	for _, uid := range s.deleted {
		if uidset.Contains(former.UIDs, uid) {
			ours = append(ours, uid)
		} else {
			others = append(others, uid)
		}
	}
	log := proxy.Logger(ctx)
	for _, set := range uidset.Split(ours, nil, o.MaxLine()-uidset.Frame) {
		status, err := o.UIDCommand(ctx, "STORE", set.Text+clearDeleted)
		switch {
		case err != nil:
			return o.Lost(upstream.AtList, err)
		case !status.OK():
			s.stillFlagged = append(s.stillFlagged, set.UIDs...)
			log.WarnContext(ctx, `cannot remove the flag \Deleted`,
				"uids", set.Text, "error", o.Failed(upstream.AtList, "STORE", status, nil))
		default:
			log.InfoContext(ctx, `messages of an UPDATE that failed are no longer flagged \Deleted`, "uids", set.Text)
		}
	}
	s.deleted = others
	o.b.store.PutFlagged(o.key, store.Flagged{UIDValidity: s.uidValidity, UIDs: s.stillFlagged})
	return nil
}

// among returns the UIDs of all, ascending, that are in ranges, which it sorts.
// foreign reports that a range contains no message of all, although its UIDs are
// below next, where messages that have arrived since SELECT begin; 0: not known.
func among(all []proxy.Message, ranges []uidset.Range, next uint64) (found []uint64, foreign bool) {
	slices.SortFunc(ranges, func(a, b uidset.Range) int { return cmp.Compare(a.Low, b.Low) })
	done := 0 // of all
	for _, r := range ranges {
		i := sort.Search(len(all), func(i int) bool { return all[i].UID >= r.Low })
		if i == len(all) || all[i].UID > r.High {
			foreign = foreign || next == 0 || r.Low < next
		}
		for i = max(i, done); i < len(all) && all[i].UID <= r.High; i++ {
			found = append(found, all[i].UID)
			done = i + 1
		}
	}
	return found, foreign
}

// show makes the messages of the snapshot from all of the mailbox. The slice is
// shared where all are shown.
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

// UniqueIDs implements proxy.Maildrop. A unique-id has the configured form
// (requirements I-UIDL-1 to 3), or is the remembered one (I-UIDL-5). Where the
// upstream's UIDs do not last it is a hash of the header (I-UIDL-4).
func (s *snapshot) UniqueIDs() (func(dst []byte, uid uint64) []byte, error) {
	if s.noUniqueIDs != nil {
		return nil, s.noUniqueIDs
	}
	if s.hashes != nil {
		return func(dst []byte, uid uint64) []byte { return append(dst, s.hashes[uid]...) }, nil
	}
	if s.named != nil {
		return s.named, nil
	}
	return s.form.Bind(s.uidValidity), nil
}

// sets returns uids of the snapshot, ascending, as sequence-sets that contain
// no other message of the mailbox, shown or hidden, even if what is remembered of
// it is wrong.
func (s *snapshot) sets(uids []uint64) []uidset.Set { return s.setsFor(uids, 0) }

// setsFor is sets for commands that are longer than uidset.Frame by more
// octets.
func (s *snapshot) setsFor(uids []uint64, more int) []uidset.Set {
	return uidset.Split(uids, &uidset.Gaps{From: s.known, Others: s.others(uids)}, s.maxLine-uidset.Frame-more)
}

// isListed reports whether the listing has a message, shown or hidden.
func (s *snapshot) isListed(uid uint64) bool {
	_, shown := s.index(uid)
	return shown || uidset.Contains(s.hidden, uid)
}

// others returns the messages of the mailbox other than uids, ascending.
func (s *snapshot) others(uids []uint64) []uint64 {
	others := make([]uint64, 0, max(0, len(s.messages)+len(s.hidden)+len(s.found)-len(uids)))
	add := func(uid uint64) {
		if !uidset.Contains(uids, uid) {
			others = append(others, uid)
		}
	}
	for _, msg := range s.messages {
		add(msg.UID)
	}
	for _, uid := range s.found {
		add(uid)
	}
	others = append(others, s.hidden...)
	slices.Sort(others)
	return slices.Compact(others)
}

// runs is sets for uids that are close together in the snapshot, to read them: it
// is faster, as it considers only the messages between them, and relies on what is
// remembered of the mailbox.
func (s *snapshot) runs(uids []uint64) []uidset.Set {
	if len(uids) == 0 {
		return nil
	}
	i, _ := s.index(uids[0])
	j, _ := s.index(uids[len(uids)-1])
	others := make([]uint64, 0, len(s.hidden))
	others = append(others, s.hidden...)
	for _, msg := range s.messages[i : j+1] {
		if _, ours := slices.BinarySearch(uids, msg.UID); !ours {
			others = append(others, msg.UID)
		}
	}
	slices.Sort(others)
	return uidset.Split(uids, &uidset.Gaps{Others: others}, s.maxLine-len("P1000000 UID FETCH  (UID BODY.PEEK[HEADER])"))
}
