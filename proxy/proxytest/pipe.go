package proxytest

import (
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// pipeBuffer is how many octets each direction of a pipe holds, as much as a
// kernel does for a socket.
const pipeBuffer = 256 << 10

// Pipe returns the two ends of a connection in memory, with their addresses. Like
// a socket, and unlike net.Pipe, it has a buffer, delivers what was written before
// Close, can be closed for writing only, and can be reset. It works under
// testing/synctest.
func Pipe(client, server net.Addr) (clientEnd, serverEnd *Conn) {
	up, down := newHalf(), newHalf()
	return &Conn{in: down, out: up, local: client, remote: server},
		&Conn{in: up, out: down, local: server, remote: client}
}

// Conn is one end of a Pipe. It is safe for concurrent use.
type Conn struct {
	in, out       *half
	local, remote net.Addr
	resets        atomic.Bool // Close resets
}

var _ net.Conn = (*Conn)(nil)

// Read implements net.Conn.
func (c *Conn) Read(p []byte) (int, error) { return c.in.read(p) }

// Write implements net.Conn.
func (c *Conn) Write(p []byte) (int, error) { return c.out.write(p) }

// Close implements net.Conn.
func (c *Conn) Close() error {
	c.in.closeRead()
	c.out.closeWrite(c.resets.Load())
	return nil
}

// SetLinger is like that of net.TCPConn. After SetLinger(0) Close resets the
// connection, and what the other end has not read is lost. Other values restore
// the normal Close.
func (c *Conn) SetLinger(sec int) error {
	c.resets.Store(sec == 0)
	return nil
}

// CloseWrite closes the connection for writing. The other end reads what has
// been written, and then io.EOF.
func (c *Conn) CloseWrite() error {
	c.out.closeWrite(false)
	return nil
}

// LocalAddr implements net.Conn.
func (c *Conn) LocalAddr() net.Addr { return c.local }

// RemoteAddr implements net.Conn.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// SetDeadline implements net.Conn.
func (c *Conn) SetDeadline(t time.Time) error {
	c.in.readBy.set(t)
	c.out.writeBy.set(t)
	return nil
}

// SetReadDeadline implements net.Conn.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.in.readBy.set(t)
	return nil
}

// SetWriteDeadline implements net.Conn.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	c.out.writeBy.set(t)
	return nil
}

// half is one direction of a Pipe.
type half struct {
	mu          sync.Mutex
	changed     *sync.Cond
	buf         []byte // buf[done:] has been written and not read
	done        int
	writeClosed bool
	readClosed  bool
	reset       bool // by the writer
	readBy      deadline
	writeBy     deadline
}

func newHalf() *half {
	h := &half{}
	h.changed = sync.NewCond(&h.mu)
	h.readBy.h, h.writeBy.h = h, h
	return h
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.readClosed:
			return 0, net.ErrClosed
		case h.readBy.over():
			return 0, os.ErrDeadlineExceeded
		case h.reset:
			return 0, syscall.ECONNRESET
		case h.done < len(h.buf) || len(p) == 0:
			n := copy(p, h.buf[h.done:])
			if h.done += n; h.done == len(h.buf) {
				h.buf, h.done = h.buf[:0], 0
			}
			h.changed.Broadcast()
			return n, nil
		case h.writeClosed:
			return 0, io.EOF
		}
		h.changed.Wait()
	}
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for done := 0; ; {
		switch {
		case h.writeClosed:
			return done, net.ErrClosed
		case h.readClosed:
			return done, syscall.EPIPE
		case h.writeBy.over():
			return done, os.ErrDeadlineExceeded
		}
		n := min(len(p)-done, pipeBuffer-(len(h.buf)-h.done))
		if len(h.buf)+n > cap(h.buf) && h.done > 0 {
			h.buf, h.done = h.buf[:copy(h.buf, h.buf[h.done:])], 0
		}
		h.buf = append(h.buf, p[done:done+n]...)
		done += n
		h.changed.Broadcast()
		if done == len(p) {
			return done, nil
		}
		h.changed.Wait()
	}
}

func (h *half) closeRead() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.readClosed, h.buf, h.done = true, nil, 0
	h.readBy.stop()
	h.changed.Broadcast()
}

func (h *half) closeWrite(reset bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.writeClosed = true
	if reset {
		h.reset, h.buf, h.done = true, nil, 0
	}
	h.writeBy.stop()
	h.changed.Broadcast()
}

// deadline wakes the goroutines that wait on its half when its time has come.
type deadline struct {
	h     *half
	at    time.Time
	timer *time.Timer
}

func (d *deadline) over() bool { return !d.at.IsZero() && !time.Now().Before(d.at) }

func (d *deadline) stop() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
}

func (d *deadline) set(t time.Time) {
	d.h.mu.Lock()
	defer d.h.mu.Unlock()
	d.stop()
	if d.at = t; !t.IsZero() {
		d.timer = time.AfterFunc(time.Until(t), func() {
			d.h.mu.Lock()
			defer d.h.mu.Unlock()
			d.h.changed.Broadcast()
		})
	}
	d.h.changed.Broadcast()
}

// Listener is a net.Listener in memory.
type Listener struct {
	addr   net.Addr
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

var _ net.Listener = (*Listener)(nil)

// Listen returns a Listener with the address 192.0.2.1:110.
func Listen() *Listener {
	return &Listener{
		addr:   &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 110},
		conns:  make(chan net.Conn),
		closed: make(chan struct{}),
	}
}

// Dial connects to l from 198.51.100.7:40000.
func (l *Listener) Dial() (*Conn, error) {
	return l.DialFrom(&net.TCPAddr{IP: net.IPv4(198, 51, 100, 7), Port: 40000})
}

// DialFrom connects to l from the given address. It waits for Accept.
func (l *Listener) DialFrom(addr net.Addr) (*Conn, error) {
	client, server := Pipe(addr, l.addr)
	select {
	case l.conns <- server:
		return client, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Accept implements net.Listener.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr implements net.Listener.
func (l *Listener) Addr() net.Addr { return l.addr }
