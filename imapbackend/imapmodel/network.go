package imapmodel

import (
	"bytes"
	"context"
	"net"
	"sync"
	"time"

	"popgate/proxy/proxytest"
)

// packetSize is the number of octets that a link of limited rate carries at a
// time.
const packetSize = 1460

// Dial returns a connection in memory.
func (m *Model) Dial(ctx context.Context) (net.Conn, error) {
	m.mu.Lock()
	m.dials++
	m.mu.Unlock()
	addr := func(port int) net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port} }
	near, far := proxytest.Pipe(addr(49152), addr(143))
	if m.RTT == 0 && m.Link == nil {
		go m.ServeConn(far)
		return near, nil
	}
	select { // TCP's own round trip
	case <-time.After(m.RTT):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	a, b := proxytest.Pipe(addr(49152), addr(143))
	go carry(far, a, m.RTT/2, nil)
	go carry(a, far, m.RTT/2, m.Link)
	go m.ServeConn(b)
	return near, nil
}

// Link limits how many octets a second all connections of a Model carry to the
// client together. It is safe for concurrent use.
type Link struct {
	mu   sync.Mutex
	rate int       // octets a second, 0: no limit
	free time.Time // when the next packet can be sent
}

// SetRate sets the limit in octets a second; 0: none.
func (l *Link) SetRate(rate int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rate = rate
}

// send returns when a packet that is sent now has been carried.
func (l *Link) send(octets int) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.rate == 0 {
		return now
	}
	if l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(time.Duration(octets) * time.Second / time.Duration(l.rate))
	return l.free
}

// carry copies octets from one end to the other, each after delay. Any number of
// them is in flight, over a link that may be nil.
func carry(from, to net.Conn, delay time.Duration, link *Link) {
	type packet struct {
		data []byte
		due  time.Time
	}
	packets := make(chan packet, 1<<16)
	go func() {
		defer close(packets)
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if n > 0 {
				packets <- packet{bytes.Clone(buf[:n]), time.Now().Add(delay)}
			}
			if err != nil {
				return
			}
		}
	}()
	write := func(data []byte, due time.Time) bool {
		if d := time.Until(due); d > 0 {
			<-time.After(d)
		}
		_, err := to.Write(data)
		return err == nil
	}
	open := true
	for p := range packets {
		for open && link != nil && len(p.data) > packetSize {
			open = write(p.data[:packetSize], later(p.due, link.send(packetSize)))
			p.data = p.data[packetSize:]
		}
		if link != nil {
			p.due = later(p.due, link.send(len(p.data)))
		}
		if open = open && write(p.data, p.due); !open {
			break
		}
	}
	to.Close()
	from.Close()
	for range packets {
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
