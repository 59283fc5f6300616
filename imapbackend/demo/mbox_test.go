package demo

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func TestReadMbox(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{"empty", "", nil},
		{"empty lines only", "\n\r\n", nil},
		{"one", "From a Mon Jan  1 00:00:00 2024\nSubject: 1\n\ntext\n\n", []string{"Subject: 1\r\n\r\ntext\r\n"}},
		{"no empty line at the end", "From a\nA: 1\n\ntext\n", []string{"A: 1\r\n\r\ntext\r\n"}},
		{"no line end at the end", "From a\nA: 1\n\ntext", []string{"A: 1\r\n\r\ntext"}},
		{"two", "From a\nA: 1\n\n1\n\nFrom b\nA: 2\n\n2\n", []string{"A: 1\r\n\r\n1\r\n", "A: 2\r\n\r\n2\r\n"}},
		{"CRLF", "From a\r\nA: 1\r\n\r\n1\r\n\r\nFrom b\r\nA: 2\r\n", []string{"A: 1\r\n\r\n1\r\n", "A: 2\r\n"}},
		{"empty lines at the start", "\n\nFrom a\nA: 1\n", []string{"A: 1\r\n"}},
		{"mboxo and mboxrd quoting", "From a\nA: 1\n\n>From x\n>>From y\n> From z\n>Fromage\n",
			[]string{"A: 1\r\n\r\nFrom x\r\n>From y\r\n> From z\r\n>Fromage\r\n"}},
		{"From within a paragraph", "From a\nA: 1\n\nline\nFrom here on\n", []string{"A: 1\r\n\r\nline\r\nFrom here on\r\n"}},
		{"empty lines of the text stay", "From a\nA: 1\n\n\n1\n\n\n\nFrom b\nB: 1\n", []string{"A: 1\r\n\r\n\r\n1\r\n\r\n\r\n", "B: 1\r\n"}},
		{"no text", "From a\nA: 1\n\n\nFrom b\nB: 1\n\nFrom c\nC: 1\n", []string{"A: 1\r\n\r\n", "B: 1\r\n\r\n", "C: 1\r\n"}},
		{"nothing in a message", "From a\n\nFrom b\n", []string{"\r\n", ""}},
		{"long line", "From a\nA: 1\n\n" + long + "\n", []string{"A: 1\r\n\r\n" + long + "\r\n"}},
		{"octets", "From a\nA: \xff\x00\n\n.\r.\n", []string{"A: \xff\x00\r\n\r\n.\r.\r\n"}},
	} {
		msgs, err := ReadMbox(iotest.OneByteReader(strings.NewReader(tt.in)))
		if err != nil {
			t.Errorf("%s: %v", tt.name, err)
			continue
		}
		var got []string
		for _, m := range msgs {
			got = append(got, string(m))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestReadMboxErrors(t *testing.T) {
	broken := errors.New("disk on fire")
	_, err := ReadMbox(strings.NewReader("\n\nSubject: an eml file\nFrom a\n"))
	if want := `mbox: line 3: not an mbox file: "Subject: an eml file\n" does not begin with "From "`; err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	_, err = ReadMbox(iotest.DataErrReader(&failing{strings.NewReader("From a\nA: 1\n"), broken}))
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("got %v", err)
	}
}

// failing is a reader that ends with err instead of io.EOF.
type failing struct {
	*strings.Reader
	err error
}

func (f *failing) Read(p []byte) (int, error) {
	if f.Len() == 0 {
		return 0, f.err
	}
	return f.Reader.Read(p)
}

// writeMbox is the inverse of ReadMbox for messages with CRLF line ends:
// mboxrd.
func writeMbox(msgs [][]byte) []byte {
	var b bytes.Buffer
	for _, m := range msgs {
		b.WriteString("From MAILER-DAEMON Thu Jan  1 00:00:00 1970\n")
		for line := range bytes.Lines(m) {
			if bytes.HasPrefix(bytes.TrimLeft(line, ">"), []byte("From ")) {
				b.WriteByte('>')
			}
			b.Write(bytes.TrimSuffix(line, []byte("\r\n")))
			if bytes.HasSuffix(line, []byte("\n")) {
				b.WriteByte('\n')
			}
		}
		b.WriteByte('\n')
	}
	return b.Bytes()
}

func FuzzReadMbox(f *testing.F) {
	f.Add([]byte("From a\nA: 1\n\n>From x\n\n\nFrom b\r\n\r\n"))
	f.Add([]byte("\n\nnot an mbox file"))
	f.Add([]byte("From \n>>>From \n\n\n\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		msgs, err := ReadMbox(bytes.NewReader(in))
		if err != nil {
			if msgs != nil {
				t.Errorf("messages with error %v", err)
			}
			return
		}
		for _, m := range msgs {
			if !bytes.HasSuffix(m, []byte("\n")) || textStart(m) == len(m) {
				return // where such a message ends is not in the file
			}
			for line := range bytes.Lines(m) {
				if !bytes.HasSuffix(line, []byte("\r\n")) || bytes.HasSuffix(line, []byte("\r\r\n")) {
					return
				}
			}
		}
		again, err := ReadMbox(bytes.NewReader(writeMbox(msgs)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(msgs, again); diff != "" {
			t.Errorf("written and read again (-want +got):\n%s", diff)
		}
	})
}
