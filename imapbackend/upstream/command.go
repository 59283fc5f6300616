package upstream

import (
	"context"
	"fmt"
	"strings"

	"github.com/emersion/go-imap"
	"github.com/emersion/go-imap/client"
	"github.com/emersion/go-imap/commands"

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
