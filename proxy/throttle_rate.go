package proxy

import (
	"context"
	"slices"
	"sync"
	"time"

	"popgate/proxy/turn"
)

const (
	// refusalRate is how many logins that are then refused may begin in each
	// rateWindow, for one key.
	refusalRate = 5
	rateWindow  = time.Second
)

// rates limit how often logins begin, by key. The zero value is ready to use. It is
// safe for concurrent use. A key is remembered while logins wait for it, and for
// rateWindow after the last one.
type rates struct {
	mu    sync.Mutex
	byKey map[uint64]*rate
}

// rate is the logins of one key.
type rate struct {
	key     uint64
	held    []*reservation // more than refusalRate only by count
	waiting turn.Queue[uint64, *reservation]
	timer   *time.Timer // runs when the next reservation is over, if one is to be
}

// reservation is the place of one login in a rate.
type reservation struct {
	rate  *rate
	until time.Time // when it is over; zero before the login begins
}

// rateKey is the key of a rate, and the group in which a login takes turns there.
type rateKey struct{ key, group uint64 }

// reserve waits for a place, after a call of waits. The error is the cause of the end
// of ctx.
func (rs *rates) reserve(ctx context.Context, at rateKey, waits func()) (*reservation, error) {
	rs.mu.Lock()
	r := rs.at(at.key)
	res := &reservation{rate: r}
	w := r.waiting.Add(at.group, res)
	rs.serve(r)
	rs.mu.Unlock()
	select {
	case <-w.Turn: // also if ctx has ended
		return res, nil
	default:
	}
	waits()
	select {
	case <-w.Turn:
		return res, nil
	case <-ctx.Done():
	}
	rs.mu.Lock()
	r.waiting.Remove(w)
	rs.mu.Unlock()
	rs.giveBack([]*reservation{res}) // which it has if its turn came at the same moment
	return nil, context.Cause(ctx)
}

// full reports whether a login would have to wait at key.
func (rs *rates) full(key uint64) bool {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r := rs.byKey[key]
	return r != nil && len(r.held) >= refusalRate
}

// at returns the rate of key, with mu held.
func (rs *rates) at(key uint64) *rate {
	if r := rs.byKey[key]; r != nil {
		return r
	}
	if rs.byKey == nil {
		rs.byKey = make(map[uint64]*rate)
	}
	r := &rate{key: key}
	r.timer = time.AfterFunc(time.Hour, func() {
		rs.mu.Lock()
		defer rs.mu.Unlock()
		rs.serve(r)
	})
	rs.byKey[key] = r
	return r
}

// begin records that a login with these reservations begins: they are over after
// rateWindow.
func (rs *rates) begin(all []*reservation) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, res := range all {
		res.until = time.Now().Add(rateWindow)
		rs.serve(res.rate)
	}
}

// count records a login at key that did not wait for its turn.
func (rs *rates) count(key uint64) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r := rs.at(key)
	r.held = append(r.held, &reservation{rate: r, until: time.Now().Add(rateWindow)})
	rs.serve(r)
}

// giveBack ends reservations at once. Those that are over already do not matter.
func (rs *rates) giveBack(all []*reservation) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	for _, res := range all {
		r := res.rate
		r.held = slices.DeleteFunc(r.held, func(other *reservation) bool { return other == res })
		rs.serve(r)
	}
}

// serve gives places that are free to those that wait, with mu held, and forgets r
// if nothing is left of it.
func (rs *rates) serve(r *rate) {
	now := time.Now()
	var next time.Time
	r.held = slices.DeleteFunc(r.held, func(res *reservation) bool {
		over := !res.until.IsZero() && !now.Before(res.until)
		if !over && !res.until.IsZero() && (next.IsZero() || res.until.Before(next)) {
			next = res.until
		}
		return over
	})
	for len(r.held) < refusalRate {
		w := r.waiting.Next()
		if w == nil {
			break
		}
		r.held = append(r.held, w.Value)
		close(w.Turn)
	}
	switch {
	case !next.IsZero():
		r.timer.Reset(next.Sub(now))
	case len(r.held) == 0:
		r.timer.Stop()
		if rs.byKey[r.key] == r {
			delete(rs.byKey, r.key)
		}
	}
}
