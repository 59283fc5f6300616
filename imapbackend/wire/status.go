package wire

import (
	"bytes"
	"fmt"
	"strings"
)

// Status is a status response (RFC 9051 §7.1): tagged, or untagged with Tag "*".
// Code is in upper case and without its brackets; Args is what follows it.
type Status struct {
	Tag  string
	Type string // OK, NO, BAD, BYE or PREAUTH
	Code string
	Args string
	Text string

	// Untagged is the text of the last untagged NO or BYE since the command
	// began, for a result that is not OK.
	Untagged string
}

// OK reports success.
func (s Status) OK() bool { return s.Type == "OK" }

// String returns the status without its tag, for logs and errors.
func (s Status) String() string {
	var b strings.Builder
	b.WriteString(s.Type)
	if s.Code != "" {
		b.WriteString(" [" + s.Code)
		if s.Args != "" {
			b.WriteString(" " + s.Args)
		}
		b.WriteString("]")
	}
	if s.Text != "" {
		b.WriteString(" " + s.Text)
	}
	if s.Untagged != "" {
		b.WriteString(" (untagged: " + s.Untagged + ")")
	}
	return b.String()
}

// isStatus reports whether word, in upper case, is a status.
func isStatus(word []byte) bool {
	switch string(word) {
	case "OK", "NO", "BAD", "BYE", "PREAUTH":
		return true
	}
	return false
}

// parseStatus parses what follows the word of a status response.
func parseStatus(tag, word string, rest []byte) Status {
	s := Status{Tag: tag, Type: word}
	rest = bytes.TrimLeft(rest, " ")
	if len(rest) > 0 && rest[0] == '[' {
		if end := codeEnd(rest); end > 0 {
			code, args, _ := strings.Cut(strings.TrimSpace(string(rest[1:end])), " ")
			s.Code, s.Args = strings.Clone(strings.ToUpper(code)), strings.TrimSpace(args) // Code is kept without the rest
			rest = rest[end+1:]
		}
	}
	s.Text = strings.TrimSpace(string(rest))
	return s
}

// codeEnd returns the index of the bracket that ends the response code at the
// start of b. Brackets in quoted strings, and in lists such as the keywords of
// PERMANENTFLAGS, do not end it, unless there is no other.
func codeEnd(b []byte) int {
	depth, quoted := 0, false
	for i := 1; i < len(b); i++ {
		switch c := b[i]; {
		case quoted:
			if c == '\\' {
				i++
			} else if c == '"' {
				quoted = false
			}
		case c == '"':
			quoted = true
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ']' && depth <= 0:
			return i
		}
	}
	return bytes.IndexByte(b, ']')
}

// capabilities splits a list of capabilities and drops what is not an atom.
func capabilities(list string) []string {
	var out []string
	for _, c := range strings.Fields(list) {
		if len(out) < maxCapabilities && len(c) <= 256 && strings.IndexFunc(c, notAtom) < 0 {
			out = append(out, strings.ToUpper(c))
		}
	}
	return out
}

func notAtom(r rune) bool {
	return r <= ' ' || r > '~' || strings.ContainsRune(`(){}[]%*"\`, r)
}

// ProtocolError is a violation of the IMAP grammar or of a limit of this
// package by the upstream.
type ProtocolError struct {
	Text  string
	Flood bool // it is more than was requested
}

func (e *ProtocolError) Error() string { return "imap: protocol violation: " + e.Text }

func violation(format string, args ...any) error {
	return &ProtocolError{Text: fmt.Sprintf(format, args...)}
}
