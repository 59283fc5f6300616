package imapscript

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pipeBuffer is what each direction of a pipe holds, in octets, before a
// writer waits.
const pipeBuffer = 64 << 10

// pipe returns the ends of a connection in memory. Unlike net.Pipe it has
// buffers, as a socket has; it works inside a bubble of testing/synctest.
func pipe() (client, server net.Conn) {
	up, down := newHalf(), newHalf()
	addr := func(port int) net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port} }
	return &pipeEnd{in: down, out: up, local: addr(49152), remote: addr(143)},
		&pipeEnd{in: up, out: down, local: addr(143), remote: addr(49152)}
}

// half is one direction of a pipe.
type half struct {
	mu      sync.Mutex
	changed sync.Cond // on mu
	buf     []byte
	reader  side
	writer  side
	reset   bool // what was in the buffer is lost
}

// side is the state of the reader or the writer of a half.
type side struct {
	closed   bool
	deadline time.Time
	timer    *time.Timer
}

func newHalf() *half {
	h := new(half)
	h.changed.L = &h.mu
	return h
}

// err returns why s cannot go on, nil if it can.
func (s *side) err() error {
	if s.closed {
		return net.ErrClosed
	}
	if !s.deadline.IsZero() && !time.Now().Before(s.deadline) {
		return os.ErrDeadlineExceeded
	}
	return nil
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		if err := h.reader.err(); err != nil {
			return 0, err
		}
		switch {
		case h.reset:
			return 0, syscall.ECONNRESET
		case len(h.buf) > 0 || len(p) == 0:
			n := copy(p, h.buf)
			h.buf = h.buf[:copy(h.buf, h.buf[n:])]
			h.changed.Broadcast()
			return n, nil
		case h.writer.closed:
			return 0, io.EOF
		}
		h.changed.Wait()
	}
}

func (h *half) write(p []byte) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		if err := h.writer.err(); err != nil {
			return n, err
		}
		if h.reader.closed {
			return n, syscall.EPIPE
		}
		m := min(len(p)-n, pipeBuffer-len(h.buf))
		if m > 0 {
			h.buf = append(h.buf, p[n:n+m]...)
			n += m
			h.changed.Broadcast()
		}
		if n == len(p) {
			return n, nil
		}
		h.changed.Wait()
	}
}

// close closes one side of h.
func (h *half) close(s *side, reset bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	s.closed = true
	h.reset = h.reset || reset
	if s.timer != nil {
		s.timer.Stop()
	}
	h.changed.Broadcast()
}

func (h *half) setDeadline(s *side, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	s.deadline = t
	if !t.IsZero() && !s.closed {
		s.timer = time.AfterFunc(time.Until(t), func() {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.changed.Broadcast()
		})
	}
	h.changed.Broadcast()
}

// pipeEnd is one end of a pipe.
type pipeEnd struct {
	in, out       *half
	local, remote net.Addr

	mu    sync.Mutex
	reset bool // Close resets
}

var _ net.Conn = (*pipeEnd)(nil)

func (e *pipeEnd) Read(p []byte) (int, error)  { return e.in.read(p) }
func (e *pipeEnd) Write(p []byte) (int, error) { return e.out.write(p) }
func (e *pipeEnd) LocalAddr() net.Addr         { return e.local }
func (e *pipeEnd) RemoteAddr() net.Addr        { return e.remote }

// SetLinger is that of net.TCPConn for 0: Close then resets the connection.
func (e *pipeEnd) SetLinger(sec int) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reset = sec == 0
	return nil
}

func (e *pipeEnd) Close() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.in.close(&e.in.reader, false)
	e.out.close(&e.out.writer, e.reset)
	return nil
}

func (e *pipeEnd) SetDeadline(t time.Time) error {
	e.SetReadDeadline(t)
	return e.SetWriteDeadline(t)
}

func (e *pipeEnd) SetReadDeadline(t time.Time) error {
	e.in.setDeadline(&e.in.reader, t)
	return nil
}

func (e *pipeEnd) SetWriteDeadline(t time.Time) error {
	e.out.setDeadline(&e.out.writer, t)
	return nil
}
