package imapbackend

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/emersion/go-imap"
	"github.com/emersion/go-imap/client"
	"github.com/emersion/go-imap/commands"

	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// updateProgress is the longest silence of the upstream during UPDATE, whose
// real limit is the caller's (requirement P-QUIT-6).
const updateProgress = 150 * time.Second

// Update implements proxy.Maildrop (requirements I-DEL-1 to 7): the marked
// messages are flagged \Deleted and expunged by UID, piece by piece; what is
// then still there decides the answer. Without UIDPLUS no command removes just
// these, and the policy decides.
func (m *maildrop) Update(ctx context.Context, marked []uint32) error {
	m.flagSeen(ctx, slices.DeleteFunc(m.retrievedOnce(), func(uid uint32) bool {
		_, isMarked := slices.BinarySearch(marked, uid)
		return isMarked
	}))
	if len(marked) == 0 {
		return nil
	}
	release, err := m.acquire(ctx, atUpdate)
	if err != nil {
		return notRemoved(err)
	}
	defer release()
	defer m.u.conn.SetProgress(m.u.conn.SetProgress(updateProgress))
	uidplus := m.u.conn.Has("UIDPLUS") || m.u.conn.Has("IMAP4REV2")
	if !uidplus && m.opts.WithoutUIDPLUS == Refuse {
		return &proxy.Error{Code: proxy.CodeSysPerm, Text: textNoPlus,
			Err: errors.New("imap: the upstream lacks UIDPLUS and the policy is to refuse")}
	}
	sets := m.sets(marked)
	flagged, fault, err := m.remove(ctx, sets, uidplus)
	if err != nil {
		return notRemoved(err)
	}
	key := ""
	if !uidplus {
		key = "UNDELETED"
	}
	rest, err := m.u.searchSets(ctx, atUpdate, marked, sets, key)
	switch {
	case err != nil:
		return notRemoved(err)
	case len(rest) == 0:
		if uidplus {
			m.u.backend.forget(m.key, marked)
		}
		return nil
	}
	if uidplus {
		m.unflag(ctx, rest, flagged)
	}
	cause := fmt.Errorf("imap: %d of %d messages not removed, UID %d the first", len(rest), len(marked), rest[0])
	if fault == nil {
		return withCause(proxy.ErrNotRemoved, cause)
	}
	return notRemoved(&proxy.Error{Code: fault.Code, Text: fault.Text, Err: errors.Join(cause, fault)})
}

// retrievedOnce returns the messages to be flagged \Seen now, ascending.
func (m *maildrop) retrievedOnce() []uint32 {
	slices.Sort(m.retrieved)
	return slices.Compact(m.retrieved)
}

// notRemoved is err as the answer to QUIT: the code by its cause, one text but
// where another tells the client more.
func notRemoved(err error) error {
	e := proxy.AsError(err)
	if e.Text == textTemp || e.Text == textPerm {
		return &proxy.Error{Code: e.Code, Text: proxy.ErrNotRemoved.Text, Err: e.Err}
	}
	return e
}

// remove flags and expunges the messages of sets. It returns those that it has
// flagged and the first refusal, which does not end it; err is a lost
// connection, which does.
func (m *maildrop) remove(ctx context.Context, sets []uidSet, expunge bool) (flagged []uint32, fault *proxy.Error, err error) {
	u := m.u
	refused := func(op string, status wire.Status) {
		if fault == nil {
			fault = u.failed(atUpdate, op, status, nil)
		}
	}
	for _, set := range sets {
		status, err := u.store(ctx, set.text, `+FLAGS.SILENT (\Deleted)`)
		if err != nil {
			return nil, nil, u.failed(atUpdate, "STORE", status, err)
		}
		// The UIDs may stand for other messages now (requirement I-UIDV-1).
		if err := m.usable(atUpdate); err != nil {
			return nil, nil, err
		}
		if !status.OK() || status.Code == "READ-ONLY" {
			refused("STORE", status)
			continue
		}
		flagged = append(flagged, set.uids...)
		if !expunge {
			continue
		}
		status, err = u.expunge(ctx, set.text)
		if err != nil {
			return nil, nil, u.failed(atUpdate, "EXPUNGE", status, err)
		}
		if !status.OK() {
			refused("EXPUNGE", status)
		}
	}
	return flagged, fault, nil
}

// unflag takes \Deleted back from what is left, so that the next session shows
// it as the answer to QUIT says. Only what this session flagged: the flag of
// another client stays (requirement I-DEL-5).
func (m *maildrop) unflag(ctx context.Context, rest, flagged []uint32) {
	ours := slices.DeleteFunc(slices.Clone(rest), func(uid uint32) bool {
		_, flaggedByUs := slices.BinarySearch(flagged, uid)
		_, before := slices.BinarySearch(m.deleted, uid)
		return !flaggedByUs || before
	})
	for _, set := range m.sets(ours) {
		status, err := m.u.store(ctx, set.text, `-FLAGS.SILENT (\Deleted)`)
		if err != nil || !status.OK() {
			proxy.Logger(ctx).WarnContext(ctx, `cannot take \Deleted back`,
				"uids", set.text, "error", m.u.failed(atUpdate, "STORE", status, err))
		}
	}
}

// store and expunge send UID STORE and UID EXPUNGE. set and change are ours,
// free of user input.
func (u *upstream) store(ctx context.Context, set, change string) (wire.Status, error) {
	return u.uidCommand(ctx, "STORE", set+" "+change)
}

func (u *upstream) expunge(ctx context.Context, set string) (wire.Status, error) {
	return u.uidCommand(ctx, "EXPUNGE", set)
}

func (u *upstream) uidCommand(ctx context.Context, name, args string) (wire.Status, error) {
	cmd := &commands.Uid{Cmd: &imap.Command{Name: name, Arguments: []any{imap.RawString(args)}}}
	return u.execute(ctx, "UID "+name+" "+args, func(cl *client.Client) error {
		_, err := cl.Execute(cmd, nil)
		return err
	})
}
