package uniqueid

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Kind is a kind of identity: a property by which a message is recognized after
// its UID has changed.
type Kind int

// The kinds of identity, the best first.
const (
	NoKind   Kind = iota
	EmailID       // EMAILID (RFC 8474 §5.1)
	Gmail         // X-GM-MSGID
	Header        // HeaderIdentity
	numKinds      // the number of kinds
)

// Identities are those of one message by kind, with their prefixes; "" if the
// message has none of the kind, or none was requested.
type Identities [numKinds]string

// kindPrefix is the prefix of identities by kind, so that kinds are not confused.
var kindPrefix = Identities{EmailID: "emailid:", Gmail: "gmail:", Header: "header:"}

// String returns the prefix of the identities of the kind.
func (k Kind) String() string { return kindPrefix[k] }

// kindOf returns the kind of an identity by its prefix.
func kindOf(id string) Kind {
	for k := EmailID; k < numKinds; k++ {
		if strings.HasPrefix(id, kindPrefix[k]) {
			return k
		}
	}
	return NoKind
}

// HeaderFields are the header fields that a HeaderIdentity is made from.
var HeaderFields = []string{"message-id", "date", "from", "subject", "received"}

// HeaderIdentity returns the identity made from a header and the message's size
// in octets, as in files of former unique-ids and in the unique-id memory:
// "header:", the HeaderHash, a colon, and the size (requirement I-UIDL-5). It
// returns "" for a header without a hash.
func HeaderIdentity(header []byte, octets int64) string {
	return HashIdentity(HeaderHash(header), octets)
}

// HashIdentity is HeaderIdentity for a header of which only the HeaderHash is left.
func HashIdentity(hash string, octets int64) string {
	if hash == "" {
		return ""
	}
	return kindPrefix[Header] + hash + ":" + strconv.FormatInt(octets, 10)
}

// HeaderHash returns SHA-256 of a header in base64url, 43 characters, or "" for a
// header with none of Message-ID, Date and Received. Only HeaderFields count;
// neither their folding nor their order matters.
func HeaderHash(header []byte) string {
	values := make(map[string][]string)
	var name string
	for line := range bytes.Lines(header) {
		text := strings.TrimRight(string(line), "\r\n")
		if text == "" {
			break
		}
		if text[0] == ' ' || text[0] == '\t' { // folded
			if n := len(values[name]); n > 0 {
				values[name][n-1] += " " + text
			}
			continue
		}
		field, value, ok := strings.Cut(text, ":")
		if name = strings.ToLower(strings.TrimRight(field, " \t")); ok && slices.Contains(HeaderFields, name) {
			values[name] = append(values[name], value)
		} else {
			name = ""
		}
	}
	if len(values["message-id"])+len(values["date"])+len(values["received"]) == 0 {
		return ""
	}
	h := sha256.New()
	for _, name := range HeaderFields {
		for _, value := range values[name] {
			fmt.Fprintf(h, "%s:%s\n", name, strings.Join(strings.Fields(value), " "))
		}
	}
	return base64.RawURLEncoding.EncodeToString(h.Sum(nil))
}

// EmailIdentity returns the identity made from an EMAILID.
func EmailIdentity(id string) string { return kindPrefix[EmailID] + printable(id) }

// GmailIdentity returns the identity made from an X-GM-MSGID.
func GmailIdentity(n uint64) string { return kindPrefix[Gmail] + strconv.FormatUint(n, 10) }

// printable returns an object id, or a hash of it if it contains anything but
// letters, digits, "_" and "-" (RFC 8474 §7) or is too long for a unique-id.
func printable(id string) string {
	odd := strings.ContainsFunc(id, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '-')
	})
	if !odd && len(id) <= MaxLen {
		return id
	}
	return hash(id)
}

// hash returns the SHA-256 of s in base64url, 43 characters.
func hash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
