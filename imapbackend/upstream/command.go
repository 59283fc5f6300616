package upstream

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

// Collect runs a command of ours and hands over the events of its answer.
func (u *Conn) Collect(ctx context.Context, cmd string, each func(wire.Event)) (wire.Status, error) {
	if err := u.Wire.Start(cmd); err != nil {
		return wire.Status{}, err
	}
	results, err := u.Answers(ctx, []string{cmd}, each)
	if err != nil {
		return wire.Status{}, err
	}
	return results[0], nil
}

// Noop asks whether the upstream is still there.
func (u *Conn) Noop(ctx context.Context) (wire.Status, error) {
	return u.execute(ctx, "NOOP", (*client.Client).Noop)
}

// Command sends a command without UIDs. Its arguments are free of user input
// that has not been quoted.
func (u *Conn) Command(ctx context.Context, verb, args string) (wire.Status, error) {
	cmd := &imap.Command{Name: verb}
	if args != "" {
		cmd.Arguments = []any{imap.RawString(args)}
	}
	return u.execute(ctx, strings.TrimSpace(verb+" "+args), func(cl *client.Client) error {
		_, err := cl.Execute(cmd, nil)
		return err
	})
}

// StoreFlags sends UID STORE. set and change are our own, free of user input.
func (u *Conn) StoreFlags(ctx context.Context, set, change string) (wire.Status, error) {
	return u.UIDCommand(ctx, "STORE", set+" "+change)
}

// UIDCommand sends a UID command. Its arguments are free of user input that has
// not been quoted.
func (u *Conn) UIDCommand(ctx context.Context, verb, args string) (wire.Status, error) {
	cmd := &commands.Uid{Cmd: &imap.Command{Name: verb, Arguments: []any{imap.RawString(args)}}}
	return u.execute(ctx, fmt.Sprintf("UID %s %s", verb, args), func(cl *client.Client) error {
		_, err := cl.Execute(cmd, nil)
		return err
	})
}

// Search returns the UIDs that match criteria, in the order of the answer.
func (u *Conn) Search(ctx context.Context, ph Phase, criteria string) ([]uidset.Range, error) {
	cmd := "UID SEARCH " + criteria
	if u.Wire.Has("ESEARCH") || u.Wire.Has("IMAP4REV2") {
		cmd = "UID SEARCH RETURN (ALL) " + criteria
	}
	var ranges []uidset.Range
	status, err := u.Collect(ctx, cmd, func(ev wire.Event) {
		if ev.Kind == wire.Search {
			ranges = append(ranges, uidset.Range{Low: ev.Low, High: ev.High})
		}
	})
	if err != nil || !status.OK() {
		return nil, u.Failed(ph, cmd, status, err)
	}
	return ranges, nil
}

// SearchAmong returns those of uids, which is ascending, that are in the
// mailbox and match key, "" for all. What a server answers beyond uids does
// not count.
func (u *Conn) SearchAmong(ctx context.Context, ph Phase, uids []uint32, key string) ([]uint32, error) {
	return u.SearchSets(ctx, ph, uids, uidset.Split(uids, nil, u.MaxLine()-uidset.Frame), key)
}

// SearchSets is SearchAmong with uids written as sets already.
func (u *Conn) SearchSets(ctx context.Context, ph Phase, uids []uint32, sets []uidset.Set, key string) ([]uint32, error) {
	found := make(map[uint32]bool)
	for _, set := range sets {
		criteria := "UID " + set.Text
		if key != "" {
			criteria += " " + key
		}
		ranges, err := u.Search(ctx, ph, criteria)
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

// MaxLine is the longest command line that the upstream is sent, in octets
// (requirement I-CONN-4).
func (u *Conn) MaxLine() int {
	if u.Wire.Has("QRESYNC") {
		return 8000
	}
	return 950
}

// Can reports whether the upstream has a capability that IMAP4rev2 includes
// (RFC 9051 appendix E).
func (u *Conn) Can(capability string) bool {
	return u.Wire.Has(capability) || u.Wire.Has("IMAP4REV2")
}
