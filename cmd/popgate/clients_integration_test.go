//go:build integration

package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"popgate/imapbackend/dovecottest"
)

const clientTimeout = 4 * time.Minute // for one run of a client program, on a busy machine

// packages are the Debian packages of the client programs.
var packages = map[string]string{
	"curl":      "curl",
	"fetchmail": "fetchmail",
	"getmail":   "getmail6",
	"mpop":      "mpop",
	"openssl":   "openssl",
	"python3":   "python3",
}

// nobody is the user and group for clients that refuse to run as root.
const nobody = 65534

// clientDir returns a new home directory for a client program, with a maildir
// called out.
func clientDir(t testing.TB) string {
	t.Helper()
	// Not t.TempDir, whose parent other users cannot enter.
	dir, err := os.MkdirTemp("", "popclient")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	giveAway(t, dir)
	for _, name := range []string{"out", "out/cur", "out/new", "out/tmp"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		giveAway(t, filepath.Join(dir, name))
	}
	return dir
}

// giveAway makes the clients' user the owner of a file.
func giveAway(t testing.TB, name string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Chown(name, nobody, nobody); err != nil {
		t.Fatal(err)
	}
}

// client says how to run a program.
type client struct {
	dir          string // a clientDir
	stdin        string
	accepted     []int // good exit statuses besides 0
	unprivileged bool  // not as root
}

// run runs the program and returns its standard output. If the exit status is
// bad, the test fails with everything that the program wrote.
func (c client) run(t testing.TB, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v; install it: apt-get install %s", err, packages[name])
	}
	ctx, cancel := context.WithTimeout(context.Background(), clientTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(c.stdin), &stdout, &stderr
	cmd.Dir = c.dir
	cmd.WaitDelay = time.Second // a killed client's children may hold its pipes
	cmd.Env = append(os.Environ(), "HOME="+c.dir, "FETCHMAILHOME="+c.dir, "XDG_CONFIG_HOME="+c.dir, "LC_ALL=C")
	if c.unprivileged && os.Geteuid() == 0 {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
	err = cmd.Run()
	if err != nil && (cmd.ProcessState == nil || !slices.Contains(c.accepted, cmd.ProcessState.ExitCode())) {
		t.Fatalf("%s %s: %v\n%s%s", name, strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String()
}

// maildrop is the corpus in joe's INBOX, with a gateway in front of it.
type maildrop struct {
	upstream *dovecottest.Server
	gateway  *gateway
	before   []dovecottest.Message // without octets
	names    []string              // what is special about each message
	want     [][]byte              // what RETR must send for each
	sizes    []int                 // what LIST must report: the upstream's size
}

func newMaildrop(t testing.TB) *maildrop {
	t.Helper()
	m := &maildrop{upstream: dovecottest.Start(t)}
	var octets [][]byte
	for _, s := range dovecottest.Corpus() {
		m.names = append(m.names, s.Name)
		octets = append(octets, s.Octets)
	}
	m.upstream.Append("joe", octets...)
	// Some flags that must not change.
	c := m.upstream.Login("joe")
	c.Select("INBOX")
	c.Store("3:7", `+FLAGS (\Seen)`)
	c.Store("5", `+FLAGS (\Answered \Flagged $Label)`)
	c.Logout()
	for _, message := range m.upstream.Messages("joe") {
		m.want = append(m.want, dovecottest.Expected(message.Octets))
		m.sizes = append(m.sizes, len(message.Octets))
	}
	if len(m.want) != dovecottest.CorpusSize {
		t.Fatalf("%d messages upstream, want %d", len(m.want), dovecottest.CorpusSize)
	}
	m.before = m.upstream.Flags("joe")
	m.gateway = startGateway(t, plainConfig(m.upstream.Addr))
	return m
}

// hostPort returns host and port of the gateway.
func (m *maildrop) hostPort() (host, port string) {
	host, port, err := net.SplitHostPort(m.gateway.addr)
	if err != nil {
		m.gateway.t.Fatal(err)
	}
	return host, port
}

// mustBeUntouched checks that messages and flags have not changed.
func (m *maildrop) mustBeUntouched(t testing.TB) {
	t.Helper()
	if diff := cmp.Diff(m.before, m.upstream.Flags("joe")); diff != "" {
		t.Errorf("upstream has changed (-before +after):\n%s", diff)
	}
}

// mustBeEmpty checks that every message is gone.
func (m *maildrop) mustBeEmpty(t testing.TB) {
	t.Helper()
	if left := m.upstream.Flags("joe"); len(left) != 0 {
		t.Errorf("%d messages are left upstream: %v", len(left), left)
	}
}

// mustEqual compares octets and shows where they differ.
func mustEqual(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	at := 0
	for at < min(len(got), len(want)) && got[at] == want[at] {
		at++
	}
	from := max(0, at-20)
	t.Errorf("%s: %d octets, want %d; they differ at %d:\n got %.80q\nwant %.80q",
		what, len(got), len(want), at, got[from:], want[from:])
}

func mustRead(t testing.TB, file string) []byte {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// P-RETR-1, P-RETR-2, P-RETR-3, P-RESP-2, P-AUTH-2 (curl sends AUTH PLAIN
// without initial response, and AUTH LOGIN with one if asked to), I-FETCH-1
func TestCurl(t *testing.T) {
	t.Parallel()
	m := newMaildrop(t)
	dir := clientDir(t)
	// One URL per message; curl uses one or more sessions for them.
	client{dir: dir}.run(t, "curl", "--silent", "--show-error", "--fail", "--user", "joe:"+dovecottest.Password,
		"--output", "#1", fmt.Sprintf("pop3://%s/[1-%d]", m.gateway.addr, len(m.want)))
	var wantList strings.Builder
	for i, want := range m.want {
		got := mustRead(t, filepath.Join(dir, strconv.Itoa(i+1)))
		mustEqual(t, m.names[i], got, want)
		// LIST now reports what RETR has sent (I-SIZE-3).
		fmt.Fprintf(&wantList, "%d %d\r\n", i+1, len(got))
	}
	list := client{dir: dir}.run(t, "curl", "--silent", "--show-error", "--fail", "--user", "joe:"+dovecottest.Password,
		fmt.Sprintf("pop3://%s/", m.gateway.addr))
	mustEqual(t, "LIST", []byte(list), []byte(wantList.String()))
	// With --sasl-ir, curl sends the name with AUTH LOGIN.
	list = client{dir: dir}.run(t, "curl", "--silent", "--show-error", "--fail", "--user", "joe:"+dovecottest.Password,
		"--login-options", "AUTH=LOGIN", "--sasl-ir", fmt.Sprintf("pop3://%s/", m.gateway.addr))
	mustEqual(t, "LIST after AUTH LOGIN", []byte(list), []byte(wantList.String()))
	m.mustBeUntouched(t)
}

// poplibResult is what testdata/poplib_walk.py prints.
type poplibResult struct {
	Capa map[string][]string
	Stat [2]int64
	List []string
	UIDL []string
}

// P-STAT-1, P-LIST-1, P-LIST-2, P-LIST-3, P-UIDL-1, P-UIDL-2, P-RETR-3,
// P-TOP-1, P-TOP-2, P-TOP-3, P-CAPA-1, I-SIZE-1, I-UIDL-1
func TestPoplib(t *testing.T) {
	t.Parallel()
	m := newMaildrop(t)
	dir := clientDir(t)
	script := filepath.Join(dir, "walk.py")
	writeFile(t, script, string(mustRead(t, "testdata/poplib_walk.py")), 0o600)
	host, port := m.hostPort()
	tops := []int{0, 1, 10, 1000000}
	args := []string{script, host, port, "joe", dovecottest.Password, dir}
	for _, k := range tops {
		args = append(args, strconv.Itoa(k))
	}
	var result poplibResult
	if err := json.Unmarshal([]byte(client{dir: dir}.run(t, "python3", args...)), &result); err != nil {
		t.Fatal(err)
	}
	m.checkListings(t, result)
	for i, want := range m.want {
		file := filepath.Join(dir, strconv.Itoa(i+1))
		mustEqual(t, m.names[i], mustRead(t, file), want)
		for _, k := range tops {
			if k > 1000 && m.sizes[i] > 100000 {
				continue // the script leaves it out too
			}
			got := mustRead(t, fmt.Sprintf("%s.top%d", file, k))
			mustEqual(t, fmt.Sprintf("TOP %d of %s", k, m.names[i]), got, top(want, k))
		}
	}
	// The next session has the same unique-ids.
	again, err := loginPOP(t, m.gateway.addr, "joe").Conversation.Fetch("UIDL")
	if err != nil {
		t.Fatal(err)
	}
	mustEqual(t, "UIDL in another session", again, []byte(strings.Join(result.UIDL, "\r\n")+"\r\n"))
	m.mustBeUntouched(t)
}

// checkListings compares CAPA, STAT, LIST and UIDL with the upstream's messages.
func (m *maildrop) checkListings(t testing.TB, r poplibResult) {
	t.Helper()
	for _, capability := range []string{"TOP", "UIDL", "RESP-CODES", "AUTH-RESP-CODE", "PIPELINING", "USER", "SASL"} {
		if _, ok := r.Capa[capability]; !ok {
			t.Errorf("CAPA lacks %s: %v", capability, r.Capa)
		}
	}
	if len(r.List) != len(m.want) || len(r.UIDL) != len(m.want) {
		t.Fatalf("%d lines of LIST, %d of UIDL, want %d", len(r.List), len(r.UIDL), len(m.want))
	}
	total := int64(0)
	seen := make(map[string]bool)
	for i, size := range m.sizes {
		total += int64(size)
		if want := fmt.Sprintf("%d %d", i+1, size); r.List[i] != want {
			t.Errorf("%s: LIST says %q, want %q", m.names[i], r.List[i], want)
		}
		number, id, _ := strings.Cut(r.UIDL[i], " ")
		if number != strconv.Itoa(i+1) || len(id) < 1 || len(id) > 70 || seen[id] {
			t.Errorf("%s: UIDL says %q", m.names[i], r.UIDL[i])
		}
		seen[id] = true
	}
	if want := [2]int64{int64(len(m.want)), total}; r.Stat != want {
		t.Errorf("STAT says %v, want %v", r.Stat, want)
	}
}

// top returns the header, the blank line and the first k lines of the body
// (RFC 1939 §7). A message without a blank line is all header.
func top(message []byte, k int) []byte {
	end, inText := 0, false
	for line := range bytes.Lines(message) {
		if inText {
			if k == 0 {
				break
			}
			k--
		}
		end += len(line)
		inText = inText || string(line) == "\r\n"
	}
	return message[:end]
}
