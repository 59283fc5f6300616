package imapbackend

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/emersion/go-imap"
	"github.com/emersion/go-imap/client"
	"github.com/emersion/go-imap/commands"

	"popgate/imapbackend/internal/uidset"
	"popgate/imapbackend/wire"
)

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

// noop asks whether the upstream is still there.
func (u *upstream) noop(ctx context.Context) (wire.Status, error) {
	return u.execute(ctx, "NOOP", (*client.Client).Noop)
}

// command sends a command without UIDs. Its arguments are free of user input
// that has not been quoted.
func (u *upstream) command(ctx context.Context, verb, args string) (wire.Status, error) {
	cmd := &imap.Command{Name: verb}
	if args != "" {
		cmd.Arguments = []any{imap.RawString(args)}
	}
	return u.execute(ctx, strings.TrimSpace(verb+" "+args), func(cl *client.Client) error {
		_, err := cl.Execute(cmd, nil)
		return err
	})
}

// storeFlags sends UID STORE. set and change are our own, free of user input.
func (u *upstream) storeFlags(ctx context.Context, set, change string) (wire.Status, error) {
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

// search returns the UIDs that match criteria, in the order of the answer.
func (u *upstream) search(ctx context.Context, ph phase, criteria string) ([]uidset.Range, error) {
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
	return u.searchSets(ctx, ph, uids, uidset.Split(uids, nil, u.maxLine()-uidset.Frame), key)
}

// searchSets is searchAmong with uids written as sets already.
func (u *upstream) searchSets(ctx context.Context, ph phase, uids []uint32, sets []uidset.Set, key string) ([]uint32, error) {
	found := make(map[uint32]bool)
	for _, set := range sets {
		criteria := "UID " + set.Text
		if key != "" {
			criteria += " " + key
		}
		ranges, err := u.search(ctx, ph, criteria)
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
	return slices.DeleteFunc(slices.Clone(uids), func(uid uint32) bool { return !found[uid] }), nil
}

// maxLine is the longest command line that the upstream is sent, in octets
// (requirement I-CONN-4).
func (u *upstream) maxLine() int {
	if u.conn.Has("QRESYNC") {
		return 8000
	}
	return 950
}

// can reports whether the upstream has a capability that IMAP4rev2 includes
// (RFC 9051 appendix E).
func (u *upstream) can(capability string) bool {
	return u.conn.Has(capability) || u.conn.Has("IMAP4REV2")
}
