package wire

import (
	"bytes"
	"compress/flate"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// compressed returns the stream of a server that flushes after each piece.
func compressed(t testing.TB, pieces ...string) []byte {
	var out bytes.Buffer
	w, err := flate.NewWriter(&out, flate.DefaultCompression)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range pieces {
		io.WriteString(w, p) // to memory
		w.Flush()
	}
	return out.Bytes()
}

// serving returns a connection whose other end sends data and then waits.
func serving(t testing.TB, data []byte) net.Conn {
	near, far := net.Pipe()
	t.Cleanup(func() { near.Close(); far.Close() })
	go far.Write(data) // until Close
	return near
}

// RFC 4978 §3: what has been received after the OK is compressed, wherever the
// stream is cut, and what is sent arrives whole and at once.
func TestCompress(t *testing.T) {
	data := compressed(t, "* 5 EXISTS\r\n", "P2 OK done\r\n")
	for cut := range data {
		near, far := net.Pipe()
		c := New(near, time.Minute)
		sent := make(chan string, 1)
		go func() {
			defer far.Close()
			io.ReadFull(far, make([]byte, len("P1 COMPRESS DEFLATE\r\n")))
			far.Write(append([]byte("P1 OK go\r\n"), data[:cut]...))
			r := flate.NewReader(far)
			got := make([]byte, len("P2 NOOP\r\n"))
			io.ReadFull(r, got)
			sent <- string(got)
			far.Write(data[cut:])
		}()
		if s, err := c.Run("COMPRESS DEFLATE"); err != nil || !s.OK() {
			t.Fatalf("COMPRESS: %v %v", s, err)
		}
		c.Compress()
		s, err := c.Run("NOOP")
		if err != nil || s.Text != "done" || c.Mailbox().Exists != 5 {
			t.Fatalf("cut at %d: %v %v, %d messages", cut, s, err, c.Mailbox().Exists)
		}
		if got := <-sent; got != "P2 NOOP\r\n" {
			t.Fatalf("the server got %q", got)
		}
		c.Close()
	}
}

// Any text passes in both directions, and the standard library can decompress it.
func TestDeflatedRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 15 {
		text := make([]byte, r.IntN(100_000))
		for i := range text {
			text[i] = byte(r.IntN(1 + r.IntN(256)))
		}
		near, far := net.Pipe()
		go func() {
			newDeflated(near, nil).Write(text)
			near.Close()
		}()
		got, _ := io.ReadAll(flate.NewReader(far)) // the stream has no end
		if !bytes.Equal(got, text) {
			t.Fatalf("%d octets become %d", len(text), len(got))
		}
		got = make([]byte, len(text))
		d := newDeflated(serving(t, compressed(t, string(text))), nil)
		if _, err := io.ReadFull(d, got); err != nil || !bytes.Equal(got, text) {
			t.Fatalf("%d octets: %v", len(text), err)
		}
	}
}

// RFC 4978 §4, RFC 1951 §3.2.4: the output of zlib with Z_PARTIAL_FLUSH, which
// ends in an empty block of fixed codes, is due without any octet after it.
func TestDeflatedPartialFlush(t *testing.T) {
	data, err := hex.DecodeString(partialFlush)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		d := newDeflated(serving(t, data), nil)
		d.SetReadDeadline(start.Add(time.Minute))
		got := make([]byte, len("* OK hello\r\n"))
		if _, err := io.ReadFull(d, got); err != nil || string(got) != "* OK hello\r\n" {
			t.Errorf("%q, %v", got, err)
		}
		if late := time.Since(start); late > 0 {
			t.Errorf("%v late", late)
		}
	})
}

// I-CONN-3: a few compressed octets that decompress to a huge line end the
// connection at its limit, with little memory; so do data that are not DEFLATE.
func TestCompressHostile(t *testing.T) {
	for _, tt := range []struct {
		name string
		data []byte
	}{
		{"a line of 8 MiB", compressed(t, "* OK "+strings.Repeat("a", 8<<20))},
		{"not DEFLATE", []byte("* OK not compressed at all\r\n")},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := New(serving(t, tt.data), time.Minute)
			c.Compress()
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := c.Greeting()
			for err == nil {
				_, err = c.Next()
			}
			runtime.ReadMemStats(&after)
			if _, ok := errors.AsType[*ProtocolError](err); !ok {
				t.Errorf("%T %v, want a *ProtocolError", err, err)
			}
			if after.TotalAlloc-before.TotalAlloc > 2<<20 {
				t.Errorf("%d octets allocated", after.TotalAlloc-before.TotalAlloc)
			}
		})
	}
}

// The memory of a compressed connection is what the documents say.
func TestCompressMemory(t *testing.T) {
	const n = 200
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	conns := make([]*deflated, n)
	one := compressed(t, "* OK hello\r\n")
	for i := range conns {
		conns[i] = newDeflated(serving(t, one), nil)
		if _, err := fmt.Fscanln(conns[i], new(string), new(string), new(string)); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := (after.HeapAlloc - before.HeapAlloc) / n
	t.Logf("%d octets a connection", each)
	if each > 64<<10 {
		t.Errorf("%d octets a connection", each)
	}
	runtime.KeepAlive(conns)
}

// partialFlush is "* OK hello\r\n" with such a flush.
const partialFlush = "d252f0f756c848cdc9c9e7e50208"
