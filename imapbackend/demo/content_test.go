package demo

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// serveMail serves the mail at path, and returns a session with INBOX selected.
func serveMail(t *testing.T, path string) *session {
	t.Helper()
	mail, err := OpenMail(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mail.Close() })
	s := New()
	addr := start(t, s)
	if err := s.AppendMail("demo", mail); err != nil {
		t.Fatal(err)
	}
	if err := s.AppendMail("nobody", mail); err == nil {
		t.Error("mail for a user who does not exist")
	}
	return login(t, addr, "SELECT INBOX")
}

// What is served from a file is what would be served from memory, section by
// section.
func TestMailSections(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mbox")
	mbox := "From a" + date + "\nSubject: x\nA: 1\n\n>From a\ntext\n\nFrom b" + date + "\nonly: header\n"
	if err := os.WriteFile(path, []byte(mbox), 0o600); err != nil {
		t.Fatal(err)
	}
	c := serveMail(t, path)
	for item, want := range map[string]string{
		"FETCH 1:2 (RFC822.SIZE)":                     "* 1 FETCH (RFC822.SIZE 34)\r\n* 2 FETCH (RFC822.SIZE 14)\r\n",
		"FETCH 1 (BODY.PEEK[])":                       "* 1 FETCH (BODY[] {34}\r\nSubject: x\r\nA: 1\r\n\r\nFrom a\r\ntext\r\n)\r\n",
		"FETCH 1 (BODY.PEEK[HEADER])":                 "* 1 FETCH (BODY[HEADER] {20}\r\nSubject: x\r\nA: 1\r\n\r\n)\r\n",
		"FETCH 1 (BODY.PEEK[HEADER.FIELDS (A)])":      "* 1 FETCH (BODY[HEADER.FIELDS (A)] {8}\r\nA: 1\r\n\r\n)\r\n",
		"FETCH 1 (BODY.PEEK[HEADER.FIELDS (A)]<3.2>)": "* 1 FETCH (BODY[HEADER.FIELDS (A)]<3> {2}\r\n1\r)\r\n",
		"FETCH 1 (BODY.PEEK[TEXT]<2.9>)":              "* 1 FETCH (BODY[TEXT]<2> {9}\r\nom a\r\ntex)\r\n",
		"FETCH 1 (BODY.PEEK[TEXT]<99.9>)":             "* 1 FETCH (BODY[TEXT]<99> {0}\r\n)\r\n",
		"FETCH 2 (BODY.PEEK[TEXT])":                   "* 2 FETCH (BODY[TEXT] {0}\r\n)\r\n",
		"SEARCH HEADER A 1":                           "* SEARCH 1\r\n",
		"SEARCH TEXT header":                          "* SEARCH 2\r\n",
	} {
		c.want(item, want)
	}
	c.ok(`STORE 1 +FLAGS.SILENT (\Deleted)`)
	c.ok("EXPUNGE")
	if left, err := os.ReadFile(path); err != nil || string(left) != mbox {
		t.Errorf("the file is now %q, %v", left, err)
	}
}

// A maildir is served in the order of delivery.
func TestMaildir(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"cur/1000000002.b.host:2,S": "Subject: second\n\n>From x\n",
		"new/999999999.a.host":      "Subject: first\n\n\n",
		"new/1000000003.c.host":     "Subject: third",
		"new/.hidden":               "x",
		"cur/dir/file":              "x",
		"tmp/1.x":                   "x",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "tmp"), filepath.Join(dir, "cur/1000000000.x.host")); err != nil {
		t.Fatal(err) // what is no file is left out
	}
	c := serveMail(t, dir)
	for i, want := range []string{"Subject: first\r\n\r\n\r\n", "Subject: second\r\n\r\n>From x\r\n", "Subject: third"} {
		c.want(fmt.Sprintf("FETCH %d (BODY.PEEK[])", i+1), fmt.Sprintf("* %d FETCH (BODY[] {%d}\r\n%s)\r\n", i+1, len(want), want))
	}
	c.want("FETCH 4 (UID)", "")
	if _, err := OpenMail(filepath.Join(dir, "cur")); err == nil || !strings.Contains(err.Error(), "not a maildir: ") {
		t.Errorf("%v", err)
	}
	if err := os.Remove(filepath.Join(dir, "new/999999999.a.host")); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fprint(c.conn, "x FETCH 1 (BODY.PEEK[])\r\n"); err != nil {
		t.Fatal(err)
	}
	if rest, _ := io.ReadAll(c.in); strings.Contains(string(rest), "x OK") {
		t.Errorf("a message that is gone is delivered: %q", rest)
	}
}

// A file of a maildir is closed when what was asked for has been read.
func TestMaildirCloses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "1.a.host")
	if err := os.WriteFile(path, []byte("Subject: x\n\ntext\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &inFile{path: path}
	if err := f.measure(); err != nil {
		t.Fatal(err)
	}
	for _, n := range []int64{f.octets(), 3, f.octets() + 1} {
		r := f.open(0, n).(*fileReader)
		if text, err := io.ReadAll(r); err != nil || int64(len(text)) != min(n, f.octets()) {
			t.Errorf("%d: %q, %v", n, text, err)
		}
		if _, err := r.own.Stat(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%d: the file is open: %v", n, err)
		}
	}
}

// Memory does not depend on the size of a mailbox, a message or a line.
func TestMailStreams(t *testing.T) {
	const messages, lines = 8, 100_000
	path := filepath.Join(t.TempDir(), "mbox")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	w := bufio.NewWriter(f)
	for i := range messages {
		fmt.Fprintf(w, "From a%s\nSubject: %d\n\n", date, i)
		end := "\n"
		if i == 1 {
			end = " " // one line
		}
		for range lines {
			w.WriteString(strings.Repeat("x", 79) + end)
		}
		w.WriteString("\n\n")
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c := serveMail(t, path)
	for i := range messages {
		if _, err := fmt.Fprintf(c.conn, "x FETCH %d (BODY.PEEK[])\r\n", i+1); err != nil {
			t.Fatal(err)
		}
		head, err := c.in.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		var n int64
		if _, err := fmt.Sscanf(head[strings.Index(head, "{"):], "{%d}", &n); err != nil || n < lines*80 {
			t.Fatalf("%q: %v", head, err)
		}
		if _, err := io.CopyN(io.Discard, c.in, n); err != nil {
			t.Fatal(err)
		}
		if rest := c.line() + c.line(); !strings.HasPrefix(rest, ")x OK") {
			t.Fatalf("%q", rest)
		}
	}
	runtime.ReadMemStats(&after)
	const allowed = 8 << 20 // all that was ever allocated, for 64 MB of mail
	if got := after.TotalAlloc - before.TotalAlloc; got > allowed {
		t.Errorf("%d octets were allocated, want at most %d", got, allowed)
	}
	if diff := cmp.Diff(messages, len(strings.Fields(c.ok("SEARCH ALL")))-2); diff != "" {
		t.Error(diff)
	}
}
