package proxy

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// TestStatusLine shows P-RESP-1, P-RESP-4 and P-RESP-5.
func TestStatusLine(t *testing.T) {
	for _, tt := range []struct {
		code       Code
		text, want string
	}{
		{CodeNone, "", "-ERR\r\n"},
		{CodeNone, "no such message", "-ERR no such message\r\n"},
		{CodeSysTemp, "later", "-ERR [SYS/TEMP] later\r\n"},
		{CodeInUse, "", "-ERR [IN-USE]\r\n"},
		{CodeNone, "[AUTH] a", "-ERR ?AUTH] a\r\n"},
		{CodeNone, "a [b]", "-ERR a ?b]\r\n"},
		{CodeNone, "a\r\n+OK\x00\x7f\tb", "-ERR a??+OK???b\r\n"},
		{CodeNone, "gr\xfc", "-ERR gr?\r\n"},
		{CodeAuth, strings.Repeat("x", 600), "-ERR [AUTH] " + strings.Repeat("x", 498) + "\r\n"},
	} {
		got := string(appendStatus([]byte("before"), "-ERR", tt.code, tt.text))
		if got != "before"+tt.want {
			t.Errorf("%s %q: got %q, want %q", tt.code, tt.text, got, tt.want)
		}
		if len(tt.want) > statusLimit {
			t.Errorf("%q is too long", tt.want)
		}
	}
}

// TestOneWrite shows P-RESP-1 and P-RESP-2 for replies that fill the buffer: no
// write ends within a status line or within CRLF.CRLF, because some clients look
// for these only in what a single read returns.
func TestOneWrite(t *testing.T) {
	// With the small pool every case occurs soon.
	for _, pool := range []*bufferPool{newBufferPool(2 * statusLimit), tlsBuffers} {
		size := len(*pool.take())
		for off := -60; off < 20; off++ {
			var w writes
			var rw replyWriter
			rw.setDst(&w, pool)
			var want strings.Builder
			for i, octets := range []int{size + off, 0, size - 20, 1, 600} {
				rw.ok(fmt.Sprintf("message %d", i))
				fmt.Fprintf(&want, "+OK message %d\r\n", i)
				d := dotWriter{w: &rw}
				if octets > 0 {
					_, _ = io.WriteString(&d, strings.Repeat("x", octets-1)+"\n")
					want.WriteString(strings.Repeat("x", octets-1) + "\r\n")
				}
				d.finish()
				want.WriteString(".\r\n")
			}
			if err := rw.flush(); err != nil {
				t.Fatal(err)
			}
			all := strings.Join(w, "")
			if all != want.String() {
				t.Fatalf("offset %d: the replies are not whole", off)
			}
			checkBoundaries(t, all, w, size)
		}
	}
}

// checkBoundaries checks where the writes that make up all end.
func checkBoundaries(t *testing.T, all string, w writes, size int) {
	t.Helper()
	at := 0
	for _, p := range w {
		if len(p) > size {
			t.Errorf("a write of %d octets, above %d", len(p), size)
		}
		at += len(p)
		line := all[strings.LastIndex(all[:at], "\n")+1:]
		if line != "" && strings.HasPrefix(line, "+OK") && !strings.HasSuffix(p, "\n") {
			t.Errorf("a write ends within a status line")
		}
		for i := 1; i < 5; i++ {
			if at >= i && strings.HasPrefix(all[at-i:], "\r\n.\r\n") {
				t.Errorf("a write ends %d octets into CRLF.CRLF", i)
			}
		}
	}
}

// TestListingAllocations shows P-LIST-1 and P-UIDL-1: a listing of 100,000
// messages allocates nothing per message.
func TestListingAllocations(t *testing.T) {
	for name, list := range listings() {
		if allocs := testing.AllocsPerRun(5, list); allocs > 20 {
			t.Errorf("%s: %v allocations", name, allocs)
		}
	}
}

func BenchmarkListing(b *testing.B) {
	for name, list := range listings() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				list()
			}
		})
	}
}

// numbered is a Maildrop with unique-ids only.
type numbered struct{ Maildrop }

func (numbered) UniqueIDs() (func([]byte, uint64) []byte, error) {
	return func(dst []byte, uid uint64) []byte {
		return append(dst, "1234567890."...)
	}, nil
}

func listings() map[string]func() {
	messages := make([]Message, 100_000)
	for i := range messages {
		messages[i] = Message{UID: uint64(i + 1), Octets: int64(i) * 1000}
	}
	s := &session{snap: newSnapshot(messages), maildrop: numbered{}}
	s.w.setDst(io.Discard, plainBuffers)
	run := func(handle func([]string) error) func() {
		return func() {
			if err := handle(nil); err != nil {
				panic(err)
			}
			_ = s.w.flush()
		}
	}
	return map[string]func(){"LIST": run(s.list), "UIDL": run(s.uidl)}
}
