package proxytest

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"popgate/proxy"
)

// settle is how long a reply may take in fake time. The clock advances only when
// all goroutines are blocked, so a reply that waits for no timer is always in
// time.
const settle = time.Millisecond

// player plays a transcript. The keys of clients are the digits of script lines.
type player struct {
	t          *testing.T
	sc         *scenario
	update     bool
	srv        *proxy.Server
	lis        *Listener
	clients    map[string]*client
	background sync.WaitGroup
	log        strings.Builder
	mu         sync.Mutex
	retrieved  []uint64
}

type client struct {
	raw    *Conn
	conn   net.Conn
	reader *bufio.Reader
	closed bool
}

func newPlayer(t *testing.T, sc *scenario, update bool) (*player, error) {
	p := &player{t: t, sc: sc, update: update, lis: Listen(), clients: make(map[string]*client)}
	if sc.listener.Mode != proxy.TLSNone {
		sc.listener.TLS = NewCertificate(t, CertificateOptions{Names: []string{"pop.example"}}).Server()
	}
	sc.faults.OnRetrieved = func(uid uint64) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.retrieved = append(p.retrieved, uid)
	}
	sc.backend.SetFaults(sc.faults)
	var err error
	if p.srv, err = proxy.NewServer(sc.options); err != nil {
		return nil, err
	}
	p.background.Go(func() {
		if err := p.srv.Serve(p.lis, sc.listener); !errors.Is(err, proxy.ErrServerClosed) {
			t.Errorf("Serve: %v", err)
		}
	})
	return p, nil
}

// finish disconnects the clients and waits for the server to end.
func (p *player) finish() {
	for name, c := range p.clients {
		p.expectSilence(name, c)
		_ = c.raw.Close()
	}
	synctest.Wait()
	time.Sleep(time.Hour) // whatever still runs for the clients ends
	_ = p.srv.Close()
	p.background.Wait()
	synctest.Wait()
}

// expectSilence fails the test for received lines that no S: line expects.
func (p *player) expectSilence(name string, c *client) {
	if c.closed {
		return
	}
	_ = c.conn.SetReadDeadline(time.Now().Add(settle))
	for {
		line, err := c.reader.ReadString('\n')
		if line != "" {
			fmt.Fprintf(&p.log, "S%s: %q (not expected)\n", name, line)
			p.t.Errorf("not expected: %q", line)
		}
		if err != nil {
			return
		}
	}
}

var scriptLine = regexp.MustCompile(`^([A-Z]+)([0-9]?):(?: (.*))?$`)

// play plays a script and returns it with the S: lines that were received.
func (p *player) play(script string) string {
	var out strings.Builder
	lines := strings.SplitAfter(script, "\n")
	for i := 0; i < len(lines); i++ {
		text := strings.TrimRight(lines[i], "\n")
		m := scriptLine.FindStringSubmatch(text)
		if m == nil {
			if text != "" && text[0] != '#' {
				p.t.Errorf("not a line of a transcript: %q", text)
			}
			out.WriteString(lines[i])
			continue
		}
		kind, name, arg := m[1], m[2], m[3]
		if kind == "S" {
			i = p.expect(name, lines, i, &out)
			continue
		}
		fmt.Fprintf(&p.log, "%.200s\n", text)
		if kind == "C" {
			data := sent(arg)
			for ; i+1 < len(lines); i++ {
				next := scriptLine.FindStringSubmatch(strings.TrimRight(lines[i+1], "\n"))
				if next == nil || next[1] != "C" || next[2] != name {
					break
				}
				out.WriteString(lines[i])
				fmt.Fprintf(&p.log, "%.200s\n", next[0])
				data += sent(next[3])
			}
			p.write(name, data)
		} else if err := p.event(kind, name, arg); err != nil {
			p.t.Errorf("%s: %v", text, err)
			fmt.Fprintf(&p.log, "   (%v)\n", err)
		}
		out.WriteString(lines[i])
	}
	return out.String()
}

// event plays a line that is neither C: nor S:.
func (p *player) event(kind, name, arg string) error {
	switch kind {
	case "T":
		d, err := time.ParseDuration(arg)
		if err != nil {
			return err
		}
		time.Sleep(d)
		synctest.Wait()
	case "X":
		return p.expectClose(p.client(name))
	case "H":
		c := p.client(name)
		if arg == "write" {
			return c.raw.CloseWrite()
		}
		c.closed = true
		err := c.raw.Close()
		synctest.Wait()
		return err
	case "TLS":
		return p.handshake(p.client(name), arg)
	case "U":
		uid, err := strconv.ParseUint(arg, 10, 64)
		if err != nil {
			return err
		}
		p.sc.backend.Expunge("alice", uid)
	case "D":
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		p.background.Go(func() {
			defer cancel()
			_ = p.srv.Shutdown(ctx) // the clients see its effect
		})
		synctest.Wait()
	default:
		return errors.New("unknown kind of line")
	}
	return nil
}

// client returns the connection of that name, which it opens at first use.
func (p *player) client(name string) *client {
	if c := p.clients[name]; c != nil {
		return c
	}
	raw, err := p.lis.Dial()
	if err != nil {
		p.t.Fatal(err)
	}
	c := &client{raw: raw, conn: raw, reader: bufio.NewReader(raw)}
	p.clients[name] = c
	if p.sc.listener.Mode == proxy.TLSImplicit {
		if err := p.handshake(c, "ok"); err != nil {
			p.t.Fatal(err)
		}
	}
	return c
}

func (p *player) handshake(c *client, want string) error {
	conn := tls.Client(c.raw, &tls.Config{InsecureSkipVerify: true}) // the certificate is made here
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	err := conn.Handshake()
	_ = conn.SetDeadline(time.Time{})
	if (err == nil) != (want == "ok") {
		return fmt.Errorf("handshake: %v", err)
	}
	c.conn, c.reader = conn, bufio.NewReader(conn)
	return nil
}

func (p *player) write(name, data string) {
	c := p.client(name)
	_ = c.conn.SetWriteDeadline(time.Now().Add(time.Minute))
	if _, err := io.WriteString(c.conn, data); err != nil {
		fmt.Fprintf(&p.log, "   (write failed: %v)\n", err)
	}
	_ = c.conn.SetWriteDeadline(time.Time{})
	synctest.Wait()
}

// expect compares the S: lines from lines[i] on and returns the index of the
// last of them.
func (p *player) expect(name string, lines []string, i int, out *strings.Builder) int {
	c, prefix := p.client(name), "S"+name+":"
	for ; i < len(lines) && strings.HasPrefix(lines[i], prefix); i++ {
		want := strings.TrimPrefix(strings.TrimPrefix(strings.TrimRight(lines[i], "\n"), prefix), " ")
		got, err := p.readLine(c)
		fmt.Fprintf(&p.log, "%s %.600s\n", prefix, quoted(got))
		switch {
		case err != nil && !p.update:
			p.t.Errorf("%s %s: %v", prefix, want, err)
			fmt.Fprintf(&p.log, "   (%v; expected %s)\n", err, want)
		case err != nil: // -update drops the line
		case matches(want, got):
			out.WriteString(lines[i])
		default:
			if !p.update {
				p.t.Errorf("got %q, want %q", got, want)
			}
			fmt.Fprintf(out, "%s %s\n", prefix, quoted(got))
		}
	}
	for p.update {
		got, err := p.readLine(c)
		if err != nil {
			break
		}
		fmt.Fprintf(out, "%s %s\n", prefix, quoted(got))
	}
	return i - 1
}

func (p *player) readLine(c *client) (string, error) {
	_ = c.conn.SetReadDeadline(time.Now().Add(settle))
	line, err := c.reader.ReadString('\n')
	if errors.Is(err, os.ErrDeadlineExceeded) && line == "" {
		return "", errors.New("nothing received")
	}
	if err != nil {
		return line, err
	}
	if !strings.HasSuffix(line, "\r\n") {
		p.t.Errorf("line without CRLF: %q", line)
	}
	return strings.TrimSuffix(line, "\r\n"), nil
}

func (p *player) expectClose(c *client) error {
	_ = c.conn.SetReadDeadline(time.Now().Add(settle))
	line, err := c.reader.ReadString('\n')
	c.closed = true
	if line != "" {
		return fmt.Errorf("got %q instead", line)
	}
	if err != io.EOF {
		return fmt.Errorf("the connection is not closed: %v", err)
	}
	return nil
}

var repeated = regexp.MustCompile(`\{(.)\*([0-9]+)\}`)

// sent returns the octets of a C: line.
func sent(arg string) string {
	end := "\r\n"
	if strings.HasPrefix(arg, `"`) {
		if raw, err := strconv.Unquote(arg); err == nil {
			arg, end = raw, ""
		}
	}
	return repeated.ReplaceAllStringFunc(arg, func(s string) string {
		m := repeated.FindStringSubmatch(s)
		n, _ := strconv.Atoi(m[2]) // digits by the pattern
		return strings.Repeat(m[1], n)
	}) + end
}

// quoted returns a received line in the form of a transcript.
func quoted(line string) string {
	for i := range len(line) {
		if line[i] < ' ' || line[i] > '~' {
			return strconv.Quote(line)
		}
	}
	if strings.HasPrefix(line, `"`) {
		return strconv.Quote(line)
	}
	return line
}

// matches reports whether a received line is the expected one.
func matches(want, got string) bool {
	if strings.HasPrefix(want, `"`) {
		exact, err := strconv.Unquote(want)
		return err == nil && exact == got
	}
	if !strings.HasPrefix(want, "+OK") && !strings.HasPrefix(want, "-ERR") {
		return want == got
	}
	pattern := strings.ReplaceAll(regexp.QuoteMeta(want), `\.\.\.`, `[^\[]*`)
	ok, err := regexp.MatchString("^"+pattern+"$", got)
	return err == nil && ok
}
