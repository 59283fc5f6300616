package imapbackend

import (
	"bytes"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"popgate/imapbackend/internal/imapfault"
)

// What the fault suite runs is chosen by environment variables:
// POPGATE_FAULTS=all for every case there is, POPGATE_FAULT_SEED for the sample
// of another run.
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

// faultSession is what a client does between login and the end of the session.
type faultSession struct {
	name string
	play func(c *popSession)
	rate int  // one in so many of its cases is run
	big  bool // with a message that no buffer of the gateway holds
}

var faultSessions = []faultSession{
	{name: "walk", rate: 1, play: func(c *popSession) {
		for n := 1; n <= len(c.uidOf); n++ {
			if c.retr(n) {
				c.dele(n)
			}
		}
		c.leave()
	}},
	{name: "TOP walk", rate: 3, play: func(c *popSession) {
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
	{name: "DELE only", rate: 1, play: func(c *popSession) {
		for _, n := range []int{1, 3, 4} {
			c.dele(n)
		}
		c.leave()
	}},
	{name: "pipelined", rate: 15, play: func(c *popSession) {
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
	{name: "RSET", rate: 15, play: func(c *popSession) {
		c.dele(1)
		c.dele(2)
		c.rset()
		if c.retr(3) {
			c.dele(3)
		}
		c.leave()
	}},
	{name: "nothing marked", rate: 15, play: func(c *popSession) {
		c.retr(2)
		c.leave()
	}},
	{name: "no QUIT", rate: 15, play: func(c *popSession) {
		c.retr(1)
		c.dele(1)
		c.dele(2)
		c.conn.Close()
	}},
	{name: "gone after QUIT", rate: 15, play: func(c *popSession) {
		c.dele(1)
		if c.quit = !c.lost; c.quit {
			c.send("QUIT")
		}
		c.conn.Close()
	}},
	{name: "idle", rate: 15, play: func(c *popSession) {
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
	{name: "big message", rate: 15, big: true, play: func(c *popSession) {
		for n := len(c.uidOf); n > 0; n -= 2 {
			if c.retr(n) {
				c.dele(n)
			}
		}
		c.leave()
	}},
}

// faultPolicy is an upstream and what the gateway is to do on it.
type faultPolicy struct {
	name  string
	caps  string // beyond IMAP4rev1 AUTH=PLAIN SASL-IR
	opts  Options
	fate  fate // of a marked message at QUIT
	alone bool // no other client has flagged a message \Deleted
}

// bears reports whether the policy keeps its promise with a fault: a plain
// EXPUNGE rests on a search for what others have flagged.
func (p faultPolicy) bears(kind imapfault.Kind, response []byte) bool {
	if p.opts.WithoutUIDPLUS != ExpungeIfAlone || !bytes.Contains(response, []byte("SEARCH")) {
		return true
	}
	return kind != imapfault.Fewer && kind != imapfault.Drop && kind != imapfault.Garble
}

// fate is what UPDATE does to a message.
type fate int

const (
	isExpunged fate = iota
	isFlagged       // \Deleted, not expunged
	isMoved         // to the trash mailbox
	isCopied        // to the trash mailbox, and flagged \Deleted
	isEither        // expunged or flagged
	isKept          // as it was
	isRefused       // nothing, and QUIT says so
)

var faultPolicies = []faultPolicy{
	{name: "expunge", caps: "UIDPLUS ESEARCH ID", fate: isExpunged},
	{name: "expunge, OBJECTID", caps: "UIDPLUS OBJECTID UNSELECT QRESYNC", opts: Options{Seen: SeenOnRetr}, fate: isExpunged},
	{name: "without UIDPLUS", fate: isFlagged},
	{name: "refuse", caps: "ESEARCH", opts: Options{WithoutUIDPLUS: Refuse}, fate: isRefused},
	{name: "flag", caps: "UIDPLUS ID", opts: Options{Delete: DeleteFlag}, fate: isFlagged},
	{name: "keep", caps: "UIDPLUS", opts: Options{Delete: DeleteKeep}, fate: isKept},
	{name: "trash by MOVE", caps: "UIDPLUS MOVE SPECIAL-USE", opts: Options{Delete: DeleteTrash}, fate: isMoved},
	{name: "trash by COPY", caps: "UIDPLUS", opts: Options{Delete: DeleteTrash, Trash: "Waste"}, fate: isMoved},
	{name: "trash and flag", opts: Options{Delete: DeleteTrash}, fate: isCopied},
	{name: "move", caps: "MOVE ESEARCH", opts: Options{WithoutUIDPLUS: Move}, fate: isMoved},
	{name: "expunge if alone", opts: Options{WithoutUIDPLUS: ExpungeIfAlone}, fate: isEither, alone: true},
	{name: "expunge if alone, not alone", caps: "ESEARCH", opts: Options{WithoutUIDPLUS: ExpungeIfAlone}, fate: isEither},
}

// faultsOf returns the faults of one kind at each response that it applies to;
// within bodies at several octets.
func faultsOf(kind imapfault.Kind, responses [][]byte) []imapfault.Fault {
	var all []imapfault.Fault
	for i, response := range responses {
		if !kind.Applies(response) || i == 0 && (kind == imapfault.Chatter || kind == imapfault.Expunge) {
			continue // nothing comes before the greeting
		}
		f := imapfault.Fault{Kind: kind, Response: i + 1}
		all = append(all, f)
		if kind != imapfault.CutMiddle && kind != imapfault.Reset && kind != imapfault.StallMiddle {
			continue
		}
		line := bytes.IndexByte(response, '\n') + 1
		if n := len(response); n > line { // with a literal
			for _, octet := range []int{1, line - 1, line, line + 1, line + 60, n - 4, n - 3, n - 2, n - 1} {
				f.Octet = octet
				all = append(all, f)
			}
		}
	}
	return all
}

// refusals are what an upstream answers to a command that it does not carry out.
var refusals = []string{"NO zebra", "NO [UNAVAILABLE] zebra", "NO [EXPUNGEISSUED] zebra", "NO [READ-ONLY] zebra", "BAD zebra"}

// casesOf returns the cases of one session: each fault at each response, and
// each refusal of each command; and more, with a second fault behind a loss, in
// what comes with the new connection, or with that refused.
func casesOf(t *testing.T, base faultCase, loginToo bool) (each, more []faultCase) {
	h := base.run(t)
	from := h.login
	if loginToo {
		from = 0
	}
	for _, kind := range imapfault.Kinds() {
		for _, f := range faultsOf(kind, h.responses) {
			if !base.policy.bears(kind, h.responses[f.Response-1]) || f.Response <= from {
				continue
			}
			fc := base
			fc.faults = []imapfault.Fault{f}
			fc.unseen = kind.Harmless()
			each = append(each, fc)
		}
	}
	for i := range h.commands {
		for _, refusal := range refusals {
			fc := base
			fc.command, fc.refusal = i+1, refusal
			each = append(each, fc)
		}
	}
	for i := h.login; i < len(h.responses); i++ {
		for _, loss := range []imapfault.Kind{imapfault.CutBefore, imapfault.CutAfter, imapfault.Reset, imapfault.Stall} {
			fc := base
			first := imapfault.Fault{Kind: loss, Response: i + 1}
			fc.faults = []imapfault.Fault{first}
			for _, fc.dials = range []int{1, 1000} {
				more = append(more, fc)
			}
			fc.dials = 0
			for _, kind := range imapfault.Kinds() {
				for behind := range 16 {
					fc.faults = []imapfault.Fault{first, {Kind: kind, Response: i + 2 + behind}}
					more = append(more, fc)
				}
			}
		}
	}
	return each, more
}

// sample returns one in n of the cases.
func sample(r *rand.Rand, cases []faultCase, n int) []faultCase {
	if allFaults || n == 1 {
		return cases
	}
	return slices.DeleteFunc(slices.Clone(cases), func(faultCase) bool { return r.IntN(n) > 0 })
}

// The fault suite (P-RETR-7, P-SESS-5, P-SESS-6, P-QUIT-2, P-QUIT-3, I-CONC-4,
// I-DEL-9, I-DEL-10, I-DEL-11, I-FETCH-6, I-FETCH-7, I-SIZE-5): each session is
// played before an upstream that does each thing wrong at each response. A walk
// with RETR and DELE meets all of it; of the rest there is a sample.
func TestFaults(t *testing.T) {
	start := time.Now()
	var total, all atomic.Int64
	t.Run("each", func(t *testing.T) {
		for p, policy := range faultPolicies {
			for i, session := range faultSessions {
				t.Run(policy.name+", "+session.name, func(t *testing.T) {
					t.Parallel()
					r := rand.New(rand.NewPCG(faultSeed, uint64(p*100+i)))
					each, more := casesOf(t, faultCase{policy: policy, session: session}, p == 0)
					all.Add(int64(len(each) + len(more)))
					rate := session.rate
					if p > 0 {
						rate *= 3
					}
					for _, fc := range slices.Concat(sample(r, each, rate), sample(r, more, 8000)) {
						fc.run(t)
						total.Add(1)
					}
				})
			}
		}
	})
	t.Logf("%d of %d cases in %v, POPGATE_FAULT_SEED=%d", total.Load(), all.Load(), time.Since(start).Round(time.Second), faultSeed)
}
