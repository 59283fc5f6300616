package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"strconv"
	"strings"
	"time"
)

// popConn is a POP3 client. One goroutine at a time may use it.
type popConn struct {
	conn    net.Conn
	r       *bufio.Reader
	timeout time.Duration // longest wait for the server
	octets  int64         // read by body, counted on the wire
}

// dialPOP connects and reads the greeting. buffer is in octets; status lines
// and those of listings must fit into it.
func dialPOP(ep endpoint, timeout time.Duration, buffer int) (*popConn, error) {
	conn, err := net.DialTimeout("tcp", ep.Addr, timeout)
	if err != nil {
		return nil, err
	}
	if ep.TLS {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // upstream.sh's certificate, on loopback
	}
	p := &popConn{conn: conn, r: bufio.NewReaderSize(conn, buffer), timeout: timeout}
	if err := p.extend(); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if _, err := p.status(); err != nil {
		return nil, errors.Join(fmt.Errorf("greeting: %w", err), conn.Close())
	}
	return p, nil
}

// loginPOP connects and logs in with USER and PASS.
func loginPOP(ep endpoint, user string, timeout time.Duration, buffer int) (*popConn, error) {
	p, err := dialPOP(ep, timeout, buffer)
	if err != nil {
		return nil, err
	}
	for _, c := range []string{"USER " + user, "PASS " + password} {
		if _, err := p.cmd(c); err != nil {
			return nil, errors.Join(fmt.Errorf("%.4s: %w", c, err), p.close())
		}
	}
	return p, nil
}

// extend restarts the wait for the server.
func (p *popConn) extend() error { return p.conn.SetDeadline(time.Now().Add(p.timeout)) }

// close drops the connection.
func (p *popConn) close() error { return p.conn.Close() }

// send writes commands as they are.
func (p *popConn) send(b []byte) error {
	if err := p.extend(); err != nil {
		return err
	}
	_, err := p.conn.Write(b)
	return err
}

// status reads one status line; -ERR becomes an error.
func (p *popConn) status() (string, error) {
	line, err := p.r.ReadSlice('\n')
	if err != nil {
		return "", err
	}
	s := strings.TrimRight(string(line), "\r\n")
	if !strings.HasPrefix(s, "+OK") {
		return "", fmt.Errorf("server says %q", s)
	}
	return s, nil
}

// cmd sends a command and reads its status line.
func (p *popConn) cmd(c string) (string, error) {
	if err := p.send([]byte(c + "\r\n")); err != nil {
		return "", err
	}
	return p.status()
}

// stat checks that the maildrop has n messages.
func (p *popConn) stat(n int) error {
	s, err := p.cmd("STAT")
	if err != nil {
		return fmt.Errorf("STAT: %w", err)
	}
	if !strings.HasPrefix(s, fmt.Sprintf("+OK %d ", n)) {
		return fmt.Errorf("STAT says %q, want %d messages", s, n)
	}
	return nil
}

// lines sends a command and calls f with each line of its multi-line reply. The
// line is valid until f returns.
func (p *popConn) lines(c string, f func(line []byte) error) error {
	if _, err := p.cmd(c); err != nil {
		return err
	}
	for {
		line, err := p.r.ReadSlice('\n')
		if err != nil {
			return err
		}
		line = bytes.TrimRight(line, "\r\n")
		if len(line) == 1 && line[0] == '.' {
			return nil
		}
		if err := f(line); err != nil {
			return err
		}
	}
}

// list returns the octets given by LIST and checks the message-numbers.
func (p *popConn) list() ([]int64, error) {
	var sizes []int64
	err := p.lines("LIST", func(line []byte) error {
		number, octets, ok := strings.Cut(string(line), " ")
		v, err := strconv.ParseInt(octets, 10, 64)
		if !ok || err != nil || number != strconv.Itoa(len(sizes)+1) {
			return fmt.Errorf("line %d of LIST is %q", len(sizes)+1, line)
		}
		sizes = append(sizes, v)
		return nil
	})
	return sizes, err
}

// uidl checks that UIDL returns n numbered lines with different unique-ids.
func (p *popConn) uidl(n int) error {
	seen := make(map[string]struct{}, n)
	count := 0
	err := p.lines("UIDL", func(line []byte) error {
		count++
		number, id, ok := strings.Cut(string(line), " ")
		if !ok || number != strconv.Itoa(count) {
			return fmt.Errorf("line %d of UIDL is %q", count, line)
		}
		seen[id] = struct{}{}
		return nil
	})
	if err == nil && (count != n || len(seen) != n) {
		err = fmt.Errorf("UIDL: %d lines, %d unique-ids, want %d", count, len(seen), n)
	}
	return err
}

// quit sends QUIT, waits for its answer and closes the connection.
func (p *popConn) quit() error {
	_, err := p.cmd("QUIT")
	if err != nil {
		err = fmt.Errorf("QUIT: %w", err)
	}
	return errors.Join(err, p.close())
}

// body reads the multi-line reply that follows a status line, undoes
// byte-stuffing and passes the content to s.
func (p *popConn) body(s *sink) error {
	lineStart := true
	for {
		buf, err := p.available()
		if err != nil {
			return err
		}
		if lineStart && buf[0] == '.' {
			end, err := p.dot()
			if end || err != nil {
				return err
			}
			lineStart = false
			continue
		}
		n := len(buf)
		if i := bytes.Index(buf, []byte("\n.")); i >= 0 {
			n = i + 1
		}
		lineStart = buf[n-1] == '\n'
		s.write(buf[:n])
		p.octets += int64(n)
		if _, err := p.r.Discard(n); err != nil {
			return err
		}
	}
}

// available returns what can be read without waiting, at least one octet.
func (p *popConn) available() ([]byte, error) {
	if p.r.Buffered() == 0 {
		if err := p.extend(); err != nil {
			return nil, err
		}
		if _, err := p.r.Peek(1); err != nil {
			return nil, err
		}
	}
	return p.r.Peek(p.r.Buffered())
}

// dot removes the dot at the start of a line, and reports whether that line is
// the last one of the reply.
func (p *popConn) dot() (end bool, err error) {
	buf, err := p.r.Peek(3)
	if err != nil {
		return false, err
	}
	n := 1
	if string(buf) == ".\r\n" {
		n, end = 3, true
	}
	p.octets += int64(n)
	_, err = p.r.Discard(n)
	return end, err
}

// sink measures one message at a time.
type sink struct {
	octets int64
	first  time.Time // arrival of the first octet
	crc    uint32
}

func (s *sink) write(b []byte) {
	if s.octets == 0 {
		s.first = time.Now()
	}
	s.octets += int64(len(b))
	s.crc = crc32.Update(s.crc, castagnoli, b)
}

// finish compares the message with want and makes the sink ready for the next.
func (s *sink) finish(want digest) error {
	got := digest{s.octets, s.crc}
	*s = sink{}
	if got != want {
		return fmt.Errorf("%d octets with CRC %08x, want %d with %08x", got.octets, got.crc, want.octets, want.crc)
	}
	return nil
}
