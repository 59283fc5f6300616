package imapscript

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"popgate/proxy/proxytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// peer is the client of these tests.
type peer struct {
	t  testing.TB
	c  net.Conn
	in *bufio.Reader
}

func newPeer(t testing.TB, c net.Conn) *peer { return &peer{t, c, bufio.NewReader(c)} }

// connect dials s; the connection is closed when the test ends.
func connect(t testing.TB, s *Server) *peer {
	t.Helper()
	c, err := s.Dial(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return newPeer(t, c)
}

func (p *peer) send(text string) {
	p.t.Helper()
	if _, err := io.WriteString(p.c, text); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) want(text string) {
	p.t.Helper()
	p.c.SetReadDeadline(time.Now().Add(5 * time.Minute))
	b := make([]byte, len(text))
	if n, err := io.ReadFull(p.in, b); string(b[:n]) != text {
		p.t.Fatalf("got %q, %v; want %q", b[:n], err, text)
	}
}

func (p *peer) wantErr(want error) {
	p.t.Helper()
	p.c.SetReadDeadline(time.Now().Add(5 * time.Minute))
	if b, err := p.in.ReadByte(); !errors.Is(err, want) {
		p.t.Errorf("got %q, %v; want %v", b, err, want)
	}
}

func TestDialogue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(t, `
			# The greeting is not an answer.
			S: * OK ready
			C: <a> LOGIN ... ...
			S: <a> OK [CAPABILITY IMAP4rev1] done
			C: <b> UID FETCH 7 (UID BODY.PEEK[])
			C: <c2> UID FETCH 8 (...)
			S: * 1 FETCH (UID 7 BODY[] {5}
			S+: he
			S64: bGw=
			S*: 1 o
			S: )
			S*: 7 "ab\r\n"
			S: * ESEARCH (TAG "<b>") <unbound>
			S+: <c2> NO
			S:
			S: <b> OK done
			C: <a> APPEND INBOX {2+}
			C: xy
			S: + 
			C: 
			X:
		`)
		p := connect(t, s)
		p.want("* OK ready\r\n")
		p.send("q LOGIN me secret\r\n")
		p.want("q OK [CAPABILITY IMAP4rev1] done\r\n")
		p.send("x1 UID FETCH 7 (UID BODY.PEEK[])\r\nx2 UID FETCH 8 (BODY.PEEK[])\r\n")
		p.want("* 1 FETCH (UID 7 BODY[] {5}\r\nhello)\r\nab\r\nab\r* ESEARCH (TAG \"x1\") <unbound>\r\nx2 NO\r\nx1 OK done\r\n")
		p.send("x3 APPEND INBOX {2+}\r\nxy\r\n")
		p.want("+ \r\n")
		p.send("\r\n")
		p.wantErr(io.EOF)
		synctest.Wait()
		want := []string{"LOGIN me secret", "UID FETCH 7 (UID BODY.PEEK[])", "UID FETCH 8 (BODY.PEEK[])", "APPEND INBOX {2+}"}
		if got := s.Commands(); !slices.Equal(got, want) {
			t.Errorf("Commands: %q", got)
		}
		if n := s.Flights(); n != 3 {
			t.Errorf("Flights: %d, want 3", n)
		}
		if c := s.Conversation(); !strings.Contains(c, "   C: q LOGIN me secret\n   S: q OK [CAPABILITY IMAP4rev1] done\n") {
			t.Errorf("Conversation:\n%s", c)
		}
	})
}

func TestConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(t, `
			-- connection 1 --
			S: * OK one
			C: <a> NOOP
			R:
			-- connection 2 --
			S: * OK two
			W:
			-- connection 3 --
			S: * OK three
			W: stall
			-- connection 4 --
			S: * OK four
		`)
		p := connect(t, s)
		p.want("* OK one\r\n")
		p.send("a NOOP\r\n")
		p.wantErr(syscall.ECONNRESET)
		two, three, four := connect(t, s), connect(t, s), connect(t, s)
		two.want("* OK two\r\n")
		three.want("* OK three\r\n")
		three.send("a NOOP\r\nb NO")
		four.want("* OK four\r\n")
		for _, p := range []*peer{two, three, four} {
			p.c.Close()
		}
		synctest.Wait()
		if c := s.Conversation(); !strings.Contains(c, "3    C: a NOOP\n") {
			t.Errorf("Conversation:\n%s", c)
		}
	})
}

func TestTLS(t *testing.T) {
	certificate := func() *proxytest.Certificate {
		return proxytest.NewCertificate(t, proxytest.CertificateOptions{})
	}
	cert := certificate()
	s := New(t, `
		S: * OK ready
		C: <a> STARTTLS
		S: <a> OK begin
		TLS:
		C: <b> NOOP
		S: <b> OK done
		X:
		-- connection 2 --
		TLS:
		S: * OK ready
		-- connection 3 --
		TLS:
		W:
	`, WithTLS(cert.Server()))
	config := &tls.Config{RootCAs: cert.CA, ServerName: "localhost"}

	p := connect(t, s)
	p.want("* OK ready\r\n")
	p.send("a STARTTLS\r\n")
	p.want("a OK begin\r\n")
	p = newPeer(t, tls.Client(p.c, config))
	p.send("b NOOP\r\n")
	p.want("b OK done\r\n")
	p.wantErr(io.EOF)

	byAddress := &tls.Config{RootCAs: cert.CA, ServerName: "127.0.0.1"}
	p = newPeer(t, tls.Client(connect(t, s).c, byAddress))
	p.want("* OK ready\r\n")
	p.c.Close()

	var unknown x509.UnknownAuthorityError
	other := &tls.Config{RootCAs: certificate().CA, ServerName: "localhost"}
	c := tls.Client(connect(t, s).c, other)
	if err := c.Handshake(); !errors.As(err, &unknown) {
		t.Errorf("with another CA: %v", err)
	}
	c.Close()
}

func TestClientGivesUpLiteral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := New(t, `
			S*: 1000000000 x
			S: )
			W:
		`)
		p := connect(t, s)
		p.want("xxx")
		p.c.Close()
		synctest.Wait()
	})
}

func TestHugeLiteralNeedsNoMemory(t *testing.T) {
	c := Conn(t, "S*: 60000000 \"0123456789\\r\\n\"\nX:")
	defer c.Close()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if n, err := io.Copy(io.Discard, c); n != 60000000 || err != nil {
		t.Errorf("%d octets, %v", n, err)
	}
	runtime.ReadMemStats(&after)
	if d := after.TotalAlloc - before.TotalAlloc; d > 4<<20 {
		t.Errorf("%d octets allocated", d)
	}
}

// A keepalive after four minutes and a body in pieces, in fake time.
func TestFakeTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		p := newPeer(t, Conn(t, `
			S: * OK ready
			D: 5m
			C: <a> NOOP
			T: 50s
			S+: <a> O
			T: 50s
			S: K done
		`))
		defer p.c.Close()
		p.want("* OK ready\r\n")
		time.Sleep(4 * time.Minute)
		p.send("a NOOP\r\n")
		p.want("a OK done\r\n")
		if d := time.Since(begin); d != 4*time.Minute+100*time.Second {
			t.Errorf("%v passed", d)
		}
	})
}

// fakeT is a test that may fail.
type fakeT struct {
	testing.TB
	mu       sync.Mutex
	failures []string
	cleanups []func()
}

func (f *fakeT) Helper()                   {}
func (f *fakeT) Cleanup(c func())          { f.cleanups = append(f.cleanups, c) }
func (f *fakeT) Fatal(args ...any)         { f.Errorf("%s", fmt.Sprint(args...)); runtime.Goexit() }
func (f *fakeT) Fatalf(s string, a ...any) { f.Errorf(s, a...); runtime.Goexit() }

func (f *fakeT) Errorf(format string, args ...any) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failures = append(f.failures, fmt.Sprintf(format, args...))
}

// run runs test, which may call Fatal, and returns its errors.
func (f *fakeT) run(test func()) string {
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer func() {
			for _, c := range slices.Backward(f.cleanups) {
				c()
			}
		}()
		test()
	}()
	<-done
	return strings.Join(f.failures, "\n")
}

func TestFailures(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		client       func(p *peer)
		want         string
	}{
		{"another command", "S: * OK\nC: <a> NOOP\nS: <a> OK", func(p *peer) { p.send("1 LOGOUT\r\n") },
			"connection 1: got \"LOGOUT\"\n at C: <a> NOOP\n   S: * OK\n   C: 1 LOGOUT\n"},
		{"bare LF", "C: <a> NOOP", func(p *peer) { p.send("1 NOOP\n") }, "ends in a bare LF"},
		{"tag used twice", "C: <a> NOOP\nC: <b> NOOP", func(p *peer) { p.send("1 NOOP\r\n1 NOOP\r\n") }, `the tag "1" was used before`},
		{"close instead of command", "S: * OK\nC: <a> NOOP", func(p *peer) { p.want("* OK\r\n"); p.c.Close() }, "the client closed the connection: EOF"},
		{"silence", "D: 1s\nC: <a> NOOP", func(p *peer) { p.wantErr(syscall.ECONNRESET) }, "the client sent no such line in time"},
		{"more than the script", "C: <a> NOOP\nS: <a> OK", func(p *peer) { p.send("1 NOOP\r\n2 NOOP\r\n"); p.wait() }, `got "2 NOOP\r\n"`},
		{"close too early", "S*: 1000000 x\nS: y", func(p *peer) { p.c.Close() }, "the client closed the connection"},
		{"never closed", "S: * OK", func(p *peer) { p.want("* OK\r\n") }, "the client did not close the connection in time"},
		{"reads nothing", "D: 1s\nS*: 1000000 x", func(p *peer) { p.wait() }, "read no more octets in time"},
		{"never made", "S: * OK\n-- connection 2 --\nS: * OK", func(p *peer) { p.c.Close() }, "connection 2 was not made"},
		{"one too many", "S: * OK", func(p *peer) {
			p.wantErr(nil)
			if _, err := p.t.(*serverT).s.Dial(context.Background()); err == nil {
				p.t.Errorf("no error")
			}
			p.c.Close()
		}, "connection 2 is not in the script"},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := &fakeT{TB: t}
			got := f.run(func() {
				s := New(f, tt.script)
				c, err := s.Dial(t.Context())
				if err != nil {
					t.Error(err)
					return
				}
				tt.client(newPeer(&serverT{f, s}, c))
			})
			if !strings.Contains(got, tt.want) {
				t.Errorf("%s:\n%s\nwant %s", tt.name, got, tt.want)
			}
		})
	}
}

// serverT gives a client of TestFailures access to its server.
type serverT struct {
	*fakeT
	s *Server
}

// wait waits until the server has nothing more to do.
func (p *peer) wait() { synctest.Wait(); time.Sleep(time.Minute) }

func TestScriptErrors(t *testing.T) {
	for _, tt := range []struct{ script, want string }{
		{"", "connection 1 has no steps"},
		{"S: x\n-- connection 2 --\n", "connection 2 has no steps"},
		{"S: x\n-- connection 3 --\nS: x", "line 2: connection 3 is number 2"},
		{"hello", "line 1: hello: no directive"},
		{"\nQ: x", "line 2: Q: x: unknown directive"},
		{"S: <a> OK", "no command has the tag <a>"},
		{"C: <a> NOOP\nX:\n-- connection 2 --\nS: <a> OK", "line 4: S: <a> OK: no command has the tag <a>"},
		{"X:\nS: x", "line 2: S: x: the connection has ended"},
		{"X: y", "takes no argument"},
		{"W: y", `can be "stall" only`},
		{"S64: *", "illegal base64"},
		{"S*: x", "invalid syntax"},
		{"S*: 5", "needs a number of octets and a text"},
		{`S*: 5 "x`, "invalid syntax"},
		{"D: 5", "missing unit"},
		{"T: 0s", "must be above 0"},
	} {
		if _, err := parse(tt.script); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: %v, want %s", tt.script, err, tt.want)
		}
	}
	for script, want := range map[string]string{
		"Q:":   "unknown directive",
		"TLS:": "needs the option WithTLS",
	} {
		f := &fakeT{TB: t}
		if got := f.run(func() { New(f, script) }); !strings.Contains(got, want) {
			t.Errorf("%q: %s, want %s", script, got, want)
		}
	}
}

func TestMatch(t *testing.T) {
	for _, tt := range []struct {
		pattern, line string
		want          bool
	}{
		{"NOOP", "NOOP", true},
		{"NOOP", "NOOP ", false},
		{"NOOP", "noop", false},
		{"...", "", true},
		{"ID ...", "ID NIL", true},
		{"ID ...", "ID", false},
		{"a...a", "a", false},
		{"a...a", "aba", true},
		{"(...) ... (...)", "(1) 2 (3)", true},
		{"(...) ... (...)", "(1)(3)", false},
	} {
		if got := match(tt.pattern, tt.line); got != tt.want {
			t.Errorf("match(%q, %q) = %v", tt.pattern, tt.line, got)
		}
	}
}
