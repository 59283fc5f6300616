// Package words helps to write messages: it finds the word that a misspelt one
// was meant to be, writes lists of words, and makes text from elsewhere safe to
// print.
package words

import (
	"fmt"
	"strings"
)

// Nearest returns the name of which word is most likely a misspelling, or "" if
// none is similar.
func Nearest(word string, names []string) string {
	word = strings.ReplaceAll(strings.ToLower(word), "-", "_")
	best, least := "", 3 // from three edits on it is another word
	for _, name := range names {
		norm := strings.ReplaceAll(strings.ToLower(name), "-", "_")
		d := edits(word, norm)
		if d < least && d*2 < len(norm) {
			best, least = name, d
		}
	}
	return best
}

// edits returns the number of insertions, deletions, substitutions and swaps of
// neighbours that turn a into b (optimal string alignment).
func edits(a, b string) int {
	prev2, prev := []int(nil), make([]int, len(b)+1)
	for j := range prev {
		prev[j] = j
	}
	for i := 1; i <= len(a); i++ {
		row := make([]int, len(b)+1)
		row[0] = i
		for j := 1; j <= len(b); j++ {
			differ := 1
			if a[i-1] == b[j-1] {
				differ = 0
			}
			row[j] = min(prev[j]+1, row[j-1]+1, prev[j-1]+differ)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], prev2[j-2]+1)
			}
		}
		prev2, prev = prev, row
	}
	return prev[len(b)]
}

// List returns words as a list for a message: "a", "b" or "c".
func List(words []string) string {
	var b strings.Builder
	for i, w := range words {
		switch {
		case i == 0:
		case i == len(words)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", w)
	}
	return b.String()
}

// Printable replaces control characters, which could affect a terminal or begin
// another line, by "?".
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7F || (0x80 <= r && r < 0xA0) {
			return '?'
		}
		return r
	}, s)
}
