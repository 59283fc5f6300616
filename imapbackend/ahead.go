package imapbackend

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sync"

	"popgate/imapbackend/wire"
)

// Bounds of the reading ahead.
const (
	maxFlight      = 16 << 20 // octets of a session on their way
	maxFlightCount = 512      // messages of a session on their way
	minFlight      = 64 << 10 // octets asked for in a walk, however short it is
	sureFlight     = 1 << 20  // the same in a walk of more than sureSteps
	sureSteps      = 2        // that is, of three messages in a row
	walkGap        = 16       // messages that a walk may leave out at a time
	headerGuess    = 2 << 10  // octets of a header
	maxRefusals    = 3        // commands that brought nothing, until it is given up
)

// part is what is read of a message: all of it, or its header.
type part struct {
	uid    uint32
	header bool
}

// ahead asks for messages before the client does. What it has asked for is on
// its way, behind what is being read, and stays in the stream, that is in the
// kernel's buffers and the network, until the client wants it or something
// behind it: only then it is kept in memory, within limit, or given up.
//
// How much it asks for follows what the client has taken in its walk upward. A
// client that turns away has cost the upstream at most three times the octets
// it wanted and, after three messages in a row, sureFlight: with less to begin
// with, a walk over a link with a long delay would be over before it is fast.
type ahead struct {
	m      *maildrop
	limit  int64 // octets kept in memory at most, 0: nothing is asked for
	total  *budget
	flight map[part]int    // on their way: the number of their command
	asked  map[int]string  // the commands in flight
	kept   map[part][]byte // here, and not taken
	coming int64           // octets of flight, as announced
	held   int64           // octets of kept
	taken  int64           // of the budget
	walks  [2]walk         // of whole messages, of headers

	expected []uint32 // what the client has asked for already, behind what it gets now
	refusals int
	late     []byte // a body whose UID has not been told yet
	lateIs   part
}

// walk is a client's way upward through the maildrop.
type walk struct {
	steps  int // taken without turning away
	last   int // index of the last message
	next   int // index of the first message not asked for
	octets int64
}

func newAhead(m *maildrop, total *budget) *ahead {
	a := &ahead{
		m:      m,
		limit:  m.opts.ReadAhead,
		total:  total,
		flight: make(map[part]int),
		asked:  make(map[int]string),
		kept:   make(map[part][]byte),
	}
	for i := range a.walks {
		a.walks[i].last = -walkGap - 1
	}
	return a
}

// plan takes note that the client reads p and asks for what it will read next.
// The commands go out with the next one that is waited for.
func (a *ahead) plan(p part) {
	if a.limit <= 0 || a.refusals >= maxRefusals {
		return
	}
	i, _ := a.m.index(p.uid)
	w := &a.walks[kindOf(p)]
	if step := i - w.last; step <= 0 || step > walkGap {
		*w = walk{}
	} else {
		w.steps++
	}
	w.last, w.next = i, max(w.next, i+1)
	w.octets += a.size(p)
	if uids := a.wanted(p.header); len(uids) > 0 {
		a.ask(uids, p.header)
		return
	}
	if w.steps > 0 {
		a.stride(w, p.header)
	}
}

func kindOf(p part) int {
	if p.header {
		return 1
	}
	return 0
}

// size is the announced size of a part, or a guess.
func (a *ahead) size(p part) int64 {
	octets := a.m.octets(p.uid)
	if p.header {
		return min(octets, headerGuess)
	}
	return octets
}

// wanted returns what the client is known to want next, as far as it is not on
// its way and fits: in memory, unless it comes in the order in which it is
// wanted.
func (a *ahead) wanted(header bool) []uint32 {
	var uids []uint32
	var octets int64
	limit := a.limit
	if slices.IsSorted(a.expected) && a.m.opts.Seen != SeenOnRetr {
		limit = maxFlight
	}
	for _, uid := range a.expected {
		p := part{uid, header}
		if a.has(p) {
			continue
		}
		octets += a.size(p)
		if len(uids) >= maxFlightCount || a.coming+a.held+octets > limit {
			break
		}
		uids = append(uids, uid)
	}
	a.expected = nil
	slices.Sort(uids)
	return slices.Compact(uids)
}

// stride asks for the next messages of a walk, when half of those asked for
// before have been taken.
func (a *ahead) stride(w *walk, header bool) {
	count, octets := w.window()
	if a.m.opts.Seen == SeenOnRetr {
		octets = min(octets, a.limit) // each message is followed by a STORE
	}
	if len(a.flight) > count/2 || a.coming > octets/2 {
		return
	}
	var uids []uint32
	room := octets - a.coming
	for i := w.next; i < len(a.m.messages) && len(uids) < count-len(a.flight); i++ {
		p := part{a.m.messages[i].UID, header}
		if a.has(p) || a.has(part{p.uid, false}) {
			break
		}
		if room -= a.size(p); room < 0 {
			break
		}
		uids = append(uids, p.uid)
		w.next = i + 1
	}
	a.ask(uids, header)
}

// window is how many messages and octets of the walk may be on their way.
func (w *walk) window() (count int, octets int64) {
	if w.steps < sureSteps {
		return 1 << w.steps, max(w.octets, minFlight)
	}
	return maxFlightCount, min(sureFlight+2*w.octets, maxFlight)
}

func (a *ahead) has(p part) bool {
	_, coming := a.flight[p]
	_, here := a.kept[p]
	return coming || here
}

// ask starts a command for uids, ascending, as far as the budget reaches.
func (a *ahead) ask(uids []uint32, header bool) {
	for n, uid := range uids {
		if !a.take(a.size(part{uid, header})) {
			uids = uids[:n]
			break
		}
	}
	items := "BODY.PEEK[]"
	if header {
		items = "BODY.PEEK[HEADER]"
	}
	for _, set := range a.m.runs(uids) {
		cmd := fmt.Sprintf("UID FETCH %s (UID %s)", set.text, items)
		if a.m.u.conn.Start(cmd) != nil {
			return // the loss shows where something is waited for
		}
		number := a.m.u.conn.Started()
		a.asked[number] = cmd
		for _, uid := range set.uids {
			p := part{uid, header}
			a.flight[p] = number
			a.coming += a.size(p)
		}
	}
}

// take takes octets from the budget.
func (a *ahead) take(octets int64) bool {
	if !a.total.take(octets) {
		return false
	}
	a.taken += octets
	return true
}

// settleBudget makes what is taken what is on its way or kept: a body may be
// larger than announced.
func (a *ahead) settleBudget() {
	a.total.give(a.taken - a.coming - a.held)
	a.taken = a.coming + a.held
}

// landed takes p out of what is on its way.
func (a *ahead) landed(p part) {
	if _, ok := a.flight[p]; ok {
		delete(a.flight, p)
		a.coming -= a.size(p)
		a.settleBudget()
	}
}

// absorb takes an event that is not what is waited for: it keeps the bodies
// asked for ahead. partOf has told which part a body is.
func (a *ahead) absorb(ctx context.Context, ev wire.Event) error {
	switch ev.Kind {
	case wire.Body:
		p, ok := partOf(ev)
		if !ok {
			return nil
		}
		if _, asked := a.flight[p]; !asked && ev.UID != 0 {
			return nil
		}
		return a.keep(p, ev)
	case wire.Fetch:
		if a.late != nil && ev.UID != 0 {
			p := part{ev.UID, a.lateIs.header}
			if _, asked := a.flight[p]; asked {
				a.landed(p)
				a.store(p, a.late)
			}
		}
		a.late = nil
	case wire.Done:
		a.finished(ctx, ev.Command)
	}
	return nil
}

// partOf returns the part that a body event brings; its UID may be missing.
func partOf(ev wire.Event) (part, bool) {
	whole, header := ev.Section == "", ev.Section == "HEADER"
	return part{ev.UID, header}, (whole || header) && ev.Origin < 0
}

// keep reads a body into memory, or leaves it to be skipped where it does not
// fit, or says nothing: then the client's own command will tell why.
func (a *ahead) keep(p part, ev wire.Event) error {
	a.landed(p)
	if a.held+ev.Octets > a.limit {
		a.evict()
	}
	if ev.Nil || ev.Octets == 0 || a.held+ev.Octets > a.limit {
		return nil
	}
	buf := bytes.NewBuffer(make([]byte, 0, ev.Octets))
	if _, err := a.m.u.conn.BodyTo(buf); err != nil {
		return err
	}
	if ev.UID == 0 {
		a.late, a.lateIs = buf.Bytes(), p
		return nil
	}
	a.store(p, buf.Bytes())
	return nil
}

func (a *ahead) store(p part, data []byte) {
	a.kept[p] = data
	a.held += int64(len(data))
	a.settleBudget()
}

// get returns a kept part; with remove it is the caller's from then on.
func (a *ahead) get(p part, remove bool) ([]byte, bool) {
	data, ok := a.kept[p]
	if ok && remove {
		delete(a.kept, p)
		a.held -= int64(len(data))
		a.settleBudget()
	}
	return data, ok
}

// finished forgets what the command was to bring and has not. A command that
// has brought none of it counts: some servers refuse all for the sake of one.
func (a *ahead) finished(ctx context.Context, number int) {
	cmd, ours := a.asked[number]
	if !ours {
		return
	}
	delete(a.asked, number)
	status := a.m.u.conn.ResultOf(number)
	a.m.u.trace(ctx, cmd, status, nil)
	missing := 0
	for p, n := range a.flight {
		if n == number {
			missing++
			a.landed(p)
		}
	}
	if missing > 0 && !status.OK() {
		a.refusals++
	}
}

// settle reads what is on its way, so that another command can be sent. What
// the client has passed makes room first.
func (a *ahead) settle(ctx context.Context) error {
	a.evict()
	for a.m.u.conn.Pending() {
		ev, err := a.m.u.conn.Next()
		if err == nil {
			err = a.absorb(ctx, ev)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// evict drops what is kept of messages that the client has passed.
func (a *ahead) evict() {
	for p := range a.kept {
		if i, _ := a.m.index(p.uid); i <= a.walks[kindOf(p)].last {
			a.get(p, true)
		}
	}
}

// restart forgets what was on its way on a connection that is lost. What is
// here stays, and the client's last step is taken as if it were still to come.
func (a *ahead) restart() {
	clear(a.flight)
	clear(a.asked)
	a.coming, a.late = 0, nil
	a.settleBudget()
	for i := range a.walks {
		w := &a.walks[i]
		w.last--
		w.next = w.last + 1
	}
}

// close gives everything back.
func (a *ahead) close() {
	clear(a.kept)
	clear(a.flight)
	a.coming, a.held = 0, 0
	a.settleBudget()
}

// budget is a number of octets that sessions share. It is safe for concurrent
// use.
type budget struct {
	mu   sync.Mutex
	left int64
}

func (b *budget) take(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > b.left {
		return false
	}
	b.left -= n
	return true
}

// give gives n octets back, or takes -n that are in use already.
func (b *budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += n
}
