package main

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"popgate/cmd/popgate/words"
	"popgate/imapbackend"
	"popgate/imapbackend/demo"
	"popgate/proxy"
)

// upstreamWithMail runs an IMAP server whose user alice has two messages.
func upstreamWithMail(t *testing.T) (mail *demo.Server, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	mail = demo.New()
	mail.UIDValidity = 42
	mail.AddUser("alice", "secret word")
	for _, m := range []string{"Subject: a\r\n\r\ntext\r\n", "Subject: b\r\n\r\n"} {
		if _, err := mail.Append("alice", []byte(m)); err != nil {
			t.Fatal(err)
		}
	}
	mail.AddUser("bob", "secret")
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := mail.Serve(l); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		mail.Close()
		<-done
	})
	return mail, l.Addr().String()
}

// check runs popgate check and returns its output, without durations.
func check(t *testing.T, upstream, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	file := writeConfig(t, strings.Replace(smallest, "127.0.0.1:1143", upstream, 1)+"name = \"mail\"\n")
	var out, errs bytes.Buffer
	code = run(append([]string{"check", "--config", file}, args...), strings.NewReader(stdin), &out, &errs)
	durations := regexp.MustCompile(`\([0-9.]+(µs|ms|s)\)`)
	return code, durations.ReplaceAllString(out.String(), "(TIME)"), errs.String()
}

func TestCheck(t *testing.T) {
	_, addr := upstreamWithMail(t)
	code, stdout, stderr := check(t, addr, "")
	if code != exitOK || stderr != "" {
		t.Errorf("code %d: %s", code, stderr)
	}
	for _, want := range []string{
		"configuration: good, 1 listener(s)\n",
		"upstream \"mail\": connected, without TLS (TIME)\n",
		"upstream \"mail\": capabilities: ",
		"upstream \"mail\": good\n",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
}

// The store on disk is examined, and not created.
func TestCheckStore(t *testing.T) {
	_, addr := upstreamWithMail(t)
	for name, want := range map[string]string{
		"store.db":         "store.db: does not exist yet; serve will create it\n",
		"missing/store.db": "no such file or directory",
	} {
		file := writeConfig(t, strings.Replace(smallest, "127.0.0.1:1143", addr, 1)+"[store]\npath = \""+name+"\"\n")
		var out, errs bytes.Buffer
		code := run([]string{"check", "--config", file}, strings.NewReader(""), &out, &errs)
		got := out.String()
		if strings.HasPrefix(name, "missing") {
			got = errs.String()
		}
		if !strings.Contains(got, want) || (code == exitOK) != (name == "store.db") {
			t.Errorf("%s: code %d: %s%s", name, code, out.String(), errs.String())
		}
		if _, err := os.Stat(filepath.Join(filepath.Dir(file), name)); err == nil {
			t.Errorf("%s was created", name)
		}
	}
}

// A mechanism that is configured and would not work upstream is reported.
func TestCheckMechanisms(t *testing.T) {
	_, addr := upstreamWithMail(t)
	file := writeConfig(t, strings.Replace(smallest, "127.0.0.1:1143", addr, 1)+"auth = [\"plain\", \"xoauth2\", \"scram-sha-256\"]\n")
	var out, errs bytes.Buffer
	run([]string{"check", "--config", file}, strings.NewReader(""), &out, &errs)
	stdout := out.String()
	for _, want := range []string{
		"warning: does not accept tokens: xoauth2 logins will fail\n",
		"warning: does not offer scram-sha-256, or offers SCRAM bound to TLS (-PLUS): not offered to clients\n",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("no %q in\n%s", want, stdout)
		}
	}
	if strings.Count(stdout, "warning: ") != 2 {
		t.Errorf("other warnings in\n%s", stdout)
	}
}

// With --login a session is tried, and nothing upstream changes.
func TestCheckLogin(t *testing.T) {
	mail, addr := upstreamWithMail(t)
	before := mail.Messages("alice")
	code, stdout, stderr := check(t, addr, "secret word\nnot the password\n", "--login", "alice")
	if code != exitOK || stderr != "" {
		t.Errorf("code %d: %s", code, stderr)
	}
	want := `upstream "mail": logged in as alice (TIME)
upstream "mail": INBOX has 2 messages, 34 octets (TIME)
upstream "mail": deleted messages: flag \Deleted, UID EXPUNGE
upstream "mail": unique-id of message 1: 42.1
upstream "mail": header of message 1: 14 octets (TIME)
upstream "mail": good
`
	if !strings.HasSuffix(stdout, want) {
		t.Errorf("got\n%s\nwant at the end\n%s", stdout, want)
	}
	if diff := cmp.Diff(before, mail.Messages("alice")); diff != "" {
		t.Errorf("upstream changed (-before +after):\n%s", diff)
	}
}

// I-DEL-8: check reports a trash mailbox, and that there is none.
func TestCheckTrash(t *testing.T) {
	_, addr := upstreamWithMail(t)
	for _, tt := range []struct{ keys, want string }{
		{"delete = \"trash\"\n", "error: upstream \"mail\": find out what QUIT would do: imap: the upstream lists no mailbox with \\Trash whose name can be used; set the key trash (clients get -ERR [SYS/PERM])\n"},
		{"delete = \"trash\"\ntrash = \"Bin\"\n", "upstream \"mail\": deleted messages: UID MOVE to trash, \"Bin\"\n"},
		{"without_uidplus = \"expunge-if-alone\"\n", "configuration: warning: without_uidplus = \"expunge-if-alone\" may remove what another client flags \\Deleted at the same moment, upstream mail\n"},
	} {
		file := writeConfig(t, strings.Replace(smallest, "127.0.0.1:1143", addr, 1)+"name = \"mail\"\n"+tt.keys)
		var out bytes.Buffer
		run([]string{"check", "--config", file, "--login", "alice"}, strings.NewReader("secret word\n"), &out, &out)
		if !strings.Contains(out.String(), tt.want) {
			t.Errorf("%s: got\n%s\nwant\n%s", tt.keys, out.String(), tt.want)
		}
	}
}

func TestCheckEmptyMailbox(t *testing.T) {
	_, addr := upstreamWithMail(t)
	code, stdout, _ := check(t, addr, "secret", "--login", "bob") // no line end either
	if code != exitOK || !strings.Contains(stdout, "INBOX has 0 messages, 0 octets") {
		t.Errorf("code %d:\n%s", code, stdout)
	}
}

func TestCheckBad(t *testing.T) {
	_, addr := upstreamWithMail(t)
	dead, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	for _, tt := range []struct {
		name, addr, stdin string
		args              []string
		code              int
		stderr            string
	}{
		{"refused", dead.Addr().String(), "", nil, exitFailure,
			`^error: upstream "mail": connect: dial tcp .* \(clients get -ERR \[SYS/TEMP\]\)\nhint: no server listens there: check the port in address, and whether the server runs\n$`},
		{"wrong password", addr, "guess\n", []string{"--login", "alice"}, exitFailure,
			`^error: upstream "mail": log in: .*(\[AUTH\]).*\nhint: the upstream refuses this user name and password\n$`},
		{"no password", addr, "", []string{"--login", "alice"}, exitUsage,
			`^error: read the password: it is empty\nhint: type it when asked, or give it as the first line of standard input\n$`},
		{"no user", addr, "x\n", []string{"--login", ""}, exitUsage,
			`^error: --login needs a user name\nhint: write --login USER\n$`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := check(t, tt.addr, tt.stdin, tt.args...)
			if code != tt.code || !regexp.MustCompile(tt.stderr).MatchString(stderr) {
				t.Errorf("code %d, want %d: %s", code, tt.code, stderr)
			}
			if strings.Contains(stdout, `"mail": good`) || strings.Contains(stdout+stderr, "guess") {
				t.Errorf("output\n%s%s", stdout, stderr)
			}
		})
	}
}

func TestPrintable(t *testing.T) {
	if got := words.Printable("a\x1b[31m\u009b\x7f ü"); got != "a?[31m?? ü" {
		t.Errorf("%q", got)
	}
}

// O-ID-2: check reports what can be seen of how the upstream treats the gateway's
// address.
func TestCheckDefences(t *testing.T) {
	_, addr := upstreamWithMail(t)
	for keys, want := range map[string]string{
		"":                        "upstream \"mail\": client addresses: not sent, all clients have this machine's address there: see ",
		"send_client_id = true\n": "upstream \"mail\": warning: does not announce ID: send_client_id has no effect, ",
	} {
		file := writeConfig(t, strings.Replace(smallest, "127.0.0.1:1143", addr, 1)+"name = \"mail\"\n"+keys)
		var out bytes.Buffer
		if code := run([]string{"check", "--config", file}, strings.NewReader(""), &out, &out); code != exitOK || !strings.Contains(out.String(), want) {
			t.Errorf("%s: code %d: got\n%s\nwant\n%s", keys, code, out.String(), want)
		}
	}
	for step, slow := range map[time.Duration]bool{time.Second: false, 4 * time.Second: true} {
		opts := imapbackend.Defaults()
		opts.Address, opts.TLS = addr, imapbackend.TLSNone
		backend, err := imapbackend.New(opts)
		if err != nil {
			t.Fatal(err)
		}
		var out bytes.Buffer
		var clock time.Time
		k := &checker{out: &out, now: func() time.Time {
			clock = clock.Add(step / 3) // which is read three times until the login has ended
			return clock
		}}
		if err := k.session(t.Context(), backend, proxy.Credential{Username: "alice", Password: "secret word"}); err != nil {
			t.Error(err)
		}
		backend.Close()
		if strings.Contains(out.String(), "warning: a slow login: ") != slow {
			t.Errorf("%v: %s", step, out.String())
		}
	}
}
