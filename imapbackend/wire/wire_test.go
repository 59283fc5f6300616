package wire

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/emersion/go-imap/client"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// stream is a connection that delivers fixed octets in chunks of at most step and
// then ends. It keeps what is written to it.
type stream struct {
	in    string
	step  int
	wrote bytes.Buffer
}

func (s *stream) Read(p []byte) (int, error) {
	if s.in == "" {
		return 0, io.EOF
	}
	n := min(len(p), len(s.in), s.step)
	copy(p, s.in[:n])
	s.in = s.in[n:]
	return n, nil
}

func (s *stream) Write(p []byte) (int, error)      { return s.wrote.Write(p) }
func (s *stream) Close() error                     { return nil }
func (s *stream) LocalAddr() net.Addr              { return nil }
func (s *stream) RemoteAddr() net.Addr             { return nil }
func (s *stream) SetDeadline(time.Time) error      { return nil }
func (s *stream) SetReadDeadline(time.Time) error  { return nil }
func (s *stream) SetWriteDeadline(time.Time) error { return nil }

// crlf turns the lines of a test into those of the protocol.
func crlf(s string) string { return strings.ReplaceAll(s, "\n", "\r\n") }

// play starts one command and returns the events that Next reads from in.
func play(in string, step int) []string {
	c := New(&stream{in: in, step: step}, time.Minute)
	defer c.Close()
	if err := c.Start("TEST"); err != nil {
		return []string{err.Error()}
	}
	var out []string
	for {
		ev, err := c.Next()
		if err != nil {
			return append(out, "error: "+err.Error())
		}
		switch ev.Kind {
		case Done:
			return append(out, "done: "+c.Result().String())
		case Fetch:
			line := fmt.Sprintf("fetch %d uid %d octets %d", ev.Seq, ev.UID, ev.Octets)
			if ev.Deleted {
				line += " deleted"
			}
			if ev.Seen {
				line += " seen"
			}
			if ev.EmailID != "" {
				line += fmt.Sprintf(" emailid %q", ev.EmailID)
			}
			if ev.GmailID != 0 {
				line += fmt.Sprintf(" gmail %d", ev.GmailID)
			}
			out = append(out, line)
		case Body:
			var b bytes.Buffer
			if _, err := c.BodyTo(&b); err != nil {
				return append(out, "body error: "+err.Error())
			}
			if int64(b.Len()) != ev.Octets {
				return append(out, fmt.Sprintf("body of %d octets, announced %d", b.Len(), ev.Octets))
			}
			line := fmt.Sprintf("body %d uid %d [%s]<%d> %q", ev.Seq, ev.UID, ev.Section, ev.Origin, b.String())
			if ev.Nil {
				line = fmt.Sprintf("body %d uid %d [%s] NIL", ev.Seq, ev.UID, ev.Section)
			}
			out = append(out, line)
		case Search:
			out = append(out, fmt.Sprintf("search %d-%d", ev.Low, ev.High))
		case Searched:
			out = append(out, fmt.Sprintf("searched, whole: %v", ev.Whole))
		case Notice:
			out = append(out, "notice: "+parseStatus("*", string(c.scratch), c.text).String())
		case Data:
			out = append(out, strings.TrimRight(fmt.Sprintf("data %s %d %s", ev.Name, ev.Seq, ev.Text), " "))
		default:
			out = append(out, fmt.Sprintf("event %d", ev.Kind))
		}
	}
}

// Requirements I-CONN-3, I-FETCH-2, I-FETCH-4: what a server may send, in any
// order and form.
var streams = []struct {
	name string
	in   string
	want []string
}{
	{"listing", "* 1 FETCH (UID 7 RFC822.SIZE 100)\n* 2 FETCH (RFC822.SIZE 9223372036854775807 UID 4294967295)\nP1 OK done\n", []string{
		"fetch 1 uid 7 octets 100", "fetch 2 uid 4294967295 octets 9223372036854775807", "done: OK done"}},
	{"lower case, spaces, bare LF", "* 3 fetch (uid 9  rfc822.size 1 ) \n* 4 FETCH (UID 10)\x00P1 ok fine\n", []string{
		"fetch 3 uid 9 octets 1", "fetch 4 uid 10 octets -1", "done: OK fine"}},
	{"UID 0 is that of no message", "* 1 FETCH (UID 0 RFC822.SIZE 100)\n* 2 FETCH (UID 0 BODY[] {2}\nab BODY[TEXT] \"x\" EMAILID (M))\n" +
		"* 3 FETCH (BODY[] {2}\nab UID 0 BODY[TEXT] \"x\")\n* 0 UIDFETCH (RFC822.SIZE 1)\n* 4 FETCH (UID 7 RFC822.SIZE 100)\nP1 OK x\n", []string{
		"fetch 1 uid 0 octets -1", "fetch 2 uid 0 octets -1", `body 3 uid 0 []<-1> "ab"`, "fetch 3 uid 0 octets -1",
		"fetch 0 uid 0 octets -1", "fetch 4 uid 7 octets 100", "done: OK x"}},
	{"search, UID 0", "* SEARCH 0 7 0\n* ESEARCH (TAG \"P1\") UID ALL 0,0:3,5:0,0:0,9\nP1 OK x\n", []string{
		"search 7-7", "searched, whole: true", "search 1-3", "search 1-5", "search 9-9", "searched, whole: true", "done: OK x"}},
	{"UID above 32 bits", "* 1 FETCH (UID 4294967296)\nP1 OK x\n", []string{"fetch 1 uid 4294967296 octets -1", "done: OK x"}},
	{"UID above 64 bits", "* 1 FETCH (UID 18446744073709551616)\nP1 OK x\n", []string{"error: "}},
	{"UIDFETCH, UID above 32 bits", "* 4294967296 UIDFETCH (FLAGS ())\nP1 OK x\n", []string{"fetch 0 uid 4294967296 octets -1", "done: OK x"}},
	{"FETCH, sequence number above 32 bits", "* 4294967296 FETCH (UID 1)\nP1 OK x\n", []string{"error: "}},
	{"search, UID above 32 bits", "* SEARCH 1 18446744073709551615\nP1 OK x\n", []string{"search 1-1", "search 18446744073709551615-18446744073709551615", "searched, whole: true", "done: OK x"}},
	{"search, UID above 64 bits", "* SEARCH 1 18446744073709551616\nP1 OK x\n", []string{"search 1-1", "error: "}},
	{"sequence number above 32 bits", "* 4294967296 EXISTS\nP1 OK x\n", []string{"error: "}},
	{"body, UID before", "* 1 FETCH (UID 7 BODY[] {5}\nab\n)c)\nP1 OK x\n", []string{
		"body error: "}},
	{"body, UID after", "* 1 FETCH (BODY[] {4}\nab\n UID 7)\nP1 OK x\n", []string{
		`body 1 uid 0 []<-1> "ab\r\n"`, "fetch 1 uid 7 octets -1", "done: OK x"}},
	{"no spaces", "* 1 FETCH(UID 7 BODY[]{4}\nab\n BODY[HEADER]\"c\" FLAGS(\\Seen) X{2}\nxy EMAILID(M1))\nP1 OK x\n", []string{
		`body 1 uid 7 []<-1> "ab\r\n"`, `body 1 uid 7 [HEADER]<-1> "c"`, `fetch 1 uid 7 octets -1 seen emailid "M1"`, "done: OK x"}},
	{"origin with count", "* 1 FETCH (UID 7 BODY[TEXT]<0.1024> {2}\nab BODY[TEXT]<1024.1> \"\")\nP1 OK x\n", []string{
		`body 1 uid 7 [TEXT]<0> "ab"`, `body 1 uid 7 [TEXT]<1024> ""`, "fetch 1 uid 7 octets -1", "done: OK x"}},
	{"origin without count", "* 1 FETCH (UID 7 BODY[TEXT]<0.> {2}\nab)\nP1 OK x\n", []string{"error: "}},
	{"empty lines", "\n* 1 FETCH (UID 7 BODY[] {4}\nab\n\n)\n\n\n* 2 FETCH (UID 8\n)\n\nP1 OK x\n", []string{
		`body 1 uid 7 []<-1> "ab\r\n"`, "fetch 1 uid 7 octets -1", "fetch 2 uid 8 octets -1", "done: OK x"}},
	{"empty line, UID after it", "* 1 FETCH (BODY[] {4}\nab\n\n UID 7)\nP1 OK x\n", []string{"body error: "}},
	{"rest of a body that looks like an item", "* 1 FETCH (UID 7 BODY[] {4}\nthe end of\n)\nP1 OK x\n", []string{"body error: "}},
	{"rest of a body that looks like an item with a value", "* 1 FETCH (UID 7 BODY[] {7}\nthe end of it\n)\nP1 OK x\n", []string{"body error: "}},
	{"empty line, after the UID", "* 1 FETCH (BODY[] {4}\nab\n UID 7 FLAGS ()\n)\nP1 OK x\n", []string{
		`body 1 uid 0 []<-1> "ab\r\n"`, "fetch 1 uid 7 octets -1", "done: OK x"}},
	{"two empty lines", "* 1 FETCH (UID 7 BODY[] {4}\nab\n\n\n)\nP1 OK x\n", []string{"body error: "}},
	{"quoted and NIL", "* 1 FETCH (UID 7 BODY[] \"a\\\"b\\\\\")\n* 2 FETCH (UID 8 BODY[] NIL)\n* 3 FETCH (UID 9 BODY[] \"\")\nP1 OK x\n", []string{
		`body 1 uid 7 []<-1> "a\"b\\"`, "fetch 1 uid 7 octets -1", "body 2 uid 8 [] NIL", "fetch 2 uid 8 octets -1",
		`body 3 uid 9 []<-1> ""`, "fetch 3 uid 9 octets -1", "done: OK x"}},
	{"sections", "* 1 FETCH (UID 7 BODY[HEADER] {2}\n\n BODY[text]<0> {3}\na)\n BODY[HEADER.FIELDS (\"A]\" B)] {1}\nx)\nP1 OK x\n", []string{
		`body 1 uid 7 [HEADER]<-1> "\r\n"`, "body error: "}},
	{"unknown items", "* 1 FETCH (FLAGS (a]b \\Seen) X-THING ((\"q)\" {3}\n)(\n) NIL) BODY (\"TEXT\" NIL (1)) BINARY[1]<3> {2}\nxy MODSEQ (12) UID 7)\nP1 OK x\n", []string{
		"error: "}},
	{"unknown items, well formed", "* 1 FETCH (FLAGS (a]b \\Seen) X-THING ((\"q)\" {4}\n)(\n NIL)) BODY (\"TEXT\" NIL (1)) BINARY[1]<3> {2}\nxy MODSEQ (12) UID 7)\nP1 OK x\n", []string{
		"fetch 1 uid 7 octets -1 seen", "done: OK x"}},
	{"protocol in a body", "* 1 FETCH (UID 7 BODY[] {22}\n* 9 EXISTS\nP1 NO bad\n)\nP1 OK x\n", []string{
		"body error: "}},
	{"protocol in a body, right length", "* 1 FETCH (UID 7 BODY[] {23}\n* 9 EXISTS\nP1 NO bad\n)\nP1 OK x\n", []string{
		`body 1 uid 7 []<-1> "* 9 EXISTS\r\nP1 NO bad\r\n"`, "fetch 1 uid 7 octets -1", "done: OK x"}},
	{"NUL and 8-bit", "* 1 FETCH (UID 7 BODY[] {4}\n\x00\xff)\x01)\nP1 OK x\n", []string{
		"body 1 uid 7 []<-1> \"\\x00\\xff)\\x01\"", "fetch 1 uid 7 octets -1", "done: OK x"}},
	{"message ids", "* 1 FETCH (EMAILID (M_a-1) UID 7)\n* 2 FETCH (UID 8 emailid (z) x-gm-msgid 18446744073709551615)\n" +
		"* 3 FETCH (X-GM-MSGID 1278455344230334865 BODY[] {1}\nx UID 9 EMAILID NIL)\n* 4 FETCH (UID 10)\nP1 OK x\n", []string{
		`fetch 1 uid 7 octets -1 emailid "M_a-1"`, `fetch 2 uid 8 octets -1 emailid "z" gmail 18446744073709551615`,
		`body 3 uid 0 []<-1> "x"`, "fetch 3 uid 9 octets -1 gmail 1278455344230334865", "fetch 4 uid 10 octets -1", "done: OK x"}},
	{"object id with a line end", "* 1 FETCH (EMAILID (M\n))\nP1 OK x\n", []string{"error: "}},
	{"object id too long", "* 1 FETCH (EMAILID (" + strings.Repeat("a", 256) + "))\nP1 OK x\n", []string{"error: "}},
	{"X-GM-MSGID above 64 bits", "* 1 FETCH (X-GM-MSGID 18446744073709551616)\nP1 OK x\n", []string{"error: "}},
	{"X-GM-MSGID that is not a number", "* 1 FETCH (X-GM-MSGID x)\nP1 OK x\n", []string{"error: "}},
	{"search", "* SEARCH 1 5 3 \n* SEARCH\n* SEARCH 7 (MODSEQ 9)\nP1 OK x\n", []string{
		"search 1-1", "search 5-5", "search 3-3", "searched, whole: true", "searched, whole: true", "search 7-7", "searched, whole: true", "done: OK x"}},
	{"esearch", "* ESEARCH (TAG \"P1\") UID COUNT 3 ALL 2:4,9\n* ESEARCH (TAG \"P1\") UID\n* ESEARCH UID ALL 9:7\nP1 OK x\n", []string{
		"search 2-4", "search 9-9", "searched, whole: true", "searched, whole: true", "search 7-9", "searched, whole: true", "done: OK x"}},
	{"esearch without ALL", "* ESEARCH (TAG \"P1\") UID COUNT 0\n* ESEARCH (TAG \"P1\") UID COUNT 2\n* ESEARCH (TAG \"P1\") UID MIN 3 COUNT 0\n" +
		"* ESEARCH (TAG \"P1\") MAX 3\n* ESEARCH (TAG \"P1\") UID MODSEQ 5\nP1 OK x\n", []string{
		"searched, whole: true", "searched, whole: false", "searched, whole: false", "searched, whole: false", "searched, whole: false", "done: OK x"}},
	{"esearch for another command", "* ESEARCH (TAG \"P2\") UID ALL 2:4,9\n* ESEARCH (X (y) TAG \"P2\") UID\nP1 OK x\n", []string{
		"data ESEARCH 0", "data ESEARCH 0", "done: OK x"}},
	{"flags", "* 1 FETCH (UID 7 FLAGS (\\Seen \\deleted a]b))\n* 2 FETCH (FLAGS (\\DeletedX Deleted x{y) UID 8)\n* 3 FETCH (UID 9 FLAGS ())\n" +
		"* 4 FETCH (UID 10 FLAGS NIL)\nP1 OK x\n", []string{
		"fetch 1 uid 7 octets -1 deleted seen", "fetch 2 uid 8 octets -1", "fetch 3 uid 9 octets -1",
		"fetch 4 uid 10 octets -1", "done: OK x"}},
	{"odd flags", "* 1 FETCH (FLAGS (\\Seen [weird] \u00fcn\u00efcode $x/y \"q)\" {x} {3 {2}\nab %* a\\b \xff\x00 (nested (\"x\")) {} \\ ]) UID 7)\n" +
		"* 2 FETCH (FLAGS ( \\Answered  \\Deleted ) UID 8)\n* 3 FETCH (UID 9 FLAGS (\\seen{1} {9}))\nP1 OK x\n", []string{
		"fetch 1 uid 7 octets -1 seen", "fetch 2 uid 8 octets -1 deleted", "fetch 3 uid 9 octets -1", "done: OK x"}},
	{"a line end within flags", "* 1 FETCH (FLAGS (a\n))\nP1 OK x\n", []string{"error: "}},
	{"unilateral data", "* 5 EXISTS\n* 2 RECENT\n* 1 EXPUNGE\n* FLAGS (\\Seen {3}\na b)\n* 7 WHATEVER (x)\n* OK [ALERT] beware {5}\n* VANISHED 1:2\nP1 OK x\n", []string{
		"data EXISTS 5", "data RECENT 2", "data EXPUNGE 1", "data FLAGS 0 (\\Seen {3}\r\na b)", "data WHATEVER 7",
		"notice: OK [ALERT] beware {5}", "data VANISHED 0 1:2", "done: OK x"}},
	{"codes", "* OK [PERMANENTFLAGS (a]b \\*)] yes\n* NO [inuse] wait\nP1 NO nothing\n", []string{
		"notice: OK [PERMANENTFLAGS (a]b \\*)] yes", "notice: NO [INUSE] wait", "done: NO [INUSE] nothing (untagged: wait)"}},
	{"odd codes", "* OK [ UIDNEXT 4 ] x\n* NO [] x\n* NO [ALERT x\n* OK[ALERT]x\n* NO [[ALERT]] x\n* OK ] [ALERT] x\n* NO [SYS/TEMP] x\n" +
		"* NO [CODE: WBL] x\n* OK [X \"a] b] c\n* OK [X (a b] c\n* OK [X a) b] c\n* OK [BADCHARSET ({3}] c\n* OK []\n* OK\n* OK \nP1 NO[limit]x\n", []string{
		"notice: OK [UIDNEXT 4] x", "notice: NO x", "notice: NO [ALERT x", "notice: OK [ALERT] x", "notice: NO [[ALERT] ] x",
		"notice: OK ] [ALERT] x", "notice: NO [SYS/TEMP] x", "notice: NO [CODE: WBL] x", "notice: OK [X \"a] b] c",
		"notice: OK [X (a b] c", "notice: OK [X a) b] c", "notice: OK [BADCHARSET ({3}] c", "notice: OK", "notice: OK",
		"notice: OK", "done: NO [LIMIT] x (untagged: x)"}},
	{"bye", "* BYE [UNAVAILABLE] down\n", []string{
		"notice: BYE [UNAVAILABLE] down", "error: imap: upstream closed: BYE [UNAVAILABLE] down"}},
	{"empty stream", "", []string{"error: unexpected EOF"}},
}

func TestStreams(t *testing.T) {
	for _, tt := range streams {
		in := strings.ReplaceAll(crlf(tt.in), "\x00P1", "\nP1") // one bare LF
		for _, step := range []int{1, 2, 7, 1 << 20} {
			t.Run(fmt.Sprintf("%s/%d", tt.name, step), func(t *testing.T) {
				got := play(in, step)
				want := tt.want
				if last := len(want) - 1; strings.HasSuffix(want[last], "error: ") && len(got) == len(want) && strings.HasPrefix(got[last], want[last]) {
					got, want = got[:last], want[:last]
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Error(diff)
				}
			})
		}
	}
}

// A stream cut anywhere yields the events before the cut and then a loss: never a
// body that is not whole, never a result.
func TestStreamsCut(t *testing.T) {
	for _, tt := range streams {
		in := strings.ReplaceAll(crlf(tt.in), "\x00P1", "\nP1")
		whole := play(in, 1<<20)
		for cut := range len(in) {
			got := play(in[:cut], 1<<20)
			last := len(got) - 1
			if !strings.HasPrefix(got[last], "error: ") && !strings.HasPrefix(got[last], "body error: ") {
				t.Errorf("%s cut at %d: ends in %q", tt.name, cut, got[last])
			}
			for i, ev := range got[:last] {
				if i >= len(whole) || ev != whole[i] {
					t.Errorf("%s cut at %d: event %q", tt.name, cut, ev)
				}
			}
		}
	}
}

// hazards are replies that make go-imap's client crash, hang or exhaust memory,
// or read the octets of a message as protocol (go-imap v1.2.1). T is the tag.
var hazards = []struct {
	name  string
	reply string
	cause string // of the loss; "" if the connection must survive
}{
	{"FETCH without argument", "* 5 FETCH\r\nT OK x\r\n", "protocol"},
	{"FETCH without a list", "* 5 FETCH UID\r\nT OK x\r\n", "protocol"},
	{"EXISTS without number", "* EXISTS\r\nT OK x\r\n", ""},
	{"EXPUNGE without number", "* EXPUNGE\r\nT OK x\r\n", ""},
	{"RECENT without number", "* RECENT\r\nT OK x\r\n", ""},
	{"number alone", "* 5\r\nT OK x\r\n", "protocol"},
	{"deep nesting in unknown data", "* X " + strings.Repeat("(", 60000) + "\r\nT OK x\r\n", ""},
	{"deep nesting in FETCH", "* 1 FETCH (X " + strings.Repeat("(", 1<<20) + "\r\nT OK x\r\n", "nested"},
	{"endless line", "* X " + strings.Repeat("a", 1<<20) + "\r\nT OK x\r\n", "line above"},
	{"long atom", "* FLAGS (" + strings.Repeat("a", 60000) + ")\r\nT OK x\r\n", ""},
	{"huge literal", "* X {3221225472}\r\n", "literal"},
	{"huge literal in FETCH", "* 1 FETCH (X {9223372036854775807}\r\nabc", "EOF"},
	{"length above 63 bits", "* 1 FETCH (BODY[] {18446744073709551616}\r\n* 77 EXISTS\r\n", "63 bits"},
	{"continuations", strings.Repeat("+ x\r\n", 5000) + "T OK x\r\n", "not expected"},
	{"unparsable code", "T OK [((] x\r\n", ""},
	{"unfinished code", "T OK [CAPABILITY x\r\n", ""},
	{"capabilities beyond atoms", "T OK [CAPABILITY IMAP4rev1 a(b \"x\" {5} ]] x\r\n", ""},
	{"lower case status", "T ok x\r\n", ""},
	{"unknown status", "T MAYBE x\r\n", "protocol"},
	{"long tag", strings.Repeat("A", 100) + " OK x\r\n", "protocol"},
	{"literal in free text", "* OK look {5}\r\nT OK x\r\n", ""},
	{"bye", "* BYE go\r\n", "upstream closed"},
	{"silence", "", "EOF"},
}

func TestHazardsUnderGoImap(t *testing.T) {
	for _, tt := range hazards {
		t.Run(tt.name, func(t *testing.T) {
			err := noop(t, tt.reply)
			switch {
			case tt.cause == "" && err != nil:
				t.Errorf("connection lost: %v", err)
			case tt.cause != "" && (err == nil || !strings.Contains(err.Error(), tt.cause)):
				t.Errorf("cause %v, want %q", err, tt.cause)
			}
		})
	}
}

// noop sends NOOP with go-imap's client to a server that answers reply, and
// returns the cause of the loss.
func noop(t testing.TB, reply string) error {
	near, far := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		defer far.Close()
		far.SetDeadline(time.Now().Add(10 * time.Second))
		line := make([]byte, 100)
		n, err := far.Read(line)
		if err != nil {
			return
		}
		tag, _, _ := strings.Cut(string(line[:n]), " ")
		go io.Copy(io.Discard, far)
		if strings.HasPrefix(reply, "T ") {
			reply = tag + reply[1:]
		}
		io.WriteString(far, strings.ReplaceAll(reply, "\nT ", "\n"+tag+" "))
	}()
	c := New(near, time.Minute)
	c.caps = []string{"IMAP4REV1"}
	c.Attach()
	cl, err := client.New(c)
	if err != nil {
		t.Fatal(err)
	}
	c.Begin()
	cl.Noop()
	err = c.Err()
	c.Close()
	<-cl.LoggedOut()
	<-served
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("%w (EOF)", err)
	}
	return err
}

func FuzzStream(f *testing.F) {
	for _, tt := range streams {
		f.Add(crlf(tt.in))
	}
	for _, tt := range hazards {
		if len(tt.reply) < 1<<12 {
			f.Add(tt.reply)
		}
	}
	f.Fuzz(func(t *testing.T, in string) {
		// As the answer to our own command, whole and octet by octet.
		whole := play(in, 1<<20)
		if diff := cmp.Diff(whole, play(in, 1)); diff != "" {
			t.Errorf("read whole and octet by octet (-whole +octets):\n%s", diff)
		}
		// And with go-imap's client: the process survives.
		noop(t, in)
	})
}

// go-imap reads only the end of its command: no data, and no text that it could
// take for syntax.
func TestRewrite(t *testing.T) {
	in := crlf("* 3 EXISTS\n* OK [UIDVALIDITY 7] [x\n* 1 FETCH (FLAGS (a]b) BODY[] {3}\nxyz)\n" +
		"* SEARCH 1 2 3\n* ESEARCH ALL 1:3\n* ENABLED (((\n* CAPABILITY IMAP4rev1 (( OK\n* NO \n" +
		"abc OK [READ-WRITE] done\x01\n")
	c := New(&stream{in: in, step: 5}, time.Minute)
	defer c.Close()
	c.Begin()
	io.WriteString(c, "abc NOOP\r\n")
	var got []byte
	for !bytes.Contains(got, []byte("abc OK")) || !bytes.HasSuffix(got, []byte("\r\n")) {
		p := make([]byte, 16)
		n, err := c.Read(p)
		if err != nil {
			t.Fatalf("%v after %q", err, got)
		}
		got = append(got, p[:n]...)
	}
	want := crlf("abc OK -\n")
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Error(diff)
	}
	if m := c.Mailbox(); m.Exists != 3 || m.UIDValidity != 7 {
		t.Errorf("mailbox: %+v", m)
	}
}

// I-CONN-3: UIDVALIDITY and UIDNEXT are kept as sent, in 64 bits. No other number
// takes the place of one that is not of 64 bits.
func TestMailboxNumbers(t *testing.T) {
	for _, tt := range []struct {
		code              string
		validity, uidNext uint64
		lost              bool
	}{
		{"UIDVALIDITY 4294967296", 1 << 32, 0, false},
		{"UIDVALIDITY 18446744073709551615", math.MaxUint64, 0, false},
		{"UIDVALIDITY 18446744073709551616", 0, 0, true},
		{"UIDVALIDITY 9x", 0, 0, true},
		{"UIDVALIDITY", 0, 0, true},
		{"UIDNEXT 4294967296", 0, 1 << 32, false},
		{"UIDNEXT 18446744073709551615", 0, math.MaxUint64, false},
		{"UIDNEXT 18446744073709551616", 0, 0, false},
		{"UIDNEXT 0", 0, 0, false},
		{"UIDNEXT x", 0, 0, false},
	} {
		c := New(&stream{in: crlf("* OK [" + tt.code + "] x\nP1 OK x\n"), step: 7}, time.Minute)
		_, err := c.Run("TEST")
		if _, violated := errors.AsType[*ProtocolError](err); violated != tt.lost {
			t.Errorf("%s: %v", tt.code, err)
		}
		if m := c.Mailbox(); m.UIDValidity != tt.validity || m.UIDNext != tt.uidNext {
			t.Errorf("%s: %+v", tt.code, m)
		}
		c.Close()
	}
}

// I-SNAP-1: which messages came after SELECT is known by their sequence numbers.
func TestRemaining(t *testing.T) {
	c := New(&stream{in: crlf("* 2 EXISTS\n* 3 EXISTS\nabc OK selected\n* 3 FETCH (UID 9)\n* 5 EXISTS\n* 4 FETCH (UID 10)\n" +
		"* 5 EXPUNGE\n* 3 FETCH (UID 9)\n* 2 EXPUNGE\n* 3 FETCH (UID 10)\n* 2 FETCH (UID 9)\n* 1 EXISTS\n* 2 FETCH (UID 9)\nP1 OK x\n"), step: 7}, time.Minute)
	defer c.Close()
	c.Begin("TEST")
	io.WriteString(c, "abc SELECT x\r\n")
	if _, err := c.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	var later []bool
	for ev := (Event{}); ev.Kind != Done; {
		var err error
		if ev, err = c.Next(); err != nil {
			t.Fatal(err)
		}
		if ev.Kind == Fetch {
			later = append(later, ev.Later)
		}
	}
	if want := []bool{false, true, false, true, false, true}; !slices.Equal(later, want) || c.Mailbox().Remaining != 1 {
		t.Errorf("%v, %+v", later, c.Mailbox())
	}
}

// Our own commands follow go-imap's in the same flight; each gets its own answer.
func TestFlight(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	sent := make(chan string, 1)
	go func() {
		buf := make([]byte, 1000)
		n, _ := far.Read(buf)
		sent <- string(buf[:n])
		fields := strings.Fields(string(buf[:n]))
		fmt.Fprintf(far, "* 7 EXISTS\r\n%s OK [READ-WRITE] x\r\n* SEARCH 3\r\nP1 OK y\r\nP2 NO z\r\n", fields[0])
	}()
	c := New(near, time.Minute)
	c.caps = []string{"IMAP4REV1"}
	c.Attach()
	cl, err := client.New(c)
	if err != nil {
		t.Fatal(err)
	}
	c.Begin("UID SEARCH DELETED", "UID FETCH 1:* UID")
	if err := cl.Noop(); err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(<-sent, "\r\n"); got != 3 {
		t.Errorf("%d lines in the flight", got)
	}
	if got := c.Result(); got.Code != "READ-WRITE" {
		t.Errorf("result of go-imap's command: %v", got)
	}
	var got []string
	for len(c.pending) > 0 {
		ev, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, fmt.Sprint(ev.Kind, ev.Command, ev.Low, c.status.Type))
	}
	want := []string{fmt.Sprint(Search, 0, 3, "OK"), fmt.Sprint(Searched, 0, 0, "OK"), fmt.Sprint(Done, 1, 0, "OK"), fmt.Sprint(Done, 2, 0, "NO")}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if one, two := c.ResultOf(1), c.ResultOf(2); one.Type != "OK" || two.Type != "NO" || c.ResultOf(3).Type != "" {
		t.Errorf("results %v, %v", one, two)
	}
	c.Close()
	<-cl.LoggedOut()
}

// A message passes through one buffer: no allocation grows with it (P-RETR-5),
// and an idle connection holds no buffer.
func TestBodyAllocations(t *testing.T) {
	const octets = 8 << 20
	body := strings.Repeat("x", octets)
	in := fmt.Sprintf("* 1 FETCH (UID 7 BODY[] {%d}\r\n%s)\r\nP1 OK x\r\n", octets, body)
	var before, after runtime.MemStats
	s := &stream{in: in, step: 1 << 16}
	c := New(s, time.Minute)
	if err := c.Start("TEST"); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&before)
	for {
		ev, err := c.Next()
		if err != nil {
			t.Fatal(err)
		}
		if ev.Kind == Done {
			break
		}
		if ev.Kind == Body {
			if n, err := c.BodyTo(io.Discard); n != octets || err != nil {
				t.Fatalf("BodyTo: %d, %v", n, err)
			}
		}
	}
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 2*bufferSize {
		t.Errorf("%d octets allocated for a message of %d", got, octets)
	}
	if c.buf != nil {
		t.Error("an idle connection holds a buffer")
	}
}

// A listing allocates nothing per message.
func TestListingAllocations(t *testing.T) {
	line := "* 12345 FETCH (UID 1234567 RFC822.SIZE 123456)\r\n"
	c := New(&stream{in: strings.Repeat(line, 3000), step: 1 << 16}, time.Minute)
	if err := c.Start("TEST"); err != nil {
		t.Fatal(err)
	}
	c.Next()
	if n := testing.AllocsPerRun(2000, func() {
		if _, err := c.Next(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations per message", n)
	}
}

// The upstream is timed only while it is waited for, and the timeout is the cause
// of the loss (I-KEEP-2).
func TestProgress(t *testing.T) {
	near, far := net.Pipe()
	defer far.Close()
	go io.Copy(io.Discard, far)
	c := New(near, time.Millisecond)
	if err := c.Start("TEST"); err != nil {
		t.Fatal(err)
	}
	_, err := c.Next()
	if !errors.Is(err, ErrTimeout) || !errors.Is(c.Err(), ErrTimeout) {
		t.Errorf("error %v, cause %v", err, c.Err())
	}
	if err := c.Start("TEST"); !errors.Is(err, ErrTimeout) {
		t.Errorf("Err does not return the first cause: %v", err)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the socket's own error is returned")
	}
}

func BenchmarkListing(b *testing.B) {
	line := "* 12345 FETCH (UID 1234567 RFC822.SIZE 123456)\r\n"
	in := strings.Repeat(line, 10000) + "P1 OK x\r\n"
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		c := New(&stream{in: in, step: 1 << 16}, time.Minute)
		if err := c.Start("TEST"); err != nil {
			b.Fatal(err)
		}
		for {
			ev, err := c.Next()
			if err != nil {
				b.Fatal(err)
			}
			if ev.Kind == Done {
				break
			}
		}
	}
}
