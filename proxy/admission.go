package proxy

import (
	"container/heap"
	"container/list"
	"errors"
	"net/netip"
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

// admission counts the sessions of a Server, and decides which may enter and
// which has to make room. The Server's mutex guards it.
type admission struct {
	limits     Limits
	sessions   map[*session]*entry
	perAddress map[netip.Addr]int
	waiting    int // sessions that have not logged in
	groups     map[netip.Prefix]*group
	largest    groupHeap
	arrivals   uint64
}

// entry is what admission knows of a session.
type entry struct {
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
	index    int       // in admission.largest
}

func newAdmission(limits Limits) admission {
	return admission{
		limits:     limits,
		sessions:   make(map[*session]*entry),
		perAddress: make(map[netip.Addr]int),
		groups:     make(map[netip.Prefix]*group),
	}
}

// admit lets s in, unless a limit, which it names, keeps it out. victim, where
// not nil, is the session that has to go instead; it stays counted until it
// leaves, but no longer as one that waits to log in.
func (a *admission) admit(s *session, addr netip.Addr, counted bool) (victim *session, limit string) {
	switch {
	case a.limits.Connections > 0 && len(a.sessions) >= a.limits.Connections:
		return nil, limitConnections
	case counted && a.addressFull(addr):
		return nil, limitPerAddress
	}
	if a.limits.Unauthenticated > 0 && a.waiting >= a.limits.Unauthenticated {
		victim = a.largest[0].sessions.Front().Value.(*session)
		a.removeWaiting(a.sessions[victim])
	}
	a.arrivals++
	e := &entry{addr: addr, arrived: a.arrivals}
	a.sessions[s] = e
	a.perAddress[addr]++
	a.addWaiting(s, e)
	return victim, ""
}

// setAddress gives s the address that its PROXY header names, unless a limit keeps
// it out.
func (a *admission) setAddress(s *session, addr netip.Addr) (limit string) {
	e := a.sessions[s]
	if e.addr == addr {
		return ""
	}
	if a.addressFull(addr) {
		return limitPerAddress
	}
	a.releaseAddress(e.addr)
	e.addr = addr
	a.perAddress[addr]++
	if e.group != nil {
		a.removeWaiting(e)
		a.addWaiting(s, e)
	}
	return ""
}

// loggedIn notes that s waits no more. It returns false if s has had to go.
func (a *admission) loggedIn(s *session) bool {
	e := a.sessions[s]
	if e.group == nil {
		return false
	}
	a.removeWaiting(e)
	return true
}

// remove forgets s.
func (a *admission) remove(s *session) {
	e := a.sessions[s]
	a.removeWaiting(e)
	a.releaseAddress(e.addr)
	delete(a.sessions, s)
}

func (a *admission) addressFull(addr netip.Addr) bool {
	return a.limits.PerAddress > 0 && a.perAddress[addr] >= a.limits.PerAddress
}

func (a *admission) releaseAddress(addr netip.Addr) {
	if a.perAddress[addr]--; a.perAddress[addr] == 0 {
		delete(a.perAddress, addr)
	}
}

// wait counts s among those of its network that have not logged in.
func (a *admission) addWaiting(s *session, e *entry) {
	key := network(e.addr)
	g := a.groups[key]
	if g == nil {
		g = &group{network: key, first: e.arrived}
		a.groups[key] = g
		heap.Push(&a.largest, g)
	}
	e.group, e.place = g, g.sessions.PushBack(s)
	a.waiting++
	heap.Fix(&a.largest, g.index)
}

// removeWaiting ends what wait began.
func (a *admission) removeWaiting(e *entry) {
	g := e.group
	if g == nil {
		return
	}
	g.sessions.Remove(e.place)
	e.group, e.place = nil, nil
	a.waiting--
	oldest := g.sessions.Front()
	if oldest == nil {
		heap.Remove(&a.largest, g.index)
		delete(a.groups, g.network)
		return
	}
	g.first = a.sessions[oldest.Value.(*session)].arrived
	heap.Fix(&a.largest, g.index)
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
