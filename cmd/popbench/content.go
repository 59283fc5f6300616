package main

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"hash/fnv"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
)

// password is what the upstream accepts for every user.
const password = "secret"

// kind is a distribution of message sizes.
type kind string

const (
	tiny  kind = "tiny"  // 700 to 1,300 octets
	small kind = "small" // 4 KiB
	large kind = "large" // 60 kB
	mixed kind = "mix"   // lognormal, median 12 KiB; one in 200 of 1 to 5 MiB
	huge  kind = "huge"  // 100 MiB
)

// box is a mailbox whose content is a function of its fields and the seed, so
// that it can be verified without a list of what was put into it.
type box struct {
	name string // also the login name of its user
	n    int    // number of messages
	kind kind
}

// catalogue holds the mailboxes that the scenarios use.
type catalogue struct {
	lists  []box // each has a scenario list.SIZE
	mix    box
	small  box
	huge   box
	delete box // emptied by its scenario, which fills it first
	slow   box // the same, of which a quarter is read and deleted
	idle   []int
}

// standard is the catalogue of every real run.
var standard = catalogue{
	lists:  []box{{"list1k", 1000, tiny}, {"list10k", 10000, tiny}, {"list100k", 100000, tiny}},
	mix:    box{"mix2k", 2000, mixed},
	small:  box{"small10k", 10000, small},
	huge:   box{"huge1", 1, huge},
	delete: box{"dele5k", 5000, tiny},
	slow:   box{"slow80", 80, large},
	idle:   []int{1000, 5000},
}

// userBox and pollBox are the mailboxes of two fleets of accounts.
func userBox(i int) box { return box{fmt.Sprintf("u%04d", i), 10, small} }
func pollBox(i int) box { return box{fmt.Sprintf("poll%04d", i), 50, tiny} }

// boxes returns every mailbox that is seeded before a run, with users accounts
// in each fleet.
func (c catalogue) boxes(users int) []box {
	boxes := append([]box{}, c.lists...)
	boxes = append(boxes, c.mix, c.small, c.huge)
	for i := range users {
		boxes = append(boxes, userBox(i), pollBox(i))
	}
	return boxes
}

// generator makes messages that depend only on its seed. It is safe for
// concurrent use.
type generator struct {
	seed uint64
	pool []byte // CRLF text the bodies are cut from

	mu      sync.Mutex
	digests map[box][]digest
}

func newGenerator(seed uint64) *generator {
	const octets = 1 << 20
	rng := rand.New(rand.NewPCG(seed, 0x706f6f6c))
	var b bytes.Buffer
	for b.Len() < octets {
		b.WriteString(textLine(rng))
		b.WriteString("\r\n")
	}
	return &generator{seed: seed, pool: b.Bytes(), digests: make(map[box][]digest)}
}

// textLine returns a line of words or, now and then, a line of a kind that
// gateways get wrong.
func textLine(rng *rand.Rand) string {
	switch rng.IntN(40) {
	case 0:
		return "."
	case 1:
		return ".."
	case 2:
		return ".hidden"
	case 3:
		return ""
	case 4:
		return "gr\xc3\xbc\xc3\x9fe, 8-bit text"
	case 5:
		return strings.Repeat("long line ", 90)
	}
	var line []byte
	for range 4 + rng.IntN(9) {
		for range 2 + rng.IntN(8) {
			line = append(line, byte('a'+rng.IntN(26)))
		}
		line = append(line, ' ')
	}
	return string(line)
}

// octets draws the size of one message.
func (k kind) octets(rng *rand.Rand) int {
	switch k {
	case tiny:
		return 700 + rng.IntN(600)
	case small:
		return 4096
	case large:
		return 60_000
	case huge:
		return 100 << 20
	}
	if rng.IntN(200) == 0 {
		return 1<<20 + rng.IntN(4<<20)
	}
	size := int(12 * 1024 * math.Exp(1.3*rng.NormFloat64()))
	return min(max(size, 1024), 1<<20)
}

// message returns message i, counted from 0, of b in buf[:0]. Its lines end in
// CRLF; it contains no other CR or LF.
func (g *generator) message(b box, i int, buf []byte) []byte {
	h := fnv.New64a()
	fmt.Fprintf(h, "%s/%s/%d", b.name, b.kind, i)
	rng := rand.New(rand.NewPCG(g.seed, h.Sum64()))
	size := b.kind.octets(rng)
	buf = fmt.Appendf(buf[:0], "Return-Path: <sender%d@example.org>\r\n"+
		"Received: from mx.example.org by mail.example.com; Mon, 01 Jan 2024 00:00:00 +0000\r\n"+
		"From: Sender <sender%d@example.org>\r\nTo: <%s@example.com>\r\n"+
		"Subject: message %d of %s\r\nDate: Mon, 01 Jan 2024 00:00:00 +0000\r\n"+
		"Message-ID: <%d.%s.%016x@example.org>\r\nMIME-Version: 1.0\r\n"+
		"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n",
		i, i, b.name, i, b.name, i, b.name, rng.Uint64())
	start := rng.IntN(len(g.pool))
	start += bytes.IndexByte(g.pool[start:], '\n') + 1 // the pool ends in LF
	for len(buf) < size-2 {
		if start >= len(g.pool) {
			start = 0
		}
		n := min(size-2-len(buf), len(g.pool)-start)
		buf = append(buf, g.pool[start:start+n]...)
		start += n
	}
	if buf[len(buf)-1] == '\r' {
		buf[len(buf)-1] = 'x'
	}
	return append(buf, "\r\n"...)
}

// digest identifies the content of a message. A CRC finds any damage that a
// gateway does by mistake, and takes little processor time from the servers.
type digest struct {
	octets int64
	crc    uint32
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// expect returns the digest of every message of b. The slice is shared and must
// not be changed.
func (g *generator) expect(b box) []digest {
	g.mu.Lock()
	defer g.mu.Unlock()
	if d, ok := g.digests[b]; ok {
		return d
	}
	d := make([]digest, b.n)
	var buf []byte
	for i := range d {
		buf = g.message(b, i, buf)
		d[i] = digest{int64(len(buf)), crc32.Checksum(buf, castagnoli)}
	}
	g.digests[b] = d
	return d
}
