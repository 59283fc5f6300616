package main

import (
	"net"
	"slices"
	"sync"
	"time"

	"github.com/spf13/cobra"
)

// delayWindow is how many octets may be in flight in one direction. It must
// exceed bandwidth times delay, or it would throttle.
const delayWindow = 32 << 20

// delayProxy imitates a network between the gateways and the upstream: it
// forwards connections and adds a fixed delay. Up to delayWindow octets are in
// flight at a time, so pipelining and bandwidth survive. It does not imitate
// slow start and loss.
type delayProxy struct {
	rtt  time.Duration // half of it for each direction
	rate int           // octets a second from the server, on each connection; 0: no limit
	dial func() (net.Conn, error)
	log  progress
}

func delayCommand() *cobra.Command {
	var listen, to string
	rtt, rate := 20*time.Millisecond, 0
	cmd := &cobra.Command{
		Use:   "delay --listen ADDR --to ADDR",
		Short: "Forward TCP connections and add a delay",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := net.Listen("tcp", listen)
			if err != nil {
				return err
			}
			d := &delayProxy{rtt, rate, func() (net.Conn, error) { return net.Dial("tcp", to) }, progress{cmd.ErrOrStderr()}}
			d.log.printf("delay: %s to %s, round trip %v", l.Addr(), to, rtt)
			return d.serve(l)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "`ADDR`ess to listen on")
	cmd.Flags().StringVar(&to, "to", "", "`ADDR`ess to forward to")
	cmd.Flags().DurationVar(&rtt, "rtt", rtt, "round trip to add")
	cmd.Flags().IntVar(&rate, "rate", rate, "octets a second that a connection gets from the upstream; 0: no limit")
	_ = cmd.MarkFlagRequired("listen") // fails for unknown flags only
	_ = cmd.MarkFlagRequired("to")
	return cmd
}

// serve forwards connections until the listener fails.
func (d *delayProxy) serve(l net.Listener) error {
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go d.forward(c)
	}
}

// forward serves one connection and closes it.
//
// The kernel completes the client's handshake at once. On a real network connect
// takes one round trip, and the server accepts half a round trip later. So what
// the client sends first is held back for one round trip, and the server is
// dialled after one and a half.
func (d *delayProxy) forward(client net.Conn) {
	outward := newDelayLine(d.rtt/2, time.Now().Add(d.rtt))
	var wg sync.WaitGroup
	wg.Go(func() { outward.fill(client) })
	defer wg.Wait()
	defer func() { _ = client.Close() }() // ends that reader
	time.Sleep(d.rtt + d.rtt/2)
	server, err := d.dial()
	if err != nil {
		d.log.printf("delay: %v", err)
		outward.abandon()
		return
	}
	inward := newDelayLine(d.rtt/2, time.Now())
	inward.rate = d.rate
	wg.Go(func() { inward.fill(server) })
	var writers sync.WaitGroup
	writers.Go(func() { outward.drain(server, client) })
	writers.Go(func() { inward.drain(client, server) })
	writers.Wait()
	_ = server.Close() // ends the other reader; both directions are done
}

// delayLine carries the octets of one direction. fill and drain each run in a
// goroutine of their own.
type delayLine struct {
	delay   time.Duration
	opening time.Time // nothing is sent earlier
	rate    int       // octets a second, 0: no limit

	mu      sync.Mutex
	changed sync.Cond
	chunks  []chunk
	octets  int  // in chunks
	ended   bool // src has ended
	broken  bool // dst takes no more
}

// chunk is what one read has returned.
type chunk struct {
	due  time.Time
	data []byte
}

func newDelayLine(delay time.Duration, opening time.Time) *delayLine {
	l := &delayLine{delay: delay, opening: opening}
	l.changed.L = &l.mu
	return l
}

// fill reads from src until that ends or the line is abandoned. It does not copy
// what it reads: the proxy takes its processor time from what is measured.
func (l *delayLine) fill(src net.Conn) {
	const slab, least = 256 << 10, 16 << 10
	var buf []byte
	for {
		if len(buf) < least {
			buf = make([]byte, slab)
		}
		n, err := src.Read(buf)
		if !l.push(buf[:n], err != nil) {
			return
		}
		buf = buf[n:]
	}
}

// push puts b on the line as soon as there is room, and keeps it. It reports
// whether more may follow.
func (l *delayLine) push(b []byte, last bool) bool {
	due := time.Now()
	if due.Before(l.opening) {
		due = l.opening
	}
	due = due.Add(l.delay)
	l.mu.Lock()
	defer l.mu.Unlock()
	for l.octets >= delayWindow && !l.broken {
		l.changed.Wait()
	}
	if len(b) > 0 {
		l.chunks = append(l.chunks, chunk{due, b})
		l.octets += len(b)
	}
	l.ended = l.ended || last
	l.changed.Broadcast()
	return !l.ended && !l.broken
}

// pop returns the chunks that were put on the line, or none at its end.
func (l *delayLine) pop() []chunk {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(l.chunks) == 0 && !l.ended {
		l.changed.Wait()
	}
	chunks := l.chunks
	l.chunks = nil
	return chunks
}

// delivered makes room for the given number of octets.
func (l *delayLine) delivered(octets int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.octets -= octets
	l.changed.Broadcast()
}

// abandon says that nothing more is taken from the line.
func (l *delayLine) abandon() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = true
	l.changed.Broadcast()
}

// drain writes to dst what came from src, each octet when it is due, and then
// closes dst for writing.
func (l *delayLine) drain(dst, src net.Conn) {
	for {
		chunks := l.pop()
		if len(chunks) == 0 {
			break
		}
		for len(chunks) > 0 {
			time.Sleep(time.Until(chunks[0].due))
			due, octets := takeDue(&chunks)
			if err := l.write(dst, due); err != nil {
				l.abandon()
				_ = src.Close() // as the other side has
				return
			}
			l.delivered(octets)
		}
	}
	time.Sleep(l.delay)
	if half, ok := dst.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite() // fails only where the other side has closed
		return
	}
	_ = dst.Close()
}

// takeDue removes the first chunk, and those after it that are already due, and
// returns them for one write.
func takeDue(chunks *[]chunk) (due net.Buffers, octets int) {
	const most = 64
	now := time.Now()
	for _, c := range *chunks {
		if len(due) > 0 && (c.due.After(now) || len(due) == most) {
			break
		}
		due = append(due, c.data)
		octets += len(c.data)
	}
	*chunks = (*chunks)[len(due):]
	return due, octets
}

// write writes p to dst, no faster than the line's rate.
func (l *delayLine) write(dst net.Conn, p net.Buffers) error {
	if l.rate == 0 {
		_, err := p.WriteTo(dst)
		return err
	}
	for _, b := range p {
		for piece := range slices.Chunk(b, max(l.rate/20, 1)) {
			time.Sleep(time.Duration(len(piece)) * time.Second / time.Duration(l.rate))
			if _, err := dst.Write(piece); err != nil {
				return err
			}
		}
	}
	return nil
}
