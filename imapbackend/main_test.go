package imapbackend

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"popgate/imapbackend/dialect"
	"popgate/imapbackend/internal/imapscript"
	"popgate/proxy"
	"popgate/proxy/proxytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// joe is the user of most tests, and ir the initial response of AUTHENTICATE
// PLAIN.
var joe = proxy.Credential{Username: "joe", Password: "secret"}

// openMaildrop logs joe in and opens the maildrop.
func openMaildrop(t testing.TB, b *Backend) proxy.Maildrop {
	t.Helper()
	l, err := b.Login(t.Context(), joe)
	if err != nil {
		t.Fatalf("Login: %v", err)
	}
	d, err := l.Open(t.Context())
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return d
}

const ir = "AGpvZQBzZWNyZXQ="

// Beginnings of scripts, each of which continues the one before it.
const (
	greeted  = "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] zebra ready\n"
	loggedIn = greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\n" +
		"S: <l> OK [CAPABILITY IMAP4rev1 UIDPLUS] zebra\n"
	selecting = loggedIn + "C: <s> SELECT INBOX\n" + lists
	selected  = selecting + "S: * 1 EXISTS\nS: * OK [UIDVALIDITY 9] x\nS: * OK [UIDNEXT 8] x\n" +
		"S: <s> OK [READ-WRITE] selected\n"
	listed = selected
	opened = listed + "S: * SEARCH\nS: <d> OK x\nS: * 1 FETCH (UID 7 RFC822.SIZE 100)\nS: <f> OK x\n"

	lists = "C: <d> UID SEARCH DELETED\nC: <f> UID FETCH 1:* (UID RFC822.SIZE)\n"
	bye   = "C: <z> LOGOUT\nS: * BYE x\nS: <z> OK x\n"
)

// mailbox is the beginning of a script up to a snapshot of messages with uids,
// each of 100 octets; deleted is the answer to SEARCH DELETED, and to the search
// that confirms it.
func mailbox(caps, deleted string, uids ...string) string {
	var b strings.Builder
	search := lists
	if strings.Contains(caps, "ESEARCH") || strings.Contains(caps, "IMAP4rev2") {
		search = strings.Replace(lists, "SEARCH", "SEARCH RETURN (ALL)", 1)
	}
	b.WriteString(greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\n")
	b.WriteString("S: <l> OK [CAPABILITY IMAP4rev1 " + caps + "] x\nC: <s> SELECT INBOX\n" + search)
	b.WriteString("S: * " + itoa(len(uids)) + " EXISTS\nS: * OK [UIDVALIDITY 9] x\nS: * OK [UIDNEXT 4000000000] x\n")
	b.WriteString("S: <s> OK [READ-WRITE] x\n")
	b.WriteString("S: * SEARCH " + deleted + "\nS: <d> OK x\n")
	for i, uid := range uids {
		b.WriteString("S: * " + itoa(i+1) + " FETCH (UID " + uid + " RFC822.SIZE 100)\n")
	}
	b.WriteString("S: <f> OK x\n")
	if deleted != "" {
		b.WriteString("C: <c> UID FETCH " + strings.ReplaceAll(deleted, " ", ",") + " (UID FLAGS)\n")
		b.WriteString(strings.ReplaceAll(shows("c", deleted), "FLAGS ()", `FLAGS (\Deleted)`))
	}
	return b.String()
}

// bySearch has a server searched among sets of UIDs by SEARCH, as one that is known to
// take that.
var bySearch = func() dialect.Choice {
	c := dialect.Defaults()
	c.Search = dialect.SearchByReturn
	return c
}()

// shows is the answer to a FETCH with this tag that shows the messages uids, which
// are not flagged.
func shows(tag, uids string) string {
	var b strings.Builder
	for i, uid := range strings.Fields(uids) {
		b.WriteString("S: * " + itoa(i+1) + " FETCH (UID " + uid + " FLAGS ())\n")
	}
	return b.String() + "S: <" + tag + "> OK x\n"
}

// session is a Backend in front of a scripted upstream, in fake time.
type session struct {
	*testing.T
	ctx context.Context
	b   *Backend
	up  *imapscript.Server
	log proxytest.Log // of the calls with ctx
}

// forbidden are commands that remove messages that are not marked, set flags
// unasked, or depend on message numbers (requirements I-DEL-6, I-FETCH-1,
// I-SNAP-1, 6).
var forbidden = regexp.MustCompile(`(?i)^(CLOSE|EXPUNGE|EXAMINE|FETCH|STORE|IDLE|CREATE|DELETE|RENAME|APPEND)\b|` +
	`BODY\[|RFC822\b[^.]|FETCH.*FLAGS|STATUS.*(MESSAGES|SIZE)|STORE.* FLAGS|STORE .*\*|EXPUNGE .*\*`)

// unpeeked is the one command that sets \Seen: it asks again for a message that is
// empty by BODY.PEEK[], right after its flags (I-FETCH-5).
var unpeeked = regexp.MustCompile(`^UID FETCH (\d+) \(UID BODY\[\]\)$`)

// permitted reports whether a policy allows a command that is otherwise
// forbidden (requirements I-DEL-7, 8), or before allows it, the command that was
// sent before. FETCH of nothing but the flags is for where SEARCH has failed
// (I-SNAP-3), and for what BODY.PEEK[] does not bring (I-FETCH-5).
func permitted(before, cmd string, opts Options) bool {
	if m := unpeeked.FindStringSubmatch(cmd); m != nil && before == "UID FETCH "+m[1]+" (UID FLAGS)" {
		return true
	}
	toTrash := opts.Delete == DeleteTrash || opts.WithoutUIDPLUS == Move
	return strings.HasPrefix(cmd, "UID FETCH ") && strings.HasSuffix(cmd, " (UID FLAGS)") ||
		opts.WithoutUIDPLUS == ExpungeIfAlone && cmd == "EXPUNGE" || toTrash && strings.HasPrefix(cmd, "CREATE ")
}

// I-DEL-6, I-SNAP-6, I-FETCH-3: the pattern with which play checks all commands
// finds the forbidden ones.
func TestForbidden(t *testing.T) {
	for _, cmd := range []string{"CLOSE", "EXPUNGE", "EXAMINE INBOX", "FETCH 1 (UID)", "STORE 1 +FLAGS (\\Deleted)",
		"UID FETCH 7 (UID BODY[])", "UID FETCH 7 (RFC822)", "UID FETCH 1:* (UID FLAGS)", "STATUS INBOX (SIZE)", "UID EXPUNGE 1:*"} {
		if !forbidden.MatchString(cmd) {
			t.Errorf("%q is not found", cmd)
		}
	}
	for _, cmd := range []string{"UID EXPUNGE 1:3", "UID FETCH 1:* (UID RFC822.SIZE)", "UID FETCH 7 (UID BODY.PEEK[])",
		"UID STORE 7 +FLAGS.SILENT (\\Deleted)", "STATUS INBOX (MAILBOXID)", "LOGOUT"} {
		if forbidden.MatchString(cmd) {
			t.Errorf("%q is found", cmd)
		}
	}
}

// withSet finds the set of a command.
var withSet = regexp.MustCompile(`(?:^UID (?:FETCH|STORE|COPY|MOVE|EXPUNGE)|\bSEARCH.* UID) ([^ ]*)`)

// checkSets checks that the set of a command, if it has one, is not empty and
// ascends: some upstreams refuse others.
func checkSets(cmd string) error {
	m := withSet.FindStringSubmatch(cmd)
	if m == nil {
		return nil
	}
	last := uint64(0)
	for item := range strings.SplitSeq(m[1], ",") {
		low, high, isRange := strings.Cut(item, ":")
		if !isRange {
			high = low
		}
		from, err := strconv.ParseUint(low, 10, 64)
		to := uint64(math.MaxUint64)
		if err == nil && high != "*" {
			to, err = strconv.ParseUint(high, 10, 64)
		}
		switch {
		case err != nil:
			return err
		case from <= last || to < from || isRange && high != "*" && to == from:
			return fmt.Errorf("%q does not ascend", m[1])
		}
		last = to
	}
	return nil
}

// I-CONN-4: the check of play finds sets that do not ascend.
func TestCheckSets(t *testing.T) {
	for cmd, ok := range map[string]bool{
		"UID FETCH 1:* (UID FLAGS)": true, "UID FETCH 7 (UID BODY.PEEK[])": true, "UID STORE 7:9,12 +FLAGS.SILENT (\\Deleted)": true,
		"UID SEARCH RETURN (ALL) UID 1,3 DELETED": true, "UID SEARCH ALL": true, "UID SEARCH DELETED": true, "UID EXPUNGE 3,5:18446744073709551615": true,
		"UID FETCH  (UID)": false, "UID EXPUNGE ": false, "UID SEARCH UID  DELETED": false, "UID STORE 9,7 +FLAGS.SILENT (\\Seen)": false,
		"UID MOVE 7,7 \"x\"": false, "UID COPY 9:7 \"x\"": false, "UID FETCH 5:9,7 (UID)": false, "UID EXPUNGE 0": false,
	} {
		if err := checkSets(cmd); (err == nil) != ok {
			t.Errorf("%s: %v", cmd, err)
		}
	}
}

// O-DISC-1: the login name does not change where the gateway connects.
func TestUpstreamFixed(t *testing.T) {
	b := backend(t, Options{Address: "127.0.0.1:1"})
	_, err := b.Login(t.Context(), proxy.Credential{Username: "joe@other.example:993", Password: "x"})
	if e := proxy.AsError(err); e.Code != proxy.CodeSysTemp || !strings.Contains(e.Error(), "127.0.0.1:1") {
		t.Errorf("%v, want a refused connection to the configured address", err)
	}
}

// play runs f against script in fake time, and checks all commands. The options
// default to a plain connection.
func play(t *testing.T, name, script string, opts Options, f func(*session), serverOptions ...imapscript.Option) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var up *imapscript.Server
			t.Cleanup(func() {
				if up == nil {
					return // the script has an error
				}
				before := ""
				for _, cmd := range up.Commands() {
					if forbidden.MatchString(cmd) && !permitted(before, cmd, opts) {
						t.Errorf("the upstream got %q", cmd)
					}
					if err := checkSets(cmd); err != nil {
						t.Errorf("the upstream got %q: %v", cmd, err)
					}
					before = cmd
					if len(cmd) > 980 {
						t.Errorf("a command has %d octets without its tag", len(cmd))
					}
				}
			})
			up = imapscript.New(t, script, serverOptions...)
			s := &session{T: t, up: up, b: backend(t, opts)}
			s.ctx = proxy.WithLogger(context.WithoutCancel(t.Context()), s.log.Logger())
			s.b.dial = up.Dial
			f(s)
		})
	})
}

// orDefaults returns opts with its zero fields at their defaults.
func orDefaults(opts Options) Options {
	v, defaults := reflect.ValueOf(&opts).Elem(), reflect.ValueOf(Defaults())
	for i := range v.NumField() {
		if v.Field(i).IsZero() {
			v.Field(i).Set(defaults.Field(i))
		}
	}
	return opts
}

func backend(t testing.TB, opts Options) *Backend {
	t.Helper()
	if opts.TLS == "" {
		opts.TLS, opts.Insecure = TLSNone, true
	}
	if opts.Address == "" {
		opts.Address = "zebra.example.net:143"
	}
	b, err := New(orDefaults(opts))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// login logs joe in.
func (s *session) login() proxy.Login {
	s.Helper()
	l, err := s.b.Login(s.ctx, joe)
	if err != nil {
		s.Fatalf("Login: %v", err)
	}
	return l
}

// open opens joe's maildrop, which is closed at the end of the test.
func (s *session) open() proxy.Maildrop {
	s.Helper()
	l := s.login()
	d, err := l.Open(s.ctx)
	if err != nil {
		l.Close()
		s.Fatalf("Open: %v", err)
	}
	s.Cleanup(func() { d.Close() })
	return d
}

// openFails returns the error of Login or Open.
func (s *session) openFails() error {
	s.Helper()
	l, err := s.b.Login(s.ctx, joe)
	if err != nil {
		return err
	}
	d, err := l.Open(s.ctx)
	if err == nil {
		d.Close()
		s.Fatal("the maildrop is open")
	}
	l.Close()
	return err
}

// countDials counts the connections that the Backend opens from now on, one at a
// time.
func (s *session) countDials() *int {
	dials, dial := new(int), s.b.dial
	s.b.dial = func(ctx context.Context) (net.Conn, error) {
		*dials++
		return dial(ctx)
	}
	return dials
}

// text reads a whole message.
func (s *session) text(body proxy.Body, err error) string {
	s.Helper()
	if err != nil {
		s.Fatalf("opening a message: %v", err)
	}
	var b bytes.Buffer
	if _, err := body.WriteTo(&b); err != nil {
		s.Errorf("WriteTo: %v", err)
	}
	body.Close()
	return b.String()
}

// after waits for d, and for all that happens then.
func (s *session) after(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// fails checks that err has code, and a public text of popgate's own, and
// returns it.
func (s *session) fails(err error, code proxy.Code) *proxy.Error {
	s.Helper()
	if err == nil {
		s.Errorf("no error, want [%s]", code)
		return &proxy.Error{}
	}
	e, ok := errors.AsType[*proxy.Error](err)
	if !ok {
		s.Fatalf("%T %v is not a *proxy.Error", err, err)
	}
	if e.Code != code {
		s.Errorf("[%s], want [%s]: %v", e.Code, code, err)
	}
	if strings.Contains(e.Text, "zebra") { // which is in all upstream texts here
		s.Errorf("P-RESP-8: the client sees %q", e.Text)
	}
	return e
}

func itoa(n int) string { return strconv.Itoa(n) }
