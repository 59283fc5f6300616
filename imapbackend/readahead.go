package imapbackend

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"time"

	"popgate/imapbackend/internal/budget"
	"popgate/imapbackend/internal/speed"
	"popgate/imapbackend/wire"
)

// Bounds of the read-ahead.
const (
	maxFlight      = 16 << 20        // octets of a session on their way
	maxFlightCount = 512             // messages of a session on their way
	minFlight      = 64 << 10        // octets to ask for in any walk
	longFlight     = 1 << 20         // octets to ask for in a walk of longSteps
	longSteps      = 2               // that is, of three messages in a row
	walkGap        = 16              // messages that a walk may skip in one step
	headerGuess    = 2 << 10         // octets of a header
	ownShare       = 64 << 10        // octets that others cannot take from a session
	maxRefusals    = 3               // commands that brought nothing, before read-ahead ends
	aheadTime      = 3 * time.Second // in which what is on its way comes, where that can be said
)

// part is what is read of a message: all of it, or its header.
type part struct {
	uid    uint64
	header bool
}

// readAhead asks for messages before the client does. What it has asked for
// follows in the stream what is being read, and stays there, that is in the
// kernel's buffers and the network, until the client wants it or something
// after it. Only then is it kept in memory, within limit, or discarded.
//
// How much it asks for grows with what the client has read in its walk. A walk
// that ends has cost the upstream at most three times the octets that the
// client wanted and, after three messages in a row, longFlight: with less, a
// walk over a link with a long delay would be over before it is fast. But it
// asks for no more than comes within aheadTime: all of it has to come before
// anything else can, such as the answers to UPDATE (requirement I-FETCH-8).
type readAhead struct {
	m          *maildrop
	limit      int64           // octets kept in memory, at most; 0: no read-ahead
	account    *budget.Account // has what is on its way or kept
	flight     map[part]int    // on their way: the number of their command
	asked      map[int]string  // the commands in flight
	kept       map[part][]byte // in memory, and not read by the client yet
	coming     int64           // octets of flight, as announced
	keptOctets int64           // octets of kept
	unnamed    int             // bodies without a UID that the current command has brought
	walks      [2]walk         // of whole messages, of headers
	speed      speed.Meter     // of the parts, by their announced size

	expected    []uint64 // what the client has asked for after the current message
	jumped      bool     // the current message is not the one after the last
	refusals    int
	pending     []byte // a body whose UID, or size to compare, has not come yet
	pendingPart part
	awaited     part // what the client waits for
}

// walk is a run of messages that a client reads in ascending order.
type walk struct {
	steps  int // from one message to the next, so far
	last   int // index of the last message
	next   int // index of the first message not asked for
	octets int64
}

func newReadAhead(m *maildrop, total *budget.Budget) *readAhead {
	a := &readAhead{
		m:       m,
		limit:   m.opts.ReadAhead,
		account: total.Account(ownShare),
		flight:  make(map[part]int),
		asked:   make(map[int]string),
		kept:    make(map[part][]byte),
	}
	if m.opts.ReadAheadTotal <= 0 {
		a.limit = 0
	}
	for i := range a.walks {
		a.walks[i].last = -walkGap - 1
	}
	return a
}

// advance records that the client reads p and asks for what it may read next.
// The commands are sent with the next one that is waited for.
func (a *readAhead) advance(p part) {
	if a.limit <= 0 || a.refusals >= maxRefusals {
		return
	}
	i, _ := a.m.index(p.uid)
	w := &a.walks[kindOf(p)]
	a.jumped = i != w.last+1
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
		a.askNext(w, p.header)
	}
}

func kindOf(p part) int {
	if p.header {
		return 1
	}
	return 0
}

// size is the announced size of a part in octets, or a guess.
func (a *readAhead) size(p part) int64 {
	octets := a.m.octets(p.uid)
	if p.header {
		return min(octets, headerGuess)
	}
	return octets
}

// wanted returns the expected messages that are neither kept nor on their way,
// as many as fit: into memory, unless they come in the order in which the
// client wants them.
func (a *readAhead) wanted(header bool) []uint64 {
	var uids []uint64
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
		if len(uids) >= maxFlightCount || a.coming+a.keptOctets+octets > limit {
			break
		}
		uids = append(uids, uid)
	}
	a.expected = nil
	slices.Sort(uids)
	return slices.Compact(uids)
}

// askNext asks for the next messages of a walk, when half of those on their way
// have been read.
func (a *readAhead) askNext(w *walk, header bool) {
	count, octets := w.window()
	if most, known := a.speed.Within(aheadTime); known {
		octets = min(octets, most)
	}
	ahead := a.coming
	if a.m.opts.Seen == SeenOnRetr {
		// Each message is followed by a STORE, before which all others
		// are taken into memory.
		octets, ahead = min(octets, a.limit), ahead+a.keptOctets
	}
	octets = min(octets, ahead+a.account.Left())
	if len(a.flight) > count/2 || ahead > octets/2 {
		return
	}
	var uids []uint64
	room := octets - ahead
	for i := w.next; i < len(a.m.messages) && len(uids) < count-len(a.flight); i++ {
		p := part{a.m.messages[i].UID, header}
		if a.has(p) || a.has(part{p.uid, false}) {
			break
		}
		if room -= a.size(p); room < 0 {
			break
		}
		uids = append(uids, p.uid)
	}
	w.next += a.ask(uids, header)
}

// window returns how many messages and octets of the walk may be on their way.
func (w *walk) window() (count int, octets int64) {
	if w.steps < longSteps {
		return 1 << w.steps, max(w.octets, minFlight)
	}
	return maxFlightCount, min(longFlight+2*w.octets, maxFlight)
}

func (a *readAhead) has(p part) bool {
	_, coming := a.flight[p]
	_, here := a.kept[p]
	return coming || here
}

// isBefore reports whether anything on its way comes before the message uid, for
// which the command with a number asks.
func (a *readAhead) isBefore(number int, uid uint64) bool {
	for p, n := range a.flight {
		if n < number || n == number && p.uid < uid {
			return true
		}
	}
	return false
}

// ask sends commands for uids, ascending, as far as the session's share and the
// budget allow, and returns for how many.
func (a *readAhead) ask(uids []uint64, header bool) int {
	for n, uid := range uids {
		if !a.account.Reserve(a.size(part{uid, header})) {
			uids = uids[:n]
			break
		}
	}
	items := "BODY.PEEK[]"
	if header {
		items = "BODY.PEEK[HEADER]"
	}
	for _, set := range a.m.runs(uids) {
		cmd := fmt.Sprintf("UID FETCH %s (UID %s%s)", set.Text, a.m.sizeItem(), items)
		if a.m.u.Wire.Start(cmd) != nil {
			break // the loss shows at the next read
		}
		number := a.m.u.Wire.Started()
		a.asked[number] = cmd
		for _, uid := range set.UIDs {
			p := part{uid, header}
			a.flight[p] = number
			a.coming += a.size(p)
		}
	}
	return len(uids)
}

// adjustBudget makes the reserved octets those that are on their way or kept: a
// body may be larger than announced.
func (a *readAhead) adjustBudget() { a.account.Set(a.coming + a.keptOctets) }

// arrives records that p comes, and is no longer on its way.
func (a *readAhead) arrives(p part) {
	a.speed.Begin(a.size(p))
	a.forget(p)
}

// forget records that p is not on its way.
func (a *readAhead) forget(p part) {
	if _, ok := a.flight[p]; ok {
		delete(a.flight, p)
		a.coming -= a.size(p)
		a.unnamed = max(a.unnamed-1, 0)
		a.adjustBudget()
	}
}

// allow allows the upstream a body whose UID may follow it. There may be as many as
// messages are on their way, and that of the current one.
func (a *readAhead) allow(ev wire.Event) {
	if a.unnamed <= len(a.flight) {
		a.unnamed++
		a.m.u.Wire.Grant(min(ev.Octets, max(a.m.octets(a.awaited.uid), maxFlight)))
	}
}

// absorb handles an event that nobody waits for: it keeps bodies of the
// read-ahead.
func (a *readAhead) absorb(ctx context.Context, ev wire.Event) error {
	switch ev.Kind {
	case wire.Body:
		if ev.UID == 0 {
			a.allow(ev)
		}
		p, ok := partOf(ev)
		if !ok {
			return nil
		}
		if _, asked := a.flight[p]; !asked && ev.UID != 0 {
			return nil
		}
		return a.receive(p, ev)
	case wire.Fetch:
		a.m.compare(ev)
		if a.pending != nil {
			p := part{ev.UID, a.pendingPart.header}
			if p.uid == 0 {
				p.uid = a.m.uidAt(ev.Seq)
			}
			_, asked := a.flight[p]
			if known := p.uid != 0 && p == a.pendingPart; known { // it has arrived
				a.put(p, a.pending)
			} else if asked || p == a.awaited {
				a.arrives(p)
				a.put(p, a.pending)
			}
		}
		a.pending = nil
	case wire.Done:
		a.unnamed = 0
		a.finished(ctx, ev.Command)
		if !a.m.u.Wire.Pending() {
			a.speed.Pause()
		}
	}
	return nil
}

// partOf returns the part that a body event brings; its UID may be 0. ok is
// false for other parts of a message.
func partOf(ev wire.Event) (p part, ok bool) {
	whole, header := ev.Section == "", ev.Section == "HEADER"
	return part{ev.UID, header}, (whole || header) && ev.Origin < 0
}

// receive reads a body into memory. It skips one that does not fit, or is
// empty: then the client's own command will show why.
func (a *readAhead) receive(p part, ev wire.Event) error {
	if _, asked := a.flight[p]; asked {
		a.m.u.Wire.Grant(min(ev.Octets, maxFlight))
	}
	a.arrives(p)
	if a.keptOctets+ev.Octets > a.limit {
		a.evict()
	}
	if ev.Nil || ev.Octets == 0 || a.keptOctets+ev.Octets > a.limit {
		return nil
	}
	buf := bytes.NewBuffer(make([]byte, 0, ev.Octets))
	if _, err := a.m.u.Wire.BodyTo(buf); err != nil {
		return err
	}
	if ev.UID == 0 || a.m.compares() {
		a.pending, a.pendingPart = buf.Bytes(), p
		return nil
	}
	a.put(p, buf.Bytes())
	return nil
}

func (a *readAhead) put(p part, data []byte) {
	a.get(p, true) // if it has come twice
	a.kept[p] = data
	a.keptOctets += int64(len(data))
	a.adjustBudget()
}

// get returns a kept part. With remove, the part is no longer kept.
func (a *readAhead) get(p part, remove bool) ([]byte, bool) {
	data, ok := a.kept[p]
	if ok && remove {
		delete(a.kept, p)
		a.keptOctets -= int64(len(data))
		a.adjustBudget()
	}
	return data, ok
}

// finished forgets what a command should have brought and has not. It counts
// refused commands: some servers refuse all messages because of one.
func (a *readAhead) finished(ctx context.Context, number int) {
	cmd, ok := a.asked[number]
	if !ok {
		return
	}
	delete(a.asked, number)
	status := a.m.u.Wire.ResultOf(number)
	a.m.u.Trace(ctx, cmd, status, nil)
	missing := 0
	for p, n := range a.flight {
		if n == number {
			missing++
			a.forget(p)
		}
	}
	if missing > 0 && !status.OK() {
		a.refusals++
	}
}

// drain reads what is on its way, so that another command can be sent. To make
// room, it first evicts what the client has passed.
func (a *readAhead) drain(ctx context.Context) error {
	a.evict()
	for a.m.u.Wire.Pending() {
		ev, err := a.m.u.Wire.Next()
		if err == nil {
			err = a.absorb(ctx, ev)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// evict drops kept parts that the client has passed.
func (a *readAhead) evict() {
	for p := range a.kept {
		if i, _ := a.m.index(p.uid); i <= a.walks[kindOf(p)].last {
			a.get(p, true)
		}
	}
}

// restart forgets what was on its way on a lost connection. Kept parts stay,
// and the client's last step is undone, as the client will repeat it.
func (a *readAhead) restart() {
	clear(a.flight)
	clear(a.asked)
	a.coming, a.pending, a.unnamed = 0, nil, 0
	a.speed.Pause()
	a.adjustBudget()
	for i := range a.walks {
		w := &a.walks[i]
		w.last--
		w.next = w.last + 1
	}
}

// close drops everything and returns it to the budget.
func (a *readAhead) close() {
	clear(a.kept)
	clear(a.flight)
	a.coming, a.keptOctets = 0, 0
	a.adjustBudget()
}
