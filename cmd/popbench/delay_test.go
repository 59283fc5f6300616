package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"
)

const testRTT = 100 * time.Millisecond

// forwarded runs a delayProxy between two pipes and returns their outer ends.
// dialled receives the time at which the proxy has connected to the server.
func forwarded(t *testing.T, dialErr error) (client, server net.Conn, dialled <-chan time.Time, done <-chan struct{}) {
	t.Helper()
	client, inner := net.Pipe()
	serverInner, server := net.Pipe()
	times := make(chan time.Time, 1)
	ended := make(chan struct{})
	d := &delayProxy{rtt: testRTT, log: progress{io.Discard}, dial: func() (net.Conn, error) {
		times <- time.Now()
		return serverInner, dialErr
	}}
	go func() {
		defer close(ended)
		d.forward(inner)
	}()
	return client, server, times, ended
}

// TestDelayOpening checks that a connection is opened as late as on a real
// network: the server accepts after 1.5 round trips, when the client's first
// octets arrive too, and its greeting arrives after 2.
func TestDelayOpening(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		client, server, dialled, done := forwarded(t, nil)
		go func() { _, _ = client.Write([]byte("hello")) }()
		got := make([]byte, 5)
		if _, err := io.ReadFull(server, got); err != nil || string(got) != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
		if d := (<-dialled).Sub(start); d != testRTT*3/2 {
			t.Errorf("the server accepts after %v, want 1.5 round trips", d)
		}
		if d := time.Since(start); d != testRTT*3/2 {
			t.Errorf("the client's first octets arrive after %v, want 1.5 round trips", d)
		}
		go func() { _, _ = server.Write([]byte("ready")) }()
		if _, err := io.ReadFull(client, got); err != nil || string(got) != "ready" {
			t.Fatalf("%q, %v", got, err)
		}
		if d := time.Since(start); d != 2*testRTT {
			t.Errorf("the greeting arrives after %v, want 2 round trips", d)
		}
		client.Close()
		server.Close()
		<-done
	})
}

// TestDelayPipelining checks that the delay does not depend on how much is in
// flight.
func TestDelayPipelining(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, dialled, done := forwarded(t, nil)
		<-dialled
		go func() {
			_, _ = io.Copy(server, server)
			server.Close()
		}()
		want := bytes.Repeat([]byte("pipelined "), 5_000)
		start := time.Now()
		go func() {
			for piece := want; len(piece) > 0; piece = piece[10:] {
				_, _ = client.Write(piece[:10])
			}
		}()
		got := make([]byte, len(want))
		if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("the echo differs, or %v", err)
		}
		if d := time.Since(start); d != testRTT {
			t.Errorf("%d octets and back took %v, want %v", len(want), d, testRTT)
		}
		client.Close()
		<-done
	})
}

// TestDelayWindow checks that the proxy stops reading when too much is in
// flight.
func TestDelayWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, server, _, done := forwarded(t, nil)
		written := 0
		go func() {
			block := make([]byte, 1<<20)
			for {
				n, err := client.Write(block)
				written += n
				if err != nil {
					return
				}
			}
		}()
		synctest.Wait()
		time.Sleep(10 * testRTT) // the server does not read
		synctest.Wait()
		if written > delayWindow+1<<20 {
			t.Errorf("%d octets were taken, more than the window", written)
		}
		server.Close()
		client.Close()
		<-done
	})
}

// TestDelayEnd checks that the end of one side ends the other, and that a server
// that cannot be dialled ends the client.
func TestDelayEnd(t *testing.T) {
	for _, tt := range []struct {
		name    string
		dialErr error
		end     func(client, server net.Conn)
	}{
		{"client", nil, func(client, _ net.Conn) { client.Close() }},
		{"server", nil, func(_, server net.Conn) { server.Close() }},
		{"no server", errors.New("refused"), func(net.Conn, net.Conn) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, server, dialled, done := forwarded(t, tt.dialErr)
				<-dialled
				tt.end(client, server)
				for _, conn := range []net.Conn{client, server} {
					if tt.dialErr != nil && conn == server {
						continue
					}
					if n, err := conn.Read(make([]byte, 1)); err == nil {
						t.Errorf("%d octets instead of the end", n)
					}
				}
				<-done
			})
		})
	}
}

// TestDelayRate checks that a slow link takes as long as it should, and loses
// nothing.
func TestDelayRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		const rate, octets = 1000, 5000
		sent := bytes.Repeat([]byte("0123456789"), octets/10)
		start := time.Now()
		go func() {
			l := delayLine{rate: rate}
			if err := l.write(near, net.Buffers{sent[:1234], sent[1234:]}); err != nil {
				t.Error(err)
			}
			_ = near.Close()
		}()
		got, err := io.ReadAll(far)
		if err != nil || !bytes.Equal(got, sent) {
			t.Errorf("%d octets, %v", len(got), err)
		}
		if took := time.Since(start); took != octets/rate*time.Second {
			t.Errorf("%v", took)
		}
	})
}
