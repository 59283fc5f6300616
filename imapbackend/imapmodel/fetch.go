package imapmodel

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
)

// fetch answers UID FETCH.
func (c *conn) fetch(uids set, items string) string {
	list := splitItems(strings.TrimSuffix(strings.TrimPrefix(items, "("), ")"))
	for _, item := range list {
		if !c.knows(item) {
			return "BAD what is " + item
		}
	}
	result := "OK done"
	for _, i := range c.order() {
		uid := c.view[i]
		if !uids.has(uid) {
			continue
		}
		msg, ok := c.box.get(uid)
		if !ok {
			if msg, ok = c.expunged[uid]; !ok || c.m.Style == Omitted {
				continue
			}
			if c.m.Style == Refused {
				result = "NO some of the messages have been expunged"
				continue
			}
		}
		_, there := c.box.get(uid)
		c.fetchOne(i+1, msg, list, !there && c.m.Style == Nil)
	}
	return result
}

// order returns the indices of the messages in view, in the order in which FETCH
// answers for them.
func (c *conn) order() []int {
	if c.m.AnyOrder {
		return rand.New(rand.NewPCG(uint64(len(c.m.commands)), 1)).Perm(len(c.view))
	}
	all := make([]int, len(c.view))
	for i := range all {
		all[i] = i
	}
	return all
}

func (c *conn) fetchOne(seq int, msg Message, items []string, isNil bool) {
	var parts []string
	uid := fmt.Sprintf("UID %d", msg.UID)
	if c.m.UIDMissing && slices.ContainsFunc(items, isBody) {
		uid = ""
	}
	if !c.m.UIDLast && uid != "" {
		parts = append(parts, uid)
	}
	for _, item := range items {
		if strings.HasPrefix(item, "BODY[") {
			c.box.setFlags(func(uid uint64) bool { return uid == msg.UID }, func(old []string) []string { return changed(old, []string{`\Seen`}, true) })
		}
		switch {
		case item == "UID":
		case item == "FLAGS":
			parts = append(parts, "FLAGS ("+strings.Join(msg.Flags, " ")+")")
		case item == "RFC822.SIZE":
			parts = append(parts, "RFC822.SIZE "+strconv.FormatInt(msg.octets(), 10))
		case item == "EMAILID":
			parts = append(parts, "EMAILID ("+msg.Email+")")
		case item == "X-GM-MSGID":
			parts = append(parts, "X-GM-MSGID "+msg.Email)
		default:
			text := msg.Body
			if c.m.EmptyPeek && item == "BODY.PEEK[]" && msg.UID%4 == 1 {
				text = ""
			}
			parts = append(parts, c.m.body(text, item, isNil))
		}
	}
	if c.m.UIDLast && uid != "" {
		parts = append(parts, uid)
	}
	end := ")"
	if c.m.Loose {
		end = "\r\n)\r\n"
	}
	c.say("* %d FETCH (%s%s", seq, strings.Join(parts, " "), end)
}

func (c *conn) knows(item string) bool {
	switch item {
	case "UID", "FLAGS", "RFC822.SIZE":
		return true
	case "EMAILID":
		return c.m.has("OBJECTID")
	case "X-GM-MSGID":
		return c.m.has("X-GM-EXT-1")
	}
	return isBody(item) && !(c.m.Partial == PartialBAD && strings.HasSuffix(item, ">"))
}

func isBody(item string) bool {
	return strings.HasPrefix(item, "BODY.PEEK[") || strings.HasPrefix(item, "BODY[")
}

// splitItems splits at spaces outside brackets.
func splitItems(items string) []string {
	var list []string
	depth, start := 0, 0
	for i, r := range items + " " {
		switch {
		case r == '[':
			depth++
		case r == ']':
			depth--
		case r == ' ' && depth == 0:
			list = append(list, items[start:i])
			start = i + 1
		}
	}
	return list
}

// body answers BODY[section]<offset.count>.
func (m *Model) body(text, item string, isNil bool) string {
	_, section, _ := strings.Cut(item, "[")
	section, partial, _ := strings.Cut(section, "]")
	text = sectionOf(text, section)
	label := "BODY[" + section + "]"
	if partial != "" && m.Partial != PartialIgnored {
		var offset, count int
		if _, err := fmt.Sscanf(partial, "<%d.%d>", &offset, &count); err == nil {
			text = text[min(offset, len(text)):]
			text = text[:min(count, len(text))]
		}
		if m.Loose {
			label += partial
		} else {
			label += fmt.Sprintf("<%d>", offset)
		}
	}
	if isNil || m.Quoted && text == "" {
		return label + " NIL"
	}
	data := fmt.Sprintf("{%d}\r\n%s", len(text), text)
	if m.Quoted && len(text) < 1000 && !strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		data = quote(text)
	}
	if m.Loose {
		return label + data
	}
	return label + " " + data
}

func sectionOf(body, section string) string {
	header, text, found := strings.Cut(body, "\r\n\r\n")
	if found {
		header += "\r\n\r\n"
	}
	name, fields, _ := strings.Cut(section, " ")
	switch strings.ToUpper(name) {
	case "":
		return body
	case "HEADER":
		return header
	case "TEXT":
		return text
	}
	wanted := strings.Fields(strings.ToUpper(strings.Trim(fields, "()"))) // HEADER.FIELDS
	var out strings.Builder
	taking := false
	for line := range strings.Lines(header) {
		if line[0] != ' ' && line[0] != '\t' {
			field, _, _ := strings.Cut(line, ":")
			taking = slices.Contains(wanted, strings.ToUpper(field))
		}
		if taking {
			out.WriteString(line)
		}
	}
	return out.String() + "\r\n"
}
