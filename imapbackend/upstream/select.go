package upstream

import (
	"context"
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/emersion/go-imap"
	"github.com/emersion/go-imap/client"
	"github.com/emersion/go-imap/utf7"

	"popgate/imapbackend/dialect"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// SelectAfterLogin is Select. If the upstream refuses that, it sends ID and
// tries again.
func (c *Conn) SelectAfterLogin(ctx context.Context, trailing ...string) (wire.Status, error) {
	// Some refuse SELECT until ID has been sent after the login.
	offered := c.Wire.Has("ID") && c.dialect.Avoids&dialect.IDAfterLogin == 0
	if offered && c.uses(dialect.IDAfterLogin) {
		offered = false
		if _, err := c.run(ctx, c.opts.idCommand(ctx)); err != nil {
			return wire.Status{}, err
		}
	}
	status, err := c.Select(ctx, trailing...)
	if err == nil && c.RefusesFlight(status) {
		refusal := status
		if status, err = c.selectAlone(ctx, trailing); err == nil && status.OK() {
			c.AvoidFlight(ctx, refusal)
		}
	}
	if err != nil || status.Type != "NO" || !offered {
		return status, err
	}
	refusal := status
	if _, err := c.run(ctx, c.opts.idCommand(ctx)); err != nil {
		return status, err
	}
	status, err = c.Select(ctx, trailing...)
	if err == nil && status.OK() && wantsID(refusal) && c.learned.Succeeded(dialect.IDAfterLogin) {
		c.server.save(c.learned, true)
		proxy.Logger(ctx).WarnContext(ctx, "upstream refuses SELECT until ID has been sent after the login, it is sent from now on",
			"upstream", c.opts.Name, "cause", c.Clean(refusal.String()))
	}
	return status, err
}

// wantsID reports whether a refusal of SELECT gives no other reason than that ID is
// missing.
func wantsID(refusal wire.Status) bool {
	return judge(refusal) == lasting && (refusal.Code == "" || refusal.Code == "ALERT")
}

// selectAlone is Select once more, with nothing in its flight.
func (c *Conn) selectAlone(ctx context.Context, trailing []string) (wire.Status, error) {
	if _, err := c.Wire.Drain(); err != nil {
		return wire.Status{}, err
	}
	c.attempt.avoids |= dialect.SelectFlight
	c.dare(0, ProgressTimeout)
	return c.Select(ctx, trailing...)
}

// Select selects the configured mailbox read-write: on some servers
// UIDVALIDITY after EXAMINE is not final. The trailing commands go in the same
// flight if the upstream takes that; AnswersToTrailing reads their results. The
// error is the loss of the connection.
func (c *Conn) Select(ctx context.Context, trailing ...string) (wire.Status, error) {
	c.Wire.ResetMailbox()
	name := c.MailboxName()
	cmd := &imap.Command{Name: "SELECT", Arguments: []any{imap.RawString(name)}}
	run := func(cl *client.Client) error {
		_, err := cl.Execute(cmd, nil)
		return err
	}
	c.flight = len(trailing) > 0 && c.uses(dialect.SelectFlight)
	if !c.flight {
		defer c.Wire.SetProgress(c.Wire.SetProgress(SelectTimeout))
		return c.execute(ctx, "SELECT "+name, run)
	}
	c.dare(dialect.SelectFlight, SelectTimeout)
	status, err := c.execute(ctx, "SELECT "+name, run, trailing...)
	if err == nil && c.dialect.Takes&dialect.SelectFlight == 0 {
		// What depends on how the octets arrived may succeed once, and not
		// the next time.
		c.daring = dialect.SelectFlight
		c.Wire.SetProgress(Silence)
	}
	return status, err
}

// AnswersToTrailing returns the results of the search and of the other command that
// Select was given, and calls each with the events of their answers. It sends them
// one after the other if Select has not.
func (c *Conn) AnswersToTrailing(ctx context.Context, search *Search, other string, each func(wire.Event)) ([]wire.Status, error) {
	cmds := []string{search.Command(), other}
	var results []wire.Status
	var err error
	if c.flight {
		first := c.Wire.Started() - 1
		if results, err = c.Answers(ctx, cmds, each); err != nil && c.Wire.ResultOf(first) == (wire.Status{}) {
			c.daring |= search.risk()
			c.lostAt = search
		}
	} else {
		if c.dare(search.risk(), ProgressTimeout); c.attempt.silence {
			c.Wire.SetProgress(ProgressTimeout) // the server may just be slow
		}
		for i := 0; i < len(cmds) && err == nil; i++ {
			var status wire.Status
			if status, err = c.Collect(ctx, cmds[i], each); err == nil {
				c.dare(0, ProgressTimeout)
				results = append(results, status)
			} else if i == 0 {
				c.lostAt = search
			}
		}
	}
	if err != nil {
		return nil, err
	}
	c.dare(0, ProgressTimeout)
	if c.flight && results[1].OK() {
		c.succeeded(dialect.SelectFlight)
	}
	return results, nil
}

// RefusesFlight reports whether a command that Select was given may have been
// refused, with status, because it shared the flight of SELECT.
func (c *Conn) RefusesFlight(status wire.Status) bool {
	return c.flight && status.Type == "BAD" && judge(status) == lasting && !c.learned.Works(dialect.SelectFlight)
}

// AvoidFlight records that commands given to Select were refused for that reason.
func (c *Conn) AvoidFlight(ctx context.Context, refusal wire.Status) {
	c.failed(ctx, dialect.SelectFlight, true, errors.New("imap: after SELECT: "+c.Clean(refusal.String())))
}

// SearchAlone sends a search again that was refused, as a command in its flight with
// refusal, because it shared the flight of SELECT. The login does not use that again.
func (c *Conn) SearchAlone(ctx context.Context, search *Search, refusal wire.Status) (wire.Status, error) {
	a := c.attempt
	a.avoids |= dialect.SelectFlight
	a.suspects |= dialect.SelectFlight
	if a.cause == nil {
		a.cause = errors.New("imap: after SELECT: " + c.Clean(refusal.String()))
	}
	c.dare(search.risk(), ProgressTimeout)
	status, err := c.Collect(ctx, search.Command(), search.Add)
	if err != nil {
		c.lostAt = search
		return status, err
	}
	c.dare(0, ProgressTimeout)
	return status, nil
}

// Opened records what was learned, once the mailbox is open.
func (c *Conn) Opened(ctx context.Context) {
	c.stale = false
	c.settle(ctx, dialect.AllForms)
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
