package upstream

import (
	"context"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-imap"
	"github.com/emersion/go-imap/client"
	"github.com/emersion/go-imap/utf7"

	"popgate/imapbackend/wire"
)

// SelectAfterLogin selects the mailbox after a login; the commands behind go with SELECT.
func (u *Conn) SelectAfterLogin(ctx context.Context, behind ...string) (wire.Status, error) {
	status, err := u.Select(ctx, behind...)
	if err == nil && status.Type == "NO" && u.Wire.Has("ID") {
		// Some providers refuse SELECT until ID has been sent after the login.
		if _, err := u.run(ctx, u.idCommand(ctx)); err != nil {
			return status, err
		}
		status, err = u.Select(ctx, behind...)
	}
	return status, err
}

// Select selects the configured mailbox read-write, as EXAMINE does not
// settle UIDVALIDITY on every server, with the commands behind in the same
// flight.
func (u *Conn) Select(ctx context.Context, behind ...string) (wire.Status, error) {
	u.Wire.ResetMailbox()
	defer u.Wire.SetProgress(u.Wire.SetProgress(SelectTimeout))
	name := u.MailboxName()
	cmd := &imap.Command{Name: "SELECT", Arguments: []any{imap.RawString(name)}}
	return u.execute(ctx, "SELECT "+name, func(cl *client.Client) error {
		_, err := cl.Execute(cmd, nil)
		return err
	}, behind...)
}

// MailboxName returns the configured mailbox as it goes into a command.
func (u *Conn) MailboxName() string { return u.QuoteMailbox(u.opts.Mailbox) }

// QuoteMailbox returns a mailbox name in UTF-8 as it goes into a command:
// quoted and in modified UTF-7, or in UTF-8 where that is enabled (RFC 3501
// §5.1.3, RFC 6855 §3).
func (u *Conn) QuoteMailbox(name string) string {
	switch {
	case strings.EqualFold(name, "INBOX"):
		return "INBOX"
	case u.utf8:
		return wire.Quote(name)
	}
	encoded, _ := utf7.Encoding.NewEncoder().String(name) // New has seen to it that it is UTF-8
	return wire.Quote(encoded)
}

// maxMailboxName bounds the name of a mailbox that the upstream lists, in
// octets: it must fit a command with a set (requirement I-CONN-4).
const maxMailboxName = 512

// CanName reports whether a name of the upstream's can go into a command as a
// quoted string.
func (u *Conn) CanName(name string) bool {
	for _, c := range []byte(name) {
		if c < ' ' || c == 0x7f || c > '~' && !u.utf8 {
			return false
		}
	}
	return name != "" && len(name) <= maxMailboxName && utf8.ValidString(name)
}
