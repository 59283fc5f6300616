package uniqueid

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
)

// Default is the template of unique-ids if none is configured. For a mailbox
// other than INBOX it is preceded by eight hexadecimal digits of a hash of the
// name and a dot, because two mailboxes may have the same UIDVALIDITY
// (requirement I-UIDL-1).
const Default = "{uidvalidity}.{uid}"

// MaxLen is the longest unique-id in characters (RFC 1939 §7).
const MaxLen = 70

// Template describes unique-ids: fixed text with the UID and, usually,
// UIDVALIDITY in it (requirement I-UIDL-2). It never changes, and is safe for
// concurrent use.
type Template struct{ parts []piece }

// piece is fixed text, or a number if field is not 0.
type piece struct {
	text  string
	field field
	base  int // 10 or 16
	upper bool
	width int // minimum number of digits, padded with zeros
}

// field is a number in a Template.
type field int

const (
	fieldUID field = iota + 1
	fieldUIDValidity
)

// Parse reads a template: characters from 0x21 to 0x7E, with {uid} at least once
// and possibly {uidvalidity}. These are decimal, or hexadecimal as in {uid:x} and
// {uid:X}; a zero and a width, as in {uid:08x} or {uid:010}, pad with zeros. A
// template whose unique-ids can exceed MaxLen is refused.
func Parse(text string) (*Template, error) {
	t := new(Template)
	for rest := text; rest != ""; {
		fixed, tail, found := strings.Cut(rest, "{")
		if i := strings.IndexFunc(fixed, func(r rune) bool { return r < '!' || r > '~' || r == '}' }); i >= 0 {
			if fixed[i] == '}' {
				return nil, errors.New(`has a "}" without a "{"`)
			}
			return nil, fmt.Errorf("contains %q, which is not allowed in a unique-id", []rune(fixed[i:])[0])
		}
		if fixed != "" {
			t.parts = append(t.parts, piece{text: fixed})
		}
		if !found {
			break
		}
		inner, after, closed := strings.Cut(tail, "}")
		if !closed {
			return nil, errors.New(`has a "{" without a "}"`)
		}
		p, err := parseField(inner)
		if err != nil {
			return nil, err
		}
		t.parts = append(t.parts, p)
		rest = after
	}
	if !t.has(fieldUID) {
		return nil, errors.New("has no {uid}: all messages would have the same unique-id")
	}
	if n := t.longest(); n > MaxLen {
		return nil, fmt.Errorf("can become %d characters long, but a unique-id has at most %d", n, MaxLen)
	}
	return t, nil
}

// parseField reads the text between braces.
func parseField(inner string) (piece, error) {
	name, format, formatted := strings.Cut(inner, ":")
	p := piece{base: 10}
	switch name {
	case "uid":
		p.field = fieldUID
	case "uidvalidity":
		p.field = fieldUIDValidity
	default:
		return p, fmt.Errorf("contains {%s}: the fields are {uid} and {uidvalidity}", inner)
	}
	digits := strings.TrimRight(format, "xX")
	switch format[len(digits):] {
	case "":
	case "x":
		p.base = 16
	case "X":
		p.base, p.upper = 16, true
	default:
		digits = "?"
	}
	if digits != "" {
		width, err := strconv.ParseUint(digits, 10, 8)
		if err != nil || digits[0] != '0' || width == 0 || width > MaxLen {
			return p, badFormat(inner)
		}
		p.width = int(width)
	}
	if formatted && format == "" {
		return p, badFormat(inner)
	}
	return p, nil
}

func badFormat(inner string) error {
	return fmt.Errorf("contains {%s}: a colon is followed by 0 and a width, then x or X, as in {uid:08x}", inner)
}

func (t *Template) has(f field) bool {
	for _, p := range t.parts {
		if p.field == f {
			return true
		}
	}
	return false
}

// HasUIDValidity reports whether unique-ids contain UIDVALIDITY. If not, they are
// used again, for other messages, when the mailbox has been rebuilt.
func (t *Template) HasUIDValidity() bool { return t.has(fieldUIDValidity) }

// longest returns the maximum length of a unique-id in characters.
func (t *Template) longest() int {
	n := 0
	for _, p := range t.parts {
		if p.field == 0 {
			n += len(p.text)
		} else {
			n += max(p.width, p.digits())
		}
	}
	return n
}

// digits returns the maximum number of digits of a UID or UIDVALIDITY: both have
// up to 64 bits.
func (p *piece) digits() int { return len(strconv.FormatUint(math.MaxUint64, p.base)) }

// Bind returns a function that appends the unique-id of a UID to dst. It allocates
// only to grow dst.
func (t *Template) Bind(uidValidity uint64) func(dst []byte, uid uint64) []byte {
	var parts []piece // with consecutive fixed texts joined
	for _, p := range t.parts {
		if p.field == fieldUIDValidity {
			p = piece{text: string(p.append(nil, uidValidity))}
		}
		if n := len(parts); n > 0 && p.field == 0 && parts[n-1].field == 0 {
			parts[n-1].text += p.text
			continue
		}
		parts = append(parts, p)
	}
	return func(dst []byte, uid uint64) []byte {
		for i := range parts {
			dst = parts[i].append(dst, uid)
		}
		return dst
	}
}

// append appends the text, or n in the format of the piece.
func (p *piece) append(dst []byte, n uint64) []byte {
	if p.field == 0 {
		return append(dst, p.text...)
	}
	var buf [20]byte
	digits := strconv.AppendUint(buf[:0], n, p.base)
	for i := len(digits); i < p.width; i++ {
		dst = append(dst, '0')
	}
	if p.upper {
		for i, c := range digits {
			if c >= 'a' {
				digits[i] = c - ('a' - 'A')
			}
		}
	}
	return append(dst, digits...)
}

// ForMailbox returns the template for the unique-ids of a mailbox: Default if
// text is empty or names a source, else text, which is the same for all mailboxes.
func ForMailbox(text, mailbox string) (*Template, error) {
	if text != "" && text != Default && ParseSource(text) == NoKind {
		t, err := Parse(text)
		if err != nil {
			return nil, err
		}
		return t, nil
	}
	parts := []piece{
		{field: fieldUIDValidity, base: 10},
		{text: "."},
		{field: fieldUID, base: 10},
	}
	if !strings.EqualFold(mailbox, "INBOX") {
		sum := sha256.Sum256([]byte(mailbox))
		parts = append([]piece{{text: hex.EncodeToString(sum[:4]) + "."}}, parts...)
	}
	return &Template{parts}, nil
}
