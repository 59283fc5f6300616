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

// Collect runs one command and calls each with the events of its answer. User
// input in cmd must be quoted. The error is the loss of the connection.
func (c *Conn) Collect(ctx context.Context, cmd string, each func(wire.Event)) (wire.Status, error) {
	if err := c.Wire.Start(cmd); err != nil {
		return wire.Status{}, err
	}
	results, err := c.Answers(ctx, []string{cmd}, each)
	if err != nil {
		return wire.Status{}, err
	}
	return results[0], nil
}

// Noop checks that the upstream is alive. The error is the loss of the
// connection.
func (c *Conn) Noop(ctx context.Context) (wire.Status, error) {
	return c.execute(ctx, "NOOP", (*client.Client).Noop)
}

// Command runs a command without UIDs. User input in args must be quoted. The
// error is the loss of the connection.
func (c *Conn) Command(ctx context.Context, verb, args string) (wire.Status, error) {
	cmd := &imap.Command{Name: verb}
	if args != "" {
		cmd.Arguments = []any{imap.RawString(args)}
	}
	return c.execute(ctx, strings.TrimSpace(verb+" "+args), func(cl *client.Client) error {
		_, err := cl.Execute(cmd, nil)
		return err
	})
}

// UIDCommand is Command for the UID form of a command.
func (c *Conn) UIDCommand(ctx context.Context, verb, args string) (wire.Status, error) {
	cmd := &commands.Uid{Cmd: &imap.Command{Name: verb, Arguments: []any{imap.RawString(args)}}}
	return c.execute(ctx, fmt.Sprintf("UID %s %s", verb, args), func(cl *client.Client) error {
		_, err := cl.Execute(cmd, nil)
		return err
	})
}

// Search returns the UIDs that match criteria, in the order of the answer.
// Errors are *proxy.Error, as in the other searches.
func (c *Conn) Search(ctx context.Context, ph Phase, criteria string) ([]uidset.Range, error) {
	cmd := "UID SEARCH " + criteria
	if c.Wire.Has("ESEARCH") || c.Wire.Has("IMAP4REV2") {
		cmd = "UID SEARCH RETURN (ALL) " + criteria
	}
	var ranges []uidset.Range
	status, err := c.Collect(ctx, cmd, func(ev wire.Event) {
		if ev.Kind == wire.Search {
			ranges = append(ranges, uidset.Range{Low: ev.Low, High: ev.High})
		}
	})
	if err != nil || !status.OK() {
		return nil, c.Failed(ph, cmd, status, err)
	}
	return ranges, nil
}

// SearchAmong returns those of uids, which is ascending, that are in the
// mailbox and match key, "" for all. Other UIDs in the answer are ignored.
func (c *Conn) SearchAmong(ctx context.Context, ph Phase, uids []uint32, key string) ([]uint32, error) {
	return c.SearchSets(ctx, ph, uids, uidset.Split(uids, nil, c.MaxLine()-uidset.Frame), key)
}

// SearchSets is SearchAmong with uids given as sets too.
func (c *Conn) SearchSets(ctx context.Context, ph Phase, uids []uint32, sets []uidset.Set, key string) ([]uint32, error) {
	found := make(map[uint32]bool)
	for _, set := range sets {
		criteria := "UID " + set.Text
		if key != "" {
			criteria += " " + key
		}
		ranges, err := c.Search(ctx, ph, criteria)
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

// MaxLine returns the length of the longest command line to send to the
// upstream, in octets (requirement I-CONN-4).
func (c *Conn) MaxLine() int {
	if c.Wire.Has("QRESYNC") {
		return 8000
	}
	return 950
}

// Can reports whether the upstream has a capability, one of those that
// IMAP4rev2 includes (RFC 9051 appendix E).
func (c *Conn) Can(capability string) bool {
	return c.Wire.Has(capability) || c.Wire.Has("IMAP4REV2")
}
