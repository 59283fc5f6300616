//go:build integration

package main_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"popgate/imapbackend/dovecottest"
)

// A retriever fetches a maildrop into files. Each is run twice leaving the mail
// on the server, and once removing it.
type retriever struct {
	// run runs the program in dir, its home, where it keeps its state. Messages
	// are delivered to dir/out.
	run func(t *testing.T, m *maildrop, dir string, keep bool)

	// removesSeen: when the program removes mail, it does not fetch again what
	// it has fetched before. Otherwise that run begins without state, and
	// fetches everything again.
	removesSeen bool

	// number returns the message-number in the name of a file.
	number func(name string) int

	// check compares got, the file of the message with index i, with what RETR
	// sends, allowing for the changes that the program is known to make.
	check func(t *testing.T, m *maildrop, dir string, i int, got []byte)
}

// test runs the test of a retriever.
func (r retriever) test(t *testing.T) {
	m := newMaildrop(t)
	dir := clientDir(t)
	r.run(t, m, dir, true)
	r.checkAll(t, m, dir)
	m.mustBeUntouched(t)

	// With the mail left on the server, nothing is fetched a second time.
	r.empty(t, dir)
	r.run(t, m, dir, true)
	if files := r.files(t, dir); len(files) != 0 {
		t.Errorf("fetched %d messages again", len(files))
	}
	m.mustBeUntouched(t)

	// Now remove all of it.
	if !r.removesSeen {
		dir = clientDir(t)
	}
	r.run(t, m, dir, false)
	if !r.removesSeen {
		r.checkAll(t, m, dir)
	}
	m.mustBeEmpty(t)
}

// checkAll checks each message.
func (r retriever) checkAll(t *testing.T, m *maildrop, dir string) {
	t.Helper()
	files := r.files(t, dir)
	if len(files) != len(m.want) {
		t.Fatalf("fetched %d messages, want %d", len(files), len(m.want))
	}
	seen := make(map[int]bool)
	for _, name := range files {
		n := r.number(name)
		if n < 1 || n > len(m.want) || seen[n] {
			t.Fatalf("file %s is message %d", name, n)
		}
		seen[n] = true
		r.check(t, m, dir, n-1, mustRead(t, filepath.Join(dir, "out", "new", name)))
	}
}

func (r retriever) files(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(dir, "out", "new"))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// empty removes the fetched files.
func (r retriever) empty(t *testing.T, dir string) {
	t.Helper()
	for _, name := range r.files(t, dir) {
		if err := os.Remove(filepath.Join(dir, "out", "new", name)); err != nil {
			t.Fatal(err)
		}
	}
}

// writeFile writes a file that the clients' user owns.
func writeFile(t testing.TB, name, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	giveAway(t, name)
}

// fetchmail delivers each message to a command. checkFetchmail undoes its
// changes.
//
// P-RETR-3, P-TOP-1, P-TOP-2 (fetchmail reads what it keeps by TOP),
// P-UIDL-2, P-DELE-1, P-QUIT-2, P-LIST-2
func TestFetchmail(t *testing.T) {
	t.Parallel()
	retriever{
		run: func(t *testing.T, m *maildrop, dir string, keep bool) {
			fetchmail(t, m.gateway.addr, dir, keep)
		},
		number: func(name string) int { n, _ := strconv.Atoi(name); return n },
		check:  checkFetchmail,
	}.test(t)
}

// fetchmail fetches joe's mail from the POP3 server at addr into dir, its home.
// With keep it leaves the mail on the server, and remembers the unique-ids in
// dir.
func fetchmail(t testing.TB, addr, dir string, keep bool) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	script := filepath.Join(dir, "deliver")
	writeFile(t, script, `#!/bin/sh
n=0
[ -f count ] && read -r n <count
n=$((n + 1))
echo "$n" >count
exec cat >"out/new/$n"
`, 0o700)
	mode := "nokeep fetchall"
	if keep {
		mode = "keep"
	}
	config := filepath.Join(dir, "fetchmailrc")
	writeFile(t, config, fmt.Sprintf(`set no bouncemail
set invisible
set idfile %[1]q
set pidfile %[2]q
poll %[3]s service %[4]s protocol POP3 uidl timeout 60 bad-header accept
user "joe" password %[5]q is "joe" here %[6]s
no rewrite no stripcr no forcecr no mimedecode pass8bits sslproto ""
mda %[7]q
`, filepath.Join(dir, "ids"), filepath.Join(dir, "pid"), host, port, dovecottest.Password, mode, script), 0o600)
	const noMail = 1 // exit status if there is nothing new
	client{dir: dir, accepted: []int{noMail}, unprivileged: true}.run(t, "fetchmail", "--verbose", "--fetchmailrc", config)
}

// fetchmailBreak is what fetchmail inserts where it breaks a line of the body: a
// NUL, whatever octet was in its buffer, and a line end.
var fetchmailBreak = regexp.MustCompile("(?s)\x00.\r\n")

// checkFetchmail allows for the changes of fetchmail: it reads lines of the body
// in pieces of at most 8191 octets, removes byte-stuffing from each piece, and
// ends each with fetchmailBreak; it adds the end of a header that has none; and
// it adds a header if there is none.
func checkFetchmail(t *testing.T, m *maildrop, _ string, i int, got []byte) {
	t.Helper()
	want := m.want[i]
	header, text, whole := bytes.Cut(want, []byte("\r\n\r\n"))
	switch {
	case bytes.HasPrefix(want, []byte("\r\n")):
		if !bytes.HasPrefix(got, []byte("From: FETCHMAIL-DAEMON\r\n")) {
			t.Errorf("%s: begins with %.80q", m.names[i], got)
		}
		_, got, _ = bytes.Cut(got, []byte("\r\n\r\n"))
		text = want[len("\r\n"):]
		header = nil
	case whole:
		header = append(header, "\r\n\r\n"...)
	default:
		header = append(header, "\r\n"...)
	}
	const broken = "<fetchmail breaks the line here>"
	expected := bytes.Clone(header)
	for line := range bytes.Lines(text) {
		if line[0] == '.' {
			line = append([]byte("."), line...)
		}
		for piece := 8191; len(line) > 0; {
			n := min(piece, len(line))
			expected = append(expected, bytes.TrimPrefix(line[:n], []byte("."))...)
			if line = line[n:]; len(line) > 0 {
				expected = append(expected, broken...)
			}
		}
	}
	mustEqual(t, m.names[i], fetchmailBreak.ReplaceAllLiteral(got, []byte(broken)), expected)
}

// mpop delivers to a maildir, with LF as line end, and pipelines RETR and DELE.
//
// P-RETR-3, P-PIPE-1, P-UIDL-2, P-DELE-1, P-QUIT-2
func TestMpop(t *testing.T) {
	t.Parallel()
	retriever{
		run: func(t *testing.T, m *maildrop, dir string, keep bool) {
			host, port := m.hostPort()
			config := filepath.Join(dir, "mpoprc")
			onOff := map[bool]string{true: "on", false: "off"}
			writeFile(t, config, fmt.Sprintf(`account default
host %s
port %s
user joe
password %s
auth user
tls off
pipelining on
keep %s
received_header off
uidls_file %s
delivery maildir %s
`, host, port, dovecottest.Password, onOff[keep], filepath.Join(dir, "uidls"), filepath.Join(dir, "out")), 0o600)
			client{dir: dir, unprivileged: true}.run(t, "mpop", "--quiet", "--file", config)
		},
		number: func(name string) int {
			n, _ := strconv.Atoi(maildirCount.FindStringSubmatch(name)[1])
			return n
		},
		check: func(t *testing.T, m *maildrop, _ string, i int, got []byte) {
			t.Helper()
			mustEqual(t, m.names[i], got, bytes.ReplaceAll(m.want[i], []byte("\r\n"), []byte("\n")))
		},
	}.test(t)
}

// maildirCount matches the delivery counter of mpop and getmail in a file name of
// a maildir.
var maildirCount = regexp.MustCompile(`Q(\d+)(?:R|\.|$)|$`)

// getmail delivers to a maildir what Python's email library makes of a message.
//
// P-RETR-3, P-UIDL-2, P-DELE-1, P-QUIT-2
func TestGetmail(t *testing.T) {
	t.Parallel()
	getmail, err := exec.LookPath("getmail")
	if err != nil {
		t.Fatalf("%v; install it: apt-get install getmail6", err)
	}
	python := interpreter(t, getmail)
	retriever{
		run: func(t *testing.T, m *maildrop, dir string, keep bool) {
			host, port := m.hostPort()
			writeFile(t, filepath.Join(dir, "getmailrc"), fmt.Sprintf(`[retriever]
type = SimplePOP3Retriever
server = %s
port = %s
username = joe
password = %s
[destination]
type = Maildir
path = %s/
[options]
delete = %v
read_all = false
delivered_to = false
received = false
`, host, port, dovecottest.Password, filepath.Join(dir, "out"), !keep), 0o600)
			writeFile(t, filepath.Join(dir, "run.py"), string(mustRead(t, "testdata/getmail_run.py")), 0o600)
			client{dir: dir, unprivileged: true}.run(t, python, filepath.Join(dir, "run.py"), getmail, "--getmaildir", dir,
				"--rcfile", filepath.Join(dir, "getmailrc"))
			expectGetmail(t, m, dir, python)
		},
		removesSeen: true,
		number: func(name string) int {
			n, err := strconv.Atoi(maildirCount.FindStringSubmatch(name)[1])
			if err != nil {
				return 0
			}
			return n + 1
		},
		check: func(t *testing.T, m *maildrop, dir string, i int, got []byte) {
			t.Helper()
			returnPath, rest, _ := bytes.Cut(got, []byte("\n"))
			if !bytes.HasPrefix(returnPath, []byte("Return-Path: <")) {
				t.Errorf("%s: begins with %.80q", m.names[i], returnPath)
			}
			want := mustRead(t, filepath.Join(dir, "expected", fmt.Sprintf("%d.getmail", i+1)))
			mustEqual(t, m.names[i], rest, want)
		},
	}.test(t)
}

// expectGetmail writes the messages as getmail should deliver them to
// dir/expected.
func expectGetmail(t *testing.T, m *maildrop, dir, python string) {
	t.Helper()
	expected := filepath.Join(dir, "expected")
	if _, err := os.Stat(expected); err == nil {
		return
	}
	if err := os.Mkdir(expected, 0o700); err != nil {
		t.Fatal(err)
	}
	giveAway(t, expected)
	for i, want := range m.want {
		writeFile(t, filepath.Join(expected, strconv.Itoa(i+1)), string(want), 0o600)
	}
	script := filepath.Join(dir, "expected.py")
	writeFile(t, script, string(mustRead(t, "testdata/getmail_expected.py")), 0o600)
	client{dir: dir}.run(t, python, script, expected, strconv.Itoa(len(m.want)))
}

// interpreter returns the program in the first line of a script.
func interpreter(t *testing.T, script string) string {
	t.Helper()
	line, _, _ := strings.Cut(string(mustRead(t, script)), "\n")
	fields := strings.Fields(strings.TrimPrefix(line, "#!"))
	if len(fields) == 0 || !strings.HasPrefix(line, "#!") {
		t.Fatalf("%s begins with %q", script, line)
	}
	return fields[0]
}
