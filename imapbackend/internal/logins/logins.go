// Package logins bounds the logins at one upstream that hold a connection to it, so
// that neither guessers nor one eager user exhaust what it accepts. The others wait
// without a connection, and take turns by the address of their client; those who
// have logged in from there before have two of three turns.
package logins

import (
	"container/list"
	"context"
	"fmt"
	"math"
	"net/netip"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"popgate/proxy/turn"
)

const (
	// perMaildrop is how many logins for one maildrop may hold a connection.
	perMaildrop = 4

	// maxKnown bounds the users whose maildrop is known by another key than their
	// name. Beyond it, one is forgotten at random.
	maxKnown = 1 << 14

	// maxPairs bounds the users that are known to have logged in, each with the
	// address. Whose last login is the oldest is forgotten first.
	maxPairs = 1 << 14

	// unknownTurns is of how many turns one is for a login from where the user has
	// not logged in before, while both kinds wait. Guessers have many addresses; a
	// user at a new one must get in too.
	unknownTurns = 3
)

// Who is a user who logs in.
type Who struct {
	// Client is by what those that wait take turns.
	Client netip.Prefix

	// User is the key of the maildrop as far as the name shows it; "" if the name
	// is not known.
	User string
}

// Gate is the logins at one upstream. It is safe for concurrent use.
type Gate struct {
	all    *limit
	asking *limit // exchanges, which may wait long for their clients
	pairs  *lru.Cache[Who, struct{}]

	mu        sync.Mutex
	maildrops map[string]*maildrop
	known     map[string]string // keys of maildrops, by that of the user
}

// maildrop is one to which logins are made.
type maildrop struct {
	*limit
	key   string
	users int // logins that are in or wait, and connections opened ahead
}

// New returns a Gate for max logins with a connection at a time; 0: any number.
func New(max int) *Gate {
	if max == 0 {
		max = math.MaxInt
	}
	pairs, _ := lru.New[Who, struct{}](maxPairs) // fails only without size
	return &Gate{
		all:       &limit{free: max},
		asking:    &limit{free: (max + 1) / 2},
		pairs:     pairs,
		maildrops: make(map[string]*maildrop),
		known:     make(map[string]string),
	}
}

// Enter waits until a login may hold a connection, and returns what ends that. asks
// is that of an exchange in which the client is asked: of these only half as many may
// be in. The error is the cause of the end of ctx.
func (g *Gate) Enter(ctx context.Context, who Who, asks bool) (leave func(), err error) {
	known := g.knows(who)
	if asks {
		if err := g.asking.enter(ctx, who.Client, known); err != nil {
			return nil, err
		}
	}
	if err = g.all.enter(ctx, who.Client, known); err != nil {
		if asks {
			g.asking.leave()
		}
		return nil, fmt.Errorf("no turn among the logins of max_logins: %w", err)
	}
	return g.leave(asks), nil
}

// knows reports whether the user has logged in from that address.
func (g *Gate) knows(who Who) bool {
	_, ok := g.pairs.Get(who)
	return ok
}

func (g *Gate) leave(asks bool) func() {
	return sync.OnceFunc(func() {
		g.all.leave()
		if asks {
			g.asking.leave()
		}
	})
}

// Ahead is a connection opened before its login. It holds the place of one, also
// among those for the maildrop if the name is known.
type Ahead struct {
	g        *Gate
	all      *place
	maildrop *maildrop // nil if the name is not known, else that of dropped
	dropped  *place
}

// Ahead returns nil if a connection opened ahead would take the place of a login.
// Otherwise end is called once, on a goroutine of its own, when a login needs the
// place; end must lead to Leave.
func (g *Gate) Ahead(who Who, end func()) *Ahead {
	a := &Ahead{g: g}
	end = sync.OnceFunc(end)
	if who.User != "" {
		a.maildrop = g.maildrop(who.User)
		if a.dropped = a.maildrop.placeAhead(end); a.dropped == nil {
			g.release(a.maildrop)
			return nil
		}
	}
	if a.all = g.all.placeAhead(end); a.all == nil {
		a.leaveMaildrop()
		return nil
	}
	return a
}

// EnterMaildrop is that of Gate, without waiting: it returns nil where that would be
// needed. A connection opened for the same maildrop has its place already.
func (a *Ahead) EnterMaildrop(who Who) (leave func()) {
	m := a.g.maildrop(who.User)
	if m == a.maildrop && a.dropped.pass() {
		a.g.release(m) // counted twice
	} else if !m.tryEnter() {
		a.g.release(m)
		return nil
	}
	return a.g.leaves(m)
}

// Claim makes the place that of a login, and returns what ends that, as Enter does;
// nil if an exchange, which asks, cannot have it: then Leave is to be called.
func (a *Ahead) Claim(asks bool) (leave func()) {
	if asks && !a.g.asking.tryEnter() {
		return nil
	}
	a.all.pass()
	a.leaveMaildrop()
	return a.g.leave(asks)
}

// Leave gives the places back that have not been passed on.
func (a *Ahead) Leave() {
	if a.all.pass() {
		a.g.all.leave()
	}
	a.leaveMaildrop()
}

func (a *Ahead) leaveMaildrop() {
	if a.maildrop != nil && a.dropped.pass() {
		a.maildrop.leave()
		a.g.release(a.maildrop)
	}
}

// EnterMaildrop waits until few enough other logins for the same maildrop are in, and
// returns what ends that. The error is the cause of the end of ctx.
func (g *Gate) EnterMaildrop(ctx context.Context, who Who) (leave func(), err error) {
	m := g.maildrop(who.User)
	if err := m.enter(ctx, who.Client, g.knows(who)); err != nil {
		g.release(m)
		return nil, fmt.Errorf("no turn among the logins for this maildrop: %w", err)
	}
	return g.leaves(m), nil
}

func (g *Gate) leaves(m *maildrop) func() {
	return sync.OnceFunc(func() {
		m.leave()
		g.release(m)
	})
}

// maildrop returns the maildrop of a user, which counts one more until release.
func (g *Gate) maildrop(user string) *maildrop {
	g.mu.Lock()
	defer g.mu.Unlock()
	key := user
	if k, ok := g.known[user]; ok {
		key = k
	}
	m := g.maildrops[key]
	if m == nil {
		m = &maildrop{limit: &limit{free: perMaildrop}, key: key}
		g.maildrops[key] = m
	}
	m.users++
	return m
}

func (g *Gate) release(m *maildrop) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m.users--; m.users == 0 {
		delete(g.maildrops, m.key)
	}
}

// Identified records that a user has logged in, to the maildrop with that key.
func (g *Gate) Identified(who Who, key string) {
	g.pairs.Add(who, struct{}{})
	g.mu.Lock()
	defer g.mu.Unlock()
	user := who.User
	if user == key {
		delete(g.known, user)
		return
	}
	if _, ok := g.known[user]; !ok && len(g.known) >= maxKnown {
		for other := range g.known {
			delete(g.known, other)
			break
		}
	}
	g.known[user] = key
}

// limit lets a number of holders in at a time. The others wait their turn.
type limit struct {
	mu      sync.Mutex
	free    int
	waiting [2]turn.Queue[netip.Prefix, struct{}] // 1: of those who are known
	turns   int                                   // of those that waited
	ahead   list.List                             // of *place, the oldest first
}

// place is that of a connection opened ahead.
type place struct {
	l    *limit
	end  func()
	item *list.Element // in ahead; nil once end is called
	over bool          // it is the place of somebody else, or of nobody
}

// enter waits until the caller is let in; leave must follow. The error is the cause
// of the end of ctx.
func (l *limit) enter(ctx context.Context, client netip.Prefix, known bool) error {
	l.mu.Lock()
	if l.free > 0 {
		l.free--
		l.mu.Unlock()
		return nil
	}
	queue := &l.waiting[0]
	if known {
		queue = &l.waiting[1]
	}
	w := queue.Add(client, struct{}{})
	if oldest := l.ahead.Front(); oldest != nil {
		p := oldest.Value.(*place)
		l.ahead.Remove(oldest)
		p.item = nil
		go p.end()
	}
	l.mu.Unlock()
	select {
	case <-w.Turn:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	waited := queue.Remove(w)
	l.mu.Unlock()
	if !waited { // its turn came at the same moment
		l.leave()
	}
	return context.Cause(ctx)
}

// tryEnter lets the caller in if that needs no wait, and reports whether it has.
func (l *limit) tryEnter() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free == 0 {
		return false
	}
	l.free--
	return true
}

// placeAhead is tryEnter for a connection opened ahead; nil if that needs a wait.
func (l *limit) placeAhead(end func()) *place {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free == 0 {
		return nil
	}
	l.free--
	p := &place{l: l, end: end}
	p.item = l.ahead.PushBack(p)
	return p
}

// pass makes the place the caller's, and reports whether it was not passed on before.
// end is no longer called.
func (p *place) pass() bool {
	p.l.mu.Lock()
	defer p.l.mu.Unlock()
	if p.over {
		return false
	}
	p.over = true
	if p.item != nil {
		p.l.ahead.Remove(p.item)
		p.item = nil
	}
	return true
}

// leave lets the next one in.
func (l *limit) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w := l.next(); w != nil {
		close(w.Turn)
		return
	}
	l.free++
}

// next returns the next one of those that wait, with mu held; nil if none does.
func (l *limit) next() *turn.Waiter[struct{}] {
	first, second := &l.waiting[1], &l.waiting[0]
	if first.Len() == 0 || second.Len() == 0 {
		l.turns = 0
	} else if l.turns++; l.turns == unknownTurns {
		l.turns = 0
		first, second = second, first
	}
	if w := first.Next(); w != nil {
		return w
	}
	return second.Next()
}
