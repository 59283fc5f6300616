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
	// A further one is accepted, and the oldest silent connection of the
	// address (IPv6: /64) with the most of them is closed, so that idle
	// connections do not lock out clients that log in. Silent is one on which
	// the gateway waits for the client. Where fewer than an eighth are silent,
	// those with a login in progress are closed by the same rule: a client that
	// has just connected is silent too.
	Unauthenticated int
}

// Names of limits in the log, as in the configuration.
const (
	limitConnections     = "connections"
	limitPerAddress      = "connections_per_address"
	limitUnauthenticated = "unauthenticated"
	limitThrottle        = "throttle"
)

// errLimit is the cause that cancels the context of an evicted session.
var errLimit = errors.New("closed for a new connection")

// admission counts the sessions of a Server, and decides which are admitted and
// which are evicted. The Server's mutex guards it.
type admission struct {
	limits     Limits
	sessions   map[*session]*entry
	perAddress map[netip.Addr]int
	silent     pool // sessions that have not logged in, whose client must act
	busy       pool // the same, whose login is in progress
	joined     uint64
}

// pool is sessions that have not logged in, by network.
type pool struct {
	n       int
	groups  map[netip.Prefix]*group
	largest groupHeap
}

// entry is a session in admission.
type entry struct {
	addr  netip.Addr
	since uint64        // in which order it has joined its pool
	pool  *pool         // nil after login or eviction
	group *group        // in pool; nil likewise
	place *list.Element // in group.sessions
}

// group is the sessions of a pool from one network.
type group struct {
	network  netip.Prefix
	sessions list.List // of *session, in the order in which they have joined the pool
	first    uint64    // entry.since of the first
	index    int       // in pool.largest
}

func newAdmission(limits Limits) admission {
	return admission{
		limits:     limits,
		sessions:   make(map[*session]*entry),
		perAddress: make(map[netip.Addr]int),
		silent:     pool{groups: make(map[netip.Prefix]*group)},
		busy:       pool{groups: make(map[netip.Prefix]*group)},
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
	if most := a.limits.Unauthenticated; most > 0 && a.silent.n+a.busy.n >= most {
		p := &a.silent
		if p.n == 0 || p.n < most/8 {
			p = &a.busy
		}
		victim = p.largest[0].sessions.Front().Value.(*session)
		a.leavePool(a.sessions[victim])
	}
	e := &entry{addr: addr, since: a.next()}
	a.sessions[s] = e
	a.perAddress[addr]++
	a.join(&a.silent, s, e)
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
	if p := e.pool; p != nil {
		a.leavePool(e)
		a.join(p, s, e)
	}
	return ""
}

// setBusy records whether a login of s is in progress.
func (a *admission) setBusy(s *session, busy bool) {
	e, p := a.sessions[s], &a.silent
	if busy {
		p = &a.busy
	}
	if e.pool != nil && e.pool != p {
		a.leavePool(e)
		e.since = a.next()
		a.join(p, s, e)
	}
}

func (a *admission) next() uint64 {
	a.joined++
	return a.joined
}

// loggedIn records that s no longer waits. It returns false if s was evicted.
func (a *admission) loggedIn(s *session) bool {
	e := a.sessions[s]
	if e.pool == nil {
		return false
	}
	a.leavePool(e)
	return true
}

// remove removes s.
func (a *admission) remove(s *session) {
	e := a.sessions[s]
	a.leavePool(e)
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

// join adds s to a pool.
func (a *admission) join(p *pool, s *session, e *entry) {
	key := network(e.addr)
	g := p.groups[key]
	if g == nil {
		g = &group{network: key, first: e.since}
		p.groups[key] = g
		heap.Push(&p.largest, g)
	}
	e.pool, e.group, e.place = p, g, g.sessions.PushBack(s)
	p.n++
	heap.Fix(&p.largest, g.index)
}

// leavePool undoes join. It does nothing if e is in no pool.
func (a *admission) leavePool(e *entry) {
	p, g := e.pool, e.group
	if p == nil {
		return
	}
	g.sessions.Remove(e.place)
	e.pool, e.group, e.place = nil, nil, nil
	p.n--
	first := g.sessions.Front()
	if first == nil {
		heap.Remove(&p.largest, g.index)
		delete(p.groups, g.network)
		return
	}
	g.first = a.sessions[first.Value.(*session)].since
	heap.Fix(&p.largest, g.index)
}

// groupHeap has the group with the most sessions on top. Among equals, the one
// whose first session has joined first comes first.
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
