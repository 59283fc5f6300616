package imapbackend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"popgate/imapbackend/internal/uidset"
	"popgate/imapbackend/store"
	"popgate/imapbackend/upstream"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// updateProgress is the longest silence of the upstream during UPDATE. The
// caller limits UPDATE as a whole (requirement P-QUIT-6).
const updateProgress = 150 * time.Second

// updateAttempts is how often UPDATE is tried where the upstream is lost
// (requirement I-DEL-11).
const updateAttempts = 2

// textNoPlus is the public text of the policy Refuse.
const textNoPlus = "mail server cannot remove single messages, nothing was removed"

// removal is one UPDATE with messages marked. Its state lasts from one attempt
// to the next.
type removal struct {
	m       *maildrop
	marked  []uint64        // ascending
	targets []uint64        // those of marked that may be removed, ascending
	trash   string          // as it goes into a command; "" until it is known
	created bool            // CREATE has been tried
	noMove  bool            // the upstream has closed the connection at MOVE, as it may
	copied  map[string]bool // sets that have been copied to the trash mailbox
	fault   *proxy.Error    // the first refusal of this attempt

	// flagged is what this session has flagged \Deleted, or may have, and not
	// unflagged. rest is what is left of marked, if isChecked; where keepsFlags,
	// the plan leaves messages flagged and rest has only the others.
	flagged, rest []uint64
	isChecked     bool
	keepsFlags    bool
	isStored      bool // the store knows what may be flagged
}

// Update implements proxy.Maildrop (requirements I-DEL-1 to 13): it runs a
// plan, chosen by policy and capabilities, on one set of messages after the
// other. What is still there afterwards decides the answer.
func (m *maildrop) Update(ctx context.Context, marked []uint64) error {
	m.rememberSizes()
	err := m.update(ctx, marked)
	m.done.Store(err == nil)
	return err
}

// Retains implements proxy.Retainer.
func (m *maildrop) Retains() bool { return m.opts.Delete == DeleteKeep }

func (m *maildrop) update(ctx context.Context, marked []uint64) error {
	m.flagSeen(ctx, slices.DeleteFunc(m.retrievedOnce(), func(uid uint64) bool {
		return m.opts.Delete == DeleteExpunge && uidset.Contains(marked, uid)
	}), true)
	if len(marked) == 0 || m.Retains() {
		return nil
	}
	r := &removal{m: m, marked: marked, copied: make(map[string]bool)}
	err := r.attempts(ctx)
	if err == nil {
		r.flagged = nil
		r.settle(marked)
	}
	if r.isStored {
		r.storeFlagged(r.flagged)
		if err == nil && r.keepsFlags {
			// The next process must not unflag what stays flagged for good.
			_ = m.b.store.Sync(ctx)
		}
	}
	return err
}

// attempts runs the plan, and once more where the upstream was lost.
func (r *removal) attempts(ctx context.Context) error {
	for attempt := 1; ; attempt++ {
		lost, err := r.attempt(ctx)
		if err == nil {
			return nil
		}
		if !lost || attempt == updateAttempts || ctx.Err() != nil {
			return notRemoved(err)
		}
		proxy.Logger(ctx).WarnContext(ctx, "upstream lost during UPDATE, trying again", "error", err)
	}
}

// attempt runs the plan on a connection that is alive at its start, and reports
// whether the connection was lost.
func (r *removal) attempt(ctx context.Context) (lost bool, err error) {
	release, err := r.m.acquire(ctx, upstream.AtUpdate)
	if err != nil {
		return false, err
	}
	defer release()
	conn := r.m.u.Wire
	defer conn.SetProgress(conn.SetProgress(updateProgress))
	if err = r.m.reselect(ctx); err == nil {
		err = r.run(ctx, r.m.opts.plan(func(capability string) bool {
			return r.m.u.Can(capability) && !(r.noMove && capability == "MOVE")
		}))
	}
	if err != nil && r.m.usable(upstream.AtUpdate) == nil && ctx.Err() == nil {
		r.unflag(ctx)
	}
	return conn.Err() != nil, err
}

// run runs the steps of p on each set of messages, and checks the outcome. A
// refusal ends the set, a loss everything.
func (r *removal) run(ctx context.Context, p plan) error {
	if p.refuses {
		return &proxy.Error{Code: proxy.CodeSysPerm, Text: textNoPlus,
			Err: errors.New("imap: the upstream lacks UIDPLUS and the policy is to refuse")}
	}
	if p.trash && r.trash == "" {
		var err error
		if r.trash, err = r.m.trashMailbox(ctx); err != nil {
			return err
		}
	}
	if err := r.lookIntoGaps(ctx); err != nil {
		return err
	}
	if err := r.sparePlaceholders(ctx); err != nil {
		return err
	}
	r.fault, r.rest, r.isChecked, r.keepsFlags = nil, nil, false, p.flags
	for _, set := range r.m.setsFor(r.targets, len(r.trash)) {
		for _, step := range p.steps {
			done, err := step(r, ctx, set)
			if err != nil {
				return err
			}
			if !done {
				break
			}
		}
	}
	if p.last != nil {
		if err := p.last(r, ctx); err != nil {
			return err
		}
	}
	return r.check(ctx, p)
}

// check asks what is still there, whatever the upstream has answered so far
// (requirements I-DEL-4, 9). Where p leaves messages flagged, these count as
// removed.
func (r *removal) check(ctx context.Context, p plan) error {
	key := upstream.Any
	if p.flags {
		key = upstream.Undeleted
	}
	u := r.m.u
	rest, err := u.SearchSets(ctx, upstream.AtUpdate, r.marked, r.m.sets(r.marked), key)
	if void := r.m.usable(upstream.AtUpdate); void != nil && (err == nil || r.m.rebuilt) {
		err = void
	}
	if err != nil {
		return err
	}
	r.rest, r.isChecked = rest, true
	if len(rest) == 0 || !p.flags { // else those that are flagged are unflagged again
		removed := slices.DeleteFunc(slices.Clone(r.marked), func(uid uint64) bool { return uidset.Contains(rest, uid) })
		r.m.b.forget(r.m.key, removed, p.flags)
	}
	if len(rest) == 0 {
		return nil
	}
	cause := fmt.Errorf("imap: %d of %d messages not removed, the first is UID %d", len(rest), len(r.marked), rest[0])
	if r.fault == nil {
		return upstream.WithCause(proxy.ErrNotRemoved, cause)
	}
	return &proxy.Error{Code: r.fault.Code, Text: r.fault.Text, Err: errors.Join(cause, r.fault)}
}

// unflag removes \Deleted from the messages that are left, or may be, so that the
// next session shows them, as the answer to QUIT says, whatever the policy would have
// left flagged. Flags of other clients stay (requirement I-DEL-5).
func (r *removal) unflag(ctx context.Context) {
	m := r.m
	slices.Sort(r.flagged)
	ours := slices.DeleteFunc(slices.Compact(r.flagged), func(uid uint64) bool {
		return uidset.Contains(m.deleted, uid) || r.isChecked && !r.keepsFlags && !uidset.Contains(r.rest, uid)
	})
	r.flagged = nil
	for _, set := range m.sets(ours) {
		status, err := m.u.UIDCommand(ctx, "STORE", set.Text+clearDeleted)
		if err != nil || !status.OK() {
			r.flagged = append(r.flagged, set.UIDs...)
			proxy.Logger(ctx).WarnContext(ctx, `cannot remove the flag \Deleted`,
				"uids", set.Text, "error", m.u.Failed(upstream.AtUpdate, "STORE", status, err))
			continue
		}
		r.settle(set.UIDs)
	}
}

// settle ends the memory of what a former session has flagged: these messages are
// unflagged, removed, or flagged as the client wanted. Whatever flag they have in
// the next session is not one to be cleared.
func (r *removal) settle(uids []uint64) {
	m := r.m
	left := slices.DeleteFunc(slices.Clone(m.stillFlagged), func(uid uint64) bool { return uidset.Contains(uids, uid) })
	r.isStored = r.isStored || len(left) < len(m.stillFlagged)
	m.stillFlagged = left
}

// clearDeleted is the end of a STORE that removes \Deleted.
const clearDeleted = ` -FLAGS.SILENT (\Deleted)`

// storeFlagged has the next session unflag the messages uids, and those that this
// one could not. Where UIDs do not last, they mean other messages by then.
func (r *removal) storeFlagged(uids []uint64) {
	m := r.m
	if !m.lasting {
		return
	}
	all := slices.Concat(uids, m.stillFlagged)
	slices.Sort(all)
	all = slices.DeleteFunc(slices.Compact(all), func(uid uint64) bool { return uidset.Contains(m.deleted, uid) })
	m.b.store.PutFlagged(m.key, store.Flagged{UIDValidity: m.uidValidity, UIDs: all})
	r.isStored = true
}

// retrievedOnce returns the messages to be flagged \Seen now, ascending.
func (m *maildrop) retrievedOnce() []uint64 {
	slices.Sort(m.retrieved)
	return slices.Compact(m.retrieved)
}

// notRemoved returns err as the answer to QUIT: with the code of its cause, and
// with one text instead of the general ones.
func notRemoved(err error) error {
	e := proxy.AsError(err)
	if e.Text == upstream.TextTemp || e.Text == upstream.TextPerm {
		return &proxy.Error{Code: e.Code, Text: proxy.ErrNotRemoved.Text, Err: e.Err}
	}
	return e
}

// recordRefusal records a command that was not answered by OK.
func (r *removal) recordRefusal(op string, status wire.Status) {
	if r.fault == nil {
		r.fault = r.m.u.Failed(upstream.AtUpdate, op, status, nil)
	}
}
