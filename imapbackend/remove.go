package imapbackend

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-imap"
	"github.com/emersion/go-imap/client"
	"github.com/emersion/go-imap/commands"

	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// plan is how the marked messages are removed.
type plan struct {
	text    string // for an operator
	steps   []step // done to each piece of them, one after the other
	last    func(r *removal, ctx context.Context) error
	trash   bool // the steps need the trash mailbox
	moves   bool // no flag is set
	flags   bool // messages may be left, flagged \Deleted
	refuses bool // nothing is removed
}

// step does one thing to a piece of the marked messages; done is false if the
// upstream has refused, which ends the piece. An error ends the attempt: the
// connection is lost, or the snapshot void.
type step func(r *removal, ctx context.Context, set uidSet) (done bool, err error)

// The plans that need no trash mailbox, and that of MOVE.
var (
	planKeep    = plan{text: "nothing, messages are kept"}
	planRefuse  = plan{text: "nothing, QUIT is refused: no UIDPLUS", refuses: true}
	planFlag    = plan{text: `flag \Deleted, and hide`, steps: []step{(*removal).flag}, flags: true}
	planExpunge = plan{text: `flag \Deleted, UID EXPUNGE`, steps: []step{(*removal).flag, (*removal).expunge}}
	planIfAlone = plan{text: `flag \Deleted, EXPUNGE if nothing else is flagged so`, steps: []step{(*removal).flag},
		last: (*removal).expungeIfAlone, flags: true}
	planMove = plan{text: "UID MOVE to trash", steps: []step{(*removal).move}, trash: true, moves: true}
)

// plan chooses by policy and capabilities (requirements I-DEL-2, 7, 8, 13).
func (u *upstream) plan() plan {
	switch o := u.opts; {
	case o.Delete == DeleteKeep:
		return planKeep
	case o.Delete == DeleteFlag:
		return planFlag
	case o.Delete == DeleteTrash:
		return u.planTrash(u.planRemoval())
	case !u.can("UIDPLUS") && o.WithoutUIDPLUS == Move:
		return u.planTrash(planFlag)
	}
	return u.planRemoval()
}

// planRemoval removes messages from the mailbox served.
func (u *upstream) planRemoval() plan {
	switch {
	case u.can("UIDPLUS"):
		return planExpunge
	case u.opts.WithoutUIDPLUS == ExpungeIfAlone:
		return planIfAlone
	case u.opts.WithoutUIDPLUS == Refuse:
		return planRefuse
	}
	return planFlag
}

// planTrash moves them to the trash mailbox: by MOVE, or by a copy and what
// then removes them.
func (u *upstream) planTrash(then plan) plan {
	switch {
	case u.can("MOVE"):
		return planMove
	case then.refuses:
		return then
	}
	then.text = "UID COPY to trash, " + then.text
	then.steps = slices.Concat([]step{(*removal).copy}, then.steps)
	then.trash = true
	return then
}

// can reports whether the upstream has a capability that IMAP4rev2 includes
// (RFC 9051 appendix E).
func (u *upstream) can(capability string) bool {
	return u.conn.Has(capability) || u.conn.Has("IMAP4REV2")
}

// flag sets \Deleted. A lost answer leaves open whether it did, which counts as
// done: in the next attempt it may be this session's to take back.
func (r *removal) flag(ctx context.Context, set uidSet) (done bool, err error) {
	status, err := r.send(ctx, "STORE", set.text+` +FLAGS.SILENT (\Deleted)`)
	if err != nil {
		r.flagged = append(r.flagged, set.uids...)
		return false, err
	}
	if !status.OK() || status.Code == "READ-ONLY" {
		r.refused("STORE", status)
		return false, nil
	}
	r.flagged = append(r.flagged, set.uids...)
	return true, nil
}

// expunge removes what is flagged of set, and nothing else.
func (r *removal) expunge(ctx context.Context, set uidSet) (done bool, err error) {
	status, err := r.send(ctx, "EXPUNGE", set.text)
	return r.judge("EXPUNGE", status, err)
}

// expungeIfAlone sends a plain EXPUNGE if all that is flagged \Deleted is to be
// removed. Else, and where it is refused, messages stay flagged.
func (r *removal) expungeIfAlone(ctx context.Context) error {
	u, log := r.m.u, proxy.Logger(ctx)
	ranges, err := u.search(ctx, atUpdate, "DELETED")
	if void := r.m.usable(atUpdate); void != nil {
		return void
	}
	if err != nil {
		log.WarnContext(ctx, "no EXPUNGE, as it is not known what it would remove", "error", err)
		return nil
	}
	if len(ranges) == 0 {
		return nil
	}
	for _, found := range ranges {
		if !coversAll(r.targets, found) {
			log.InfoContext(ctx, `no EXPUNGE, as another client has flagged messages \Deleted`, "uid", found.low)
			return nil
		}
	}
	status, err := r.sendPlain(ctx, "EXPUNGE")
	_, err = r.judge("EXPUNGE", status, err)
	return err
}

// coversAll reports whether uids, ascending, has each one of the range.
func coversAll(uids []uint32, all uidRange) bool {
	low, _ := slices.BinarySearch(uids, all.low)
	high, ok := slices.BinarySearch(uids, all.high)
	return ok && uint32(high-low) == all.high-all.low
}

// move takes set to the trash mailbox. One that fails may have moved a part
// (RFC 6851 §3.3).
func (r *removal) move(ctx context.Context, set uidSet) (done bool, err error) {
	return r.transfer(ctx, "MOVE", set)
}

// copy copies set to the trash mailbox, unless an earlier attempt is known to
// have done so.
func (r *removal) copy(ctx context.Context, set uidSet) (done bool, err error) {
	if r.copied[set.text] {
		return true, nil
	}
	done, err = r.transfer(ctx, "COPY", set)
	if done {
		r.copied[set.text] = true
	}
	return done, err
}

// transfer sends MOVE or COPY, and makes the trash mailbox if the upstream asks
// for that, once (RFC 9051 §6.4.7).
func (r *removal) transfer(ctx context.Context, verb string, set uidSet) (done bool, err error) {
	args := set.text + " " + r.trash
	status, err := r.send(ctx, verb, args)
	if err == nil && status.Type == "NO" && status.Code == "TRYCREATE" && !r.created {
		done, err = r.create(ctx)
		r.created = err == nil // a lost one is for the next attempt to repeat
		if !done {
			return false, err
		}
		status, err = r.send(ctx, verb, args)
	}
	return r.judge(verb, status, err)
}

func (r *removal) create(ctx context.Context) (done bool, err error) {
	status, err := r.sendPlain(ctx, "CREATE", imap.RawString(r.trash))
	if err == nil && status.Code == "ALREADYEXISTS" {
		return true, nil
	}
	return r.judge("CREATE", status, err)
}

// judge takes note of the answer to op, and returns whether that was OK.
func (r *removal) judge(op string, status wire.Status, err error) (done bool, _ error) {
	if err == nil && !status.OK() {
		r.refused(op, status)
	}
	return err == nil && status.OK(), err
}

// send sends a UID command.
func (r *removal) send(ctx context.Context, verb, args string) (wire.Status, error) {
	status, err := r.m.u.uidCommand(ctx, verb, args)
	return status, r.interrupted(verb, status, err)
}

// sendPlain sends a command without UIDs.
func (r *removal) sendPlain(ctx context.Context, verb string, args ...any) (wire.Status, error) {
	status, err := r.m.u.execute(ctx, strings.TrimSpace(verb+" "+fmt.Sprint(args...)), func(cl *client.Client) error {
		_, err := cl.Execute(&imap.Command{Name: verb, Arguments: args}, nil)
		return err
	})
	return status, r.interrupted(verb, status, err)
}

// interrupted returns why the attempt ends after a command: it has lost the
// connection, or the UIDs may stand for other messages by now (requirement
// I-UIDV-1).
func (r *removal) interrupted(op string, status wire.Status, err error) error {
	if err != nil {
		return r.m.u.failed(atUpdate, op, status, err)
	}
	return r.m.usable(atUpdate)
}

// store sends UID STORE. set and change are ours, free of user input.
func (u *upstream) store(ctx context.Context, set, change string) (wire.Status, error) {
	return u.uidCommand(ctx, "STORE", set+" "+change)
}

// uidCommand sends a UID command. Its arguments are free of user input that has
// not been quoted.
func (u *upstream) uidCommand(ctx context.Context, verb, args string) (wire.Status, error) {
	cmd := &commands.Uid{Cmd: &imap.Command{Name: verb, Arguments: []any{imap.RawString(args)}}}
	return u.execute(ctx, fmt.Sprintf("UID %s %s", verb, args), func(cl *client.Client) error {
		_, err := cl.Execute(cmd, nil)
		return err
	})
}
