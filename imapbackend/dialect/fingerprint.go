package dialect

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"unicode"
)

// Fingerprint returns 32 characters that stand for a server's greeting, as a status
// line, and its capabilities, in upper case, in any order. Host names, addresses,
// times and identifiers, which some providers put into each greeting, do not change
// it: of the greeting only the words count that consist of letters.
func Fingerprint(greeting string, capabilities []string) string {
	h := sha256.New()
	_, text, _ := strings.Cut(greeting, " ")
	if strings.HasPrefix(text, "[") {
		_, text, _ = strings.Cut(text, "]") // the capabilities, as a rule
	}
	for word := range strings.FieldsSeq(text) {
		word = strings.Trim(word, `.,;:!?()"'`)
		if word != "" && !strings.ContainsFunc(word, func(r rune) bool { return !unicode.IsLetter(r) }) {
			h.Write([]byte(strings.ToLower(word) + " "))
		}
	}
	sorted := slices.Clone(capabilities)
	slices.Sort(sorted)
	for _, c := range slices.Compact(sorted) {
		h.Write([]byte("\n" + c))
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}
