package imapscript

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// How long the client has for each step, and to close at the end of the test.
const (
	socketLimit = 20 * time.Second
	memoryLimit = time.Hour // fake time, where it costs nothing
	grace       = 5 * time.Second
)

// Server plays a script. Its methods are safe for concurrent use.
type Server struct {
	t        testing.TB
	sections [][]step
	tls      *tls.Config
	limit    time.Duration
	listener net.Listener // nil: connections in memory

	playing sync.WaitGroup
	played  chan struct{} // closed when all sections are

	mu           sync.Mutex
	made         int // connections so far
	ended        int // of these
	closing      time.Time
	conns        map[net.Conn]struct{}
	conversation []string
	commands     []string
	flights      int
	failed       bool
}

// Option changes how a Server is set up.
type Option func(*Server)

// WithTLS gives the certificate for the directive TLS.
func WithTLS(c *TLS) Option { return func(s *Server) { s.tls = c.Server } }

// Start listens on a free loopback port and plays script until the test ends,
// when everything in it must have happened.
func Start(t testing.TB, script string, options ...Option) *Server {
	t.Helper()
	s := newServer(t, script, socketLimit, options)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("imapscript: %v", err)
	}
	s.listener = l
	s.playing.Go(s.accept)
	t.Cleanup(s.finish)
	return s
}

// New is Start with connections in memory, made by Dial. Inside a bubble of
// testing/synctest time passes when all goroutines wait, for this server too.
func New(t testing.TB, script string, options ...Option) *Server {
	t.Helper()
	s := newServer(t, script, memoryLimit, options)
	t.Cleanup(s.finish)
	return s
}

// Conn returns the client's end of a connection in memory to a New server.
// The caller closes it before the test ends.
func Conn(t testing.TB, script string, options ...Option) net.Conn {
	t.Helper()
	c, err := New(t, script, options...).Dial(context.Background())
	if err != nil {
		t.Fatalf("imapscript: %v", err)
	}
	return c
}

func newServer(t testing.TB, script string, limit time.Duration, options []Option) *Server {
	t.Helper()
	sections, err := parse(script)
	if err != nil {
		t.Fatalf("imapscript: %v", err)
	}
	s := &Server{
		t: t, sections: sections, limit: limit,
		played: make(chan struct{}),
		conns:  make(map[net.Conn]struct{}),
	}
	for _, o := range options {
		o(s)
	}
	for _, st := range slices.Concat(sections...) {
		if st.op == "TLS" && s.tls == nil {
			t.Fatal("imapscript: the directive TLS needs the option WithTLS")
		}
		if st.op == "T" && limit != memoryLimit {
			t.Fatal("imapscript: the directive T needs a connection in memory")
		}
	}
	return s
}

// Addr returns the server's "host:port"; "" for connections in memory.
func (s *Server) Addr() string {
	if s.listener == nil {
		return ""
	}
	return s.listener.Addr().String()
}

// Dial makes a connection to the server. The caller closes it before the test
// ends.
func (s *Server) Dial(ctx context.Context) (net.Conn, error) {
	if s.listener != nil {
		return new(net.Dialer).DialContext(ctx, "tcp", s.Addr())
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	client, server := pipe()
	if !s.serve(server) {
		client.Close()
		return nil, errors.New("imapscript: connection refused")
	}
	return client, nil
}

// Commands returns the commands received so far, without their tags, from
// all connections. Lines that continue a command are not among them.
func (s *Server) Commands() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.commands)
}

// Flights returns how many times, so far, the server has answered lines of
// the client, whatever their number: the round trips that the script grants.
// A client that sends ahead of the script is not told apart. TLS handshakes
// do not count, nor does the greeting.
func (s *Server) Flights() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flights
}

// Wait waits until all of the script has been played.
func (s *Server) Wait() {
	s.t.Helper()
	limit := s.limit
	for _, st := range slices.Concat(s.sections...) {
		limit += st.wait
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-s.played:
	case <-timer.C:
		s.t.Fatalf("imapscript: not played to its end after %v:\n%s", limit, s.Conversation())
	}
}

// Conversation returns what has been said so far, a line each with its
// direction.
func (s *Server) Conversation() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.conversation, "")
}

func (s *Server) accept() {
	for {
		c, err := s.listener.Accept()
		if err != nil {
			return // closed by finish
		}
		s.serve(c)
	}
}

// serve plays the next section on c, unless there is none.
func (s *Server) serve(c net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closing.IsZero() {
		c.Close()
		return false
	}
	if s.made == len(s.sections) {
		c.Close()
		if !s.breaks() {
			s.fail(fmt.Errorf("connection %d is not in the script", s.made+1))
		}
		return false
	}
	s.made++
	p := &player{server: s, number: s.made, raw: c, limit: s.limit, tags: make(map[string]string)}
	p.use(c)
	s.conns[c] = struct{}{}
	s.playing.Go(func() {
		err := p.play(s.sections[p.number-1])
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.conns, c)
		if err != nil {
			s.fail(fmt.Errorf("connection %d: %w", p.number, err))
		}
		if s.ended++; s.ended == len(s.sections) {
			close(s.played)
		}
	})
	return true
}

// breaks reports whether the script ends in the loss of its last connection.
func (s *Server) breaks() bool {
	steps := s.sections[len(s.sections)-1]
	last := steps[len(steps)-1]
	return last.ends() && !last.implied
}

// fail fails the test; the caller holds s.mu. The conversation is printed
// once.
func (s *Server) fail(err error) {
	s.t.Helper()
	if s.failed {
		s.t.Errorf("imapscript: %v", err)
		return
	}
	s.failed = true
	s.t.Errorf("imapscript: %v\n%s", err, strings.Join(s.conversation, ""))
}

// finish ends the test: a client that is still connected gets a short time to
// close.
func (s *Server) finish() {
	if s.listener != nil {
		s.listener.Close()
	}
	s.mu.Lock()
	s.closing = time.Now().Add(grace)
	for c := range s.conns {
		c.SetReadDeadline(s.closing)
	}
	s.mu.Unlock()
	s.playing.Wait()

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.made < len(s.sections) {
		s.fail(fmt.Errorf("connection %d was never made", s.made+1))
	}
}

// await sets the deadline of the next read from c.
func (s *Server) await(c net.Conn, limit time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := time.Now().Add(limit)
	if !s.closing.IsZero() && s.closing.Before(d) {
		d = s.closing
	}
	c.SetReadDeadline(d)
}
