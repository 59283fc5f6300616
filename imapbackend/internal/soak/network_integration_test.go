//go:build integration

package soak

import (
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// network is a TCP proxy that breaks what it carries: each connection ends, or
// falls silent, after some octets of the upstream.
type network struct {
	net.Listener
	upstream string
	calm     atomic.Bool // no more connections break
	cuts     atomic.Int64

	mu    sync.Mutex
	r     *rand.Rand
	conns sync.WaitGroup
}

// stallTime is how long a silent connection is held open.
const stallTime = 5 * time.Second

func (n *network) serve() {
	defer n.conns.Wait()
	for {
		conn, err := n.Accept()
		if err != nil {
			return
		}
		n.conns.Go(func() { n.carry(conn) })
	}
}

// fate draws at random after how many octets a connection breaks, and how.
func (n *network) fate() (octets int64, way int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return int64(n.r.ExpFloat64() * 500_000), n.r.IntN(20)
}

func (n *network) carry(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", n.upstream)
	if err != nil {
		return
	}
	defer server.Close()
	n.conns.Go(func() {
		_, _ = io.Copy(server, client) // both ends are closed below
		server.Close()
	})
	octets, way := n.fate()
	if n.calm.Load() {
		_, _ = io.Copy(client, server)
		return
	}
	if copied, _ := io.CopyN(client, server, octets); copied < octets {
		return // it has ended before it should break
	}
	n.cuts.Add(1)
	switch {
	case way == 0: // silence, and then the end
		timer := time.NewTimer(stallTime)
		defer timer.Stop()
		<-timer.C
	case way < 10:
		_ = client.(*net.TCPConn).SetLinger(0) // Close resets
	}
}
