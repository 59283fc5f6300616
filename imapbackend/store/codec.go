package store

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"hash/crc32"
	"io"
	"maps"
	"math"
	"slices"
	"strings"

	"popgate/proxy"
)

// A record on disk is a head and chunks, each under a key of its own. A chunk
// covers one range of UIDs, so that new mail leaves most chunks unchanged.
//
//	head   UIDVALIDITY, UIDNEXT of a listing, two numbers of entries, the version
//	       of this form, and a digest of all chunks
//	chunk  entries in ascending order of UID
//
// Numbers are varints. A UID is stored as its distance from the previous one, and
// a text as the length of the prefix that it shares with the previous one and the
// rest. Each value is preceded by a checksum of its key and itself. A chunk's index
// has 32 bits in its key, or 64 where the UIDs are too large for that. A chunk of
// unique-ids, which is used even if others are lost, begins with the UIDVALIDITY:
// one of an earlier mailbox is not taken for a chunk of this one.
//
// The checksums prove each value, and the digest the record: a chunk that is
// missing, that occurs twice, or that is an older one of the same key does not
// match it. A head without version and digest is of the form before, whose
// unique-ids are used, being irreplaceable, and nothing else.

// chunk is one value of a record. The head has the suffix "".
type chunk struct {
	suffix string
	body   []byte
}

const (
	// numberShift and textShift are the binary logarithms of the number of
	// UIDs in a chunk, which fills about a page of the disk.
	numberShift = 10
	textShift   = 6

	// goneInChunk is how many entries of one day share a chunk.
	goneInChunk = 64

	tagByUID byte = 'n'
	tagGone  byte = 'o'
	tagFacts byte = 'f'
	tagWide  byte = 'p' // like tagByUID, with an index of 64 bits: after all of those

	// recordVersion is the version of the form above.
	recordVersion = 1

	// textLimit is the maximum of one text, in octets. Unique-ids and
	// identities are far shorter.
	textLimit = 1 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(key, body []byte) uint32 {
	return crc32.Update(crc32.Checksum(key, castagnoli), castagnoli, body)
}

// addChecksum returns body as the value of key.
func addChecksum(key, body []byte) []byte {
	value := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(body)), checksum(key, body))
	return append(value, body...)
}

// verifyChecksum returns the body of a value; false if it is not the value of
// key.
func verifyChecksum(key, value []byte) ([]byte, bool) {
	if len(value) < 4 || binary.BigEndian.Uint32(value) != checksum(key, value[4:]) {
		return nil, false
	}
	return value[4:], true
}

// chunker builds the chunks of a record from entries in ascending order of UID.
type chunker struct {
	shift  int
	start  []byte // of each chunk
	chunks []chunk
	index  uint64
	uid    uint64 // of the last entry
	texts  [2]string
}

// next begins an entry and returns its chunk.
func (c *chunker) next(uid uint64) *chunk {
	if index := uid >> c.shift; len(c.chunks) == 0 || index != c.index {
		c.index, c.uid, c.texts = index, index<<c.shift, [2]string{}
		c.chunks = append(c.chunks, chunk{suffix: suffixOf(index), body: bytes.Clone(c.start)})
	}
	at := &c.chunks[len(c.chunks)-1]
	at.body = binary.AppendUvarint(at.body, uid-c.uid)
	c.uid = uid
	return at
}

// text adds a text to an entry; which is 0 or 1, since an entry may have two.
func (c *chunker) text(at *chunk, which int, s string) {
	at.body = appendText(at.body, c.texts[which], s)
	c.texts[which] = s
}

// suffixOf returns the suffix of a chunk of entries by UID.
func suffixOf(index uint64) string {
	if index > math.MaxUint32 {
		return string(binary.BigEndian.AppendUint64([]byte{tagWide}, index))
	}
	return suffix(tagByUID, uint32(index))
}

func suffix(tag byte, numbers ...uint32) string {
	b := []byte{tag}
	for _, n := range numbers {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	return string(b)
}

// appendText appends s, given the previous text.
func appendText(b []byte, before, s string) []byte {
	shared := 0
	for shared < min(len(before), len(s)) && before[shared] == s[shared] {
		shared++
	}
	b = binary.AppendUvarint(b, uint64(shared))
	b = binary.AppendUvarint(b, uint64(len(s)-shared))
	return append(b, s[shared:]...)
}

// headed returns all parts of a record: chunks, which it sorts, and the head, which
// holds numbers.
func headed(chunks []chunk, numbers [4]uint64) []chunk {
	var b []byte
	for _, n := range numbers {
		b = binary.AppendUvarint(b, n)
	}
	slices.SortFunc(chunks, func(a, b chunk) int { return strings.Compare(a.suffix, b.suffix) })
	sum := newSummer()
	for _, c := range chunks {
		sum.add(c.suffix, c.body)
	}
	return append(chunks, chunk{body: sum.appendTo(append(b, recordVersion))})
}

// summer computes the digest of a record.
type summer struct{ hash.Hash }

func newSummer() summer { return summer{sha256.New()} }

// add adds a chunk: suffix and body, each after its length.
func (s summer) add(suffix string, body []byte) {
	var length []byte
	length = binary.AppendUvarint(length, uint64(len(suffix)))
	length = binary.AppendUvarint(length, uint64(len(body)))
	s.Write(length) // a hash never fails
	io.WriteString(s, suffix)
	s.Write(body)
}

// appendTo appends the digest to b.
func (s summer) appendTo(b []byte) []byte { return append(b, s.Sum(nil)[:digestSize]...) }

func (l Listing) chunks() []chunk {
	c := chunker{shift: numberShift}
	for _, m := range l.Messages {
		at := c.next(m.UID)
		at.body = binary.AppendUvarint(at.body, uint64(m.Octets))
	}
	return headed(c.chunks, [4]uint64{l.UIDValidity, l.UIDNext, uint64(len(l.Messages))})
}

func (s sizes) chunks() []chunk {
	c := chunker{shift: numberShift}
	for _, uid := range slices.Sorted(maps.Keys(s.octets)) {
		at := c.next(uid)
		at.body = binary.AppendUvarint(at.body, uint64(s.octets[uid]))
	}
	return headed(c.chunks, [4]uint64{s.uidValidity, 0, uint64(len(s.octets))})
}

func (i identities) chunks() []chunk {
	c := chunker{shift: textShift}
	for _, id := range i.ids {
		c.text(c.next(id.UID), 0, id.ID)
	}
	return headed(c.chunks, [4]uint64{i.uidValidity, 0, uint64(len(i.ids))})
}

func (u UniqueIDs) chunks() []chunk {
	c := chunker{shift: textShift, start: binary.AppendUvarint(nil, u.UIDValidity)}
	for _, s := range u.Shown {
		at := c.next(s.UID)
		c.text(at, 0, s.ID)
		c.text(at, 1, s.String)
	}
	gone := slices.Clone(u.Gone)
	slices.SortStableFunc(gone, func(a, b Gone) int { return int(a.Day) - int(b.Day) })
	chunks, last, n := c.chunks, Gone{}, 0
	for i, g := range gone {
		if i > 0 && g.Day != last.Day {
			n = 0
		}
		if n%goneInChunk == 0 {
			chunks = append(chunks, chunk{suffix: suffix(tagGone, uint32(g.Day), uint32(n/goneInChunk)), body: bytes.Clone(c.start)})
			last = Gone{}
		}
		at := &chunks[len(chunks)-1]
		at.body = appendText(at.body, last.ID, g.ID)
		at.body = appendText(at.body, last.String, g.String)
		last, n = g, n+1
	}
	return headed(chunks, [4]uint64{u.UIDValidity, 0, uint64(len(u.Shown)), uint64(len(gone))})
}

// reader decodes a body. After an error bad is set, and it returns zero values.
type reader struct {
	body  []byte
	bad   bool
	texts [2]string
}

func (r *reader) more() bool { return !r.bad && len(r.body) > 0 }

func (r *reader) number(most uint64) uint64 {
	n, size := binary.Uvarint(r.body)
	if size <= 0 || n > most || r.bad {
		r.bad = true
		return 0
	}
	r.body = r.body[size:]
	return n
}

func (r *reader) text(which int) string {
	before := r.texts[which]
	shared := r.number(uint64(len(before)))
	n := r.number(uint64(min(len(r.body), textLimit)))
	if r.bad || n > uint64(len(r.body)) {
		r.bad = true
		return ""
	}
	s := before[:shared] + string(r.body[:n])
	r.body, r.texts[which] = r.body[n:], s
	return s
}

// entries reads a chunk of entries by UID. It calls each for every UID, in
// ascending order, to read the rest of the entry.
func (r *reader) entries(index uint64, shift int, each func(uid uint64)) {
	base := index << shift
	uid, first := base, true
	for r.more() {
		delta := r.number(1<<shift - 1)
		if delta == 0 && (!first || base == 0) {
			r.bad = true
		}
		uid, first = uid+delta, false
		if r.bad = r.bad || uid>>shift != index; r.bad {
			return
		}
		each(uid)
	}
}

// decoder decodes a record: the head, then the chunks in the order of their
// suffixes. If it fails it returns nothing, except that it returns the valid ones
// of unique-ids.
type decoder struct {
	id      recordID
	head    [4]uint64
	hasHead bool
	digest  []byte // of the record, as the head has it; nil: the form before
	sum     summer
	last    string // suffix
	invalid bool   // what has been added is not the whole record
	listing Listing
	sizes   sizes
	ids     identities
	unique  UniqueIDs
	facts   facts
	flagged Flagged
}

func newDecoder(id recordID) *decoder { return &decoder{id: id, sum: newSummer()} }

// add decodes a value of the record. One that is invalid, or out of order, is
// left out.
func (d *decoder) add(suffix string, value []byte, key []byte) {
	body, ok := verifyChecksum(key, value)
	switch {
	case !ok || !d.hasHead && suffix != "" || d.hasHead && suffix <= d.last:
		ok = false
	case suffix == "":
		ok = d.addHead(&reader{body: body})
	default:
		d.last = suffix
		d.sum.add(suffix, body)
		ok = d.addChunk(suffix, &reader{body: body})
	}
	d.invalid = d.invalid || !ok
}

func (d *decoder) addHead(r *reader) bool {
	most := [4]uint64{math.MaxUint64, math.MaxUint64, math.MaxUint32, math.MaxUint32}
	for i := 0; r.more() && i < len(d.head); i++ {
		d.head[i] = r.number(most[i])
	}
	if len(r.body) > 0 {
		version := r.number(recordVersion)
		r.bad = r.bad || version != recordVersion || len(r.body) != digestSize
		d.digest = bytes.Clone(r.body)
	}
	d.hasHead = !r.bad
	return d.hasHead
}

// addChunk decodes a chunk; false means that it is invalid.
func (d *decoder) addChunk(suffix string, r *reader) bool {
	if d.id.kind == kindUniqueIDs && d.digest != nil && r.number(math.MaxUint64) != d.head[0] {
		return false
	}
	switch {
	case suffix[0] == tagByUID && len(suffix) == 5:
		d.byUID(r, uint64(binary.BigEndian.Uint32([]byte(suffix[1:]))))
	case suffix[0] == tagWide && len(suffix) == 9:
		index := binary.BigEndian.Uint64([]byte(suffix[1:]))
		r.bad = r.bad || index <= math.MaxUint32
		d.byUID(r, index)
	case suffix[0] == tagGone && len(suffix) == 9 && d.id.kind == kindUniqueIDs:
		day := binary.BigEndian.Uint32([]byte(suffix[1:]))
		for r.bad = r.bad || day > math.MaxInt32; r.more(); {
			g := Gone{ID: r.text(0), String: r.text(1), Day: int32(day)}
			if !r.bad {
				d.unique.Gone = append(d.unique.Gone, g)
			}
		}
	case suffix == string(tagFacts) && d.id.kind == kindFacts:
		d.facts = decodeFacts(r)
	default:
		return false
	}
	return !r.bad
}

func (d *decoder) byUID(r *reader, index uint64) {
	switch d.id.kind {
	case kindListing:
		r.entries(index, numberShift, func(uid uint64) {
			d.listing.Messages = append(d.listing.Messages, proxy.Message{UID: uid, Octets: int64(r.number(math.MaxInt64))})
		})
	case kindSizes:
		if d.sizes.octets == nil {
			d.sizes.octets = make(map[uint64]int64)
		}
		r.entries(index, numberShift, func(uid uint64) { d.sizes.octets[uid] = int64(r.number(math.MaxInt64)) })
	case kindIdentities:
		r.entries(index, textShift, func(uid uint64) { d.ids.ids = append(d.ids.ids, Identity{uid, r.text(0)}) })
	case kindFlagged:
		r.entries(index, numberShift, func(uid uint64) { d.flagged.UIDs = append(d.flagged.UIDs, uid) })
	case kindUniqueIDs:
		r.entries(index, textShift, func(uid uint64) {
			s := Shown{UID: uid, ID: r.text(0), String: r.text(1)}
			if !r.bad {
				d.unique.Shown = append(d.unique.Shown, s)
			}
		})
	}
}

// record returns the decoded record, nil if there is none that can be trusted.
// invalid reports that something is damaged.
func (d *decoder) record() (r record, invalid bool) {
	if !d.hasHead {
		return nil, true
	}
	validity, count := d.head[0], d.head[2]
	entries := 0
	switch d.id.kind {
	case kindListing:
		d.listing.UIDValidity, d.listing.UIDNext = validity, d.head[1]
		entries, r = len(d.listing.Messages), d.listing
	case kindSizes:
		d.sizes.uidValidity = validity
		entries, r = len(d.sizes.octets), d.sizes
	case kindIdentities:
		d.ids.uidValidity = validity
		entries, r = len(d.ids.ids), d.ids
	case kindFacts:
		entries, r = len(d.facts), d.facts
	case kindFlagged:
		d.flagged.UIDValidity = validity
		entries, r = len(d.flagged.UIDs), d.flagged
	default:
		d.unique.UIDValidity = validity
		entries, r = len(d.unique.Shown), d.unique
	}
	whole := !d.invalid && uint64(entries) == count && d.digest != nil && bytes.Equal(d.digest, d.sum.appendTo(nil))
	switch {
	case !valid(r):
		return nil, true
	case whole:
		return r, false
	case d.id.kind == kindUniqueIDs:
		return r, d.digest != nil || d.invalid
	}
	return nil, d.digest != nil
}
