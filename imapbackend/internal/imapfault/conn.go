package imapfault

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// ErrRefused is the error of a refused dial.
var ErrRefused = errors.New("imapfault: connection refused")

// Injector injects faults into the connections that it wraps. It is safe for
// concurrent use.
type Injector struct {
	mu        sync.Mutex
	faults    []Fault
	refused   int // number of dials to refuse after the first fault
	struck    int
	responses [][]byte
}

// New returns an Injector of these faults.
func New(faults ...Fault) *Injector { return &Injector{faults: faults} }

// RefuseDials makes the next n dials after the first fault fail.
func (in *Injector) RefuseDials(n int) *Injector {
	in.refused = n
	return in
}

// Stop ends the injection of faults.
func (in *Injector) Stop() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.faults, in.refused = nil, 0
}

// Responses returns the responses received so far, on all connections.
func (in *Injector) Responses() [][]byte {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.responses
}

// Dial returns a function that dials with dial and wraps the connection.
func (in *Injector) Dial(dial func(context.Context) (net.Conn, error)) func(context.Context) (net.Conn, error) {
	return func(ctx context.Context) (net.Conn, error) {
		in.mu.Lock()
		refused := in.struck > 0 && in.refused > 0
		if refused {
			in.refused--
		}
		in.mu.Unlock()
		if refused {
			return nil, ErrRefused
		}
		conn, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		return in.Wrap(conn), nil
	}
}

// Wrap returns conn with faults in what is read from it.
func (in *Injector) Wrap(conn net.Conn) net.Conn {
	return &faulty{Conn: conn, in: in, woken: make(chan struct{})}
}

// strike records a response and returns the fault for it, if there is one.
func (in *Injector) strike(response []byte) (Fault, bool) {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.responses = append(in.responses, response)
	for _, f := range in.faults {
		if f.Response == len(in.responses) && f.Kind.Applies(response) {
			in.struck++
			return f, true
		}
	}
	return Fault{}, false
}

// faulty is a connection with faults.
type faulty struct {
	net.Conn
	in *Injector

	buf     [4 << 10]byte
	raw     []byte // read from Conn, not yet a whole response
	out     []byte // what the next Read returns
	delayed []byte // a response that follows the next one
	slow    int    // how many octets of out are still returned one by one
	end     error  // returned after out; errStall: silence
	connErr error  // of Read from Conn

	stalled  atomic.Bool // end is errStall; for the writer
	mu       sync.Mutex
	deadline time.Time
	woken    chan struct{} // closed when the deadline changes or Close is called
	closed   bool
}

// maxSlow is how many octets of a response are returned one by one.
const maxSlow = 2000

var errStall = errors.New("silence")

// Read implements net.Conn.
func (c *faulty) Read(p []byte) (int, error) {
	for len(c.out) == 0 {
		switch {
		case c.end == errStall:
			return 0, c.silence()
		case c.end != nil:
			return 0, c.end
		}
		if n := responseEnd(c.raw); n > 0 {
			response := c.raw[:n:n]
			c.raw = c.raw[n:]
			c.deliver(response)
			continue
		}
		if c.connErr != nil { // an incomplete response is passed on unchanged
			c.out, c.raw, c.end = append(c.delayed, c.raw...), nil, c.connErr
			c.delayed = nil
			continue
		}
		n, err := c.Conn.Read(c.buf[:])
		c.raw = append(c.raw, c.buf[:n]...)
		if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
		c.connErr = err
	}
	if c.slow > 0 {
		c.slow--
		p = p[:min(len(p), 1)]
	}
	n := copy(p, c.out)
	c.out = c.out[n:]
	return n, nil
}

// deliver sets out to response, with the fault for it.
func (c *faulty) deliver(response []byte) {
	f, ok := c.in.strike(response)
	if ok && f.Kind == Octets {
		c.slow = maxSlow
	}
	c.out = response
	middle := f.Octet
	if middle == 0 {
		middle = len(response) / 2
	}
	if ok {
		switch f.Kind {
		case CutBefore:
			c.lose(nil, io.EOF)
		case CutMiddle:
			c.lose(response[:min(middle, len(response))], io.EOF)
		case CutAfter:
			c.lose(response, io.EOF)
		case Reset:
			c.lose(response[:min(middle, len(response))], syscall.ECONNRESET)
		case Bye:
			c.lose([]byte("* BYE zebra is going\r\n"), io.EOF)
		case Stall:
			c.stall(nil)
		case StallMiddle:
			c.stall(response[:min(middle, len(response))])
		case Swap:
			c.delayed, c.out = response, nil
			return
		default:
			c.out = f.Kind.changed(response)
		}
	}
	if c.delayed != nil {
		c.out = append(bytes.Clone(c.out), c.delayed...)
		c.delayed = nil
	}
}

// lose ends the connection after p.
func (c *faulty) lose(p []byte, err error) {
	c.out, c.end = p, err
	c.Conn.Close()
}

// stall falls silent after p.
func (c *faulty) stall(p []byte) {
	c.out, c.end = p, errStall
	c.stalled.Store(true)
}

// silence waits for the deadline or Close.
func (c *faulty) silence() error {
	for {
		c.mu.Lock()
		deadline, woken, closed := c.deadline, c.woken, c.closed
		c.mu.Unlock()
		if closed {
			return net.ErrClosed
		}
		var due <-chan time.Time
		if !deadline.IsZero() {
			timer := time.NewTimer(time.Until(deadline))
			defer timer.Stop()
			due = timer.C
		}
		select {
		case <-due:
			return os.ErrDeadlineExceeded
		case <-woken:
		}
	}
}

// wake makes change and makes silence look again.
func (c *faulty) wake(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	close(c.woken)
	c.woken = make(chan struct{})
}

// Write implements net.Conn. It reports no error of a stalled connection.
func (c *faulty) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	if c.stalled.Load() {
		return len(p), nil
	}
	return n, err
}

// SetDeadline implements net.Conn.
func (c *faulty) SetDeadline(t time.Time) error {
	c.wake(func() { c.deadline = t })
	return c.Conn.SetDeadline(t)
}

// SetReadDeadline implements net.Conn.
func (c *faulty) SetReadDeadline(t time.Time) error {
	c.wake(func() { c.deadline = t })
	return c.Conn.SetReadDeadline(t)
}

// Close implements net.Conn.
func (c *faulty) Close() error {
	c.wake(func() { c.closed = true })
	return c.Conn.Close()
}

// responseEnd returns the length of the response at the start of p, 0 if it is
// not complete. A FETCH response ends with its parentheses: some servers send a
// line end in front of the last one.
func responseEnd(p []byte) int {
	at, open := 0, 0
	for {
		i := bytes.IndexByte(p[at:], '\n')
		if i < 0 {
			return 0
		}
		line := p[at : at+i+1]
		at += i + 1
		if isFetch.Match(p) {
			open += bytes.Count(line, []byte("(")) - bytes.Count(line, []byte(")"))
		}
		m := literalLine.FindSubmatch(line)
		if m == nil || !bytes.HasSuffix(line, m[0]) {
			if open > 0 {
				continue
			}
			return at
		}
		n, err := strconv.Atoi(string(m[1]))
		if err != nil || at+n > len(p) {
			return 0
		}
		at += n
	}
}
