package proxy

import (
	"container/heap"
	"container/list"
	"errors"
	"net/netip"
	"sync"
	"time"
)

// Limits bound the connections of a Server. Zero means no limit.
type Limits struct {
	// Connections is how many there are in all, PerAddress how many from one
	// address of a client. What is beyond is closed without a greeting.
	Connections, PerAddress int

	// Unauthenticated is how many there are that have not logged in. Beyond
	// it, the oldest such connection of the address (IPv6: /64) that has most
	// of them is closed for the new one, so that silent connections do not
	// lock out clients that log in.
	Unauthenticated int
}

// Names of limits, as they are logged.
const (
	limitConnections     = "connections"
	limitPerAddress      = "connections_per_address"
	limitUnauthenticated = "unauthenticated"
)

// errLimit is why the context of a session ends that had to make room.
var errLimit = errors.New("closed for a new connection")

// door counts the sessions of a Server, and says who has to stay out or go.
// The Server's mutex guards it.
type door struct {
	limits     Limits
	inside     map[*session]*visit
	perAddress map[netip.Addr]int
	waiting    int // sessions that have not logged in
	groups     map[netip.Prefix]*group
	largest    groupHeap
	arrivals   uint64
}

// visit is what the door knows of a session.
type visit struct {
	addr    netip.Addr
	arrived uint64        // order of arrival
	group   *group        // nil after login
	place   *list.Element // in group.sessions
}

// group is the sessions from one network that have not logged in.
type group struct {
	network  netip.Prefix
	sessions list.List // of *session, the oldest first
	first    uint64    // arrival of the oldest
	index    int       // in door.largest
}

func newDoor(limits Limits) door {
	return door{
		limits:     limits,
		inside:     make(map[*session]*visit),
		perAddress: make(map[netip.Addr]int),
		groups:     make(map[netip.Prefix]*group),
	}
}

// enter lets s in, unless a limit, which it names, keeps it out. victim, where
// not nil, is the session that has to go instead; it stays counted until it
// leaves, but no longer as one that waits to log in.
func (d *door) enter(s *session, addr netip.Addr, counted bool) (victim *session, limit string) {
	switch {
	case d.limits.Connections > 0 && len(d.inside) >= d.limits.Connections:
		return nil, limitConnections
	case counted && d.addressFull(addr):
		return nil, limitPerAddress
	}
	if d.limits.Unauthenticated > 0 && d.waiting >= d.limits.Unauthenticated {
		victim = d.largest[0].sessions.Front().Value.(*session)
		d.stopWaiting(d.inside[victim])
	}
	d.arrivals++
	v := &visit{addr: addr, arrived: d.arrivals}
	d.inside[s] = v
	d.perAddress[addr]++
	d.wait(s, v)
	return victim, ""
}

// move gives s the address that its PROXY header names, unless a limit keeps
// it out.
func (d *door) move(s *session, addr netip.Addr) (limit string) {
	v := d.inside[s]
	if v.addr == addr {
		return ""
	}
	if d.addressFull(addr) {
		return limitPerAddress
	}
	d.leaveAddress(v.addr)
	v.addr = addr
	d.perAddress[addr]++
	if v.group != nil {
		d.stopWaiting(v)
		d.wait(s, v)
	}
	return ""
}

// loggedIn notes that s waits no more. It returns false if s has had to go.
func (d *door) loggedIn(s *session) bool {
	v := d.inside[s]
	if v.group == nil {
		return false
	}
	d.stopWaiting(v)
	return true
}

// leave forgets s.
func (d *door) leave(s *session) {
	v := d.inside[s]
	d.stopWaiting(v)
	d.leaveAddress(v.addr)
	delete(d.inside, s)
}

func (d *door) addressFull(addr netip.Addr) bool {
	return d.limits.PerAddress > 0 && d.perAddress[addr] >= d.limits.PerAddress
}

func (d *door) leaveAddress(addr netip.Addr) {
	if d.perAddress[addr]--; d.perAddress[addr] == 0 {
		delete(d.perAddress, addr)
	}
}

// wait counts s among those of its network that have not logged in.
func (d *door) wait(s *session, v *visit) {
	key := network(v.addr)
	g := d.groups[key]
	if g == nil {
		g = &group{network: key, first: v.arrived}
		d.groups[key] = g
		heap.Push(&d.largest, g)
	}
	v.group, v.place = g, g.sessions.PushBack(s)
	d.waiting++
	heap.Fix(&d.largest, g.index)
}

// stopWaiting ends what wait began.
func (d *door) stopWaiting(v *visit) {
	g := v.group
	if g == nil {
		return
	}
	g.sessions.Remove(v.place)
	v.group, v.place = nil, nil
	d.waiting--
	oldest := g.sessions.Front()
	if oldest == nil {
		heap.Remove(&d.largest, g.index)
		delete(d.groups, g.network)
		return
	}
	g.first = d.inside[oldest.Value.(*session)].arrived
	heap.Fix(&d.largest, g.index)
}

// groupHeap has the group with most sessions on top; of several, the one whose
// oldest session came first.
type groupHeap []*group

func (h groupHeap) Len() int { return len(h) }

func (h groupHeap) Less(i, j int) bool {
	if a, b := h[i].sessions.Len(), h[j].sessions.Len(); a != b {
		return a > b
	}
	return h[i].first < h[j].first
}

func (h groupHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push implements heap.Interface.
func (h *groupHeap) Push(x any) {
	g := x.(*group)
	g.index = len(*h)
	*h = append(*h, g)
}

// Pop implements heap.Interface.
func (h *groupHeap) Pop() any {
	last := len(*h) - 1
	g := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return g
}

// rationInterval is how often the log tells of one kind of refusal.
const rationInterval = time.Second

// ration lets one log record through in each rationInterval, so that a flood
// of connections is not one of records.
type ration struct {
	mu       sync.Mutex
	next     time.Time
	withheld int
}

// take reports whether a record may be written now, and how many have been
// withheld since the last.
func (r *ration) take(now time.Time) (withheld int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Before(r.next) {
		r.withheld++
		return 0, false
	}
	withheld, r.withheld = r.withheld, 0
	r.next = now.Add(rationInterval)
	return withheld, true
}
