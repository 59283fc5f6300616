package imapmodel

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// aboutMailboxes runs commands that name mailboxes.
func (c *conn) aboutMailboxes(verb, args string) string {
	words := unquote(args)
	if verb == "LIST" {
		c.list()
		return "OK done"
	}
	if len(words) == 0 {
		return "BAD no mailbox is named"
	}
	b := c.m.find(c.owner, words[0])
	switch {
	case verb == "CREATE" && b != nil:
		return "NO [ALREADYEXISTS] it is there"
	case verb == "CREATE":
		c.m.create(c.owner, words[0])
		return "OK done"
	case b == nil && strings.EqualFold(words[0], "INBOX") && c.owner != "":
		b = c.m.create(c.owner, "INBOX")
	case b == nil:
		return "NO [NONEXISTENT] there is no such mailbox"
	}
	if verb == "STATUS" {
		c.status(b, args)
		return "OK done"
	}
	c.open(b)
	c.flight = c.m.AfterSelect
	if c.readOnly = verb == "EXAMINE" || b.readOnly; c.readOnly {
		return "OK [READ-ONLY] open"
	}
	return "OK [READ-WRITE] selected"
}

func (c *conn) open(b *Mailbox) {
	c.box, c.stale, c.changed = b, false, nil
	clear(c.expunged)
	c.view = c.view[:0]
	for _, msg := range b.messages {
		c.view = append(c.view, msg.UID)
	}
	c.say(`* FLAGS (\Answered \Flagged \Deleted \Seen \Draft)`)
	if !c.m.NoExists {
		c.say("* %d EXISTS", len(c.view))
	}
	c.say("* OK [UIDVALIDITY %d] x", b.uidValidity)
	uidNext := strconv.FormatUint(b.uidNext, 10)
	if c.m.UIDNext != nil {
		uidNext = c.m.UIDNext(b.uidNext)
	}
	c.say("* OK [UIDNEXT %s] x", cmp.Or(c.m.WrongUIDNext, uidNext))
	switch c.m.PermanentFlags {
	case "":
	case "-":
		c.say("* OK [PERMANENTFLAGS] x")
	default:
		c.say("* OK [PERMANENTFLAGS %s] x", c.m.PermanentFlags)
	}
	if c.m.has("OBJECTID") {
		c.say("* OK [MAILBOXID (%s)] x", b.id)
	}
}

func (c *conn) list() {
	for _, b := range c.m.mailboxes {
		if b.owner != c.owner {
			continue
		}
		attributes := `\HasNoChildren`
		if b.trash {
			attributes += ` \Trash`
		}
		c.say(`* LIST (%s) "/" %s`, attributes, quote(b.name))
	}
}

func (c *conn) status(b *Mailbox, args string) {
	known := map[string]string{
		"MESSAGES":    strconv.Itoa(len(b.messages)),
		"UIDNEXT":     strconv.FormatUint(b.uidNext, 10),
		"UIDVALIDITY": strconv.FormatUint(b.uidValidity, 10),
	}
	if c.m.has("OBJECTID") {
		known["MAILBOXID"] = "(" + b.id + ")"
	}
	_, asked, _ := strings.Cut(strings.TrimSuffix(args, ")"), "(")
	var items []string
	for _, item := range strings.Fields(strings.ToUpper(asked)) {
		if value, ok := known[item]; ok {
			items = append(items, item+" "+value)
		}
	}
	c.say("* STATUS %s (%s)", quote(b.name), strings.Join(items, " "))
}

// needs are the capabilities that commands require.
var needs = map[string]string{"UID EXPUNGE": "UIDPLUS", "UID MOVE": "MOVE", "UNSELECT": "UNSELECT"}

// aboutMessages runs commands on the selected mailbox.
func (c *conn) aboutMessages(tag, verb, args string) string {
	if need := needs[verb]; need != "" && !c.m.has(need) && !(need != "UNSELECT" && c.m.has("IMAP4REV2")) {
		return "BAD what"
	}
	if c.stale {
		c.announce(true)
		if verb == "UNSELECT" {
			c.box = nil
			return "OK done"
		}
		return "NO the mailbox has been rebuilt or removed"
	}
	set, rest, _ := strings.Cut(args, " ")
	switch verb {
	case "UNSELECT", "CLOSE":
		if verb == "CLOSE" && !c.readOnly {
			c.box.expunge(Message.Deleted)
		}
		c.box, c.view = nil, nil
		return "OK done"
	case "UID SEARCH":
		result := c.search(tag, args)
		c.announce(false)
		return result
	case "UID FETCH":
		result := c.fetch(c.parseSet(set), rest)
		c.announce(false)
		return result
	case "EXPUNGE", "UID EXPUNGE", "UID STORE", "UID MOVE", "UID COPY":
		return c.change(verb, set, rest)
	}
	return "BAD what"
}

// change runs commands that change messages.
func (c *conn) change(verb, set, rest string) string {
	uids := c.parseSet(set)
	if (c.readOnly || c.box.readOnly) && verb != "UID COPY" {
		return "NO [READ-ONLY] no changes here"
	}
	switch verb {
	case "EXPUNGE":
		c.box.expunge(Message.Deleted)
	case "UID EXPUNGE":
		c.box.expunge(func(msg Message) bool { return msg.Deleted() && uids.has(msg.UID) })
	case "UID STORE":
		return c.store(uids, rest)
	case "UID MOVE", "UID COPY":
		words := unquote(rest)
		if len(words) != 1 {
			return "BAD where to"
		}
		target := c.m.find(c.owner, words[0])
		if target == nil {
			return "NO [TRYCREATE] there is no such mailbox"
		}
		for _, msg := range c.box.messages {
			if uids.has(msg.UID) {
				target.append(msg)
			}
		}
		if verb == "UID MOVE" {
			c.box.expunge(func(msg Message) bool { return uids.has(msg.UID) })
		}
	}
	c.announce(verb != "UID COPY")
	return "OK done"
}

func (c *conn) store(uids set, args string) string {
	item, list, _ := strings.Cut(args, " ")
	flags := strings.Fields(strings.Trim(list, "()"))
	item = strings.ToUpper(item)
	name, silent := strings.CutSuffix(item, ".SILENT")
	var change func(old []string) []string
	switch name {
	case "+FLAGS":
		change = func(old []string) []string { return changed(old, flags, true) }
	case "-FLAGS":
		change = func(old []string) []string { return changed(old, flags, false) }
	case "FLAGS":
		change = func([]string) []string { return flags }
	default:
		return "BAD what"
	}
	before := len(c.changed)
	c.box.setFlags(uids.has, change)
	if silent {
		c.changed = c.changed[:before]
	}
	if c.m.Style == Refused && slices.ContainsFunc(c.view, func(uid uint64) bool { return c.expunged[uid].UID != 0 && uids.has(uid) }) {
		return "NO some of the messages have been expunged" // RFC 2180 §4.2.3
	}
	return "OK done"
}

func (c *conn) search(tag, args string) string {
	key, extended := strings.CutPrefix(args, "RETURN (ALL) ")
	rev2 := c.m.has("IMAP4REV2") && !c.m.has("IMAP4REV1")
	if extended && !c.m.has("ESEARCH") && !c.m.has("IMAP4REV2") {
		return "BAD what"
	}
	match, err := c.criteria(key)
	if err != nil {
		return "BAD " + err.Error()
	}
	var uids []string
	switch {
	case c.m.Search == DeletedRefused && onlyDeleted(args):
		return "BAD what"
	case c.m.Search == FindsOthers && onlyDeleted(args):
		for _, b := range c.m.mailboxes {
			for _, msg := range b.messages {
				if b != c.box && match(msg) {
					uids = append(uids, strconv.FormatUint(msg.UID, 10))
				}
			}
		}
	}
	for _, uid := range c.view {
		msg, ok := c.box.get(uid)
		if !ok && c.m.Style == Served {
			msg, ok = c.expunged[uid]
		}
		if ok && match(msg) {
			uids = append(uids, strconv.FormatUint(uid, 10))
		}
	}
	switch {
	case len(uids) == 0 && c.m.Search == SilentIfEmpty:
	case extended && c.m.Search == CountOnly:
		c.say("* ESEARCH (TAG %q) UID COUNT %d", tag, len(uids))
	case !extended && !rev2:
		c.say("* SEARCH %s", strings.Join(uids, " "))
	case len(uids) == 0:
		c.say("* ESEARCH (TAG %q) UID", tag)
	default:
		c.say("* ESEARCH (TAG %q) UID ALL %s", tag, strings.Join(uids, ","))
	}
	return "OK done"
}

// onlyDeleted reports whether the arguments of a search are DELETED by itself.
func onlyDeleted(args string) bool { return strings.TrimPrefix(args, "RETURN (ALL) ") == "DELETED" }

// criteria parses search keys: ALL, DELETED, UNDELETED and UID with a set. All of
// them must match.
func (c *conn) criteria(key string) (func(Message) bool, error) {
	var all []func(Message) bool
	words := strings.Fields(key)
	for i := 0; i < len(words); i++ {
		switch word := strings.ToUpper(words[i]); {
		case word == "ALL":
		case word == "DELETED":
			all = append(all, Message.Deleted)
		case word == "UNDELETED":
			all = append(all, func(msg Message) bool { return !msg.Deleted() })
		case word == "UID" && i+1 < len(words):
			i++
			numbers := c.parseSet(words[i])
			all = append(all, func(msg Message) bool {
				if seq, ok := slices.BinarySearch(c.view, msg.UID); c.m.SetsAreNumbers {
					return ok && numbers.has(uint64(seq+1))
				}
				return numbers.has(msg.UID)
			})
		default:
			return nil, fmt.Errorf("a search for %q", word)
		}
	}
	return func(msg Message) bool {
		return !slices.ContainsFunc(all, func(match func(Message) bool) bool { return !match(msg) })
	}, nil
}
