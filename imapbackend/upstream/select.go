package upstream

import (
	"context"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-imap"
	"github.com/emersion/go-imap/client"
	"github.com/emersion/go-imap/utf7"

	"popgate/imapbackend/dialect"
	"popgate/imapbackend/wire"
)

// SelectAfterLogin is Select. If the upstream refuses that, it sends ID and
// tries again.
func (c *Conn) SelectAfterLogin(ctx context.Context, trailing ...string) (wire.Status, error) {
	status, err := c.Select(ctx, trailing...)
	if err == nil && status.Type == "NO" && c.Wire.Has("ID") && c.uses(dialect.ID) {
		// Some providers refuse SELECT until ID has been sent after
		// the login.
		if _, err := c.run(ctx, c.opts.idCommand(ctx)); err != nil {
			return status, err
		}
		status, err = c.Select(ctx, trailing...)
	}
	return status, err
}

// Select selects the configured mailbox read-write: on some servers
// UIDVALIDITY after EXAMINE is not final. The trailing commands go in the same
// flight, if the server takes that, else once it has answered OK; Answers reads
// their results. The error is the loss of the connection.
func (c *Conn) Select(ctx context.Context, trailing ...string) (wire.Status, error) {
	c.Wire.ResetMailbox()
	defer c.Wire.SetProgress(c.Wire.SetProgress(SelectTimeout))
	name := c.MailboxName()
	cmd := &imap.Command{Name: "SELECT", Arguments: []any{imap.RawString(name)}}
	run := func(cl *client.Client) error {
		_, err := cl.Execute(cmd, nil)
		return err
	}
	if c.uses(dialect.SelectFlight) {
		return c.execute(ctx, "SELECT "+name, run, trailing...)
	}
	status, err := c.execute(ctx, "SELECT "+name, run)
	for _, cmd := range trailing {
		if err == nil && status.OK() {
			err = c.Wire.Start(cmd)
		}
	}
	return status, err
}

// MailboxName returns the configured mailbox as it goes into a command.
func (c *Conn) MailboxName() string { return c.QuoteMailbox(c.opts.Mailbox) }

// QuoteMailbox returns a mailbox name in UTF-8 as it goes into a command:
// quoted and in modified UTF-7, or in UTF-8 where that is enabled (RFC 3501
// §5.1.3, RFC 6855 §3).
func (c *Conn) QuoteMailbox(name string) string {
	switch {
	case strings.EqualFold(name, "INBOX"):
		return "INBOX"
	case c.utf8:
		return wire.Quote(name)
	}
	encoded, _ := utf7.Encoding.NewEncoder().String(name) // names in Options are UTF-8
	return wire.Quote(encoded)
}

// maxMailboxName bounds the name of a mailbox that the upstream lists, in
// octets: it must fit a command with a set (requirement I-CONN-4).
const maxMailboxName = 512

// CanQuote reports whether a mailbox name, in the encoding of the upstream,
// can go into a command as a quoted string; utf8Enabled is Conn.UTF8.
func CanQuote(name string, utf8Enabled bool) bool {
	for _, c := range []byte(name) {
		if c < ' ' || c == 0x7f || c > '~' && !utf8Enabled {
			return false
		}
	}
	return name != "" && len(name) <= maxMailboxName && utf8.ValidString(name)
}
