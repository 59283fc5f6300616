package proxy

import (
	"container/heap"
	"container/list"
	"errors"
	"net/netip"
)

// Limits limit the number of connections of a Server. Zero means no limit.
type Limits struct {
	// Connections is the maximum in total, PerAddress the maximum from one
	// client address. Further connections are closed without a greeting.
	Connections, PerAddress int

	// Unauthenticated is the maximum of connections that have not logged in.
	// A further one is accepted, and the oldest such connection of the
	// address (IPv6: /64) with the most of them is closed, so that idle
	// connections do not lock out clients that log in.
	Unauthenticated int
}

// Names of limits in the log, as in the configuration.
const (
	limitConnections     = "connections"
	limitPerAddress      = "connections_per_address"
	limitUnauthenticated = "unauthenticated"
)

// errLimit is the cause that cancels the context of an evicted session.
var errLimit = errors.New("closed for a new connection")

// admission counts the sessions of a Server, and decides which are admitted and
// which are evicted. The Server's mutex guards it.
type admission struct {
	limits     Limits
	sessions   map[*session]*entry
	perAddress map[netip.Addr]int
	waiting    int // sessions that wait for login
	groups     map[netip.Prefix]*group
	largest    groupHeap
	arrivals   uint64
}

// entry is a session in admission.
type entry struct {
	addr    netip.Addr
	arrived uint64        // order of arrival
	group   *group        // nil after login or eviction
	place   *list.Element // in group.sessions
}

// group is the waiting sessions from one network.
type group struct {
	network  netip.Prefix
	sessions list.List // of *session, oldest first
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

// admit adds s, unless a limit, whose name it returns, keeps it out. victim, if
// not nil, is evicted for it: it no longer counts as waiting, but as a connection
// until it is removed. counted says whether PerAddress applies yet.
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

// setAddress changes the address of s to the one in its PROXY header, unless a
// limit keeps it out.
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

// loggedIn records that s no longer waits. It returns false if s was evicted.
func (a *admission) loggedIn(s *session) bool {
	e := a.sessions[s]
	if e.group == nil {
		return false
	}
	a.removeWaiting(e)
	return true
}

// remove removes s.
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

// addWaiting adds s to the waiting sessions of its network.
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

// removeWaiting undoes addWaiting. It does nothing if e does not wait.
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

// groupHeap has the group with the most sessions on top. Among equals, the one
// with the oldest session comes first.
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
