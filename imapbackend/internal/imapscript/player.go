package imapscript

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"popgate/proxy/proxytest"
)

// player plays one section on one connection.
type player struct {
	server *Server
	number int // of the connection, from 1
	raw    *proxytest.Conn
	conn   net.Conn // the connection, or TLS over it
	in     *bufio.Reader
	limit  time.Duration
	tags   map[string]string // by name
	used   []string          // tags
	asked  bool              // the client waits for an answer
}

func (p *player) use(c net.Conn) {
	p.conn = c
	p.in = bufio.NewReader(c)
}

// errClosed means that the client has closed the connection.
var errClosed = errors.New("the client closed the connection")

// play runs the steps and closes the connection.
func (p *player) play(steps []step) error {
	for i, s := range steps {
		err := p.step(s)
		if errors.Is(err, errClosed) && s.op != "C" && waits(steps[i+1:]) {
			break
		}
		if err != nil {
			reset(p.raw)
			return fmt.Errorf("%w\n at %s: %s", err, s.op, s.show())
		}
	}
	p.raw.Close()
	return nil
}

// waits reports whether the client may close the connection before steps.
func waits(steps []step) bool {
	i := slices.IndexFunc(steps, func(s step) bool { return !s.sends() && s.op != "T" })
	return i >= 0 && steps[i].op == "W" && !steps[i].implied
}

// reset closes c so that its peer gets an error, not the end of the stream.
func reset(c *proxytest.Conn) {
	c.SetLinger(0)
	c.Close()
}

func (p *player) step(s step) error {
	switch s.op {
	case "C":
		return p.expect(s)
	case "S":
		return p.send(p.fill(s)+"\r\n", s.op)
	case "S+":
		return p.send(p.fill(s), s.op)
	case "S64":
		return p.send(s.text, s.op)
	case "S*":
		return p.repeat(s)
	case "TLS":
		return p.handshake()
	case "D":
		p.limit = s.wait
	case "T":
		p.record(s.op, s.wait.String())
		<-time.After(s.wait)
	case "X":
		p.record(s.op, "")
		p.conn.Close()
	case "R":
		p.record(s.op, "")
		reset(p.raw)
	case "W":
		return p.awaitClose(s.text == "stall")
	}
	return nil
}

// expect reads a line of the client and checks that it matches s.
func (p *player) expect(s step) error {
	p.server.await(p.conn, p.limit)
	raw, err := p.in.ReadString('\n')
	if raw != "" {
		p.record("C", raw)
	}
	if err != nil {
		return p.explain(err, "sent no such line")
	}
	p.asked = true
	line, ok := strings.CutSuffix(raw, "\r\n")
	if !ok {
		return fmt.Errorf("the line %q ends in a bare LF", raw)
	}
	if s.tag != "" {
		tag, rest, _ := strings.Cut(line, " ")
		if tag == "" || slices.Contains(p.used, tag) {
			return fmt.Errorf("the tag %q was used before", tag)
		}
		p.used = append(p.used, tag)
		p.tags[s.tag] = tag
		line = rest
		p.server.command(line)
	}
	if !match(s.text, line) {
		return fmt.Errorf("got %q", line)
	}
	return nil
}

// explain returns an error that says why reading or writing failed.
func (p *player) explain(err error, omission string) error {
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		return fmt.Errorf("the client %s in time (see D)", omission)
	}
	return fmt.Errorf("%w: %w", errClosed, err)
}

// fill returns the text of s with its tag.
func (p *player) fill(s step) string {
	text := tagName.ReplaceAllStringFunc(s.text, func(name string) string {
		if tag, ok := p.tags[strings.Trim(name, "<>")]; ok {
			return tag
		}
		return name
	})
	if s.tag != "" {
		text = p.tags[s.tag] + " " + text
	}
	return text
}

// send writes octets and records them as op.
func (p *player) send(octets, op string) error {
	p.record(op, octets)
	return p.write([]byte(octets))
}

func (p *player) write(octets []byte) error {
	if p.asked {
		p.asked = false
		p.server.flight()
	}
	p.conn.SetWriteDeadline(time.Now().Add(p.limit))
	if _, err := p.conn.Write(octets); err != nil {
		return p.explain(err, "read no more octets")
	}
	return nil
}

// repeat sends the octets of an S* without holding all of them in memory.
func (p *player) repeat(s step) error {
	p.record(s.op, s.show())
	const chunk = 64 << 10
	block := []byte(strings.Repeat(s.text, max(1, chunk/len(s.text))))
	for left := s.count; left > 0; left -= int64(len(block)) {
		if err := p.write(block[:min(left, int64(len(block)))]); err != nil {
			return err
		}
	}
	return nil
}

func (p *player) handshake() error {
	p.record("TLS", "")
	if n := p.in.Buffered(); n > 0 {
		return fmt.Errorf("the client sent %d octets before the TLS handshake", n)
	}
	c := tls.Server(p.raw, p.server.tls)
	p.server.await(p.raw, p.limit)
	p.raw.SetWriteDeadline(time.Now().Add(p.limit))
	if err := c.Handshake(); err != nil {
		return p.explain(err, "did not complete the TLS handshake")
	}
	p.use(c)
	return nil
}

// awaitClose waits until the client closes the connection.
func (p *player) awaitClose(stall bool) error {
	for {
		p.server.await(p.conn, p.limit)
		line, err := p.in.ReadString('\n')
		if line != "" {
			p.record("C", line)
		}
		switch {
		case line != "" && !stall:
			return fmt.Errorf("got %q", line)
		case err != nil:
			if err = p.explain(err, "did not close the connection"); errors.Is(err, errClosed) {
				p.record("W", "closed by the client")
				return nil
			}
			return err
		}
	}
}

// record adds a line to the conversation.
func (p *player) record(op, text string) {
	const most = 500
	if len(text) > most {
		text = fmt.Sprintf("%s... (%d octets)", text[:most], len(text))
	}
	text = strings.TrimSuffix(text, "\r\n")
	line := fmt.Sprintf("%4s: %s\n", op, printable(text))
	s := p.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.sections) > 1 {
		line = fmt.Sprintf("%d %s", p.number, line)
	}
	s.conversation = append(s.conversation, line)
}

// printable returns text on one line.
func printable(text string) string {
	if strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r >= 0x7F }) {
		return fmt.Sprintf("%q", text)
	}
	return text
}

func (s *Server) command(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.commands = append(s.commands, text)
}

func (s *Server) flight() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flights++
}

// show returns the step's text in the script, shortened.
func (s step) show() string {
	switch {
	case s.op == "S*":
		return fmt.Sprintf("%d %.60q", s.count, s.text)
	case s.wait > 0:
		return s.wait.String()
	case s.tag != "":
		return "<" + s.tag + "> " + s.text
	}
	return printable(s.text)
}
