package main

import (
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// sessionTimes are those of one short session.
type sessionTimes struct {
	pass  time.Duration // from connect to the answer of PASS
	total time.Duration // from connect to the answer of QUIT
}

func (e *env) session(b box, uidl bool) (sessionTimes, error) {
	start := time.Now()
	p, err := e.login(b.name, 4<<10)
	if err != nil {
		return sessionTimes{}, err
	}
	pass := time.Since(start)
	err = p.stat(b.n)
	if err == nil && uidl {
		err = p.uidl(b.n)
	}
	if err != nil {
		return sessionTimes{}, errors.Join(fmt.Errorf("%s: %w", b.name, err), p.close())
	}
	err = p.quit()
	return sessionTimes{pass, time.Since(start)}, err
}

// sessions measures short sessions, n at a time over a fleet of accounts, for
// e.Duration. Each account has had a session before.
func (e *env) sessions(n int, account func(int) box, uidl bool) error {
	var next atomic.Int64
	parallel(8, func(int) {
		for {
			i := int(next.Add(1)) - 1
			if i >= e.Users || e.failedTooOften() {
				return
			}
			if _, err := e.session(account(i), uidl); err != nil {
				e.fail(fmt.Errorf("first session: %w", err))
			}
		}
	})
	next.Store(0)
	measured := make([][]sessionTimes, n)
	var elapsed time.Duration
	server, upstream, _ := e.cost(func() error {
		start := time.Now()
		parallel(n, func(w int) {
			for time.Since(start) < e.Duration && !e.failedTooOften() {
				i := int(next.Add(1)-1) % e.Users
				v, err := e.session(account(i), uidl)
				if err != nil {
					e.fail(err)
					continue
				}
				measured[w] = append(measured[w], v)
			}
		})
		elapsed = time.Since(start)
		return nil
	})
	all := slices.Concat(measured...)
	if len(all) == 0 {
		return errors.New("no session succeeded")
	}
	pass, total := make([]time.Duration, len(all)), make([]time.Duration, len(all))
	for i, v := range all {
		pass[i], total[i] = v.pass, v.total
	}
	slices.Sort(pass)
	slices.Sort(total)
	count := float64(len(all))
	e.put(figSessions, count/elapsed.Seconds())
	e.put(figPass, milliseconds(percentile(pass, 50)))
	e.put(figSession, milliseconds(percentile(total, 50)))
	e.put("session p99 ms", milliseconds(percentile(total, 99)))
	e.put(figSessionCPU, server/count*1000)
	e.put("upstream cpu s/1k sessions", upstream/count*1000)
	return nil
}

// percentile returns the value below which p of 100 sorted values lie. There
// must be at least one.
func percentile(sorted []time.Duration, p int) time.Duration {
	return sorted[min(len(sorted)*p/100, len(sorted)-1)]
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// idle opens n sessions and measures the memory that they take.
func (e *env) idle(n int) error {
	if e.ep.PID == 0 {
		return errors.New("idle sessions need the pid of the endpoint")
	}
	base, err := treePSS(e.ep.PID)
	if err != nil {
		return err
	}
	start := time.Now()
	conns := e.openIdle(n)
	opened := time.Since(start)
	time.Sleep(e.Hold)
	held, err := treePSS(e.ep.PID)
	alive := e.closeIdle(conns)
	if err != nil {
		return err
	}
	if alive == 0 {
		return errors.New("no session stayed open")
	}
	e.put("sessions", float64(alive))
	e.put("open s", opened.Seconds())
	e.put(figSessionPSS, float64(held-base)/1024/float64(alive))
	e.put("total PSS MiB", float64(held)/(1<<20))
	return nil
}

// idleWorkers is the number of sessions opened or closed at a time.
const idleWorkers = 16

// openIdle logs n accounts in; an element is nil where that failed.
func (e *env) openIdle(n int) []*popConn {
	conns := make([]*popConn, n)
	start := time.Now()
	var next atomic.Int64
	parallel(idleWorkers, func(int) {
		for {
			i := int(next.Add(1)) - 1
			if i >= n || e.failedTooOften() {
				return
			}
			b := userBox(i % e.Users)
			// Each session has an account of its own: a maildrop
			// allows one session at a time.
			b.name = fmt.Sprintf("%s@%s-%d", b.name, e.tag, i/e.Users)
			var err error
			if conns[i], err = e.open(b, 512); err != nil {
				e.fail(err)
			}
			if (i+1)%1000 == 0 {
				e.log.printf("idle: %d sessions, %.1f s", i+1, time.Since(start).Seconds())
			}
		}
	})
	return conns
}

// closeIdle ends the sessions and returns how many were alive.
func (e *env) closeIdle(conns []*popConn) int {
	var alive atomic.Int64
	parallel(idleWorkers, func(w int) {
		for i := w; i < len(conns); i += idleWorkers {
			if conns[i] == nil {
				continue
			}
			if _, err := conns[i].cmd("NOOP"); err != nil {
				e.fail(fmt.Errorf("after idling: %w", err))
				_ = conns[i].close() // err says what is wrong
				continue
			}
			alive.Add(1)
			if err := conns[i].quit(); err != nil {
				e.fail(err)
			}
		}
	})
	return int(alive.Load())
}
