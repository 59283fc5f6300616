package imapbackend

import (
	"context"
	"errors"
	"strconv"
	"strings"

	"popgate/imapbackend/upstream"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// textNoTrash is the public text where there is no trash mailbox to use.
const textNoTrash = "mail server has no trash mailbox, nothing was removed"

// sameMailbox reports whether two names in UTF-8 are those of one mailbox:
// INBOX is not case-sensitive (RFC 3501 §5.1).
func sameMailbox(a, b string) bool {
	return a == b || strings.EqualFold(a, "INBOX") && strings.EqualFold(b, "INBOX")
}

// trashMailbox returns the trash mailbox as it goes into a command: the
// configured one, or the one with the attribute \Trash.
func (m *maildrop) trashMailbox(ctx context.Context) (string, error) {
	trash := ""
	if m.opts.Trash != "" {
		trash = m.u.QuoteMailbox(m.opts.Trash)
	} else {
		found, err := m.listTrash(ctx)
		if err != nil {
			return "", err
		}
		if found.name != "" {
			trash = wire.Quote(found.name)
		}
	}
	switch {
	case trash == "":
		return "", noTrash(`imap: the upstream lists no mailbox with \Trash whose name can be used; set the key trash`)
	case trash == m.u.MailboxName() || strings.EqualFold(trash, `"INBOX"`) && m.u.MailboxName() == "INBOX":
		return "", noTrash("imap: the trash mailbox is the mailbox served; set the key trash to another one")
	}
	return trash, nil
}

func noTrash(cause string) error {
	return &proxy.Error{Code: proxy.CodeSysPerm, Text: textNoTrash, Err: errors.New(cause)}
}

// listTrash looks for the mailbox with \Trash: the first of those nearest to
// the root, as deeper ones may belong to other users. Its name is "" if there
// is none.
func (m *maildrop) listTrash(ctx context.Context) (mailboxEntry, error) {
	// Without the capability a server may show the attribute in a plain
	// LIST.
	cmds := []string{`LIST "" "*"`}
	if m.u.Can("SPECIAL-USE") {
		cmds = []string{`LIST (SPECIAL-USE) "" "*"`, cmds[0]}
	}
	for {
		var best mailboxEntry
		status, err := m.u.Collect(ctx, cmds[0], func(ev wire.Event) {
			if ev.Kind != wire.Data || ev.Name != "LIST" {
				return
			}
			e, ok := parseList(ev.Text)
			if ok && e.isTrash() && upstream.CanQuote(e.name, m.u.UTF8()) && (best.name == "" || e.depth() < best.depth()) {
				best = e
			}
		})
		if err == nil && status.OK() {
			return best, nil
		}
		if cmds = cmds[1:]; err != nil || len(cmds) == 0 {
			return best, m.u.Failed(upstream.AtUpdate, "LIST", status, err)
		}
	}
}

// mailboxEntry is what LIST says of one mailbox.
type mailboxEntry struct {
	attributes string // as in the response, with its parentheses
	delimiter  string // "" for NIL
	name       string // its octets, not quoted, in the upstream's encoding
}

func (e mailboxEntry) isTrash() bool {
	trash := false
	for _, a := range strings.Fields(strings.Trim(e.attributes, "()")) {
		switch strings.ToLower(a) {
		case `\noselect`, `\nonexistent`:
			return false
		case `\trash`:
			trash = true
		}
	}
	return trash
}

// depth is the number of mailboxes above e.
func (e mailboxEntry) depth() int {
	if e.delimiter == "" {
		return 0
	}
	return strings.Count(e.name, e.delimiter)
}

// parseList parses what follows LIST in a response: attributes, delimiter, and
// a name that is an atom, a quoted string or a literal (RFC 9051 §9,
// mailbox-list). It ignores what LIST-EXTENDED adds.
func parseList(text string) (e mailboxEntry, ok bool) {
	end := strings.IndexByte(text, ')')
	if !strings.HasPrefix(text, "(") || end < 0 {
		return e, false
	}
	e.attributes = text[:end+1]
	delimiter, rest, ok := cutString(strings.TrimLeft(text[end+1:], " "))
	if !ok {
		return e, false
	}
	if !strings.EqualFold(delimiter, "NIL") {
		e.delimiter = delimiter
	}
	e.name, _, ok = cutString(strings.TrimLeft(rest, " "))
	return e, ok
}

// cutString cuts an atom, a quoted string or a literal from the start of text.
func cutString(text string) (value, rest string, ok bool) {
	switch {
	case strings.HasPrefix(text, `"`):
		return cutQuoted(text[1:])
	case strings.HasPrefix(text, "{"):
		length, after, found := strings.Cut(text[1:], "}\r\n")
		n, err := strconv.Atoi(strings.TrimSuffix(length, "+"))
		if !found || err != nil || n < 0 || n > len(after) {
			return "", "", false
		}
		return after[:n], after[n:], true
	}
	i := strings.IndexByte(text, ' ')
	if i < 0 {
		i = len(text)
	}
	return text[:i], text[i:], i > 0
}

// cutQuoted is cutString after the opening quote.
func cutQuoted(text string) (value, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '"':
			return b.String(), text[i+1:], true
		case c == '\\' && i+1 < len(text):
			i++
			b.WriteByte(text[i])
		default:
			b.WriteByte(c)
		}
	}
	return "", "", false
}
