package demo

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

// date ends a line that begins a message.
const date = " Mon Jan  1 00:00:00 2024"

// messagesOf returns the messages of an mbox, read from a file in one piece, and
// checks that they are the same for a reader that gives one octet at a time.
func messagesOf(t *testing.T, mbox []byte) ([][]byte, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mbox")
	if err := os.WriteFile(path, mbox, 0o600); err != nil {
		t.Fatal(err)
	}
	mail, err := OpenMail(path)
	spans, errAgain := readMbox(iotest.OneByteReader(bytes.NewReader(mbox)))
	if err != nil || errAgain != nil {
		if err == nil || errAgain == nil || !strings.HasSuffix(err.Error(), errAgain.Error()) {
			t.Errorf("%v, one octet at a time: %v", err, errAgain)
		}
		return nil, err
	}
	defer mail.Close()
	var got [][]byte
	for i, m := range mail.messages {
		if i >= len(spans) || m.span != spans[i] {
			t.Errorf("%+v, one octet at a time: %+v", m.span, spans)
		}
		octets, err := read(m, 0, m.octets()+1)
		if err != nil || int64(len(octets)) != m.octets() || m.text() != int64(textStart(octets)) {
			t.Errorf("%d octets, the text from %d: %q, %v", m.octets(), m.text(), octets, err)
		}
		if n := int64(len(octets)); n > 2 {
			if part, err := read(m, 1, n-2); err != nil || !bytes.Equal(part, octets[1:n-1]) {
				t.Errorf("a part: %q of %q, %v", part, octets, err)
			}
		}
		got = append(got, octets)
	}
	return got, nil
}

func TestReadMbox(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{"empty", "", nil},
		{"empty lines only", "\n\r\n", nil},
		{"one", "From a\nSubject: 1\n\ntext\n\n", []string{"Subject: 1\r\n\r\ntext\r\n"}},
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
		{"long line, pieces that end in CR", "From a\nA: 1\n\n" + strings.Repeat("\r", 200_000) + "\r\n\nFrom b\nB: 1\n",
			[]string{"A: 1\r\n\r\n" + strings.Repeat("\r", 200_000) + "\r\n", "B: 1\r\n"}},
		{"long line that begins a message", "From a" + date + long + "\nA: 1\n", []string{"A: 1\r\n"}},
		{"long quoting", "From a\n\n" + strings.Repeat(">", 1000) + "From x\n", []string{"\r\n" + strings.Repeat(">", 999) + "From x\r\n"}},
		{"From without a date", "From a\nA: 1\n\nFrom the start\n\nFrom Mon on\n", []string{"A: 1\r\n\r\nFrom the start\r\n\r\nFrom Mon on\r\n"}},
		{"other dates", "From - Sat Jan 01 10:00:00 2000\nA: 1\n\nFrom 12@xxx Sat Jan  1 10:00:00 +0000 2000\nA: 2\n\nFrom x Sat Jan  1 10:00 CET 2000\nA: 3\n\n" +
			"From x Sat, 1 Jan 2000 10:00:00 +0100\nA: 4\n\nFrom x y Sat Jan  1 10:00:00 2000 remote from z\nA: 5\n",
			[]string{"A: 1\r\n\r\n", "A: 2\r\n\r\n", "A: 3\r\n\r\n", "A: 4\r\n\r\n", "A: 5\r\n"}},
		{"octets", "From a\nA: \xff\x00\n\n.\r.\n", []string{"A: \xff\x00\r\n\r\n.\r.\r\n"}},
	} {
		in := strings.NewReplacer("From a", "From a"+date, "From b", "From b"+date, "From c", "From c"+date).Replace(tt.in)
		msgs, err := messagesOf(t, []byte(in))
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
	for in, want := range map[string]string{
		"\n\nSubject: an eml file\nFrom a\n": `mbox: line 3: not an mbox file: "Subject: an eml file\n" is not "From ", a sender and a date`,
		"From a\nA: 1\n":                     `mbox: line 1: not an mbox file: "From a\n" is not "From ", a sender and a date`,
	} {
		_, err := messagesOf(t, []byte(in))
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("got %v\nwant %s", err, want)
		}
	}
	_, err := readMbox(io.MultiReader(strings.NewReader("From a"+date+"\nA: 1\n"), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || !strings.Contains(err.Error(), "line 3") {
		t.Errorf("got %v", err)
	}
}

// writeMbox is the inverse of readMbox for messages with CRLF line ends:
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
	f.Add([]byte("From a" + date + "\nA: 1\n\n>From x\n\n\nFrom b" + date + "\r\n\r\n"))
	f.Add([]byte("\n\nnot an mbox file"))
	f.Add([]byte("From" + date + "\n>>>From \n\n\n\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		msgs, err := messagesOf(t, in)
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
		again, err := messagesOf(t, writeMbox(msgs))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(msgs, again); diff != "" {
			t.Errorf("written and read again (-want +got):\n%s", diff)
		}
	})
}
