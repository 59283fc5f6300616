package imapmodel

import (
	"bytes"
	"context"
	"net"
	"time"

	"popgate/proxy/proxytest"
)

// Dial returns a connection in memory.
func (m *Model) Dial(ctx context.Context) (net.Conn, error) {
	m.mu.Lock()
	m.dials++
	m.mu.Unlock()
	addr := func(port int) net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port} }
	near, far := proxytest.Pipe(addr(49152), addr(143))
	if m.RTT == 0 {
		go m.ServeConn(far)
		return near, nil
	}
	select { // TCP's own round trip
	case <-time.After(m.RTT):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	a, b := proxytest.Pipe(addr(49152), addr(143))
	go carry(far, a, m.RTT/2)
	go carry(a, far, m.RTT/2)
	go m.ServeConn(b)
	return near, nil
}

// carry copies octets from one end to the other, each after delay. Any number of
// them is in flight.
func carry(from, to net.Conn, delay time.Duration) {
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
	for p := range packets {
		if d := time.Until(p.due); d > 0 {
			<-time.After(d)
		}
		if _, err := to.Write(p.data); err != nil {
			break
		}
	}
	to.Close()
	from.Close()
	for range packets {
	}
}
