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

	"popgate/proxy/proxytest"
)

// How long the client has for each step, and for closing at the end of the test.
const (
	stepLimit = time.Hour // in fake time, where it costs nothing
	grace     = 5 * time.Second
)

// Server plays a script. Its methods are safe for concurrent use.
type Server struct {
	t        testing.TB
	sections [][]step
	tls      *tls.Config

	playing sync.WaitGroup

	mu           sync.Mutex
	made         int // connections so far
	closing      time.Time
	conns        map[net.Conn]struct{}
	conversation []string
	commands     []string
	flights      int
	failed       bool
}

// Option configures a Server.
type Option func(*Server)

// WithTLS sets the server's configuration for the directive TLS.
func WithTLS(c *tls.Config) Option { return func(s *Server) { s.tls = c } }

// New returns a Server that plays script on connections made by Dial. At the end
// of the test the whole script must have been played. It works in a bubble of
// testing/synctest.
func New(t testing.TB, script string, options ...Option) *Server {
	t.Helper()
	s := newServer(t, script, options)
	t.Cleanup(s.finish)
	return s
}

// Conn returns the client's end of a connection in memory to a new Server. The
// caller closes it before the test ends.
func Conn(t testing.TB, script string, options ...Option) net.Conn {
	t.Helper()
	c, err := New(t, script, options...).Dial(context.Background())
	if err != nil {
		t.Fatalf("imapscript: %v", err)
	}
	return c
}

func newServer(t testing.TB, script string, options []Option) *Server {
	t.Helper()
	sections, err := parse(script)
	if err != nil {
		t.Fatalf("imapscript: %v", err)
	}
	s := &Server{
		t: t, sections: sections,
		conns: make(map[net.Conn]struct{}),
	}
	for _, o := range options {
		o(s)
	}
	for _, st := range slices.Concat(sections...) {
		if st.op == "TLS" && s.tls == nil {
			t.Fatal("imapscript: the directive TLS needs the option WithTLS")
		}
	}
	return s
}

// Dial makes a connection to the server. The caller closes it before the test
// ends.
func (s *Server) Dial(ctx context.Context) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	client, server := proxytest.Pipe(address(49152), address(143))
	if !s.serve(server) {
		client.Close()
		return nil, errors.New("imapscript: connection refused")
	}
	return client, nil
}

func address(port int) net.Addr {
	return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
}

// Commands returns the commands received so far on all connections, without their
// tags and without lines that continue a command.
func (s *Server) Commands() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.commands)
}

// Flights returns how many times so far the server has answered lines of the
// client, however many at a time: the round trips of the script. It does not
// notice a client that sends a line earlier than the script needs it. TLS
// handshakes and the greeting do not count.
func (s *Server) Flights() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flights
}

// Conversation returns the lines sent so far in both directions, each with its
// directive.
func (s *Server) Conversation() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.conversation, "")
}

// serve plays the next section on c. It returns false if there is none.
func (s *Server) serve(c *proxytest.Conn) bool {
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
	p := &player{server: s, number: s.made, raw: c, limit: stepLimit, tags: make(map[string]string)}
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

// finish ends the test. A client that is still connected has a short time to
// close.
func (s *Server) finish() {
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
		s.fail(fmt.Errorf("connection %d was not made", s.made+1))
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
