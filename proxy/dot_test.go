package proxy

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
)

var messages = []string{
	"",
	".",
	"\n",
	"\r",
	"\r\n",
	".\r\n",
	"..\r\n.\r\n.a\r\n",
	"a\r\n\r\n.",
	"a\n.b\n\n.\n",
	"a\rb\r\r\n.\r",
	"gr\xfc\xdfe\x00\xff\r\n",
	"header: x\r\n\r\ntext\r\n.\r\n\r\n",
	strings.Repeat(".", 1000),
	strings.Repeat(".\n", 1000),
	strings.Repeat("0123456789", 20000),
	strings.Repeat("a line of mail as there are many\r\n", 5000),
	strings.Repeat("\r\n", 40000),
	strings.Repeat("\r", 70000),
}

// repaired is a simple model of P-RETR-3.
func repaired(message string) string {
	s := strings.ReplaceAll(strings.ReplaceAll(message, "\r\n", "\n"), "\n", "\r\n")
	if s != "" && !strings.HasSuffix(s, "\n") {
		s += "\r\n"
	}
	return s
}

// decode removes the byte-stuffing from the body of a multi-line reply (RFC 1939
// §3). ok is false if the final line is not at its end.
func decode(reply string) (body string, ok bool) {
	var out strings.Builder
	for {
		line, rest, found := strings.Cut(reply, "\r\n")
		switch {
		case !found:
			return out.String(), false
		case line == ".":
			return out.String(), rest == ""
		}
		out.WriteString(strings.TrimPrefix(line, ".") + "\r\n")
		reply = rest
	}
}

// writes records each write separately.
type writes []string

func (w *writes) Write(p []byte) (int, error) {
	*w = append(*w, string(p))
	return len(p), nil
}

// reply sends message as the body of a reply, in pieces of that many octets, and
// returns the writes and the octets counted.
func reply(message string, piece int, pool *bufferPool) (w writes, octets int64) {
	var rw replyWriter
	rw.setDst(&w, pool)
	d := dotWriter{w: &rw}
	rw.ok("message follows")
	for rest := message; rest != ""; {
		n := min(piece, len(rest))
		if _, err := io.WriteString(&d, rest[:n]); err != nil {
			panic(err)
		}
		rest = rest[n:]
	}
	d.finish()
	if err := rw.flush(); err != nil {
		panic(err)
	}
	return w, d.octets
}

func checkReply(t *testing.T, message string, piece int, pool *bufferPool) {
	t.Helper()
	w, octets := reply(message, piece, pool)
	all := strings.Join(w, "")
	body, found := strings.CutPrefix(all, "+OK message follows\r\n")
	if !found {
		t.Fatalf("status line is missing: %.100q", all)
	}
	want := repaired(message)
	if got, ok := decode(body); !ok || got != want {
		t.Errorf("%.60q in pieces of %d: got %.200q, want %.200q", message, piece, got, want)
	}
	if octets != int64(len(want)) {
		t.Errorf("%.60q in pieces of %d: counted %d octets, want %d", message, piece, octets, len(want))
	}
	if last := w[len(w)-1]; !strings.HasSuffix(last, "\r\n.\r\n") {
		t.Errorf("%.60q in pieces of %d: last write %.20q", message, piece, last)
	}
}

// TestDotWriter shows P-RESP-2 and P-RETR-3, however a message is split.
func TestDotWriter(t *testing.T) {
	for _, message := range messages {
		for _, piece := range []int{1, 2, 3, 7, 1000, 16384, 1 << 20} {
			for _, pool := range []*bufferPool{plainBuffers, tlsBuffers} {
				checkReply(t, message, piece, pool)
			}
		}
	}
}

// FuzzDotWriter compares a dotWriter with repaired.
func FuzzDotWriter(f *testing.F) {
	for _, message := range messages[:12] {
		f.Add(message, uint16(1))
		f.Add(message, uint16(100))
	}
	tiny := newBufferPool(statusLimit + 8) // so that the buffer is often full
	f.Fuzz(func(t *testing.T, message string, piece uint16) {
		checkReply(t, message, int(piece)+1, tlsBuffers)
		checkReply(t, message, int(piece)+1, tiny)
	})
}

// failing accepts some octets and then fails.
type failing struct{ n int }

var errFailing = errors.New("client has gone")

func (f *failing) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, errFailing
	}
	return len(p), nil
}

// TestDotWriterClientError shows that Write returns and keeps an error of the
// client's connection (P-RETR-7 is for those of the upstream).
func TestDotWriterClientError(t *testing.T) {
	var rw replyWriter
	rw.setDst(&failing{n: 100_000}, tlsBuffers)
	d := dotWriter{w: &rw}
	line := bytes.Repeat([]byte("x"), 1000)
	var err error
	for i := 0; i < 1000 && err == nil; i++ {
		_, err = d.Write(append(line, '\n'))
	}
	if !errors.Is(err, errFailing) || !errors.Is(rw.err, errFailing) {
		t.Errorf("Write: %v, kept: %v", err, rw.err)
	}
	d.finish()
	if err := rw.flush(); !errors.Is(err, errFailing) {
		t.Errorf("flush: %v", err)
	}
}

// TestDotWriterAllocations shows that writing a message allocates nothing.
func TestDotWriterAllocations(t *testing.T) {
	message := []byte(strings.Repeat("a line\r\n.dot\nanother", 10000))
	var rw replyWriter
	rw.setDst(io.Discard, plainBuffers)
	var d dotWriter
	allocs := testing.AllocsPerRun(100, func() {
		d = dotWriter{w: &rw}
		rw.ok("message follows")
		for i := 0; i < len(message); i += 4096 {
			_, _ = d.Write(message[i:min(i+4096, len(message))])
		}
		d.finish()
		_ = rw.flush()
	})
	if allocs >= 1 {
		t.Errorf("%v allocations for a message", allocs)
	}
}

func BenchmarkDotWriter(b *testing.B) {
	for name, line := range map[string]string{
		"mail":  strings.Repeat("m", 74) + "\r\n",
		"lf":    strings.Repeat("m", 74) + "\n",
		"dots":  ".\r\n",
		"empty": "\r\n",
	} {
		b.Run(name, func(b *testing.B) {
			message := []byte(strings.Repeat(line, 1<<20/len(line)))
			var rw replyWriter
			rw.setDst(io.Discard, plainBuffers)
			b.SetBytes(int64(len(message)))
			b.ReportAllocs()
			for b.Loop() {
				d := dotWriter{w: &rw}
				rw.ok("")
				_, _ = d.Write(message)
				d.finish()
				_ = rw.flush()
			}
		})
	}
}
