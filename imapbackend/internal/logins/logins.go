// Package logins bounds the logins at one upstream that hold a connection to it, so
// that neither guessers nor one eager user exhaust what it accepts. The others wait
// without a connection, and take turns by the address of their client.
package logins

import (
	"container/list"
	"context"
	"fmt"
	"math"
	"net/netip"
	"sync"

	"popgate/proxy/turn"
)

const (
	// perMaildrop is how many logins for one maildrop may hold a connection.
	perMaildrop = 4

	// maxKnown bounds the users whose maildrop is known by another key than their
	// name. Beyond it, one is forgotten at random.
	maxKnown = 1 << 14
)

// Gate is the logins at one upstream. It is safe for concurrent use.
type Gate struct {
	all    *limit
	asking *limit // exchanges, which may wait long for their clients

	mu        sync.Mutex
	maildrops map[string]*maildrop
	known     map[string]string // keys of maildrops, by that of the user
}

// maildrop is one to which logins are made.
type maildrop struct {
	*limit
	users int // logins that are in or wait
}

// New returns a Gate for max logins with a connection at a time; 0: any number.
func New(max int) *Gate {
	if max == 0 {
		max = math.MaxInt
	}
	return &Gate{
		all:       &limit{free: max},
		asking:    &limit{free: (max + 1) / 2},
		maildrops: make(map[string]*maildrop),
		known:     make(map[string]string),
	}
}

// Enter waits until a login may hold a connection, and returns what ends that. asks
// is that of an exchange in which the client is asked: of these only half as many may
// be in. client is whose turn it is among those that wait. The error is the cause of
// the end of ctx.
func (g *Gate) Enter(ctx context.Context, client netip.Prefix, asks bool) (leave func(), err error) {
	if asks {
		if err := g.asking.enter(ctx, client); err != nil {
			return nil, err
		}
	}
	if err = g.all.enter(ctx, client); err != nil {
		if asks {
			g.asking.leave()
		}
		return nil, fmt.Errorf("no turn among the logins of max_logins: %w", err)
	}
	return g.leave(asks), nil
}

func (g *Gate) leave(asks bool) func() {
	return sync.OnceFunc(func() {
		g.all.leave()
		if asks {
			g.asking.leave()
		}
	})
}

// Ahead is a connection opened before its login. It holds the place of one.
type Ahead struct {
	g    *Gate
	end  func()
	item *list.Element // nil once it is claimed or to be ended
}

// Ahead returns nil if a connection opened ahead would take the place of a login.
// Otherwise end is called, on a goroutine of its own, when a login needs the place;
// end must lead to Leave.
func (g *Gate) Ahead(end func()) *Ahead {
	g.all.mu.Lock()
	defer g.all.mu.Unlock()
	if g.all.free == 0 {
		return nil
	}
	g.all.free--
	a := &Ahead{g: g, end: end}
	a.item = g.all.ahead.PushBack(a)
	return a
}

// Claim makes the place that of a login, and returns what ends that, as Enter does;
// nil if an exchange, which asks, cannot have it: then Leave is to be called.
func (a *Ahead) Claim(asks bool) (leave func()) {
	if asks && !a.g.asking.tryEnter() {
		return nil
	}
	a.keep()
	return a.g.leave(asks)
}

// Leave gives the place back, unless Claim has passed it on.
func (a *Ahead) Leave() {
	a.keep()
	a.g.all.leave()
}

// keep has end no longer be called.
func (a *Ahead) keep() {
	a.g.all.mu.Lock()
	defer a.g.all.mu.Unlock()
	if a.item != nil {
		a.g.all.ahead.Remove(a.item)
		a.item = nil
	}
}

// EnterMaildrop waits until few enough other logins for the same maildrop are in.
// user is the key of the maildrop as far as the name shows it. wait is false to
// return nil where it would have to wait. The error is the cause of the end of ctx.
func (g *Gate) EnterMaildrop(ctx context.Context, user string, client netip.Prefix, wait bool) (leave func(), err error) {
	g.mu.Lock()
	key := user
	if k, ok := g.known[user]; ok {
		key = k
	}
	m := g.maildrops[key]
	if m == nil {
		m = &maildrop{limit: &limit{free: perMaildrop}}
		g.maildrops[key] = m
	}
	m.users++
	g.mu.Unlock()
	if !wait {
		if !m.tryEnter() {
			g.leaveMaildrop(key, m)
			return nil, nil
		}
	} else if err := m.enter(ctx, client); err != nil {
		g.leaveMaildrop(key, m)
		return nil, fmt.Errorf("no turn among the logins for this maildrop: %w", err)
	}
	return sync.OnceFunc(func() {
		m.leave()
		g.leaveMaildrop(key, m)
	}), nil
}

func (g *Gate) leaveMaildrop(key string, m *maildrop) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if m.users--; m.users == 0 {
		delete(g.maildrops, key)
	}
}

// Identified records that the maildrop of a user has been found to have that key.
func (g *Gate) Identified(user, key string) {
	g.mu.Lock()
	defer g.mu.Unlock()
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
	waiting turn.Queue[netip.Prefix, struct{}]
	ahead   list.List // of *Ahead, the oldest first
}

// enter waits until the caller is let in; leave must follow. The error is the cause
// of the end of ctx.
func (l *limit) enter(ctx context.Context, client netip.Prefix) error {
	l.mu.Lock()
	if l.free > 0 {
		l.free--
		l.mu.Unlock()
		return nil
	}
	w := l.waiting.Add(client, struct{}{})
	if oldest := l.ahead.Front(); oldest != nil {
		a := oldest.Value.(*Ahead)
		l.ahead.Remove(oldest)
		a.item = nil
		go a.end()
	}
	l.mu.Unlock()
	select {
	case <-w.Turn:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	waited := l.waiting.Remove(w)
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

// leave lets the next one in.
func (l *limit) leave() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w := l.waiting.Next(); w != nil {
		close(w.Turn)
		return
	}
	l.free++
}
