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

// ErrRefused is what a refused dial fails with.
var ErrRefused = errors.New("imapfault: connection refused")

// Injector lets faults happen on the connections that it wraps. It is safe for
// concurrent use.
type Injector struct {
	mu        sync.Mutex
	faults    []Fault
	refused   int // dials to be refused once a fault has struck
	struck    int
	responses [][]byte
}

// New returns an Injector of faults.
func New(faults ...Fault) *Injector { return &Injector{faults: faults} }

// RefuseDials makes the next n dials after the first fault fail.
func (in *Injector) RefuseDials(n int) *Injector {
	in.refused = n
	return in
}

// Stop lets no further fault happen.
func (in *Injector) Stop() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.faults, in.refused = nil, 0
}

// Responses returns the responses that have come, on all connections.
func (in *Injector) Responses() [][]byte {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.responses
}

// Struck returns how many faults have happened.
func (in *Injector) Struck() int {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.struck
}

// Dial returns dial with faults.
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

// Wrap returns conn with faults in what is read of it.
func (in *Injector) Wrap(conn net.Conn) net.Conn {
	return &faulty{Conn: conn, in: in, woken: make(chan struct{})}
}

// strike counts a response and returns the fault that it meets.
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

	buf  [4 << 10]byte
	raw  []byte // read, not yet a whole response
	out  []byte // to be read
	held []byte // to come behind the next response
	slow int    // so many octets of out go one by one
	end  error  // what comes behind out; errStall: nothing
	lost error  // of Conn

	stalled  atomic.Bool // as end says, for the writer
	mu       sync.Mutex
	deadline time.Time
	woken    chan struct{} // closed when the deadline changes or Close is called
	closed   bool
}

// maxSlow is how many octets of a response come one by one.
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
		if c.lost != nil { // what is not a whole response comes as it is
			c.out, c.raw, c.end = append(c.held, c.raw...), nil, c.lost
			c.held = nil
			continue
		}
		n, err := c.Conn.Read(c.buf[:])
		c.raw = append(c.raw, c.buf[:n]...)
		if err != nil && errors.Is(err, os.ErrDeadlineExceeded) {
			return 0, err
		}
		c.lost = err
	}
	if c.slow > 0 {
		c.slow--
		p = p[:min(len(p), 1)]
	}
	n := copy(p, c.out)
	c.out = c.out[n:]
	return n, nil
}

// deliver makes of a response what is to be read.
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
			c.held, c.out = response, nil
			return
		default:
			c.out = f.Kind.changed(response)
		}
	}
	if c.held != nil {
		c.out = append(bytes.Clone(c.out), c.held...)
		c.held = nil
	}
}

// lose ends the connection behind p.
func (c *faulty) lose(p []byte, err error) {
	c.out, c.end = p, err
	c.Conn.Close()
}

// stall lets nothing come behind p.
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

// wake lets silence look again.
func (c *faulty) wake(change func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change()
	close(c.woken)
	c.woken = make(chan struct{})
}

// Write implements net.Conn. What is written into silence is lost.
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

// responseEnd returns the length of the response that p begins with, 0 if it is
// not all there.
func responseEnd(p []byte) int {
	at := 0
	for {
		i := bytes.IndexByte(p[at:], '\n')
		if i < 0 {
			return 0
		}
		line := p[at : at+i+1]
		at += i + 1
		m := literalLine.FindSubmatch(line)
		if m == nil || !bytes.HasSuffix(line, m[0]) {
			return at
		}
		n, err := strconv.Atoi(string(m[1]))
		if err != nil || at+n > len(p) {
			return 0
		}
		at += n
	}
}
