package uniqueid

import (
	"strconv"
	"strings"
)

// Sources of unique-ids instead of a template (requirement I-UIDL-3): such
// unique-ids stay the same when a message is moved and when UIDVALIDITY changes.
const (
	// SourceEmailID is EMAILID, of an upstream with OBJECTID (RFC 8474 §5.1).
	SourceEmailID = "emailid"
	// SourceGmail is X-GM-MSGID in the form of pop.gmail.com: "GmailId" and
	// the number in hexadecimal.
	SourceGmail = "gmail"
)

// ParseSource returns the kind of identity that text names, NoKind where text is
// a template.
func ParseSource(text string) Kind {
	switch text {
	case SourceEmailID:
		return EmailID
	case SourceGmail:
		return Gmail
	}
	return NoKind
}

// FromIdentity returns the unique-id made from an identity of the kind source.
func FromIdentity(source Kind, id string) string {
	id = strings.TrimPrefix(id, kindPrefix[source])
	if source == Gmail {
		if n, err := strconv.ParseUint(id, 10, 64); err == nil { // GmailIdentity has formatted it
			return "GmailId" + strconv.FormatUint(n, 16)
		}
	}
	return id
}

// Unused returns name or, if that is used, the first of name.2, name.3 and so on
// that is not. If these would exceed MaxLen, a hash replaces name.
func Unused(name string, used func(string) bool) string {
	stem := name
	for n := 2; used(name); n++ {
		suffix := "." + strconv.Itoa(n)
		if len(stem)+len(suffix) > MaxLen {
			stem = hash(stem)
		}
		name = stem + suffix
	}
	return name
}
