package proxytest

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestMatches shows which lines an expected line of a transcript matches.
func TestMatches(t *testing.T) {
	for _, tt := range []struct {
		want, got string
		ok        bool
	}{
		{"+OK", "+OK", true},
		{"+OK", "+OK text", false},
		{"+OK ...", "+OK text", true},
		{"+OK ...", "-ERR text", false},
		{"+OK 2 ...", "+OK 20 x", false},
		{"-ERR ...", "-ERR text", true},
		{"-ERR ...", "-ERR [AUTH] text", false},
		{"-ERR [AUTH] ...", "-ERR [AUTH] text", true},
		{"-ERR [AUTH] ...", "-ERR [SYS/TEMP] text", false},
		{"...", "...", true},
		{"...", "text", false}, // a stuffed line, no wildcard
		{`"a\xff"`, "a\xff", true},
		{`"a\xff"`, "a\xfe", false},
		{"", "", true},
	} {
		if got := matches(tt.want, tt.got); got != tt.ok {
			t.Errorf("%q against %q: %v", tt.want, tt.got, got)
		}
	}
}

// TestSent shows what a C: line sends.
func TestSent(t *testing.T) {
	for arg, want := range map[string]string{
		"":                "\r\n",
		"USER a":          "USER a\r\n",
		`"QUI"`:           "QUI",
		`"a\x00\n"`:       "a\x00\n",
		"USER {ab*3}":     "USER {ab*3}\r\n",
		"{x*3}-{y*2}":     "xxx-yy\r\n",
		`"{x*3}"`:         "xxx",
		`PASS "quoted" x`: "PASS \"quoted\" x\r\n",
	} {
		if got := sent(arg); got != want {
			t.Errorf("%q: got %q, want %q", arg, got, want)
		}
	}
}

// TestMessages checks the messages that the suite compares with (P-RETR-3,
// P-TOP-2, P-TOP-3).
func TestMessages(t *testing.T) {
	for message, want := range map[string]string{
		"":               "",
		"a":              "a\r\n",
		"a\nb\r\nc\r":    "a\r\nb\r\nc\r\r\n",
		"\n\n":           "\r\n\r\n",
		"\r\r\n.\n":      "\r\r\n.\r\n",
		"whole\r\n\r\n":  "whole\r\n\r\n",
		"no end\r\nlast": "no end\r\nlast\r\n",
	} {
		if got := string(Repair([]byte(message))); got != want {
			t.Errorf("Repair(%q) = %q, want %q", message, got, want)
		}
	}
	const message = "h: 1\r\nh: 2\n\none\r\ntwo\nlast"
	for lines, want := range map[uint64]string{
		0:              message[:12],
		1:              message[:17],
		2:              message[:21],
		3:              message,
		math.MaxUint64: message,
	} {
		if got := string(topOf([]byte(message), lines)); got != want {
			t.Errorf("topOf %d lines: %q, want %q", lines, got, want)
		}
	}
	if got := string(topOf([]byte("h: 1\r\n"), 5)); got != "h: 1\r\n" {
		t.Errorf("without empty line: %q", got)
	}
	for octets := range 300 {
		got := Generate(7, octets)
		if octets >= 2 && (len(got) != octets || !bytes.Equal(got, Repair(got))) {
			t.Errorf("Generate %d octets: %q", octets, got)
		}
	}
}

// TestPipe shows that a pipe behaves like a socket.
func TestPipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		addr := &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 1}
		a, b := Pipe(addr, addr)
		if n, err := a.Write(make([]byte, 1000)); n != 1000 || err != nil {
			t.Errorf("Write: %d, %v", n, err)
		}
		_ = a.SetWriteDeadline(time.Now().Add(time.Second))
		if n, err := a.Write(make([]byte, pipeBuffer)); n != pipeBuffer-1000 || !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write to a full pipe: %d, %v", n, err)
		}
		_ = a.CloseWrite()
		if got, err := io.ReadAll(b); len(got) != pipeBuffer || err != nil {
			t.Errorf("reading to the end: %d octets, %v", len(got), err)
		}
		began := time.Now()
		_ = a.SetReadDeadline(began.Add(time.Minute))
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(began) != time.Minute {
			t.Errorf("Read with a deadline: %v after %v", err, time.Since(began))
		}
		_ = a.SetReadDeadline(time.Time{})
		go func() {
			<-time.After(time.Second)
			_ = a.SetReadDeadline(time.Unix(1, 0)) // wakes the reader
		}()
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read woken up: %v", err)
		}
		_ = a.Close()
		if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
			t.Errorf("Write to a closed peer: %v", err)
		}
		if _, err := a.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Read after Close: %v", err)
		}
		_ = b.Close()
	})
}

// TestPipeReset shows that what has not been read is lost by a reset.
func TestPipeReset(t *testing.T) {
	a, b := Pipe(new(net.TCPAddr), new(net.TCPAddr))
	if _, err := a.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_ = a.SetLinger(0)
	_ = a.Close()
	if n, err := b.Read(make([]byte, 1)); n != 0 || !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Read: %d, %v", n, err)
	}
	if _, err := b.Write([]byte("x")); !errors.Is(err, syscall.EPIPE) {
		t.Errorf("Write: %v", err)
	}
	_ = b.Close()
}

// TestPipeCloseWakes shows that Close ends reads and writes at the other end.
func TestPipeCloseWakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := Pipe(new(net.TCPAddr), new(net.TCPAddr))
		errs := make(chan error, 2)
		go func() {
			_, err := a.Read(make([]byte, 1))
			errs <- err
		}()
		go func() {
			_, err := a.Write(make([]byte, pipeBuffer+1))
			errs <- err
		}()
		synctest.Wait()
		_ = b.Close()
		for range 2 {
			if err := <-errs; err != io.EOF && !errors.Is(err, syscall.EPIPE) {
				t.Error(err)
			}
		}
		_ = a.Close()
		_ = a.Close()
		if _, err := a.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write after own Close: %v", err)
		}
	})
}

// TestCertificate shows which certificates a client accepts.
func TestCertificate(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options CertificateOptions
		server  string
		ok      bool
	}{
		{"default", CertificateOptions{}, "localhost", true},
		{"address", CertificateOptions{}, "127.0.0.1", true},
		{"another name", CertificateOptions{}, "pop.example", false},
		{"RSA", CertificateOptions{RSA: true}, "localhost", true},
		{"self-signed", CertificateOptions{SelfSigned: true}, "localhost", true},
		{"common name", CertificateOptions{CommonName: "localhost", Names: []string{}}, "localhost", false},
		{"for an hour", CertificateOptions{Until: time.Now().Add(time.Hour)}, "localhost", true},
		{"expired", CertificateOptions{Until: time.Now().Add(-time.Hour)}, "localhost", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := NewCertificate(t, tt.options)
			near, far := Pipe(new(net.TCPAddr), new(net.TCPAddr))
			done := make(chan struct{})
			go func() {
				defer close(done)
				_ = tls.Server(far, c.Server()).Handshake() // the client has the result
				_ = far.Close()
			}()
			err := tls.Client(near, &tls.Config{ServerName: tt.server, RootCAs: c.CA}).Handshake()
			_ = near.Close()
			<-done
			if (err == nil) != tt.ok {
				t.Errorf("handshake: %v", err)
			}
			if _, err := tls.X509KeyPair(c.CertPEM, c.KeyPEM); err != nil {
				t.Error(err)
			}
			if pool := x509.NewCertPool(); !pool.AppendCertsFromPEM(c.CAPEM) || !pool.Equal(c.CA) {
				t.Error("CAPEM is not CA")
			}
		})
	}
}
