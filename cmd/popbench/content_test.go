package main

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"testing"
	"testing/iotest"
	"time"
)

// TestMessages checks that a generator makes the same messages every time, each
// different from the others, and that their lines end in CRLF.
func TestMessages(t *testing.T) {
	g1, g2 := testGenerator(), newGenerator(1)
	seen := map[string]bool{}
	for _, k := range []kind{tiny, small, mixed} {
		for i := range 50 {
			b := box{"test", 50, k}
			m := g1.message(b, i, nil)
			if !bytes.Equal(m, g2.message(b, i, nil)) {
				t.Fatalf("%s %d differs between two generators", k, i)
			}
			if lf := bytes.Count(m, []byte("\n")); !bytes.HasSuffix(m, []byte("\r\n")) ||
				lf != bytes.Count(m, []byte("\r\n")) || lf != bytes.Count(m, []byte("\r")) {
				t.Fatalf("%s %d: CR or LF outside CRLF", k, i)
			}
			if seen[string(m)] {
				t.Fatalf("%s %d equals an earlier message", k, i)
			}
			seen[string(m)] = true
			if want := g1.expect(b)[i]; want.octets != int64(len(m)) {
				t.Fatalf("%s %d: digest of %d octets, message of %d", k, i, want.octets, len(m))
			}
		}
	}
}

// TestMessagesAreHard checks that lines occur that gateways get wrong.
func TestMessagesAreHard(t *testing.T) {
	g := testGenerator()
	var all []byte
	for i := range 300 {
		all = append(all, g.message(box{"test", 300, small}, i, nil)...)
	}
	for _, part := range []string{"\r\n.\r\n", "\r\n..\r\n", "\r\n.hidden\r\n", "\r\n\r\n", "gr\xc3\xbc"} {
		if !bytes.Contains(all, []byte(part)) {
			t.Errorf("%q does not occur", part)
		}
	}
}

// stuffed returns msg as RETR sends it after its status line.
func stuffed(msg []byte) []byte {
	out := bytes.ReplaceAll(append([]byte("\n"), msg...), []byte("\n."), []byte("\n.."))
	return append(out[1:], ".\r\n"...)
}

// TestBody checks that body undoes byte-stuffing, however reads cut the stream.
func TestBody(t *testing.T) {
	g := testGenerator()
	b := box{"test", 30, small}
	want := g.expect(b)
	var wire []byte
	for i := range want {
		wire = append(wire, stuffed(g.message(b, i, nil))...)
	}
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	for name, r := range map[string]io.Reader{
		"whole": bytes.NewReader(wire),
		"bytes": iotest.OneByteReader(bytes.NewReader(wire)),
		"half":  iotest.HalfReader(bytes.NewReader(wire)),
	} {
		p := &popConn{conn: client, r: bufio.NewReaderSize(r, 512), timeout: time.Minute}
		var s sink
		for i, d := range want {
			if err := p.body(&s); err != nil {
				t.Fatalf("%s: message %d: %v", name, i, err)
			}
			if err := s.finish(d); err != nil {
				t.Fatalf("%s: message %d: %v", name, i, err)
			}
		}
		if p.octets != int64(len(wire)) {
			t.Errorf("%s: %d octets read, want %d", name, p.octets, len(wire))
		}
	}
}

// TestSink checks that damage and loss are noticed, each message by itself.
func TestSink(t *testing.T) {
	g := testGenerator()
	b := box{"test", 1, tiny}
	msg, want := g.message(b, 0, nil), g.expect(b)[0]
	damaged := bytes.Clone(msg)
	damaged[len(damaged)/2] ^= 1
	var s sink
	for _, tt := range []struct {
		name string
		data []byte
		ok   bool
	}{
		{"damaged", damaged, false},
		{"cut", msg[:len(msg)-1], false},
		{"right", msg, true},
	} {
		s.write(tt.data)
		if err := s.finish(want); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// BenchmarkBody measures how fast the driver itself can read.
func BenchmarkBody(b *testing.B) {
	g := testGenerator()
	of := box{"test", 200, mixed}
	want := g.expect(of)
	var wire []byte
	for i := range want {
		wire = append(wire, stuffed(g.message(of, i, nil))...)
	}
	client, server := net.Pipe()
	defer client.Close()
	defer server.Close()
	b.SetBytes(int64(len(wire)))
	for b.Loop() {
		p := &popConn{conn: client, r: bufio.NewReaderSize(bytes.NewReader(wire), 256<<10), timeout: time.Minute}
		var s sink
		for _, d := range want {
			if err := p.body(&s); err != nil {
				b.Fatal(err)
			}
			if err := s.finish(d); err != nil {
				b.Fatal(err)
			}
		}
	}
}
