package proxy

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// taken is the result of one call of next.
type taken struct {
	line string
	err  error
}

// takeAll returns the results of next for src, except io.EOF.
func takeAll(src io.Reader, kind lineKind) []taken {
	r := &lineReader{src: src}
	r.release()
	defer r.release()
	var all []taken
	for {
		line, err := r.next(kind)
		if err == io.EOF {
			return all
		}
		all = append(all, taken{string(line), err})
		if err != nil && !isBad(err) {
			return all
		}
	}
}

// linesOf is a simple model of takeAll.
func linesOf(input string, kind lineKind) []taken {
	var all []taken
	for {
		raw, rest, found := strings.Cut(input, "\n")
		if !found {
			if len(raw) > endlessLine+lineBuffer {
				all = append(all, taken{err: errEndlessLine})
			}
			return all
		}
		input = rest
		line := strings.TrimSuffix(raw, "\r")
		switch {
		case len(raw) > endlessLine+lineBuffer:
			return append(all, taken{err: errEndlessLine})
		case !kind.allows(len(raw)+1, []byte(raw)):
			all = append(all, taken{err: longLineError(kind, []byte(raw))})
		case strings.ContainsAny(line, "\r\x00"):
			all = append(all, taken{err: errBadLine})
		default:
			all = append(all, taken{line: line})
		}
	}
}

func same(a, b []taken) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].line != b[i].line || !errors.Is(a[i].err, b[i].err) {
			return false
		}
	}
	return true
}

var lineInputs = []string{
	"",
	"QUIT\r\n",
	"QUIT\nNOOP\r\n\r\n\n",
	"QUIT",
	"QUIT\r",
	"ST\rAT\r\nSTAT\r\r\nNU\x00L\r\n\r\n",
	strings.Repeat("a", 253) + "\r\n" + strings.Repeat("b", 254) + "\r\n" + strings.Repeat("c", 255) + "\n",
	"pass " + strings.Repeat("p", 16377) + "\r\nPASS " + strings.Repeat("p", 16378) + "\r\nNOOP\r\n",
	"AuTh " + strings.Repeat("p", 16377) + "\r\nPASS" + strings.Repeat("p", 300) + "\r\nNOOP\r\n",
	strings.Repeat("x", 65536) + "\r\n" + strings.Repeat("y", 65537) + "\r\nNOOP\r\n",
	strings.Repeat("DELE 1\r\n", 20000),
	strings.Repeat("z", 500_000) + "\r\nNOOP\r\n",
	strings.Repeat("z", 1_200_000),
}

// TestLineReader shows P-GRAM-4 to P-GRAM-8, however the input is split.
func TestLineReader(t *testing.T) {
	for _, kind := range []lineKind{commandLine, saslLine} {
		for i, input := range lineInputs {
			want := linesOf(input, kind)
			for name, src := range map[string]io.Reader{
				"whole":          strings.NewReader(input),
				"octet by octet": iotest.OneByteReader(strings.NewReader(input)),
				"in halves":      iotest.HalfReader(strings.NewReader(input)),
				"error at end":   iotest.DataErrReader(strings.NewReader(input)),
			} {
				if got := takeAll(src, kind); !same(got, want) {
					t.Errorf("input %d, kind %d, %s: %d lines, want %d", i, kind, name, len(got), len(want))
				}
			}
		}
	}
}

// FuzzLine compares a lineReader with linesOf.
func FuzzLine(f *testing.F) {
	for _, input := range lineInputs[:8] {
		f.Add(input, false)
		f.Add(input, true)
	}
	f.Fuzz(func(t *testing.T, input string, sasl bool) {
		kind := commandLine
		if sasl {
			kind = saslLine
		}
		want := linesOf(input, kind)
		if got := takeAll(strings.NewReader(input), kind); !same(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		if got := takeAll(iotest.OneByteReader(strings.NewReader(input)), kind); !same(got, want) {
			t.Errorf("octet by octet: got %v, want %v", got, want)
		}
	})
}

// sizeReader records the length of the last Read.
type sizeReader struct {
	src  io.Reader
	last int
}

func (r *sizeReader) Read(p []byte) (int, error) {
	r.last = len(p)
	return r.src.Read(p)
}

// TestIdleBuffer shows P-PIPE-1: a session that waits for input has only the
// small buffer, whatever it has read before; one with much input has the large
// buffer.
func TestIdleBuffer(t *testing.T) {
	src := &sizeReader{src: strings.NewReader(strings.Repeat("DELE 12\r\n", 10000))}
	r := &lineReader{src: src}
	r.release()
	largest := 0
	for {
		_, err := r.next(commandLine)
		largest = max(largest, len(r.buf))
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if src.last != idleBuffer || r.big != nil {
		t.Errorf("waiting with room for %d octets, want %d", src.last, idleBuffer)
	}
	if largest != lineBuffer {
		t.Errorf("largest buffer %d, want %d", largest, lineBuffer)
	}
}

// TestTakeBuffered shows P-STLS-3: what is buffered after a line is not lost.
func TestTakeBuffered(t *testing.T) {
	r := &lineReader{src: strings.NewReader("STLS\r\nUSER a\r\nPA")}
	r.release()
	if line, err := r.next(commandLine); err != nil || string(line) != "STLS" {
		t.Fatalf("got %q, %v", line, err)
	}
	if rest := r.takeBuffered(); string(rest) != "USER a\r\nPA" || r.pending() {
		t.Errorf("got %q", rest)
	}
}

// TestLineReaderAllocations shows that reading a line allocates nothing.
func TestLineReaderAllocations(t *testing.T) {
	input := bytes.Repeat([]byte("DELE 12345\r\n"), 100)
	src := bytes.NewReader(input)
	r := &lineReader{src: src}
	r.release()
	allocs := testing.AllocsPerRun(100, func() {
		src.Reset(input)
		for range 100 {
			if _, err := r.next(commandLine); err != nil {
				t.Fatal(err)
			}
		}
	})
	if allocs > 1 { // garbage collection may empty the pool
		t.Errorf("%v allocations for 100 lines", allocs)
	}
}

func BenchmarkLineReader(b *testing.B) {
	input := bytes.Repeat([]byte("DELE 12345\r\n"), 10000)
	src := bytes.NewReader(input)
	r := &lineReader{src: src}
	r.release()
	b.SetBytes(int64(len(input)))
	b.ReportAllocs()
	for b.Loop() {
		src.Reset(input)
		for range 10000 {
			if _, err := r.next(commandLine); err != nil {
				b.Fatal(err)
			}
		}
	}
}
