package imapbackend

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// idKind is a kind of identity: what tells a message apart beyond its UID.
type idKind int

const (
	noKind    idKind = iota
	byEmailID        // EMAILID (RFC 8474 §5.1)
	byGmail          // X-GM-MSGID
	byHeader         // HeaderIdentity
	idKinds          // how many there are
)

// ids are the identities of one message by kind, with their prefixes; "" where
// the message has none of the kind, or it was not asked for.
type ids [idKinds]string

// idPrefix stands before an identity, so that no two kinds are confused.
var idPrefix = ids{byEmailID: "emailid:", byGmail: "gmail:", byHeader: "header:"}

// idKindOf returns the kind of an identity by its prefix.
func idKindOf(id string) idKind {
	for k := byEmailID; k < idKinds; k++ {
		if strings.HasPrefix(id, idPrefix[k]) {
			return k
		}
	}
	return noKind
}

// told reports whether the upstream can tell identities of the kind.
func (u *upstream) told(k idKind) bool {
	switch k {
	case byEmailID:
		return u.conn.Has("OBJECTID")
	case byGmail:
		return u.conn.Has("X-GM-EXT-1")
	}
	return k == byHeader
}

// identityFields are the header fields that a HeaderIdentity is made of.
var identityFields = []string{"message-id", "date", "from", "subject", "received"}

// HeaderIdentity returns the identity that a header and the message's size in
// octets make, as files of former unique-ids and the unique-id memory have it:
// "header:", SHA-256 in base64url, a colon, and the size (requirement I-UIDL-5).
// Of the header count the fields Message-ID, Date, From, Subject and Received,
// however they are folded and in whatever order, and no others. Without
// Message-ID, Date and Received a message has no identity, and it returns "".
func HeaderIdentity(header []byte, octets int64) string {
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
		if name = strings.ToLower(strings.TrimRight(field, " \t")); ok && slices.Contains(identityFields, name) {
			values[name] = append(values[name], value)
		} else {
			name = ""
		}
	}
	if len(values["message-id"])+len(values["date"])+len(values["received"]) == 0 {
		return ""
	}
	h := sha256.New()
	for _, name := range identityFields {
		for _, value := range values[name] {
			fmt.Fprintf(h, "%s:%s\n", name, strings.Join(strings.Fields(value), " "))
		}
	}
	return idPrefix[byHeader] + base64.RawURLEncoding.EncodeToString(h.Sum(nil)) + ":" + strconv.FormatInt(octets, 10)
}

// maxIdentityHeader bounds what is looked at of a header, in octets.
const maxIdentityHeader = 256 << 10

// capped keeps the first maxIdentityHeader octets of what is written to it.
type capped struct{ bytes.Buffer }

func (c *capped) Write(p []byte) (int, error) {
	c.Buffer.Write(p[:min(len(p), maxIdentityHeader-c.Len())])
	return len(p), nil
}

var _ io.Writer = (*capped)(nil)

// identifying is a fetch of identities on its way.
type identifying struct {
	u       *upstream
	uids    []uint32 // ascending
	found   map[uint32]*identified
	header  capped // of the response at hand
	told    bool   // it has one
	bodyErr error
}

// identified is what has been told of one message.
type identified struct {
	email  string
	gmail  uint64
	header []byte
	octets int64
}

// fetchIdentities asks for the identities of the given kinds of uids, which are
// among all the messages of the mailbox, both ascending, in one flight. Of
// messages that are gone by now there is nothing. The status is that of the
// first command that was refused. An error is a lost connection; what was told
// before it is returned too.
func (u *upstream) fetchIdentities(ctx context.Context, all []proxy.Message, uids []uint32, kinds []idKind) (map[uint32]ids, wire.Status, error) {
	items := "UID"
	for _, k := range kinds {
		switch k {
		case byEmailID:
			items += " EMAILID"
		case byGmail:
			items += " X-GM-MSGID"
		case byHeader:
			items += " RFC822.SIZE BODY.PEEK[HEADER.FIELDS (" + strings.ToUpper(strings.Join(identityFields, " ")) + ")]"
		}
	}
	others := []uint32{} // no range is to cover these
	for _, msg := range all {
		if _, ours := slices.BinarySearch(uids, msg.UID); !ours {
			others = append(others, msg.UID)
		}
	}
	var ops []string
	for _, set := range uidSets(uids, others, u.maxLine()-len("P1000000 UID FETCH  ()")-len(items)) {
		ops = append(ops, "UID FETCH "+set.text+" ("+items+")")
		if err := u.conn.Start(ops[len(ops)-1]); err != nil {
			return nil, wire.Status{}, u.lost(atList, err)
		}
	}
	f := &identifying{u: u, uids: uids, found: make(map[uint32]*identified, len(uids))}
	results, err := u.answers(ctx, ops, f.add)
	if err == nil {
		err = f.bodyErr
	}
	if err != nil {
		return f.ids(), wire.Status{}, u.lost(atList, fmt.Errorf("imap: identities of messages: %w", err))
	}
	status := results[0]
	for _, r := range results {
		if !r.OK() {
			status = r
			break
		}
	}
	return f.ids(), status, nil
}

// add takes what an event tells.
func (f *identifying) add(ev wire.Event) {
	switch {
	case ev.Kind == wire.Body && strings.HasPrefix(ev.Section, "HEADER.FIELDS") && !ev.Nil && f.bodyErr == nil:
		f.header.Reset()
		f.told = true
		_, f.bodyErr = f.u.conn.BodyTo(&f.header)
	case ev.Kind == wire.Fetch:
		told := f.told
		f.told = false
		if _, wanted := slices.BinarySearch(f.uids, ev.UID); !wanted {
			return
		}
		one := f.found[ev.UID]
		if one == nil {
			one = &identified{octets: -1}
			f.found[ev.UID] = one
		}
		if ev.EmailID != "" {
			one.email = ev.EmailID
		}
		if ev.GmailID != 0 {
			one.gmail = ev.GmailID
		}
		if ev.Octets >= 0 {
			one.octets = ev.Octets
		}
		if told {
			one.header = bytes.Clone(f.header.Bytes())
		}
	}
}

// ids returns the identities that all of it comes to.
func (f *identifying) ids() map[uint32]ids {
	out := make(map[uint32]ids, len(f.found))
	for uid, one := range f.found {
		var id ids
		if one.email != "" {
			id[byEmailID] = idPrefix[byEmailID] + printableID(one.email)
		}
		if one.gmail != 0 {
			id[byGmail] = idPrefix[byGmail] + strconv.FormatUint(one.gmail, 10)
		}
		if one.header != nil && one.octets >= 0 {
			id[byHeader] = HeaderIdentity(one.header, one.octets)
		}
		out[uid] = id
	}
	return out
}

// printableID returns an object id as it is, or a hash of one that is more than
// letters, digits, "_" and "-" (RFC 8474 §7), or too long for a unique-id.
func printableID(id string) string {
	odd := strings.ContainsFunc(id, func(r rune) bool {
		return !('a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || r == '_' || r == '-')
	})
	if !odd && len(id) <= maxUniqueID {
		return id
	}
	return hashedID(id)
}

// hashedID is SHA-256 in base64url, 43 characters.
func hashedID(s string) string {
	sum := sha256.Sum256([]byte(s))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}
