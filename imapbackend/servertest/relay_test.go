//go:build integration

package servertest_test

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"popgate/proxy/proxytest"
)

// relay passes TCP connections on to a server, counts them and cuts them.
type relay struct {
	net.Listener
	to string

	mu       sync.Mutex
	open     map[net.Conn]bool // both ends
	accepted int
}

func newRelay(t *testing.T, to string) *relay {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{Listener: l, to: to, open: map[net.Conn]bool{}}
	var wait sync.WaitGroup
	wait.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			wait.Go(func() { r.pass(client) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		r.cut()
		wait.Wait()
	})
	return r
}

// pass relays one connection until either end closes it.
func (r *relay) pass(client net.Conn) {
	server, err := net.Dial("tcp", r.to)
	if err != nil {
		client.Close()
		return
	}
	r.mu.Lock()
	r.accepted++
	r.open[client], r.open[server] = true, true
	r.mu.Unlock()
	var wait sync.WaitGroup
	for _, pair := range [][2]net.Conn{{client, server}, {server, client}} {
		wait.Go(func() {
			_, _ = io.Copy(pair[0], pair[1]) // its end is the other's
			if err := pair[0].(*net.TCPConn).CloseWrite(); err != nil {
				pair[1].Close()
			}
		})
	}
	wait.Wait()
	client.Close()
	server.Close()
	r.mu.Lock()
	delete(r.open, client)
	delete(r.open, server)
	r.mu.Unlock()
}

// cut closes all connections.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.open {
		conn.Close()
	}
}

// awaitEnd returns when both ends have closed all connections.
func (r *relay) awaitEnd(t *testing.T) {
	t.Helper()
	tick, limit := time.NewTicker(10*time.Millisecond), time.Now().Add(proxytest.Patience)
	defer tick.Stop()
	for ; ; <-tick.C {
		r.mu.Lock()
		n := len(r.open)
		r.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("%d connections to the server remain", n/2)
		}
	}
}

// connections is how many there have been.
func (r *relay) connections() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.accepted
}
