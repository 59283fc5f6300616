//go:build integration

package imapbackend

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"popgate/imapbackend/imapmodel"
	"popgate/imapbackend/internal/imapfault"
	"popgate/proxy"
	"popgate/proxy/proxytest"
)

const (
	walkTime     = 30 * time.Second // default of the environment variable SOAK
	walkSessions = 12               // of each walk
)

// soakWalk is a mailbox on an upstream with quirks, a client that has one session
// after another, and another client that changes the mailbox meanwhile. UIDs are
// those since the mailbox was last rebuilt.
type soakWalk struct {
	*testing.T
	r      *rand.Rand
	policy faultPolicy
	m      *imapmodel.Model
	inbox  *imapmodel.Mailbox
	g      *proxytest.Gateway
	log    proxytest.Log
	all    []*popSession
	sum    *walkSum

	mu      sync.Mutex
	other   *rand.Rand
	calm    bool // nothing breaks, and the other client does nothing
	number  int  // of the last message
	bodies  map[uint64]string
	gone    map[uint64]bool // removed by the other client
	flagged map[uint64]bool // \Deleted by the other client
	marked  map[uint64]bool // by a session of this walk, in which the other client leaves them alone
	asked   map[uint64]bool // marked in a session with a QUIT that was not answered -ERR
	failed  map[uint64]bool // marked in one with a QUIT that was
}

// walkSum is what all walks have done.
type walkSum struct{ sessions, whole, tops, lost, quits, removed int }

// TestSoakWalk plays random sessions in front of upstreams that use odd but legal
// forms, in fake time: with all policies, mail that comes and goes between and
// within sessions, connections that break or stall, kept ones, and rebuilt
// mailboxes. P-RETR-7, P-TOP-2, P-SESS-5, P-QUIT-2, P-QUIT-3, I-SNAP-7, I-DEL-5,
// I-CONC-1: each message that is delivered is the one with that unique-id, nothing
// is missing from a listing, nothing is removed or flagged unasked, +OK to QUIT is
// true, and -ERR hides nothing at the next login.
func TestSoakWalk(t *testing.T) {
	limit, seed, start := walkTime, rand.Uint64(), time.Now()
	if text := os.Getenv("SOAK"); text != "" {
		var err error
		if limit, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := strconv.ParseUint(os.Getenv("SOAK_SEED"), 10, 64); err == nil {
		seed = n
	}
	var sum walkSum
	walks := uint64(0)
	for ; walks == 0 || time.Since(start) < limit && !t.Failed(); walks++ {
		synctest.Test(t, func(t *testing.T) { newWalk(t, seed+walks, &sum).play() })
	}
	t.Logf("%v, SOAK_SEED=%d: %d walks, %+v", limit, seed, walks, sum)
	if walks > 50 && (sum.whole == 0 || sum.tops == 0 || sum.lost == 0 || sum.removed == 0) {
		t.Error("too little has happened to show anything")
	}
}

func newWalk(t *testing.T, seed uint64, sum *walkSum) *soakWalk {
	r := rand.New(rand.NewPCG(seed, 1))
	w := &soakWalk{T: t, r: r, other: rand.New(rand.NewPCG(seed, 2)), policy: faultPolicies[r.IntN(len(faultPolicies))], m: imapmodel.New(), sum: sum,
		bodies: make(map[uint64]string), gone: make(map[uint64]bool), flagged: make(map[uint64]bool),
		marked: make(map[uint64]bool), asked: make(map[uint64]bool), failed: make(map[uint64]bool)}
	w.m.Quirks = imapmodel.RandomQuirks(r)
	w.m.Style = imapmodel.Style(r.IntN(int(imapmodel.Kept) + 1))
	w.m.AnnounceRebuilt = r.IntN(2) == 0
	w.m.Caps = "IMAP4rev1 AUTH=PLAIN SASL-IR " + w.policy.caps
	for _, c := range []string{"ID", "ESEARCH", "OBJECTID", "UNSELECT"} {
		if !strings.Contains(w.m.Caps, c) && r.IntN(3) == 0 {
			w.m.Caps += " " + c
		}
	}
	w.m.Mailbox("", "Bin").SetTrash()
	w.inbox = w.m.Inbox().SetUIDValidity(1 + uint64(r.IntN(2))<<40).SetUIDNext(1 + uint64(r.IntN(2))<<33)
	for range r.IntN(12) {
		w.add()
	}
	w.m.Before = w.interfere
	opts := w.policy.opts
	opts.KeepOpen = []time.Duration{0, keepOpen}[r.IntN(2)]
	opts.ReadAhead = []int64{0, 5000, 1 << 20}[r.IntN(3)]
	b := backend(w, opts)
	b.dial = w.dial
	log := slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	w.g = proxytest.Serve(w, proxytest.Listen(), proxy.Options{Backend: b, Logger: log}, proxytest.Insecure)
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		for _, c := range w.all {
			t.Logf("%s", c)
		}
		t.Logf("log:\n%s\nSOAK_SEED=%d: %s, %v, style %d, %s, %+v", w.log.String(), seed, w.policy.name, w.m.Quirks, w.m.Style, w.m.Caps, opts)
	})
	return w
}

// dial returns a connection that breaks or stalls, at times.
func (w *soakWalk) dial(ctx context.Context) (net.Conn, error) {
	conn, err := w.m.Dial(ctx)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err != nil || w.calm || w.other.IntN(2) == 0 {
		return conn, err
	}
	kind := imapfault.Kind(w.other.IntN(int(imapfault.StallMiddle) + 2))
	if !kind.Loss() {
		kind = imapfault.Octets
	}
	return imapfault.New(imapfault.Fault{Kind: kind, Response: 1 + int(w.other.ExpFloat64()*20), Octet: w.other.IntN(300)}).Wrap(conn), nil
}

// add is called with mu held, or before there are sessions.
func (w *soakWalk) add() {
	w.number++
	body := mail(w.number, 10+int(w.other.ExpFloat64()*2000))
	w.bodies[w.inbox.Add(body)] = body
}

// interfere is what the other client does before the upstream executes cmd. Just
// before a plain EXPUNGE it flags nothing: that is the documented risk of the
// policy.
func (w *soakWalk) interfere(cmd string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.calm || w.other.IntN(6) > 0 {
		return
	}
	w.change(cmd != "EXPUNGE")
}

// change changes the mailbox for the other client. It is called with mu held.
func (w *soakWalk) change(flags bool) {
	messages := w.inbox.Messages()
	k := w.other.IntN(8)
	if k < 4 || len(messages) == 0 {
		w.add()
		return
	}
	uid := messages[w.other.IntN(len(messages))].UID
	switch {
	case k == 4:
		if w.inbox.Remove(uid) {
			w.gone[uid] = true
		}
	case k == 5:
		w.inbox.SetFlag(uid, `\Seen`, w.other.IntN(2) == 0)
	case k == 6 && flags && !w.marked[uid]:
		w.inbox.SetFlag(uid, `\Deleted`, true)
		w.flagged[uid] = true
	}
}

// play plays the walk.
func (w *soakWalk) play() {
	for range walkSessions {
		w.setCalm(w.r.IntN(3) == 0)
		w.session()
		w.check()
		if w.Failed() {
			return
		}
		w.mu.Lock()
		for range w.r.IntN(3) {
			w.change(true)
		}
		w.mu.Unlock()
		if w.r.IntN(15) == 0 {
			w.rebuild()
		}
	}
	w.setCalm(true)
	w.last()
	w.g.Stop()
	if strings.Contains(w.log.String(), "panic") {
		w.Error("the gateway panicked")
	}
}

func (w *soakWalk) setCalm(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calm = on
}

// login starts a session and checks its listing.
func (w *soakWalk) login() *popSession {
	w.mu.Lock()
	before, gone := w.there(), maps.Clone(w.gone)
	w.mu.Unlock()
	c := begin(w.g.Dial().Conn, []uint64{0})
	w.all = append(w.all, c)
	w.sum.sessions++
	after := w.there()
	if c.lost || len(c.refused) > 0 {
		return c
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	shown := make(map[uint64]bool)
	for n, uid := range c.uidOf {
		shown[uid] = true
		if _, known := w.bodies[uid]; !known || gone[uid] {
			w.Errorf("message %d is UID %d, which is not there", n, uid)
		}
	}
	for uid := range before {
		_, is := after[uid]
		// What a policy leaves flagged may be so although QUIT got no answer.
		excused := w.flagged[uid] || w.asked[uid] || w.failed[uid] && !w.calm
		if is && !shown[uid] && !excused {
			w.Errorf("UID %d is missing from the listing", uid)
		}
	}
	return c
}

// there returns the messages of the mailbox.
func (w *soakWalk) there() map[uint64]imapmodel.Message {
	all := make(map[uint64]imapmodel.Message)
	for _, msg := range w.inbox.Messages() {
		all[msg.UID] = msg
	}
	return all
}

// session is one session of the client.
func (w *soakWalk) session() {
	c := w.login()
	for range w.r.IntN(20) {
		if len(c.uidOf) == 0 || c.lost {
			break
		}
		n := 1 + w.r.IntN(len(c.uidOf))
		switch k := w.r.IntN(10); {
		case k < 5:
			c.retr(n)
		case k < 6:
			w.top(c, n, w.r.IntN(40))
		case k < 9:
			w.dele(c, n)
		case w.r.IntN(4) == 0:
			c.rset()
		default:
			<-time.After(time.Duration(w.r.IntN(500)) * time.Second)
		}
	}
	switch k := w.r.IntN(8); {
	case k < 6:
		c.leave()
	case k == 6 && !c.lost: // gone after QUIT
		c.quit = true
		c.send("QUIT")
	}
	c.Conn.Close()
	<-time.After(10 * time.Minute) // longer than any UPDATE
	synctest.Wait()
	w.count(c)
}

// top checks that the top of a message is its beginning.
func (w *soakWalk) top(c *popSession, n, lines int) {
	if !c.do(fmt.Sprintf("TOP %d %d", n, lines)) {
		return
	}
	text := c.text()
	w.mu.Lock()
	defer w.mu.Unlock()
	header, body, _ := strings.Cut(w.bodies[c.uidOf[n]], "\r\n\r\n")
	want := header + "\r\n\r\n" + strings.Join(strings.SplitAfter(body, "\r\n")[:min(lines, strings.Count(body, "\n"))], "")
	if !c.lost && text != want {
		w.Errorf("TOP %d %d of UID %d is %d octets, want %d", n, lines, c.uidOf[n], len(text), len(want))
	}
	w.sum.tops++
}

func (w *soakWalk) dele(c *popSession, n int) {
	w.mu.Lock()
	uid := c.uidOf[n]
	foreign := w.flagged[uid]
	w.marked[uid] = true
	w.mu.Unlock()
	if !foreign {
		c.dele(n)
	}
}

// count records what a session has asked for, and checks what it has brought.
func (w *soakWalk) count(c *popSession) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for uid, got := range c.got {
		w.sum.whole++
		if want := w.bodies[uid]; got != want {
			w.Errorf("UID %d, ended by a dot, is %d octets %.60q, want %d %.60q", uid, len(got), got, len(want), want)
		}
	}
	if c.lost {
		w.sum.lost++
	}
	if c.silent {
		w.Error("the gateway does not answer")
	}
	if !c.quit {
		return
	}
	refused := slices.ContainsFunc(c.refused, func(reply string) bool { return strings.HasPrefix(reply, "QUIT: ") })
	there, trash := w.there(), w.trash()
	for uid := range c.marked {
		w.failed[uid], w.asked[uid] = refused, !refused
		if c.quitOK {
			msg, is := there[uid]
			w.sum.removed++
			if !w.gone[uid] && !w.policy.done(msg, is, trash[w.bodies[uid]]) {
				w.Errorf("UID %d was not removed, QUIT answered +OK: there %v, flags %v, in the trash %v", uid, is, msg.Flags, trash[w.bodies[uid]])
			}
		}
	}
	if c.quitOK {
		w.sum.quits++
	}
}

// trash returns the bodies in the trash.
func (w *soakWalk) trash() map[string]bool {
	all := make(map[string]bool)
	for _, name := range []string{"Bin", "Waste"} {
		for _, msg := range w.m.Mailbox("", name).Messages() {
			all[msg.Body] = true
		}
	}
	return all
}

// check compares the mailbox with what both clients have done.
func (w *soakWalk) check() {
	w.mu.Lock()
	defer w.mu.Unlock()
	there, trash := w.there(), w.trash()
	for uid, body := range w.bodies {
		msg, is := there[uid]
		tried := w.asked[uid] || w.failed[uid]
		switch {
		case w.gone[uid] && is:
			w.Errorf("UID %d is there again", uid)
		case w.gone[uid]:
		case is && msg.Body != body:
			w.Errorf("UID %d is another message", uid)
		case !is && !(tried && w.policy.mayGo(trash[body])):
			w.Errorf("UID %d is lost: marked %v, in the trash %v", uid, tried, trash[body])
		case is && msg.Deleted() != w.flagged[uid] && !tried:
			w.Errorf(`UID %d: \Deleted is %v, by the other client %v`, uid, msg.Deleted(), w.flagged[uid])
		}
	}
}

// rebuild gives the messages other UIDs. Flags are then those of another client.
func (w *soakWalk) rebuild() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.inbox.Rebuild()
	for _, m := range []map[uint64]bool{w.gone, w.flagged, w.marked, w.asked, w.failed} {
		clear(m)
	}
	clear(w.bodies)
	for uid, msg := range w.there() {
		w.bodies[uid] = msg.Body
		w.flagged[uid] = msg.Deleted()
	}
}

// last is a session without faults, which brings everything. What an upstream does
// may have to be learned first.
func (w *soakWalk) last() {
	w.login().leave()
	w.login().leave()
	c := w.login()
	for n := 1; n <= len(c.uidOf); n++ {
		c.retr(n)
	}
	c.leave()
	w.count(c)
	if c.lost || len(c.refused) > 0 || len(c.got) != len(c.uidOf) {
		w.Errorf("the last session: lost %v, refused %q", c.lost, c.refused)
	}
	for uid := range c.uidOf {
		delete(w.failed, c.uidOf[uid])
	}
	w.check()
}
