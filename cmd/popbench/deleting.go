package main

import (
	"errors"
	"fmt"
	"time"
)

// dele fills b, deletes all of its messages, and asks the upstream what is left.
func (e *env) dele(b box) error {
	if _, err := seedBox(e.IMAP, e.gen, b); err != nil {
		return err
	}
	p, err := e.open(b, 64<<10)
	if err != nil {
		return err
	}
	var dele, quit time.Duration
	server, upstream, err := e.cost(func() error {
		start := time.Now()
		for i := range b.n {
			if _, err := p.cmd(fmt.Sprintf("DELE %d", i+1)); err != nil {
				return errors.Join(fmt.Errorf("DELE %d: %w", i+1, err), p.close())
			}
		}
		dele = time.Since(start)
		err := p.quit()
		quit = time.Since(start) - dele
		return err
	})
	if err != nil {
		return err
	}
	if err := e.expectLeft(b, 0); err != nil {
		return err
	}
	e.put("dele s", dele.Seconds())
	e.put(figQuit, quit.Seconds())
	e.put(figDeleQuit, (dele + quit).Seconds())
	e.put("cpu s", server)
	e.put("upstream cpu s", upstream)
	return nil
}

// expectLeft asks the upstream whether n messages of b are left.
func (e *env) expectLeft(b box, n int) error {
	left, err := countMessages(e.IMAP, b.name)
	if err == nil && left != n {
		e.fail(fmt.Errorf("%d messages are left after QUIT, want %d", left, n))
	}
	return err
}

// leave fills b, reads and deletes its first quarter, one command at a time, and
// leaves.
func (e *env) leave(b box) error {
	if _, err := seedBox(e.IMAP, e.gen, b); err != nil {
		return err
	}
	w := walker{env: e, want: e.gen.expect(b)[:b.n/4], command: retr, window: 1}
	var err error
	if w.pop, err = e.open(b, 64<<10); err != nil {
		return err
	}
	w.start = time.Now()
	for i := range w.want {
		if err = w.refill(); err == nil {
			err = w.receive()
		}
		if err == nil {
			_, err = w.pop.cmd(fmt.Sprintf("DELE %d", i+1))
		}
		if err != nil {
			return errors.Join(fmt.Errorf("message %d: %w", i+1, err), w.pop.close())
		}
	}
	walk := time.Since(w.start)
	if err := w.pop.quit(); err != nil {
		return err
	}
	quit := time.Since(w.start) - walk
	if err := e.expectLeft(b, b.n-len(w.want)); err != nil {
		return err
	}
	e.put(figBytes, float64(w.pop.octets)/1e6/walk.Seconds())
	e.put(figQuit, quit.Seconds())
	return nil
}
