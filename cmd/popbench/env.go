package main

import (
	"fmt"
	"math"
	"sync"
	"time"
)

// settings are common to all scenarios of a run.
type settings struct {
	IMAP        string        `json:"-"`           // the upstream, reached without any delay
	CopyFrom    string        `json:"-"`           // the upstream as gateways reach it; "": no reference
	UpstreamPID int           `json:"-"`           // root of the upstream's process tree, 0 if unknown
	Seed        uint64        `json:"seed"`        // of the content
	Users       int           `json:"users"`       // accounts in each fleet
	Duration    time.Duration `json:"duration_ns"` // of login and poll
	Cap         time.Duration `json:"cap_ns"`      // longest time of retr and top
	Timeout     time.Duration `json:"timeout_ns"`  // longest wait for the server
	Window      int           `json:"window"`      // commands in flight when pipelining
	Hold        time.Duration `json:"hold_ns"`     // pause before idle sessions are measured
	Repeat      int           `json:"repeat"`      // repeated listings
}

// metric is one figure of one run.
type metric struct {
	Name  string  `json:"name"`
	Value float64 `json:"value"`
}

// env is what one run of a scenario works with.
type env struct {
	settings
	ep  endpoint
	gen *generator
	tag string // new in each run: NAME@TAG is an account of NAME's mailbox that the gateway has not seen
	log progress

	metrics []metric

	mu     sync.Mutex
	failed int
	errs   []string // the first few
}

// put records a figure. What could not be measured is NaN, and left out.
func (e *env) put(name string, v float64) {
	if !math.IsNaN(v) && !math.IsInf(v, 0) {
		e.metrics = append(e.metrics, metric{name, v})
	}
}

// putPeak ends w and records what it saw.
func (e *env) putPeak(w *memoryWatch) {
	if peak := w.end(); peak > 0 {
		e.put(figPeakPSS, float64(peak)/(1<<20))
	}
}

// fail records a fault of the server under test that does not end the run. It
// is safe for concurrent use.
func (e *env) fail(err error) {
	const kept = 5
	e.mu.Lock()
	defer e.mu.Unlock()
	e.failed++
	if len(e.errs) < kept {
		e.errs = append(e.errs, err.Error())
	}
}

// failedTooOften reports whether the scenario should be given up.
func (e *env) failedTooOften() bool {
	const tooMany = 100
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.failed > tooMany
}

// login logs user in at the server under test. buffer is in octets.
func (e *env) login(user string, buffer int) (*popConn, error) {
	return loginPOP(e.ep, user, e.Timeout, buffer)
}

// open logs in at b's maildrop and sends STAT, so that the listing, which some
// servers put off, is not part of what follows.
func (e *env) open(b box, buffer int) (*popConn, error) {
	p, err := e.login(b.name, buffer)
	if err != nil {
		return nil, err
	}
	if err := p.stat(b.n); err != nil {
		_ = p.close() // err says what is wrong
		return nil, fmt.Errorf("%s: %w", b.name, err)
	}
	return p, nil
}

// cost returns the processor seconds that the server under test and the
// upstream spend while f runs; NaN where they are unknown.
func (e *env) cost(f func() error) (server, upstream float64, err error) {
	read := func(pid int) float64 {
		if pid == 0 {
			return math.NaN()
		}
		v, err := treeCPU(pid)
		if err != nil {
			e.log.printf("processor time: %v", err)
			return math.NaN()
		}
		return v
	}
	server0, upstream0 := read(e.ep.PID), read(e.UpstreamPID)
	err = f()
	return read(e.ep.PID) - server0, read(e.UpstreamPID) - upstream0, err
}
