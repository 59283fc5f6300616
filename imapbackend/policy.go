package imapbackend

import (
	"context"
	"fmt"
	"slices"

	"popgate/imapbackend/internal/uidset"
	"popgate/imapbackend/upstream"
)

// plan is how the marked messages are removed.
type plan struct {
	text    string // for an operator
	steps   []step // run one after the other on each set of them
	last    func(r *removal, ctx context.Context) error
	trash   bool // the steps need the trash mailbox
	flags   bool // messages may be left, flagged \Deleted
	refuses bool // nothing is removed
}

// step does one thing to a set of the marked messages; done is false if the
// upstream has refused, which ends the steps for the set. An error ends the
// attempt: the connection is lost, or the mailbox was rebuilt.
type step func(r *removal, ctx context.Context, set uidset.Set) (done bool, err error)

// The plans, except those with COPY.
var (
	planKeep    = plan{text: "nothing, messages are kept"}
	planRefuse  = plan{text: "nothing, QUIT is refused: no UIDPLUS", refuses: true}
	planFlag    = plan{text: `flag \Deleted, and hide`, steps: []step{(*removal).flag}, flags: true}
	planExpunge = plan{text: `flag \Deleted, UID EXPUNGE`, steps: []step{(*removal).flag, (*removal).expunge}}
	planIfAlone = plan{text: `flag \Deleted, EXPUNGE if no other message is flagged`, steps: []step{(*removal).flag},
		last: (*removal).expungeIfAlone, flags: true}
	planMove = plan{text: "UID MOVE to trash", steps: []step{(*removal).move}, trash: true}
)

// plan chooses a plan by policy and capabilities (requirements I-DEL-2, 7, 8,
// 13); can reports whether the upstream has a capability.
func (o *Options) plan(can func(capability string) bool) plan {
	switch {
	case o.Delete == DeleteKeep:
		return planKeep
	case o.Delete == DeleteFlag:
		return planFlag
	case o.Delete == DeleteTrash:
		return planTrash(can, o.planRemoval(can))
	case !can("UIDPLUS") && o.WithoutUIDPLUS == Move:
		return planTrash(can, planFlag)
	}
	return o.planRemoval(can)
}

// planRemoval is the plan that removes messages from the mailbox served.
func (o *Options) planRemoval(can func(string) bool) plan {
	switch {
	case can("UIDPLUS"):
		return planExpunge
	case o.WithoutUIDPLUS == ExpungeIfAlone:
		return planIfAlone
	case o.WithoutUIDPLUS == Refuse:
		return planRefuse
	}
	return planFlag
}

// planTrash is the plan that moves messages to the trash mailbox: by MOVE, or
// by COPY followed by the plan then.
func planTrash(can func(string) bool, then plan) plan {
	switch {
	case can("MOVE"):
		return planMove
	case then.refuses:
		return then
	}
	then.text = "UID COPY to trash, " + then.text
	then.steps = slices.Concat([]step{(*removal).copy}, then.steps)
	then.trash = true
	return then
}

// Planner is a maildrop that can say how it would remove messages. All
// maildrops of a Backend are Planners. Like the other methods, Plan is not for
// concurrent use.
type Planner interface {
	// Plan returns, in words for an operator, what UPDATE would do to
	// marked messages, with the trash mailbox that it would use. It
	// changes nothing upstream. The error is the one that QUIT would
	// report.
	Plan(ctx context.Context) (string, error)
}

var _ Planner = (*maildrop)(nil)

// Plan implements Planner.
func (m *maildrop) Plan(ctx context.Context) (string, error) {
	release, err := m.acquire(ctx, upstream.AtUpdate)
	if err != nil {
		return "", err
	}
	defer release()
	p := m.opts.plan(m.u.Can)
	if !p.trash {
		return p.text, nil
	}
	trash, err := m.trashMailbox(ctx)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s, %s", p.text, trash), nil
}
