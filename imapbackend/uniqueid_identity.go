package imapbackend

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	"popgate/imapbackend/internal/uidset"
	"popgate/imapbackend/uniqueid"
	"popgate/imapbackend/upstream"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// offers reports whether the upstream gives identities of the kind.
func (o *opening) offers(k uniqueid.Kind) bool {
	switch k {
	case uniqueid.EmailID:
		return o.Wire.Has("OBJECTID")
	case uniqueid.Gmail:
		return o.Wire.Has("X-GM-EXT-1")
	}
	return k == uniqueid.Header
}

// maxIdentityHeader bounds how much of a header is read into memory, in octets.
const maxIdentityHeader = 256 << 10

// capped keeps the first maxIdentityHeader octets of what is written to it.
type capped struct{ bytes.Buffer }

func (c *capped) Write(p []byte) (int, error) {
	c.Buffer.Write(p[:min(len(p), maxIdentityHeader-c.Len())])
	return len(p), nil
}

var _ io.Writer = (*capped)(nil)

// identityFetch collects the answers to a fetch of identities. Of a header it keeps
// the hash, as soon as it has come: any sender can make headers long, and a mailbox
// has many messages.
type identityFetch struct {
	o         *opening
	uids      []uint64 // ascending
	found     map[uint64]uniqueid.Identities
	halves    map[uint64]*identityHalf // header or size is missing
	header    capped                   // of the current response
	hasHeader bool                     // it has one
	bodyErr   error
}

// identityHalf is one of the two things that a Header identity is made from.
type identityHalf struct {
	hash   string // of the header
	hashed bool
	octets int64 // -1: unknown
}

// fetchIdentities asks, in one flight, for the identities of uids, which are
// among all, the messages of the mailbox; both are ascending. Messages that
// have been expunged are missing from the result. The status is that of the
// first command that was refused, or OK. An error is a lost connection;
// identities received before it are returned too.
func (o *opening) fetchIdentities(ctx context.Context, all []proxy.Message, uids []uint64, kinds []uniqueid.Kind) (map[uint64]uniqueid.Identities, wire.Status, error) {
	items := "UID"
	for _, k := range kinds {
		switch k {
		case uniqueid.EmailID:
			items += " EMAILID"
		case uniqueid.Gmail:
			items += " X-GM-MSGID"
		case uniqueid.Header:
			items += " RFC822.SIZE BODY.PEEK[HEADER.FIELDS (" + strings.ToUpper(strings.Join(uniqueid.HeaderFields, " ")) + ")]"
		}
	}
	others := []uint64{} // not to be in a range
	for _, msg := range all {
		if _, ours := slices.BinarySearch(uids, msg.UID); !ours {
			others = append(others, msg.UID)
		}
	}
	var ops []string
	for _, set := range uidset.Split(uids, &uidset.Gaps{Others: others}, o.MaxLine()-len("P1000000 UID FETCH  ()")-len(items)) {
		ops = append(ops, "UID FETCH "+set.Text+" ("+items+")")
		if err := o.Wire.Start(ops[len(ops)-1]); err != nil {
			return nil, wire.Status{}, o.Lost(upstream.AtList, err)
		}
	}
	f := &identityFetch{o: o, uids: uids, found: make(map[uint64]uniqueid.Identities, len(uids))}
	results, err := o.Answers(ctx, ops, f.add)
	if err == nil {
		err = f.bodyErr
	}
	if err != nil {
		return f.found, wire.Status{}, o.Lost(upstream.AtList, fmt.Errorf("imap: identities of messages: %w", err))
	}
	status := results[0]
	for _, r := range results {
		if !r.OK() {
			status = r
			break
		}
	}
	return f.found, status, nil
}

// maxSingly is how many messages whose identities were refused together are asked
// for one by one.
const maxSingly = 16

// identify is fetchIdentities for messages that must not be named without their
// identities. Where the upstream refuses some of them, it finds out why. Those that
// have been expunged are missing from found (RFC 2180 §4.1), as from an answer that
// is OK. Those that are refused by themselves, while the upstream identifies another
// message, have no identity, in found either. With any others the status is that of
// the refusal: to name them now would change their unique-ids for good, once the
// upstream identifies them again.
func (o *opening) identify(ctx context.Context, all []proxy.Message, uids []uint64, kinds []uniqueid.Kind) (map[uint64]uniqueid.Identities, wire.Status, error) {
	found, status, err := o.fetchIdentities(ctx, all, uids, kinds)
	if err != nil || status.OK() {
		return found, status, err
	}
	missing := slices.DeleteFunc(slices.Clone(uids), func(uid uint64) bool { _, ok := found[uid]; return ok })
	if len(missing) > 0 && len(missing) < len(all) && len(missing) <= maxSingly {
		if _, err := o.Noop(ctx); err != nil {
			return found, status, o.Lost(upstream.AtList, err)
		}
		still, err := o.SearchAmong(ctx, upstream.AtList, missing, upstream.Any)
		if err == nil {
			missing, err = o.identifySingly(ctx, all, still, missing, kinds, found)
		}
		if err != nil && o.Wire.Err() != nil {
			return found, status, err
		}
	}
	if len(missing) == 0 {
		status = wire.Status{Type: "OK"}
	}
	return found, status, nil
}

// identifySingly asks for the identities of uids, one by one, and then for that of a
// message of all that is not among missing, to compare. It adds to found and returns
// the messages that are still refused.
func (o *opening) identifySingly(ctx context.Context, all []proxy.Message, uids, missing []uint64, kinds []uniqueid.Kind, found map[uint64]uniqueid.Identities) (refused []uint64, err error) {
	for _, uid := range uids {
		one, status, err := o.fetchIdentities(ctx, all, []uint64{uid}, kinds)
		if err != nil {
			return uids, err
		}
		maps.Copy(found, one)
		if _, ok := found[uid]; !ok && !status.OK() {
			refused = append(refused, uid)
		}
	}
	if len(refused) == 0 {
		return nil, nil
	}
	other := slices.IndexFunc(all, func(msg proxy.Message) bool { return !uidset.Contains(missing, msg.UID) })
	_, status, err := o.fetchIdentities(ctx, all, []uint64{all[other].UID}, kinds)
	if err != nil || !status.OK() {
		return refused, err
	}
	for _, uid := range refused {
		proxy.Logger(ctx).WarnContext(ctx, "upstream does not identify a message", "upstream", o.key.Upstream, "uid", uid)
		found[uid] = uniqueid.Identities{}
	}
	return nil, nil
}

// add handles one event of the answers.
func (f *identityFetch) add(ev wire.Event) {
	switch {
	case ev.Kind == wire.Body && strings.HasPrefix(ev.Section, "HEADER.FIELDS") && !ev.Nil && f.bodyErr == nil:
		f.header.Reset()
		f.hasHeader = true
		_, f.bodyErr = f.o.Wire.BodyTo(&f.header)
	case ev.Kind == wire.Fetch:
		hasHeader := f.hasHeader
		f.hasHeader = false
		if _, wanted := slices.BinarySearch(f.uids, ev.UID); !wanted {
			return
		}
		one, known := f.found[ev.UID]
		if !known {
			f.o.at.Arrived(1)
			f.o.Wire.Grant(maxIdentityHeader)
		}
		if ev.EmailID != "" {
			one[uniqueid.EmailID] = uniqueid.EmailIdentity(ev.EmailID)
		}
		if ev.GmailID != 0 {
			one[uniqueid.Gmail] = uniqueid.GmailIdentity(ev.GmailID)
		}
		if hasHeader || ev.Octets >= 0 {
			one[uniqueid.Header] = cmp.Or(f.join(ev, hasHeader), one[uniqueid.Header])
		}
		f.found[ev.UID] = one
	}
}

// join returns the Header identity of a message of which ev has the header, the
// size, or both: "" while one of them is missing, or if it has none.
func (f *identityFetch) join(ev wire.Event, hasHeader bool) string {
	half := identityHalf{octets: -1}
	if before := f.halves[ev.UID]; before != nil {
		half = *before
	}
	if hasHeader {
		half.hash, half.hashed = uniqueid.HeaderHash(f.header.Bytes()), true
	}
	if ev.Octets >= 0 {
		half.octets = ev.Octets
	}
	if half.hashed && half.octets >= 0 {
		delete(f.halves, ev.UID)
		return uniqueid.HashIdentity(half.hash, half.octets)
	}
	if f.halves == nil {
		f.halves = make(map[uint64]*identityHalf)
	}
	f.halves[ev.UID] = &half
	return ""
}
