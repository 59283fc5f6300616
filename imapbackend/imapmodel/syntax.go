package imapmodel

import (
	"strconv"
	"strings"
)

// set is a set of UIDs, as ranges with both ends included.
type set [][2]uint64

// parseSet reads a sequence-set of UIDs; "*" is the highest UID in view.
func (c *conn) parseSet(text string) set {
	last := uint64(0)
	if len(c.view) > 0 {
		last = c.view[len(c.view)-1]
	}
	number := func(s string) uint64 {
		if s == "*" {
			return last
		}
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			return 0 // which is no UID
		}
		return n
	}
	var out set
	for part := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(part, ":")
		if !isRange {
			high = low
		}
		a, b := number(low), number(high)
		out = append(out, [2]uint64{min(a, b), max(a, b)})
	}
	return out
}

func (s set) has(uid uint64) bool {
	for _, r := range s {
		if uid >= r[0] && uid <= r[1] {
			return true
		}
	}
	return false
}

// quote returns a quoted string. The names and passwords of tests contain neither
// CR nor LF.
func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// unquote returns the words of a line, quoted or not.
func unquote(line string) []string {
	var words []string
	var word strings.Builder
	quoted, escaped, begun := false, false, false
	for _, r := range line + " " {
		switch {
		case escaped:
			word.WriteRune(r)
			escaped = false
		case quoted && r == '\\':
			escaped = true
		case r == '"':
			quoted, begun = !quoted, true
		case r == ' ' && !quoted:
			if begun || word.Len() > 0 {
				words = append(words, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteRune(r)
		}
	}
	return words
}
