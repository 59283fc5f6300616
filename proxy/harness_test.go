package proxy_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// patience limits every wait for the network in these tests.
const patience = 30 * time.Second

// logBuffer keeps what is logged.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// logger returns a logger of all levels into a buffer.
func logger() (*slog.Logger, *logBuffer) {
	b := new(logBuffer)
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug})), b
}

// insecure is a listener without TLS on which everyone may log in.
var insecure = proxy.ListenerOptions{
	Mode:              proxy.TLSNone,
	InsecureLoginFrom: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")},
}

// memory returns a Backend with alice, password "secret", and her messages.
func memory(messages ...proxytest.Stored) *proxytest.Backend {
	b := proxytest.NewBackend()
	b.AddAccount("alice", "secret", false)
	b.Add("alice", messages...)
	return b
}

// serve runs a Server on l until the test ends.
func serve(t *testing.T, l net.Listener, opts proxy.Options, lopts proxy.ListenerOptions) *proxy.Server {
	t.Helper()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	srv, err := proxy.NewServer(opts)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.Serve(l, lopts); !errors.Is(err, proxy.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() {
		_ = srv.Close()
		wg.Wait()
	})
	return srv
}

// loopback listens on a free port of this machine.
func loopback(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// pop is a client, which ends its test when something fails.
type pop struct {
	t    *testing.T
	conn net.Conn
	r    *bufio.Reader
}

func newPop(t *testing.T, conn net.Conn, err error) *pop {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &pop{t, conn, bufio.NewReader(conn)}
}

// dial connects to l, whatever it is.
func dial(t *testing.T, l net.Listener) *pop {
	t.Helper()
	var conn net.Conn
	var err error
	if m, ok := l.(*proxytest.Listener); ok {
		conn, err = m.Dial()
	} else {
		conn, err = net.DialTimeout("tcp", l.Addr().String(), patience)
	}
	return newPop(t, conn, err)
}

func (p *pop) send(data string) {
	p.t.Helper()
	_ = p.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(p.conn, data); err != nil {
		p.t.Fatalf("sending %.40q: %v", data, err)
	}
}

func (p *pop) line() string {
	p.t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(patience))
	line, err := p.r.ReadString('\n')
	if err != nil {
		p.t.Fatalf("reading: %q, %v", line, err)
	}
	return strings.TrimSuffix(line, "\r\n")
}

// expect reads a line and compares its beginning.
func (p *pop) expect(prefix string) string {
	p.t.Helper()
	line := p.line()
	if !strings.HasPrefix(line, prefix) {
		p.t.Fatalf("got %q, want %q", line, prefix)
	}
	return line
}

// do sends a command and expects a reply.
func (p *pop) do(command, prefix string) string {
	p.t.Helper()
	p.send(command + "\r\n")
	return p.expect(prefix)
}

// body reads to the final dot, and takes the stuffing off.
func (p *pop) body() string {
	p.t.Helper()
	var out strings.Builder
	for {
		line := p.line()
		if line == "." {
			return out.String()
		}
		out.WriteString(strings.TrimPrefix(line, ".") + "\r\n")
	}
}

// login reads the greeting and logs alice in.
func (p *pop) login() {
	p.t.Helper()
	p.expect("+OK POP3")
	p.do("USER alice", "+OK")
	p.do("PASS secret", "+OK")
}

// closed expects the end of the connection.
func (p *pop) closed() {
	p.t.Helper()
	_ = p.conn.SetReadDeadline(time.Now().Add(patience))
	if rest, err := io.ReadAll(p.r); err != nil || len(rest) > 0 {
		p.t.Errorf("at the end: %q, %v", rest, err)
	}
}

// generated returns n messages of some octets.
func generated(n, octets int) []proxytest.Stored {
	messages := make([]proxytest.Stored, n)
	for i := range messages {
		messages[i].Body = fmt.Appendf(nil, "Subject: %d\r\n\r\n%s\r\n", i, strings.Repeat("x", octets))
	}
	return messages
}
