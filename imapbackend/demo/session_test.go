package demo

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves s, with the user demo added, until the test ends and returns
// its address.
func start(t testing.TB, s *Server) string {
	t.Helper()
	s.AddUser("demo", "demo")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v, want nil after Close", err)
		}
	})
	return l.Addr().String()
}

// add appends msgs to the mailbox of the user demo.
func add(t testing.TB, s *Server, msgs ...string) {
	t.Helper()
	for _, m := range msgs {
		if _, err := s.Append("demo", []byte(m)); err != nil {
			t.Fatal(err)
		}
	}
}

// session is a raw IMAP client that handles answers as text.
type session struct {
	t    testing.TB
	conn net.Conn
	in   *bufio.Reader
	tags int
}

// dial connects and reads the greeting.
func dial(t testing.TB, addr string) *session {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	s := &session{t: t, conn: c, in: bufio.NewReader(c)}
	if l := s.line(); !strings.HasPrefix(l, "* OK") {
		t.Fatalf("greeting %q", l)
	}
	return s
}

// login connects, logs in as demo and sends the commands.
func login(t testing.TB, addr string, commands ...string) *session {
	t.Helper()
	s := dial(t, addr)
	for _, c := range append([]string{"LOGIN demo demo"}, commands...) {
		s.ok(c)
	}
	return s
}

var literalEnd = regexp.MustCompile(`\{(\d+)\}\r\n$`)

// line reads a response line with the literals in it.
func (s *session) line() string {
	s.t.Helper()
	var b strings.Builder
	for {
		l, err := s.in.ReadString('\n')
		if err != nil {
			s.t.Fatalf("read: %v after %.200q", err, b.String()+l)
		}
		b.WriteString(l)
		m := literalEnd.FindStringSubmatch(l)
		if m == nil {
			return strings.TrimSuffix(b.String(), "\r\n")
		}
		n, _ := strconv.Atoi(m[1])
		b.Grow(n + 64)
		if _, err := io.CopyN(&b, s.in, int64(n)); err != nil {
			s.t.Fatalf("read literal of %d octets: %v", n, err)
		}
	}
}

// cmd sends a command and returns the untagged responses, each with its CRLF,
// and the tagged one without its tag.
func (s *session) cmd(command string) (untagged, status string) {
	s.t.Helper()
	s.tags++
	tag := fmt.Sprintf("t%d", s.tags)
	if _, err := fmt.Fprintf(s.conn, "%s %s\r\n", tag, command); err != nil {
		s.t.Fatal(err)
	}
	for {
		l := s.line()
		if rest, ok := strings.CutPrefix(l, tag+" "); ok {
			return untagged, rest
		}
		untagged += l + "\r\n"
	}
}

// ok sends a command that must succeed and returns its untagged responses.
func (s *session) ok(command string) (untagged string) {
	s.t.Helper()
	u, status := s.cmd(command)
	if !strings.HasPrefix(status, "OK") {
		s.t.Fatalf("%s: %s", command, status)
	}
	return u
}

// want checks the untagged responses to a command that must succeed.
func (s *session) want(command, untagged string) {
	s.t.Helper()
	if got := s.ok(command); got != untagged {
		s.t.Errorf("%s\n got %q\nwant %q", command, got, untagged)
	}
}

// refused checks that a command fails with that status.
func (s *session) refused(command, status string) {
	s.t.Helper()
	if _, got := s.cmd(command); !strings.HasPrefix(got, status) {
		s.t.Errorf("%s: %s, want %s", command, got, status)
	}
}
