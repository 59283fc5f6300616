package imapbackend

import (
	"context"
	"fmt"
	"slices"

	"popgate/imapbackend/internal/uidset"
	"popgate/imapbackend/upstream"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// lookIntoGaps asks which messages there are from the first marked one to the last, as
// far as these are not known, if that makes the commands of UPDATE fewer: ranges reach
// over free UIDs, but what is remembered, or listed without a proof, does not prove
// them free.
func (r *removal) lookIntoGaps(ctx context.Context) error {
	m, low := r.m, r.marked[0]
	if low >= m.known {
		return nil
	}
	believed := uidset.Gaps{Others: m.others(r.marked)}
	if len(uidset.Split(r.marked, &believed, m.maxLine-uidset.Frame)) == len(m.sets(r.marked)) {
		return nil
	}
	set := fmt.Sprintf("%d:%d", low, min(m.known-1, r.marked[len(r.marked)-1]))
	ranges, err := m.u.Search(ctx, upstream.AtUpdate, set, upstream.Any)
	if void := m.usable(upstream.AtUpdate); void != nil {
		return void
	}
	var found []uint64
	if err == nil {
		found, err = uidset.Expand(ranges, m.u.Wire.Mailbox().Bound())
	}
	if err != nil {
		proxy.Logger(ctx).DebugContext(ctx, "messages are removed in more commands: no answer shows which others there are", "error", err)
		return nil
	}
	if m.known != nothingKnown && slices.ContainsFunc(found, func(uid uint64) bool { return !m.isListed(uid) }) {
		proxy.Logger(ctx).WarnContext(ctx, "remembered listing of a mailbox is wrong and forgotten", "upstream", m.key.Upstream, "mailbox", m.key.Mailbox)
		m.b.store.DropListing(m.key)
	}
	m.found, m.known = found, low
	return nil
}

// flag sets \Deleted. Whatever the answer, messages count as flagged, so that the
// flag is removed where they stay: a STORE that is refused may have flagged some of
// them (RFC 2180 §4.2.3). Before the first STORE the store has all of them, on the
// disk too, for the session after one that does not get that far.
func (r *removal) flag(ctx context.Context, set uidset.Set) (done bool, err error) {
	if !r.isStored {
		r.storeFlagged(r.targets)
		// Without a disk that can be written UPDATE goes on; the store has logged it.
		_ = r.m.b.store.Sync(ctx)
	}
	r.flagged = append(r.flagged, set.UIDs...)
	status, err := r.send(ctx, "STORE", set.Text+` +FLAGS.SILENT (\Deleted)`)
	if err != nil {
		return false, err
	}
	if !status.OK() || status.Code == "READ-ONLY" {
		r.recordRefusal("STORE", status)
		return false, nil
	}
	return true, nil
}

// expunge removes the messages of set that are flagged, and no others.
func (r *removal) expunge(ctx context.Context, set uidset.Set) (done bool, err error) {
	status, err := r.send(ctx, "EXPUNGE", set.Text)
	return r.recordResult("EXPUNGE", status, err)
}

// expungeIfAlone sends a plain EXPUNGE if no other messages are flagged
// \Deleted. Otherwise, and where it is refused, messages stay flagged.
func (r *removal) expungeIfAlone(ctx context.Context) error {
	u, log := r.m.u, proxy.Logger(ctx)
	ranges, err := u.Search(ctx, upstream.AtUpdate, "", upstream.Deleted)
	if void := r.m.usable(upstream.AtUpdate); void != nil {
		return void
	}
	if err != nil {
		log.WarnContext(ctx, "EXPUNGE not sent: it is not known what it would remove", "error", err)
		return nil
	}
	if len(ranges) == 0 {
		return nil
	}
	for _, found := range ranges {
		if !uidset.Covers(r.targets, found) {
			log.InfoContext(ctx, `EXPUNGE not sent: another client has flagged messages \Deleted`, "uid", found.Low)
			return nil
		}
	}
	if gone, err := r.othersGone(ctx); err != nil || !gone {
		return err
	}
	status, err := r.sendPlain(ctx, "EXPUNGE", "")
	_, err = r.recordResult("EXPUNGE", status, err)
	return err
}

// othersGone reports whether the messages that others had flagged \Deleted when the
// mailbox was selected, and that are not to be removed, are known to be gone: a
// search that does not find them flagged any more may be wrong. All messages are
// asked for, so that the answer can be checked against their number.
func (r *removal) othersGone(ctx context.Context) (bool, error) {
	m, log := r.m, proxy.Logger(ctx)
	before := slices.DeleteFunc(slices.Concat(m.deleted, m.stillFlagged), func(uid uint64) bool { return uidset.Contains(r.targets, uid) })
	if len(before) == 0 {
		return true, nil
	}
	ranges, err := m.u.Search(ctx, upstream.AtUpdate, "", upstream.Any)
	if void := m.usable(upstream.AtUpdate); void != nil {
		return false, void
	}
	var all []uint64
	exists := m.u.Wire.Mailbox().Exists
	if err == nil {
		all, err = uidset.Expand(ranges, m.u.Wire.Mailbox().Bound())
	}
	if err != nil || uint64(len(all)) != uint64(exists) {
		log.WarnContext(ctx, "EXPUNGE not sent: it is not known what it would remove", "error", err)
		return false, nil
	}
	for _, uid := range before {
		if uidset.Contains(all, uid) {
			log.InfoContext(ctx, `EXPUNGE not sent: another client has flagged messages \Deleted`, "uid", uid)
			return false, nil
		}
	}
	return true, nil
}

// move moves set to the trash mailbox. A MOVE that fails may have moved some of
// it (RFC 6851 §3.3).
func (r *removal) move(ctx context.Context, set uidset.Set) (done bool, err error) {
	return r.transfer(ctx, "MOVE", set)
}

// copy copies set to the trash mailbox, unless an earlier attempt is known to
// have done so.
func (r *removal) copy(ctx context.Context, set uidset.Set) (done bool, err error) {
	if r.copied[set.Text] {
		return true, nil
	}
	done, err = r.transfer(ctx, "COPY", set)
	if done {
		r.copied[set.Text] = true
	}
	return done, err
}

// transfer sends MOVE or COPY, and creates the trash mailbox once if the
// upstream asks for that (RFC 9051 §6.4.7), or refuses and does not list it:
// maddy, GNU mailutils and go-imap v1 do not ask.
func (r *removal) transfer(ctx context.Context, verb string, set uidset.Set) (done bool, err error) {
	args := set.Text + " " + r.trash
	status, err := r.send(ctx, verb, args)
	missing := err == nil && status.Type == "NO" && status.Code == "TRYCREATE" && !r.created
	if err == nil && status.Type == "NO" && status.Code == "" && !r.created {
		missing, err = r.trashMissing(ctx)
	}
	if missing && err == nil {
		done, err = r.create(ctx)
		r.created = err == nil // after a loss the next attempt repeats it
		if !done {
			return false, err
		}
		status, err = r.send(ctx, verb, args)
	}
	r.noMove = r.noMove || err != nil && verb == "MOVE" && r.m.u.Dialect().ClosesAtMove
	return r.recordResult(verb, status, err)
}

// trashMissing reports that the upstream does not list the trash mailbox. A name
// with wildcards may be listed by those of others.
func (r *removal) trashMissing(ctx context.Context) (bool, error) {
	listed := false
	status, err := r.m.u.Collect(ctx, `LIST "" `+r.trash, func(ev wire.Event) {
		listed = listed || ev.Kind == wire.Data && ev.Name == "LIST"
	})
	return status.OK() && !listed, r.interrupted("LIST", status, err)
}

func (r *removal) create(ctx context.Context) (done bool, err error) {
	status, err := r.sendPlain(ctx, "CREATE", r.trash)
	if err == nil && status.Code == "ALREADYEXISTS" {
		return true, nil
	}
	return r.recordResult("CREATE", status, err)
}

// recordResult records a refusal of op; done reports whether it was OK.
func (r *removal) recordResult(op string, status wire.Status, err error) (done bool, _ error) {
	if err == nil && !status.OK() {
		r.recordRefusal(op, status)
	}
	return err == nil && status.OK(), err
}

// send sends a UID command.
func (r *removal) send(ctx context.Context, verb, args string) (wire.Status, error) {
	if err := stillAllowed(ctx); err != nil {
		return wire.Status{}, err
	}
	status, err := r.m.u.UIDCommand(ctx, verb, args)
	return status, r.interrupted(verb, status, err)
}

// sendPlain sends a command without UIDs.
func (r *removal) sendPlain(ctx context.Context, verb, args string) (wire.Status, error) {
	if err := stillAllowed(ctx); err != nil {
		return wire.Status{}, err
	}
	status, err := r.m.u.Command(ctx, verb, args)
	return status, r.interrupted(verb, status, err)
}

// stillAllowed returns an error when ctx has ended: another session may hold
// the lock of the maildrop by then (requirement O-LOCK-5).
func stillAllowed(ctx context.Context) error {
	if ctx.Err() != nil {
		return upstream.TempError(context.Cause(ctx))
	}
	return nil
}

// interrupted returns why the attempt ends after a command: the connection is
// lost, or the UIDs may be those of other messages by now (requirement
// I-UIDV-1).
func (r *removal) interrupted(op string, status wire.Status, err error) error {
	if err != nil {
		return r.m.u.Failed(upstream.AtUpdate, op, status, err)
	}
	return r.m.usable(upstream.AtUpdate)
}
