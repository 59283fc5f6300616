//go:build integration

package main_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"popgate/imapbackend/dovecottest"
	"popgate/proxy/proxytest"
)

const (
	silentConnections = 10000
	goodSessions      = 20               // of a well-behaved client, during the attack
	goodTime          = 20 * time.Second // for each of them, far more than it needs
	hostileMemory     = 96 << 20         // octets that the gateway may have resident
	hostileGrowth     = 16 << 20         // octets by which it may grow in the second half of the attack
)

// With the default limits a well-behaved client logs in and reads its message
// over TLS while 10,000 connections are idle, and others send slowly, endless
// lines, garbage instead of TLS, or passwords, or do not read, renegotiate or
// vanish; memory does not grow: O-LIM-1, P-GRAM-7, P-PIPE-1, P-PASS-6, O-TLS-2.
func TestHostile(t *testing.T) {
	s := dovecottest.Start(t)
	s.Append("joe", []byte("Subject: x\r\n\r\ntext\r\n"))
	starttls := tlsConfig(s, "starttls", "starttls", s.CAFile)
	implicit, _, _ := strings.Cut(tlsConfig(s, "implicit", "starttls", s.CAFile), "[[upstream]]")
	g := startBinary(t, popgatePlain, starttls+implicit)
	plain, secure := g.addrs[0], g.addrs[1]

	a := &attack{t: t, plain: plain, secure: secure}
	ctx, stop := context.WithCancel(t.Context())
	defer a.wait()
	defer stop()
	a.silent(ctx)
	first := goodSession(plain, "127.0.0.1")
	for _, tt := range []struct {
		n    int
		what func(context.Context) error
	}{
		{100, a.slow},
		{4, a.endless},
		{4, a.notReading},
		{8, a.garbage},
		{8, a.garbageAfterSTLS},
		{8, a.vanish},
		{2, a.renegotiate},
		{50, a.guess},
	} {
		for range tt.n {
			a.repeat(ctx, tt.what)
		}
	}
	var middle int64
	errs := []error{first}
	for i := range goodSessions {
		if i == goodSessions/2 {
			middle = g.memory()
		}
		errs = append(errs, goodSession(plain, "127.0.0.1"))
	}
	// It works from the address of the silent connections too.
	errs = append(errs, goodSession(plain, "127.0.0.2"))
	if err := errors.Join(errs...); err != nil {
		t.Error(err)
	}
	end, peak := g.memory(), g.peakMemory()
	t.Logf("resident: %d kB in the middle, %d kB at the end, %d kB at most", middle>>10, end>>10, peak>>10)
	if peak > hostileMemory || end-middle > hostileGrowth {
		t.Errorf("memory: at most %d octets, grown by %d", peak, end-middle)
	}
	stop()
	a.wait()
	if n := strings.Count(g.Stderr.String(), "limit=unauthenticated"); n == 0 {
		t.Error("no record of a limit")
	}
	g.await("the attackers' descriptors to be closed", func() bool { return len(g.descriptors()) < 50 })
}

// memory returns the gateway's resident memory, in octets.
func (g *gateway) memory() int64 {
	g.t.Helper()
	var size, resident int64
	statm, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", g.Process.Process.Pid))
	if err == nil {
		_, err = fmt.Sscan(string(statm), &size, &resident)
	}
	if err != nil {
		g.t.Fatal(err)
	}
	return resident * int64(os.Getpagesize())
}

// dialFrom connects to addr from source, an address of this machine.
func dialFrom(ctx context.Context, source, addr string) (net.Conn, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: goodTime}
	return d.DialContext(ctx, "tcp", addr)
}

// goodSession runs the session of a well-behaved client.
func goodSession(addr, source string) error {
	conn, err := dialFrom(context.Background(), source, addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	c := proxytest.NewConversation(conn)
	c.Timeout = goodTime
	if err := errors.Join(c.Greeting(), c.OK("STLS")); err != nil {
		return fmt.Errorf("before TLS: %w", err)
	}
	c.Use(tls.Client(conn, &tls.Config{InsecureSkipVerify: true})) // of the test's own server
	if err := c.OK("USER joe", "PASS "+dovecottest.Password); err != nil {
		return fmt.Errorf("under TLS: %w", err)
	}
	body, err := c.Fetch("RETR 1")
	if err == nil && string(body) != "Subject: x\r\n\r\ntext\r\n" {
		err = fmt.Errorf("message %q", body)
	}
	return errors.Join(err, c.OK("QUIT"))
}

// attack is everything else that happens at the same time.
type attack struct {
	t             *testing.T
	plain, secure string // addresses
	running       sync.WaitGroup
}

func (a *attack) wait() { a.running.Wait() }

// silent opens the silent connections, which stay until ctx ends.
func (a *attack) silent(ctx context.Context) {
	a.t.Helper()
	var conns []net.Conn
	a.running.Go(func() {
		<-ctx.Done()
		for _, c := range conns {
			_ = c.Close()
		}
	})
	for i := range silentConnections {
		conn, err := dialFrom(ctx, "127.0.0.2", []string{a.plain, a.secure}[i%2])
		if err != nil {
			a.t.Fatalf("silent connection %d: %v", i, err)
		}
		conns = append(conns, conn)
	}
}

// repeat calls what again and again until ctx ends. The gateway may close a
// connection at any time, so errors do not matter.
func (a *attack) repeat(ctx context.Context, what func(context.Context) error) {
	a.running.Go(func() {
		pace := time.NewTicker(50 * time.Millisecond)
		defer pace.Stop()
		for ctx.Err() == nil {
			_ = what(ctx)
			select {
			case <-pace.C:
			case <-ctx.Done():
			}
		}
	})
}

// open connects from one of several addresses, chosen at random. The connection
// is closed when ctx ends.
func open(ctx context.Context, addr string) (conn net.Conn, done func(), err error) {
	source := fmt.Sprintf("127.0.3.%d", 1+rand.IntN(20))
	if conn, err = dialFrom(ctx, source, addr); err != nil {
		return nil, nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	return conn, func() { stop(); _ = conn.Close() }, nil
}

// slow sends single octets, slowly, and never ends a line.
func (a *attack) slow(ctx context.Context) error {
	conn, done, err := open(ctx, a.plain)
	if err != nil {
		return err
	}
	defer done()
	pace := time.NewTicker(100 * time.Millisecond)
	defer pace.Stop()
	for ctx.Err() == nil {
		if _, err := conn.Write([]byte("x")); err != nil {
			return err
		}
		select {
		case <-pace.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// endless sends a line without end, as fast as it can.
func (a *attack) endless(ctx context.Context) error {
	return a.flood(ctx, strings.Repeat("x", 16<<10))
}

// notReading sends commands and reads no reply.
func (a *attack) notReading(ctx context.Context) error {
	return a.flood(ctx, strings.Repeat("CAPA\r\n", 2000))
}

func (a *attack) flood(ctx context.Context, data string) error {
	conn, done, err := open(ctx, a.plain)
	if err != nil {
		return err
	}
	defer done()
	for err == nil {
		_, err = io.WriteString(conn, data)
	}
	return err
}

// garbage sends random octets, or the start of a handshake and then random
// octets, instead of a handshake.
func (a *attack) garbage(ctx context.Context) error { return a.spoil(ctx, a.secure, "") }

func (a *attack) garbageAfterSTLS(ctx context.Context) error {
	return a.spoil(ctx, a.plain, "STLS\r\n")
}

func (a *attack) spoil(ctx context.Context, addr, before string) error {
	conn, done, err := open(ctx, addr)
	if err != nil {
		return err
	}
	defer done()
	data := make([]byte, 1+rand.IntN(40000))
	for i := range data {
		data[i] = byte(rand.Uint32())
	}
	if rand.IntN(2) == 0 {
		copy(data, "\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb\x03\x03") // a ClientHello of 16 KiB
	}
	_, _ = io.WriteString(conn, before)
	_, _ = conn.Write(data)
	_, err = io.Copy(io.Discard, conn) // until the gateway closes the connection
	return err
}

// vanish ends in the middle of a command: by a reset, or half-closed and silent.
func (a *attack) vanish(ctx context.Context) error {
	conn, done, err := open(ctx, a.plain)
	if err != nil {
		return err
	}
	defer done()
	tcp := conn.(*net.TCPConn)
	if rand.IntN(2) == 0 {
		_ = tcp.SetLinger(0)
		_, err = io.WriteString(conn, "USER joe\r\nPASS ")
		return err
	}
	_, _ = io.WriteString(conn, "USER joe\r\nPASS "+strings.Repeat("x", 1000))
	_ = tcp.CloseWrite()
	_, err = io.Copy(io.Discard, conn)
	return err
}

// renegotiate asks for a new handshake inside TLS 1.2, as "R" does in
// openssl s_client.
func (a *attack) renegotiate(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, "openssl", "s_client", "-tls1_2", "-connect", a.secure)
	cmd.Stdin = strings.NewReader(strings.Repeat("R\n", 10))
	cmd.WaitDelay = time.Second
	return cmd.Run()
}

// guess tries passwords.
func (a *attack) guess(ctx context.Context) error {
	conn, done, err := open(ctx, a.secure)
	if err != nil {
		return err
	}
	defer done()
	over := tls.Client(conn, &tls.Config{InsecureSkipVerify: true}) // of the test's own server
	for range 3 {
		_, _ = fmt.Fprintf(over, "USER user%d\r\nPASS %d\r\n", rand.IntN(1000), rand.Uint64())
	}
	_, err = io.Copy(io.Discard, over)
	return err
}
