package proxy

import (
	"errors"
	"net"
	"os"
	"sync/atomic"
	"time"
)

const (
	// writeStall ends a session whose client accepts no octet of a reply for
	// this long.
	writeStall = 300 * time.Second

	// stallSteps is the number of parts that writeStall is divided into.
	// Progress in any part restarts the wait.
	stallSteps = 10

	// closeTimeout is how long the client may take to accept the last octets
	// of a connection that is being closed.
	closeTimeout = 5 * time.Second

	// keepAlive finds dead clients, so that they do not hold the lock of
	// their maildrop until the autologout.
	keepAlive = 60 * time.Second
)

// past is a deadline that has passed.
var past = time.Unix(1, 0)

// clientConn is the transport to one client, below TLS. Its Write times out only
// when the client has accepted nothing for the duration of stall, or after
// interrupt: TLS cannot continue after a partial write.
type clientConn struct {
	net.Conn
	stall       time.Duration // set by the session that writes
	closing     bool          // set by it too: the last octets, written also after interrupt
	unread      []byte        // input to be read before that of Conn
	spoken      bool          // the client has sent something; reset by the session
	last        []byte        // the last octets of Conn; nil: they are not kept
	interrupted atomic.Bool
	written     atomic.Int64 // octets
	writing     atomic.Bool  // Write runs: octets may be on their way that written does not count yet
}

// interrupt ends reading and writing, so that the session closes the
// connection. Any goroutine may call it.
func (c *clientConn) interrupt() {
	c.interrupted.Store(true)
	_ = c.SetDeadline(past) // fails where the connection is closed already
}

// Read implements net.Conn.
func (c *clientConn) Read(p []byte) (int, error) {
	if len(c.unread) == 0 {
		n, err := c.Conn.Read(p)
		c.spoken = c.spoken || n > 0
		if c.last != nil {
			c.last = append(c.last, p[:n]...)
			c.last = append(c.last[:0], c.last[max(0, len(c.last)-alertRecord):]...)
		}
		return n, err
	}
	n := copy(p, c.unread)
	if c.unread = c.unread[n:]; len(c.unread) == 0 {
		c.unread = nil
	}
	return n, nil
}

// Write implements net.Conn.
func (c *clientConn) Write(p []byte) (int, error) {
	c.writing.Store(true)
	defer c.writing.Store(false)
	done := 0
	for step := 1; ; step++ {
		if err := c.SetWriteDeadline(time.Now().Add(c.stall / stallSteps)); err != nil {
			return done, err
		}
		if c.interrupted.Load() && !c.closing { // interrupt may have come before our deadline
			return done, os.ErrDeadlineExceeded
		}
		n, err := c.Conn.Write(p[done:])
		done += n
		c.written.Add(int64(n))
		if err == nil || !errors.Is(err, os.ErrDeadlineExceeded) {
			return done, err
		}
		if n > 0 {
			step = 0
		}
		if step >= stallSteps {
			return done, err
		}
	}
}

// setKeepAlive has the kernel look for dead peers, where c is TCP.
func setKeepAlive(c net.Conn) {
	if tcp, ok := c.(interface {
		SetKeepAliveConfig(net.KeepAliveConfig) error
	}); ok {
		// A connection that is already gone fails at the first read.
		_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{
			Enable: true, Idle: keepAlive, Interval: keepAlive / 4, Count: 4,
		})
	}
}
