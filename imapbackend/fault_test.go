package imapbackend

import (
	"bytes"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"popgate/imapbackend/imapmodel"
	"popgate/imapbackend/internal/imapfault"
)

// Environment variables choose the cases of the fault suite:
// POPGATE_FAULTS=all for all of them, POPGATE_FAULT_SEED for the sample of
// another run.
var (
	allFaults = os.Getenv("POPGATE_FAULTS") == "all"
	faultSeed = func() uint64 {
		seed, err := strconv.ParseUint(os.Getenv("POPGATE_FAULT_SEED"), 10, 64)
		if err != nil {
			return rand.Uint64()
		}
		return seed
	}()
)

// One in n cases is run:
const (
	policyRate = 400   // with all policies but the first, in sessions with more than UPDATE
	withinRate = 60    // with losses within bodies
	secondRate = 10000 // with a second fault
	quirkRate  = 300   // of those with an upstream that has quirks, at random
)

// faultSession is what a client does between login and the end of the session.
type faultSession struct {
	name string
	play func(c *popSession)
	big  bool // with a message larger than the buffers of the gateway
	last bool // the UID is last in FETCH responses

	update bool // little besides UPDATE, in which the policies differ
}

var faultSessions = []faultSession{
	{name: "walk", play: walkAll},
	{name: "walk, UID last", last: true, play: walkAll},
	{name: "TOP walk", play: func(c *popSession) {
		for n := 1; n <= len(c.uidOf); n++ {
			c.top(n, 0)
		}
		c.top(1, 3)
		for _, n := range []int{2, 3, 5} {
			if c.retr(n) {
				c.dele(n)
			}
		}
		c.leave()
	}},
	{name: "DELE only", update: true, play: func(c *popSession) {
		for _, n := range []int{1, 3, 4} {
			c.dele(n)
		}
		c.leave()
	}},
	{name: "pipelined", play: func(c *popSession) {
		var all []string
		for n := 1; n <= len(c.uidOf); n++ {
			all = append(all, "RETR "+strconv.Itoa(n))
		}
		if len(all) > 0 {
			c.send(all...)
		}
		for n := range all {
			c.body(n + 1)
		}
		for n := range all {
			if _, whole := c.got[c.uidOf[n+1]]; whole {
				c.dele(n + 1)
			}
		}
		c.leave()
	}},
	{name: "RSET", play: func(c *popSession) {
		c.dele(1)
		c.dele(2)
		c.rset()
		if c.retr(3) {
			c.dele(3)
		}
		c.leave()
	}},
	{name: "nothing marked", play: func(c *popSession) {
		c.retr(2)
		c.leave()
	}},
	{name: "no QUIT", play: func(c *popSession) {
		c.retr(1)
		c.dele(1)
		c.dele(2)
		c.Conn.Close()
	}},
	{name: "gone after QUIT", play: func(c *popSession) {
		c.dele(1)
		if c.quit = !c.lost; c.quit {
			c.send("QUIT")
		}
		c.Conn.Close()
	}},
	{name: "idle", play: func(c *popSession) {
		c.dele(1)
		for range 3 {
			<-time.After(9 * time.Minute)
			c.do("NOOP")
		}
		if c.retr(2) {
			c.dele(2)
		}
		c.leave()
	}},
	{name: "big message", big: true, play: func(c *popSession) {
		for n := len(c.uidOf); n > 0; n -= 2 {
			if c.retr(n) {
				c.dele(n)
			}
		}
		c.leave()
	}},
}

// walkAll retrieves and marks all messages.
func walkAll(c *popSession) {
	for n := 1; n <= len(c.uidOf); n++ {
		if c.retr(n) {
			c.dele(n)
		}
	}
	c.leave()
}

// faultPolicy is an upstream and the policy of the gateway for it.
type faultPolicy struct {
	name   string
	caps   string // besides IMAP4rev1 AUTH=PLAIN SASL-IR
	opts   Options
	effect effect // of QUIT on a marked message
	alone  bool   // no other client has flagged a message \Deleted

	unknown bool // the greeting names no server: the login is the careful one
}

// quirky reports whether the upstream is not the usual one.
func (fc faultCase) quirky() bool { return fc.quirks != (imapmodel.Quirks{}) || fc.before > 0 }

// hides reports whether the gateway can hide a fault from the client, with the
// quirks of the upstream.
func (fc faultCase) hides(kind imapfault.Kind) bool {
	q := fc.quirks
	switch {
	case kind == imapfault.Chatter:
		// Its EXISTS is the only one, or proves that messages have been
		// expunged, and its FETCH has no UID.
		return !q.NoExists && !q.UIDMissing && q.Search <= imapmodel.CountOnly
	case kind.Loss():
		// On another connection sequence numbers prove nothing; BODY[] is
		// asked for once.
		// What SEARCH does may have to be learned when UPDATE is repeated.
		return !q.UIDMissing && !q.EmptyPeek && q.Partial != imapmodel.PartialIgnored &&
			(q.Search <= imapmodel.CountOnly || fc.policy.opts.WithoutUIDPLUS != ExpungeIfAlone)
	}
	return true
}

// excused reports whether the refusal of a command is due to a quirk of the
// upstream.
func (fc faultCase) excused(reply string) bool {
	q := fc.quirks
	switch {
	case strings.HasPrefix(reply, "TOP "):
		return q.EmptyPeek
	case strings.HasPrefix(reply, "DELE "):
		return strings.Contains("- () (\\Seen)", q.PermanentFlags)
	}
	return false
}

// effect is what UPDATE does to a message.
type effect int

const (
	isExpunged effect = iota
	isFlagged         // \Deleted, not expunged
	isMoved           // to the trash mailbox
	isCopied          // to the trash mailbox, and flagged \Deleted
	isEither          // expunged or flagged
	isKept            // as it was
	isRefused         // nothing, and QUIT says so
)

var faultPolicies = []faultPolicy{
	{name: "expunge", caps: "UIDPLUS ESEARCH ID", effect: isExpunged},
	{name: "expunge, OBJECTID", caps: "UIDPLUS OBJECTID UNSELECT QRESYNC", opts: Options{Seen: SeenOnRetr}, effect: isExpunged},
	{name: "without UIDPLUS", effect: isFlagged},
	{name: "refuse", caps: "ESEARCH", opts: Options{WithoutUIDPLUS: Refuse}, effect: isRefused},
	{name: "flag", caps: "UIDPLUS ID OBJECTID", unknown: true, opts: Options{Delete: DeleteFlag}, effect: isFlagged},
	{name: "keep", caps: "UIDPLUS", opts: Options{Delete: DeleteKeep}, effect: isKept},
	{name: "trash by MOVE", caps: "UIDPLUS MOVE SPECIAL-USE", opts: Options{Delete: DeleteTrash}, effect: isMoved},
	{name: "trash by COPY", caps: "UIDPLUS", opts: Options{Delete: DeleteTrash, Trash: "Waste"}, effect: isMoved},
	{name: "trash and flag", opts: Options{Delete: DeleteTrash}, effect: isCopied},
	{name: "move", caps: "MOVE ESEARCH", opts: Options{WithoutUIDPLUS: Move}, effect: isMoved},
	{name: "expunge if alone", opts: Options{WithoutUIDPLUS: ExpungeIfAlone}, effect: isEither, alone: true},
	{name: "expunge if alone, not alone", caps: "ESEARCH", opts: Options{WithoutUIDPLUS: ExpungeIfAlone}, effect: isEither},
}

// faultsOf returns the faults of one kind, at each response that it applies to;
// and within: those at several octets of a body.
func faultsOf(kind imapfault.Kind, responses [][]byte) (all, within []imapfault.Fault) {
	for i, response := range responses {
		if !kind.Applies(response) || i == 0 && (kind == imapfault.Chatter || kind == imapfault.Expunge) {
			continue // the greeting is always first
		}
		f := imapfault.Fault{Kind: kind, Response: i + 1}
		all = append(all, f)
		if kind != imapfault.CutMiddle && kind != imapfault.Reset && kind != imapfault.StallMiddle {
			continue
		}
		line, n := bytes.IndexByte(response, '\n')+1, len(response)
		if n == line { // without a literal
			continue
		}
		octets := []int{1, line - 1, line, line + 1, line + 60, n - 4, n - 3, n - 2, n - 1}
		for octet := line + 255; octet < n; octet += max(n/16, 500) {
			octets = append(octets, octet)
		}
		for _, f.Octet = range octets {
			within = append(within, f)
		}
	}
	return all, within
}

// refusals are what an upstream answers to a command that it does not execute.
var refusals = []string{"NO zebra", "NO [UNAVAILABLE] zebra", "NO [EXPUNGEISSUED] zebra", "NO [READ-ONLY] zebra", "BAD zebra"}

// casesOf returns the cases of one session: each fault at each response and
// each refusal of each command; losses at several octets of each body; and
// cases with a second fault. With login, it includes the faults during the
// login.
func casesOf(t *testing.T, base faultCase, login bool) (each, within []faultCase, seconds secondFaults) {
	h := base.run(t)
	from := h.login
	if login {
		from = 0
	}
	add := func(to *[]faultCase, faults []imapfault.Fault) {
		for _, f := range faults {
			if f.Response <= from {
				continue
			}
			fc := base
			fc.faults = []imapfault.Fault{f}
			fc.unseen = fc.hides(f.Kind) && (f.Kind.Harmless() || f.Kind.Loss() && f.Response > h.login)
			*to = append(*to, fc)
		}
	}
	for _, kind := range imapfault.Kinds() {
		all, octets := faultsOf(kind, h.responses)
		add(&each, all)
		add(&within, octets)
	}
	for i := range h.commands {
		if !login && i < h.loginCommands {
			continue
		}
		for _, refusal := range refusals {
			fc := base
			fc.command, fc.refusal = i+1, refusal
			each = append(each, fc)
		}
	}
	return each, within, secondFaults{base, h.login, len(h.responses)}
}

// secondFaults are the cases with a loss and then a second fault: in the
// responses on the new connection, or with the new connection refused.
type secondFaults struct {
	base faultCase
	from int // the losses are at the responses after this one
	to   int // up to this one
}

var lossesFirst = []imapfault.Kind{imapfault.CutBefore, imapfault.CutAfter, imapfault.Reset, imapfault.Stall}

// responsesAfter is how many responses after the loss a second fault may be.
const responsesAfter = 16

// len returns the number of cases.
func (s secondFaults) len() int {
	return (s.to - s.from) * len(lossesFirst) * (2 + len(imapfault.Kinds())*responsesAfter)
}

// at returns case k, from 0.
func (s secondFaults) at(k int) faultCase {
	next := func(n int) (digit int) {
		digit, k = k%n, k/n
		return digit
	}
	fc := s.base
	first := imapfault.Fault{Kind: lossesFirst[next(len(lossesFirst))], Response: s.from + 1 + next(s.to-s.from)}
	fc.faults = []imapfault.Fault{first}
	switch k {
	case 0:
		fc.dials = 1
	case 1:
		fc.dials = 1000
	default:
		k -= 2
		fc.faults = append(fc.faults, imapfault.Fault{Kind: imapfault.Kind(next(len(imapfault.Kinds()))), Response: first.Response + 1 + k})
	}
	return fc
}

// isResume reports whether a command asks for the rest of a body.
func isResume(cmd string) bool { return strings.Contains(cmd, "BODY.PEEK[]<") }

// sample returns one in n of the cases, chosen at random.
func sample(r *rand.Rand, cases []faultCase, n int) []faultCase {
	if allFaults || n == 1 {
		return cases
	}
	return slices.DeleteFunc(slices.Clone(cases), func(faultCase) bool { return r.IntN(n) > 0 })
}

func (s secondFaults) sample(r *rand.Rand, n int) (cases []faultCase) {
	total := s.len()
	if allFaults {
		for k := range total {
			cases = append(cases, s.at(k))
		}
		return cases
	}
	for range (total + n - 1) / n {
		cases = append(cases, s.at(r.IntN(total)))
	}
	return cases
}

// P-RETR-7, P-SESS-5, P-SESS-6, P-QUIT-2, P-QUIT-3, I-CONC-4, I-DEL-5, I-DEL-9,
// I-DEL-10, I-DEL-11, I-FETCH-6, I-FETCH-7, I-SIZE-5: checkInvariant holds in
// each session with each fault of the upstream at each response. The first
// policy is tested with all faults in every session, the other policies with
// all faults in the session that does little besides UPDATE; of the rest, of
// second faults, and of faults of an upstream with quirks, a sample is tested.
func TestFaults(t *testing.T) {
	start := time.Now()
	var total, all, resumed atomic.Int64
	t.Run("each", func(t *testing.T) {
		for p, policy := range faultPolicies {
			for i, session := range faultSessions {
				t.Run(policy.name+", "+session.name, func(t *testing.T) {
					t.Parallel()
					r := rand.New(rand.NewPCG(faultSeed, uint64(p*100+i)))
					// The login is the same with every
					// session.
					each, within, seconds := casesOf(t, faultCase{policy: policy, session: session}, p == 0 && i == 0)
					all.Add(int64(len(each) + len(within) + seconds.len()))
					rate := 1
					if p > 0 && !session.update {
						rate = policyRate
					}
					cases := slices.Concat(sample(r, each, rate), sample(r, within, withinRate), seconds.sample(r, secondRate))
					quirky := faultCase{policy: policy, session: session, quirks: imapmodel.RandomQuirks(r), before: uint64(r.IntN(2)) << 33}
					each, within, seconds = casesOf(t, quirky, true)
					all.Add(int64(len(each) + len(within) + seconds.len()))
					cases = slices.Concat(cases, sample(r, each, quirkRate), sample(r, within, quirkRate), seconds.sample(r, secondRate))
					for _, fc := range cases {
						h := fc.run(t)
						total.Add(1)
						if slices.ContainsFunc(h.commands, isResume) {
							resumed.Add(1)
						}
					}
				})
			}
		}
	})
	t.Logf("%d of %d cases in %v, a body resumed in %d, POPGATE_FAULT_SEED=%d",
		total.Load(), all.Load(), time.Since(start).Round(time.Second), resumed.Load(), faultSeed)
	if resumed.Load() == 0 {
		t.Error("I-FETCH-7: no case resumes a body")
	}
}
