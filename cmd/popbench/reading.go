package main

import (
	"errors"
	"fmt"
	"time"
)

// command reads one message.
type command string // format with a verb for the message-number

const (
	retr command = "RETR %d\r\n"
	top  command = "TOP %d 0\r\n"
)

// walk reads b's messages in order, with up to window commands in flight, until
// the last one or until the time is up.
func (e *env) walk(b box, c command, window int) error {
	w := walker{env: e, want: e.gen.expect(b), command: c, window: window}
	var err error
	if w.pop, err = e.open(b, 256<<10); err != nil {
		return err
	}
	var elapsed time.Duration
	server, upstream, err := e.cost(func() error {
		w.start = time.Now()
		err := w.run()
		elapsed = time.Since(w.start)
		return err
	})
	if err != nil {
		return errors.Join(fmt.Errorf("message %d: %w", w.done+1, err), w.pop.close())
	}
	if err := w.pop.quit(); err != nil {
		e.fail(err)
	}
	e.put(figMessages, float64(w.done)/elapsed.Seconds())
	if c == top {
		e.put("cpu s/1k msgs", server/float64(w.done)*1000)
		e.put("upstream cpu s/1k msgs", upstream/float64(w.done)*1000)
		return nil
	}
	megabytes := float64(w.pop.octets) / 1e6
	e.put(figBytes, megabytes/elapsed.Seconds())
	e.put(figByteCPU, server/megabytes*1000)
	e.put("upstream cpu s/GB", upstream/megabytes*1000)
	return nil
}

// walker is a walk in progress.
type walker struct {
	*env
	pop     *popConn
	want    []digest
	command command
	window  int
	start   time.Time

	sent, done int // commands
	sink       sink
}

func (w *walker) run() error {
	for w.done < len(w.want) {
		late := time.Since(w.start) > w.Cap && w.done > 0
		if late && w.sent == w.done {
			return nil
		}
		// Half a window at a time, as a client that writes in blocks does.
		// When the time is up, only the answers are read.
		if !late && w.sent-w.done <= w.window/2 {
			if err := w.refill(); err != nil {
				return err
			}
		}
		if err := w.receive(); err != nil {
			return err
		}
	}
	return nil
}

// refill sends commands until the window is full.
func (w *walker) refill() error {
	var commands []byte
	for ; w.sent < len(w.want) && w.sent-w.done < w.window; w.sent++ {
		commands = fmt.Appendf(commands, string(w.command), w.sent+1)
	}
	if len(commands) == 0 {
		return nil
	}
	return w.pop.send(commands)
}

// receive reads one reply and checks it.
func (w *walker) receive() error {
	if _, err := w.pop.status(); err != nil {
		return err
	}
	if err := w.pop.body(&w.sink); err != nil {
		return err
	}
	want := w.want[w.done]
	w.done++
	if w.command == top {
		if w.sink.octets == 0 || w.sink.octets >= want.octets {
			w.fail(fmt.Errorf("TOP %d 0 returned %d octets", w.done, w.sink.octets))
		}
		w.sink = sink{}
		return nil
	}
	if err := w.sink.finish(want); err != nil {
		w.fail(fmt.Errorf("message %d: %w", w.done, err))
	}
	return nil
}

// huge reads the one large message of b.
func (e *env) huge(b box) error {
	want := e.gen.expect(b)[0]
	p, err := e.open(b, 256<<10)
	if err != nil {
		return err
	}
	watch := watchMemory(e.ep.PID)
	var elapsed, first time.Duration
	var s sink
	server, upstream, err := e.cost(func() error {
		start := time.Now()
		if _, err := p.cmd("RETR 1"); err != nil {
			return err
		}
		err := p.body(&s)
		elapsed = time.Since(start)
		first = s.first.Sub(start)
		return err
	})
	peak := watch.end()
	if err != nil {
		return errors.Join(err, p.close())
	}
	if err := s.finish(want); err != nil {
		e.fail(err)
	}
	if err := p.quit(); err != nil {
		e.fail(err)
	}
	megabytes := float64(p.octets) / 1e6
	e.put(figBytes, megabytes/elapsed.Seconds())
	e.put(figFirstOctet, first.Seconds())
	if peak > 0 {
		e.put(figPeakPSS, float64(peak)/(1<<20))
	}
	e.put(figByteCPU, server/megabytes*1000)
	e.put("upstream cpu s/GB", upstream/megabytes*1000)
	return nil
}

// copy reads the message of huge from the upstream itself.
func (e *env) copy(b box) (err error) {
	c, err := loginIMAP(e.CopyFrom, b.name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.logout()) }()
	var octets int64
	var first, took time.Duration
	_, upstream, err := e.cost(func() (err error) {
		octets, first, took, err = c.copyMessage(1)
		return err
	})
	if err != nil {
		return err
	}
	if want := e.gen.expect(b)[0].octets; octets != want {
		return fmt.Errorf("%d octets, want %d", octets, want)
	}
	megabytes := float64(octets) / 1e6
	e.put(figBytes, megabytes/took.Seconds())
	e.put(figFirstOctet, first.Seconds())
	e.put("upstream cpu s/GB", upstream/megabytes*1000)
	return nil
}
