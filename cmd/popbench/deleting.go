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
	left, err := countMessages(e.IMAP, b.name)
	if err != nil {
		return err
	}
	if left > 0 {
		e.fail(fmt.Errorf("%d messages are left after QUIT", left))
	}
	e.put("dele s", dele.Seconds())
	e.put(figQuit, quit.Seconds())
	e.put(figDeleQuit, (dele + quit).Seconds())
	e.put("cpu s", server)
	e.put("upstream cpu s", upstream)
	return nil
}
