package imapbackend

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"strings"
	"testing"

	"popgate/imapbackend/demo"
	"popgate/proxy"
)

// openedSize is opened with a message of octets.
func openedSize(octets int) string {
	return strings.Replace(opened, "RFC822.SIZE 100", "RFC822.SIZE "+itoa(octets), 1)
}

// lit returns s as a literal in a script, to be followed by "\nS: ".
func lit(s string) string {
	if s == "" {
		return "{0}"
	}
	return fmt.Sprintf("{%d}\nS*: %d %q", len(s), len(s), s)
}

// topCommand is the line of a script that expects a FETCH of items.
func topCommand(name, items string) string {
	return "C: <" + name + "> UID FETCH 7 (UID " + items + ")\n"
}

// I-TOP-1, I-TOP-2, I-TOP-3, I-TOP-4, P-TOP-2, P-TOP-3: the commands of TOP,
// and how their answers make the top.
func TestTop(t *testing.T) {
	const header = "A: b\r\n\r\n"
	headerOnly := topCommand("r", "BODY.PEEK[HEADER]")
	both := func(c int) string { return topCommand("r", fmt.Sprintf("BODY.PEEK[HEADER] BODY.PEEK[TEXT]<0.%d>", c)) }
	piece := func(offset, c int) string { return topCommand("r", fmt.Sprintf("BODY.PEEK[TEXT]<%d.%d>", offset, c)) }
	first := func(h, text string) string {
		return "S: * 1 FETCH (UID 7 BODY[HEADER] " + lit(h) + "\nS:  BODY[TEXT]<0> " + lit(text) + "\nS: )\nS: <r> OK x\n"
	}
	more := func(offset int, text string) string {
		return fmt.Sprintf("S: * 1 FETCH (UID 7 BODY[TEXT]<%d> %s\nS: )\nS: <r> OK x\n", offset, lit(text))
	}
	line := strings.Repeat("x", 1022) + "\r\n" // a line of one unit
	x64, x128 := strings.Repeat("y", 64<<10), strings.Repeat("z", 128<<10)
	for _, tt := range []struct {
		name   string
		size   int
		lines  uint64
		script string
		want   string
	}{
		{"I-TOP-1 k=0", 100, 0, headerOnly + "S: * 1 FETCH (UID 7 BODY[HEADER] " + lit(header) + "\nS: )\nS: <r> OK x\n", header},
		{"I-TOP-1 k=0, quoted, UID after it", 100, 0, headerOnly + "S: * 1 FETCH (BODY[HEADER] \"A: b\" UID 7)\nS: <r> OK x\n", "A: b"},
		{"I-TOP-1 k=1", 100, 1, both(1024) + first(header, "one\r\ntwo\r\n"), header + "one\r\n"},
		{"I-TOP-1 k=8 takes one unit", 19, 8, both(1024) + first(header, "one\r\n.two\r\n"), header + "one\r\n.two\r\n"},
		{"I-TOP-1 k=9 takes two", 18, 9, both(2048) + first(header, "one\n\ntwo x"), header + "one\n\ntwo x"},
		{"I-TOP-1 k=512 takes 64 KiB", 2056, 512, both(65536) + first(header, line+line), header + line + line},
		{"I-TOP-1 k=1000 takes no more", 2056, 1000, both(65536) + first(header, line+line), header + line + line},
		{"I-TOP-1 c doubles up to 1 MiB", 1 << 30, 1000, both(65536) + first(header, x64) +
			piece(65536, 131072) + more(65536, x128) + piece(196608, 262144) + more(196608, x128+x128) +
			piece(458752, 524288) + more(458752, x128) + // shorter than asked for, yet not the end
			piece(589824, 1048576) + more(589824, x64) + piece(655360, 1048576) + more(655360, "a\nb"[:2]) +
			piece(655362, 1048576) + more(655362, ""), header + x64 + x128 + x128 + x128 + x128 + x64 + "a\n"},
		{"I-TOP-3 CR and LF in two pieces", 5000, 1, both(1024) + first(header, line[:1023]) + piece(1023, 2048) + more(1023, "\ntwo\r\n"), header + line},
		{"I-TOP-3 the dot of the next piece", 5000, 2, both(1024) + first(header, line) + piece(1024, 2048) + more(1024, ".\r\n\r\n"), header + line + ".\r\n"},
		{"I-TOP-3 short and last", len(header) + 1024 + 3, 2, both(1024) + first(header, line) + piece(1024, 2048) + more(1024, "end"), header + line + "end"},
		{"I-TOP-3 end at the end of a piece", len(header) + 1024, 2, both(1024) + first(header, line) + piece(1024, 2048) + more(1024, ""), header + line},
		{"I-TOP-3 overestimated size", 1 << 20, 5, both(1024) + first(header, "one\r\n") + piece(5, 2048) + more(5, ""), header + "one\r\n"},
		{"I-TOP-3 origin left out", 100, 1, both(1024) + strings.Replace(first(header, "one\r\ntwo\r\n"), "<0>", "", 1), header + "one\r\n"},
		{"I-TOP-3 origin with count", 5000, 1, both(1024) + strings.Replace(first(header, line[:1023]), "<0>", "<0.1024>", 1) +
			piece(1023, 2048) + strings.Replace(more(1023, "\ntwo\r\n"), "<1023>", "<1023.2048>", 1), header + line},
		{"I-TOP-3 next piece without origin", 5000, 2, both(1024) + first(header, line) + piece(1024, 2048) + strings.Replace(more(1024, line), "<1024>", "", 1) +
			topCommand("w", "BODY.PEEK[]") + "S: * 1 FETCH (UID 7 BODY[] " + lit(header+line+"two\r\nthree") + "\nS: )\nS: <w> OK x\n", header + line + "two\r\n"},
		{"I-TOP-3 next piece without origin, empty", 5000, 2, both(1024) + first(header, line) + piece(1024, 2048) + strings.Replace(more(1024, ""), "<1024>", "", 1), header + line},
		{"I-TOP-3 longer than requested", 5000, 2, both(1024) + first(header, line+line[:100]) + piece(1124, 2048) + more(1124, line[100:]), header + line + line},
		{"I-TOP-3 longer than requested, text before header", 5000, 1, both(1024) + "S: * 1 FETCH (BODY[TEXT]<0> " + lit(line+line) + "\nS:  BODY[HEADER] " + lit(header) +
			"\nS:  UID 7)\nS: <r> OK x\n", header + line},
		{"I-TOP-3 too long to be kept, text before header", 5 << 20, 1, both(1024) + "S: * 1 FETCH (BODY[TEXT] " + lit(strings.Repeat("x", lastPiece+1)) +
			"\nS:  BODY[HEADER] " + lit(header) + "\nS:  UID 7)\nS: <r> OK x\n" + piece(0, 1024) + more(0, line), header + line},
		{"I-TOP-2 no header", 100, 1, both(1024) + first("", "one\r\ntwo\r\n"), "\r\none\r\n"},
		{"I-TOP-2 no header, too long a text", 5 << 20, 1, both(1024) + first("", strings.Repeat("x", lastPiece+1)) + piece(0, 1024) + more(0, line), "\r\n" + line},
		{"I-TOP-2 header without its empty line", 100, 1, both(1024) + first("A: b\r\n", "one\r\n"), "A: b\r\n\r\none\r\n"},
		{"I-TOP-2 header without a line end", 100, 1, both(1024) + first("A: b", "one\r\n"), "A: b\r\n\r\none\r\n"},
		{"P-TOP-3 no text, no empty line", 6, 1, both(1024) + first("A: b\r\n", ""), "A: b\r\n"},
		{"P-TOP-3 the CR of a cut header as text (Courier)", 6, 1, both(1024) + first("A: b\r", "\r"), "A: b\r\n"},
		{"P-TOP-3 the CR of a cut header, in two responses", 6, 1, both(1024) + "S: * 1 FETCH (UID 7 BODY[HEADER] " + lit("A: b\r") + "\nS: )\nS: * 1 FETCH (UID 7 BODY[TEXT]<0> " +
			lit("\r") + "\nS: )\nS: <r> OK x\n", "A: b\r\n"},
		{"P-TOP-3 the CR of a cut header before it", 6, 1, both(1024) + "S: * 1 FETCH (BODY[TEXT]<0> " + lit("\r") + "\nS:  BODY[HEADER] " + lit("A: b\r") + "\nS:  UID 7)\nS: <r> OK x\n", "A: b\r\n"},
		{"P-TOP-3 a cut header", 6, 0, headerOnly + "S: * 1 FETCH (UID 7 BODY[HEADER] " + lit("A: b\r") + "\nS: )\nS: <r> OK x\n", "A: b\r\n"},
		{"P-TOP-3 a text of one CR", 9, 1, both(1024) + first(header, "\r"), header + "\r"},
		{"P-TOP-3 nothing of a message without a text (maddy)", 8, 1, both(1024) + "S: <r> OK x\n" + topCommand("w", "BODY.PEEK[]") +
			"S: * 1 FETCH (UID 7 BODY[] " + lit(header) + "\nS: )\nS: <w> OK x\n", header},
		{"P-TOP-3 neither header nor text", 100, 1, both(1024) + "S: * 1 FETCH (UID 7)\nS: <r> OK x\n" + topCommand("w", "BODY.PEEK[]") +
			"S: * 1 FETCH (UID 7 BODY[] " + lit(header+"one\r\ntwo\r\n") + "\nS: )\nS: <w> OK x\n", header + "one\r\n"},
		{"P-TOP-3 no text", 8, 2, both(1024) + first(header, ""), header},
		{"I-TOP-2 header in bare LF", 100, 1, both(1024) + first("A: b\n\n", "one\ntwo\n"), "A: b\n\none\n"},
		{"I-CONN-3 text before header", 100, 1, both(1024) + "S: * 1 FETCH (BODY[TEXT]<0> " + lit("one\r\ntwo") + "\nS:  BODY[HEADER] " + lit(header) +
			"\nS:  UID 7)\nS: <r> OK x\n", header + "one\r\n"},
		{"I-CONN-3 in two responses", 100, 1, both(1024) + "S: * 1 FETCH (UID 7 BODY[HEADER] " + lit(header) + "\nS: )\nS: * 2 FETCH (FLAGS ())\n" +
			"S: * 1 FETCH (UID 7 BODY[TEXT]<0> " + lit("one\r\ntwo") + "\nS: )\nS: <r> OK x\n", header + "one\r\n"},
		{"I-FETCH-2 another message first", 100, 0, headerOnly + "S: * 2 FETCH (UID 9 BODY[HEADER] \"no\")\nS: * 1 FETCH (UID 7 BODY[HEADER] \"yes\")\nS: <r> OK x\n", "yes"},
		{"I-TOP-4 k*2 above the size", 100, 51, topCommand("r", "BODY.PEEK[]") + "S: * 1 FETCH (UID 7 BODY[] " + lit("A: b\n\none\ntwo") + "\nS: )\nS: <r> OK x\n", "A: b\n\none\ntwo"},
		{"I-TOP-4 k*2 is the size", 100, 50, both(7168) + first(header, "one\r\n") + piece(5, 14336) + more(5, ""), header + "one\r\n"},
		{"P-TOP-1 k above 2^63", 100, math.MaxUint64, topCommand("r", "BODY.PEEK[]") + "S: * 1 FETCH (UID 7 BODY[] \"a\")\nS: <r> OK x\n", "a"},
		{"I-TOP-4 more lines than the size promised", 2, 2, topCommand("r", "BODY.PEEK[]") + "S: * 1 FETCH (UID 7 BODY[] " + lit("A: b\r\n\r\n1\r\n2\r\n3\r\n") +
			"\nS: )\nS: <r> OK x\n", "A: b\r\n\r\n1\r\n2\r\n"},
	} {
		play(t, tt.name, openedSize(tt.size)+tt.script+bye, Options{}, func(s *session) {
			body, err := s.open().Top(s.ctx, 7, tt.lines)
			if err != nil {
				s.Fatal(err)
			}
			if got := s.text(body, nil); got != tt.want || body.Octets() != -1 {
				s.Errorf("%d octets %.200q, want %d octets %.200q", len(got), got, len(tt.want), tt.want)
			}
		})
	}
}

// I-TOP-1, I-FETCH-5: TOP fails as RETR does. Codes are in TestFailures.
func TestTopOutcomes(t *testing.T) {
	headerOnly := topCommand("r", "BODY.PEEK[HEADER]")
	for _, tt := range []struct {
		name, answer string
		want         proxy.Code
	}{
		{"OK without FETCH", "S: <r> OK x\n" + bye, proxy.CodeNone},
		{"header NIL, absent", "S: * 1 FETCH (UID 7 BODY[HEADER] NIL)\nS: <r> OK x\n" + absent + bye, proxy.CodeNone},
		{"header NIL, present", "S: * 1 FETCH (UID 7 BODY[HEADER] NIL)\nS: <r> OK x\n" + present + bye, temp},
		{"header empty, present", "S: * 1 FETCH (UID 7 BODY[HEADER] \"\")\nS: <r> OK x\n" + present + bye, temp},
		{"NO, absent", "S: <r> NO x\n" + absent + bye, proxy.CodeNone},
		{"lost", "X:\n", temp},
		{"timeout", "W:\n", temp},
	} {
		play(t, "I-FETCH-5 "+tt.name, opened+headerOnly+tt.answer, Options{}, func(s *session) {
			_, err := s.open().Top(s.ctx, 7, 0)
			s.fails(err, tt.want)
		})
	}
	both := topCommand("r", "BODY.PEEK[HEADER] BODY.PEEK[TEXT]<0.1024>")
	for name, items := range map[string]string{
		"empty":             "BODY[HEADER] {0}\nS:  BODY[TEXT]<0> {0}\nS: ",
		"empty, text first": "BODY[TEXT]<0> \"\" BODY[HEADER] \"\"",
		"NIL":               "BODY[HEADER] NIL BODY[TEXT]<0> NIL",
		"header empty":      "BODY[HEADER] \"\" BODY[TEXT]<0> NIL",
		"no text":           "BODY[HEADER] \"\"",
	} {
		play(t, "I-FETCH-5 header and text, "+name, opened+both+"S: * 1 FETCH (UID 7 "+items+")\nS: <r> OK x\n"+present+bye, Options{}, func(s *session) {
			body, err := s.open().Top(s.ctx, 7, 1)
			if err == nil {
				defer body.Close()
			}
			s.fails(err, temp)
		})
	}
}

// P-RETR-7: a top that breaks off, or is that of another message, is an error
// of WriteTo. The connection stays if it is not lost.
func TestTopBroken(t *testing.T) {
	both := topCommand("r", "BODY.PEEK[HEADER] BODY.PEEK[TEXT]<0.1024>")
	header := "S: * 1 FETCH (UID 7 BODY[HEADER] {8}\nS: A: b\nS: \n"
	for _, tt := range []struct{ name, answer string }{
		{"lost in the header", "S: * 1 FETCH (UID 7 BODY[HEADER] {8}\nS: A: b\nX:\n"},
		{"lost in the text", header + "S:  BODY[TEXT]<0> {8}\nS+: on\nX:\n"},
		{"lost before the text", header + "X:\n"},
		{"no text", header + "S: )\nS: <r> OK x\n" + bye},
		{"text NIL", header + "S:  BODY[TEXT]<0> NIL)\nS: <r> OK x\n" + bye},
		{"text from another offset", header + "S:  BODY[TEXT]<5> \"x\")\nS: <r> OK x\n" + bye},
		{"text refused", header + "S: )\nS: <r> NO x\n" + bye},
		{"wrong UID after it", "S: * 1 FETCH (BODY[HEADER] \"A: b\" BODY[TEXT]<0> \"x\" UID 9)\nS: <r> OK x\n" + bye},
		{"text before header, wrong UID after it", "S: * 1 FETCH (BODY[TEXT]<0> \"x\" BODY[HEADER] \"A: b\" UID 9)\nS: <r> OK x\n" + bye},
		{"next piece gone", "S: * 1 FETCH (UID 7 BODY[HEADER] \"A: b\" BODY[TEXT]<0> \"x\")\nS: <r> OK x\n" +
			topCommand("s", "BODY.PEEK[TEXT]<1.2048>") + "S: <s> OK x\n" + bye},
		{"lost at the next piece", "S: * 1 FETCH (UID 7 BODY[HEADER] \"A: b\" BODY[TEXT]<0> \"x\")\nS: <r> OK x\n" +
			topCommand("s", "BODY.PEEK[TEXT]<1.2048>") + "X:\n"},
	} {
		play(t, "P-RETR-7 "+tt.name, opened+both+tt.answer, Options{}, func(s *session) {
			body, err := s.open().Top(s.ctx, 7, 1)
			if err != nil {
				s.Fatal(err)
			}
			if _, err := body.WriteTo(io.Discard); err == nil {
				s.Error("counts as whole")
			}
			body.Close()
		})
	}
	play(t, "the writer's error is returned", opened+topCommand("r", "BODY.PEEK[HEADER]")+header+"S: )\nS: <r> OK x\n"+bye, Options{}, func(s *session) {
		body, err := s.open().Top(s.ctx, 7, 0)
		if err != nil {
			s.Fatal(err)
		}
		if _, err := body.WriteTo(&fullWriter{}); err != errFull {
			s.Errorf("WriteTo: %v", err)
		}
		body.Close()
	})
}

// topOf is TOP by its definition (RFC 1939 §7), line by line: the header, the
// empty line, and the first lines of what follows.
func topOf(message string, lines uint64) string {
	var out strings.Builder
	inText := false
	for line := range strings.Lines(message) {
		if inText {
			if lines == 0 {
				break
			}
			lines--
		}
		out.WriteString(line)
		inText = inText || strings.TrimRight(line, "\r\n") == "" && len(line) <= 2
	}
	return out.String()
}

// P-TOP-2, I-TOP-3: the result does not depend on the pieces in which a
// message is written.
func FuzzTopWriter(f *testing.F) {
	f.Add("A: b\r\n\r\none\r\ntwo\r\n", uint64(1), uint8(3))
	f.Add("A: b\n\n\n.\n\r\n\r\r\n", uint64(2), uint8(1))
	f.Add("\r\r\n\r\nx", uint64(9), uint8(1))
	f.Add("A: b", uint64(0), uint8(2))
	f.Fuzz(func(t *testing.T, message string, lines uint64, step uint8) {
		want := topOf(message, lines)
		var got bytes.Buffer
		w := topWriter{w: &got, left: lines}
		for rest := message; rest != ""; {
			n := min(len(rest), int(step)+1)
			k, err := w.Write([]byte(rest[:n]))
			if err == errTopDone {
				if k > n {
					t.Fatalf("%d octets written of %d", k, n)
				}
				break
			}
			if err != nil || k != n {
				t.Fatalf("Write: %d, %v", k, err)
			}
			rest = rest[n:]
		}
		if got.String() != want || w.written != int64(len(want)) {
			t.Errorf("%q, want %q", got.String(), want)
		}
	})
}

// randomMessage returns a message of lines of any length and kind.
func randomMessage(r *rand.Rand) string {
	ends := []string{"\r\n", "\n", "\r\r\n"}
	parts := []string{"", ".", "..", "x", "\xe4\x00", "word word", strings.Repeat("long", 500)}
	end := ends[r.IntN(len(ends))]
	var b strings.Builder
	for range r.IntN(4) {
		b.WriteString("H: " + parts[r.IntN(len(parts))] + end)
	}
	if r.IntN(4) > 0 {
		b.WriteString(end[len(end)-min(2, len(end)):])
	}
	for range r.IntN(40) {
		b.WriteString(parts[r.IntN(len(parts))])
		if r.IntN(20) > 0 {
			b.WriteString(end)
		}
	}
	return b.String()
}

// serveDemo runs the embedded server with user joe and returns a Backend in
// front of it.
func serveDemo(t *testing.T, up *demo.Server, opts Options) *Backend {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- up.Serve(l) }()
	t.Cleanup(func() {
		up.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	up.AddUser("joe", "secret")
	opts.Address, opts.TLS = l.Addr().String(), TLSNone
	return backend(t, opts)
}

// P-TOP-2, P-TOP-3, I-TOP-4: for any message and number of lines, TOP follows
// its definition.
func TestTopProperty(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	var messages []string
	for range 150 {
		messages = append(messages, randomMessage(r))
	}
	t.Run("demo", func(t *testing.T) {
		up := demo.New()
		b := serveDemo(t, up, Options{})
		for _, m := range messages {
			if _, err := up.Append("joe", []byte(m)); err != nil {
				t.Fatal(err)
			}
		}
		checkTops(t, openMaildrop(t, b), messages, r)
	})
	inEachForm(t, "model", func(t *testing.T, m *model) {
		for _, msg := range messages {
			m.add("H: x\r\n\r\n" + msg) // the model finds no other end of a header
		}
		var sent []string
		for _, msg := range m.messages() {
			sent = append(sent, msg.Body)
		}
		checkTops(t, openMaildrop(t, m.backend(t, Options{})), sent, r)
	})
}

// checkTops compares tops of all messages with the definition.
func checkTops(t *testing.T, d proxy.Maildrop, messages []string, r *rand.Rand) {
	defer d.Close()
	for i, m := range d.Messages() {
		for _, lines := range []uint64{0, 1, r.Uint64N(45), r.Uint64N(uint64(len(messages[i]) + 1)), math.MaxUint64} {
			want := topOf(messages[i], lines)
			body, err := d.Top(t.Context(), m.UID, lines)
			if err != nil {
				t.Fatalf("TOP of %q: %v", messages[i], err)
			}
			var got bytes.Buffer
			if _, err := body.WriteTo(&got); err != nil || got.String() != want {
				t.Errorf("%d lines of %q: %q, want %q, %v", lines, messages[i], got.String(), want, err)
			}
			body.Close()
		}
	}
}
