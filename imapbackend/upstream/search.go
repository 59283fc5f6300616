package upstream

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"popgate/imapbackend/dialect"
	"popgate/imapbackend/internal/uidset"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// Keys of a Search.
const (
	Any       = ""
	Deleted   = "DELETED"
	Undeleted = "UNDELETED"
)

// Search is one search of the selected mailbox, in the form that the upstream is
// known to answer properly. An answer that proves nothing is no result.
type Search struct {
	c        *Conn
	set, key string         // of the command
	within   []uidset.Range // nil: all messages; else those of the set
	form     dialect.Search

	ranges   []uidset.Range
	answered bool          // by a SEARCH or ESEARCH response
	partial  bool          // the answer does not show all of the result
	outside  bool          // it is about messages that were not asked for
	fetched  []fetchedFlag // by FETCH
	most     int           // of ranges or fetched, before they are compacted
}

// fetchedFlag is what FETCH has said of one message.
type fetchedFlag struct {
	uid            uint64
	known, deleted bool // its flags; \Deleted is one of them
}

// NewSearch returns a search among the messages of set, "" for all, for those that
// match key. It sends nothing.
func (c *Conn) NewSearch(set, key string) *Search {
	form := c.learned.Search(c.dialect, set != "")
	if c.attempt.avoids&searchForms != 0 {
		form = dialect.ByFetch
	}
	return c.searchBy(form, set, key)
}

// NewFetchSearch is NewSearch for a search by FETCH.
func (c *Conn) NewFetchSearch(set, key string) *Search {
	return c.searchBy(dialect.ByFetch, set, key)
}

// risk returns the forms of a search of which it is not known that the server does
// not close the connection, or stop answering.
func (s *Search) risk() dialect.Form {
	if s.ByFetch() || s.c.dialect.SearchesMailbox || s.c.learned.Searches() {
		return 0
	}
	return searchForms
}

// doubtful reports whether the search may be at fault for the loss of a connection
// although the server has answered others. s may be nil.
func (s *Search) doubtful() bool {
	return s != nil && !s.ByFetch() && !s.c.dialect.SearchesMailbox
}

func (c *Conn) searchBy(form dialect.Search, set, key string) *Search {
	if form == dialect.BySearchReturn && !c.Can("ESEARCH") {
		form = dialect.BySearch
	}
	s := &Search{c: c, set: set, key: key, form: form}
	if set != "" {
		s.within = uidset.Ranges(set)
	}
	return s
}

// asksFor reports whether the command is for messages of which uid is one.
func (s *Search) asksFor(uid uint64) bool { return s.set == "" || uidset.InRanges(s.within, uid) }

// next returns the search in the next form, if there is one, after an answer that
// proves nothing.
func (s *Search) next() (*Search, bool) {
	next := Search{c: s.c, set: s.set, key: s.key, within: s.within, form: s.form + 1}
	if s.ByFetch() {
		// mailutils refuses a set with UIDs above those of all messages; and a
		// response about another client's change need not have a UID.
		next.form, next.set = s.form, ""
		return &next, s.set != ""
	}
	return &next, true
}

// ByFetch reports whether the command is FETCH.
func (s *Search) ByFetch() bool { return s.form == dialect.ByFetch }

// Command returns the command to be sent. Its answer goes to Add, and its result
// to Result.
func (s *Search) Command() string {
	if s.ByFetch() {
		set, items := s.set, "(UID FLAGS)"
		if set == "" {
			set = "1:*"
		}
		if s.key == Any {
			items = "(UID)"
		}
		return "UID FETCH " + set + " " + items
	}
	cmd := "UID SEARCH"
	if s.form == dialect.BySearchReturn {
		cmd += " RETURN (ALL)"
	}
	switch {
	case s.set != "":
		cmd += " UID " + s.set
	case s.key == Any:
		cmd += " ALL"
	}
	if s.key != Any {
		cmd += " " + s.key
	}
	return cmd
}

// Add takes an event of the answer.
func (s *Search) Add(ev wire.Event) {
	switch {
	case !s.ByFetch() && ev.Kind == wire.Search:
		// Of a range only the ends: those between may be free.
		s.outside = s.outside || !s.asksFor(ev.Low) || !s.asksFor(ev.High)
		if s.ranges = append(s.ranges, uidset.Range{Low: ev.Low, High: ev.High}); len(s.ranges) > s.most {
			s.compact()
		}
	case !s.ByFetch() && ev.Kind == wire.Searched:
		s.answered = true
		s.partial = s.partial || !ev.Whole
	case s.ByFetch() && ev.Kind == wire.Fetch && ev.UID == 0:
		// About which message? If it has what was requested, the answer does
		// not show which are left. Flags may be those of any message.
		s.partial = s.partial || s.key == Undeleted || s.key == Any && !ev.Flags
	case s.ByFetch() && ev.Kind == wire.Fetch && !s.asksFor(ev.UID):
		// Flags of any message may come unasked (RFC 9051 §7.5.2).
		s.outside = s.outside || !ev.Flags
	case s.ByFetch() && ev.Kind == wire.Fetch:
		if s.fetched = append(s.fetched, fetchedFlag{ev.UID, ev.Flags, ev.Deleted}); len(s.fetched) > s.most {
			s.compact()
		}
	}
}

// leastCompacted is how many ranges or flags are kept before they are compacted.
const leastCompacted = 4096

// compact merges what has come twice, so that an answer takes no more memory than
// one about the whole mailbox. More than that ends the connection.
func (s *Search) compact() {
	s.ranges = uidset.Merge(s.ranges)
	s.mergeFlags()
	n := max(len(s.ranges), len(s.fetched))
	if n > s.c.Wire.Mailbox().Bound() {
		s.c.Wire.Exceed("a search result larger than the mailbox")
	}
	s.most = max(leastCompacted, 2*n)
}

// mergeFlags sorts what was fetched, and keeps the last flags of each message.
func (s *Search) mergeFlags() {
	byUID := func(a, b fetchedFlag) int { return cmp.Compare(a.uid, b.uid) }
	if !slices.IsSortedFunc(s.fetched, byUID) {
		slices.SortStableFunc(s.fetched, byUID)
	}
	merged := s.fetched[:0]
	for _, f := range s.fetched {
		last := len(merged) - 1
		switch {
		case last < 0 || merged[last].uid != f.uid:
			merged = append(merged, f)
		case f.known:
			merged[last] = f
		}
	}
	s.fetched = merged
}

// Result returns the UIDs found, ascending and each once, if the answer, which has ended with
// status, proves that they are all. If it does not, Result searches again in the
// next form, and the upstream is addressed in the form that succeeds from then on.
// A refusal teaches that only if the upstream has never answered SEARCH properly.
// Errors are *proxy.Error.
func (s *Search) Result(ctx context.Context, ph Phase, status wire.Status) ([]uidset.Range, error) {
	learned := s.c.learned
	var cause error // the first refusal, else the last answer that proves nothing
	first, refused := s.form, false
	teaches := !s.c.dialect.SearchesMailbox && !learned.Searches()
	for !s.proves(status) {
		err := s.unproved(ph, status)
		if !refused {
			cause, refused = err, !status.OK()
		}
		teaches = teaches || status.OK()
		next, ok := s.next()
		rebuilt := func() bool { return s.c.Wire.Mailbox().Rebuilt } // then UIDs are those of other messages
		if ok && s.ByFetch() && !rebuilt() {
			// FETCH of a message that another client has expunged may be NO until
			// that is announced (RFC 2180 §4.1.2).
			if status, err = s.c.Noop(ctx); err != nil {
				return nil, s.c.Failed(ph, "NOOP", status, err)
			}
		}
		if !ok || rebuilt() {
			return nil, cause
		}
		*s = *next
		if status, err = s.c.Collect(ctx, s.Command(), s.Add); err != nil {
			return nil, s.c.Failed(ph, s.Command(), status, err)
		}
	}
	if s.form != first && teaches {
		s.c.useSearch(ctx, s.form, cause)
	}
	if !s.ByFetch() {
		s.c.server.save(learned, learned.HasSearched(s.form))
	}
	return s.found(), nil
}

// proves reports whether the answer shows all that the search looks for. FETCH of
// messages that do not exist is OK without a response (RFC 9051 §6.4.9), but an
// upstream may refuse it if there are none at all.
func (s *Search) proves(status wire.Status) bool {
	if s.ByFetch() {
		return status.OK() && !s.partial && !s.outside || s.set == "" && s.c.Wire.Mailbox().Empty()
	}
	return status.OK() && s.answered && !s.partial && !s.outside
}

// unproved returns the error of an answer that proves nothing.
func (s *Search) unproved(ph Phase, status wire.Status) error {
	if !status.OK() {
		return s.c.Failed(ph, s.Command(), status, nil)
	}
	what := "without a SEARCH response"
	switch {
	case s.outside:
		what = "for messages that were not asked for"
	case s.ByFetch():
		what = "by a FETCH response without UID"
	case s.answered:
		what = "by an ESEARCH response without ALL"
	}
	return TempError(errors.New("imap: " + s.Command() + " is answered " + what))
}

// found returns what the answer has brought.
func (s *Search) found() []uidset.Range {
	s.mergeFlags()
	for _, f := range s.fetched {
		if s.within != nil && !uidset.InRanges(s.within, f.uid) {
			continue // of an answer for all messages
		}
		if s.key == Any || f.deleted == (s.key == Deleted) {
			s.ranges = append(s.ranges, uidset.Range{Low: f.uid, High: f.uid})
		}
	}
	return uidset.Merge(s.ranges)
}

// DistrustSearch has all searches of this upstream made by FETCH from now on.
func (c *Conn) DistrustSearch(ctx context.Context, cause error) {
	c.useSearch(ctx, dialect.ByFetch, cause)
}

func (c *Conn) useSearch(ctx context.Context, form dialect.Search, cause error) {
	if !c.learned.UseSearch(form) {
		return
	}
	c.server.save(c.learned, true)
	by := "SEARCH without RETURN"
	if form == dialect.ByFetch {
		by = "FETCH"
	}
	proxy.Logger(ctx).WarnContext(ctx, "upstream does not search as it should, another command is used from now on",
		"upstream", c.opts.Name, "command", by, "cause", cause)
}

// doubtSearch has searches made by FETCH for some time: the last one was not
// answered within the time of a login.
func (c *Conn) doubtSearch(ctx context.Context) {
	if c.learned.Doubt(searchForms) {
		proxy.Logger(ctx).WarnContext(ctx, "upstream does not answer a search, another command is used for a day",
			"upstream", c.opts.Name, "command", "FETCH", "cause", c.loss())
	}
}

// Search returns the UIDs among set, "" for all, that match key, ascending and
// each once.
// Errors are *proxy.Error, as in the other searches.
func (c *Conn) Search(ctx context.Context, ph Phase, set, key string) ([]uidset.Range, error) {
	return c.NewSearch(set, key).run(ctx, ph)
}

// FetchSearch is Search by FETCH.
func (c *Conn) FetchSearch(ctx context.Context, ph Phase, set, key string) ([]uidset.Range, error) {
	return c.NewFetchSearch(set, key).run(ctx, ph)
}

func (s *Search) run(ctx context.Context, ph Phase) ([]uidset.Range, error) {
	cmd := s.Command()
	status, err := s.c.Collect(ctx, cmd, s.Add)
	if err != nil {
		return nil, s.c.Failed(ph, cmd, status, err)
	}
	return s.Result(ctx, ph, status)
}

// SearchAmong returns those of uids, which is ascending, that are in the mailbox
// and match key. Other UIDs in the answer are ignored.
func (c *Conn) SearchAmong(ctx context.Context, ph Phase, uids []uint64, key string) ([]uint64, error) {
	return c.SearchSets(ctx, ph, uids, uidset.Split(uids, nil, c.MaxLine()-uidset.Frame), key)
}

// SearchSets is SearchAmong with uids given as sets too.
func (c *Conn) SearchSets(ctx context.Context, ph Phase, uids []uint64, sets []uidset.Set, key string) ([]uint64, error) {
	found := make(map[uint64]bool)
	for _, set := range sets {
		ranges, err := c.Search(ctx, ph, set.Text, key)
		if err != nil {
			return nil, err
		}
		for _, r := range ranges {
			i, _ := slices.BinarySearch(uids, r.Low)
			for ; i < len(uids) && uids[i] <= r.High; i++ {
				found[uids[i]] = true
			}
		}
	}
	return slices.DeleteFunc(slices.Clone(uids), func(uid uint64) bool { return !found[uid] }), nil
}
