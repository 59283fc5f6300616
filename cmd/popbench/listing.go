package main

import (
	"errors"
	"fmt"
	"slices"
	"time"
)

// list measures the first listing of a new account, and repeated ones.
func (e *env) list(b box) error {
	account := box{b.name + "@" + e.tag, b.n, b.kind}
	want := e.gen.expect(b)
	watch := watchMemory(e.ep.PID)
	defer func() { e.putPeak(watch) }()
	var first time.Duration
	server, upstream, err := e.cost(func() (err error) {
		first, err = e.listOnce(account, want)
		return err
	})
	if err != nil {
		return fmt.Errorf("first listing: %w", err)
	}
	var again []time.Duration
	server2, upstream2, err := e.cost(func() error {
		for range e.Repeat {
			took, err := e.listOnce(account, want)
			if err != nil {
				return err
			}
			again = append(again, took)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("repeated listing: %w", err)
	}
	slices.Sort(again)
	e.put(figFirst, first.Seconds())
	e.put(figRepeat, percentile(again, 50).Seconds())
	e.put("first cpu s", server)
	e.put("repeat cpu s", server2/float64(e.Repeat))
	e.put("first upstream cpu s", upstream)
	e.put("repeat upstream cpu s", upstream2/float64(e.Repeat))
	return nil
}

// listOnce returns the time from connect to the end of UIDL and LIST, and
// checks what they say.
func (e *env) listOnce(b box, want []digest) (time.Duration, error) {
	start := time.Now()
	p, err := e.login(b.name, 64<<10)
	if err != nil {
		return 0, err
	}
	err = p.uidl(b.n)
	var sizes []int64
	if err == nil {
		sizes, err = p.list()
	}
	took := time.Since(start)
	if err == nil && len(sizes) != b.n {
		err = fmt.Errorf("LIST has %d lines, want %d", len(sizes), b.n)
	}
	if err != nil {
		return 0, errors.Join(err, p.close())
	}
	for i, octets := range sizes {
		if octets != want[i].octets {
			e.fail(fmt.Errorf("LIST %d: %d octets, want %d", i+1, octets, want[i].octets))
		}
	}
	return took, p.quit()
}
