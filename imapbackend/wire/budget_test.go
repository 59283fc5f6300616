package wire

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

// repeated is a connection that delivers a text, another one over and over, for ever
// if times is 0, and a third.
type repeated struct {
	stream
	before, again, after string
	times                int
	sent                 int64 // octets
	r                    io.Reader
}

func (s *repeated) Read(p []byte) (int, error) {
	for {
		if s.r == nil {
			s.r = strings.NewReader(s.before)
		}
		if n, err := s.r.Read(p); err == nil {
			s.sent += int64(n)
			return n, nil
		}
		s.times--
		switch {
		case s.times == -1:
			s.r, s.times = strings.NewReader(s.after), 0
			if s.after == "" {
				return 0, io.EOF
			}
			s.after = ""
		default:
			s.r = strings.NewReader(s.again)
		}
	}
}

var _ net.Conn = (*repeated)(nil)

// repeat returns text as many times as make about 100 KiB.
func repeat(text string) string { return strings.Repeat(crlf(text), 1+100<<10/len(text)) }

// I-CONN-8: whatever an upstream repeats for ever in answer to one command ends the
// connection as a flood, after a limited number of octets, and holds no memory.
func TestFloods(t *testing.T) {
	for name, text := range map[string]string{
		"a message":             "* 1 FETCH (UID 1 RFC822.SIZE 90)\n",
		"flags":                 "* 1 FETCH (FLAGS ())\n",
		"sizes":                 "* 1 FETCH (RFC822.SIZE 9)\n",
		"UID 0":                 "* 1 FETCH (UID 0 RFC822.SIZE 90)\n",
		"UIDFETCH":              "* 1 UIDFETCH (RFC822.SIZE 90)\n",
		"an item of FETCH":      "* 1 FETCH (X {5}\nabcde)\n",
		"ids":                   "* 1 FETCH (UID 1 EMAILID (M1) THREADID (T1) X-GM-MSGID 7)\n",
		"body pieces":           "* 1 FETCH (UID 1 BODY[TEXT]<0> {5}\nabcde)\n",
		"quoted bodies":         "* 1 FETCH (UID 1 BODY[TEXT] \"" + strings.Repeat("x", 1000) + "\")\n",
		"search results":        "* SEARCH 1 2 3 4 5 6 7 8 9\n",
		"one search result":     " 7",
		"ranges":                "* ESEARCH (TAG \"P1\") UID ALL 1:3,5:9\n",
		"foreign results":       "* ESEARCH (TAG \"x\") UID ALL 1:3\n",
		"notices":               "* OK still working\n",
		"alerts":                "* OK [ALERT] " + strings.Repeat("x", 60000) + "\n",
		"refusals":              "* NO [X] " + strings.Repeat("x", 60000) + "\n",
		"capabilities":          "* CAPABILITY" + strings.Repeat(" A", 30000) + "\n",
		"capability codes":      "* OK [CAPABILITY" + strings.Repeat(" A", 30000) + "] x\n",
		"mailboxes":             "* LIST () \"/\" \"x\"\n",
		"mailboxes as literals": "* LIST () \"/\" {5}\nabcde\n",
		"ID":                    "* ID (\"name\" \"x\")\n",
		"EXISTS":                "* 1 EXISTS\n",
		"EXISTS up and down":    "* 9000 EXISTS\n* 1 EXISTS\n",
		"EXPUNGE":               "* 1 EXPUNGE\n",
		"VANISHED":              "* VANISHED 1:9\n",
		"empty lines":           "\n",
		"empty lines of FETCH":  "* 1 FETCH (UID 1\n)\n",
		"keywords":              "* OK [PERMANENTFLAGS (" + strings.Repeat("a ", 30000) + ")] x\n",
	} {
		before, again := "", repeat(text)
		if name == "one search result" {
			before, again = "* SEARCH", strings.Repeat(text, 50000)
		}
		for _, byLibrary := range []bool{false, true} {
			if byLibrary && !strings.HasPrefix(name, "E") {
				continue // the same code reads both
			}
			s := &repeated{before: before, again: again, times: 1 << 30}
			c := New(s, time.Minute)
			held := heap()
			var err error
			if byLibrary {
				c.Begin()
				io.WriteString(c, "abc NOOP\r\n")
				c.Read(make([]byte, 100))
				err = c.Err()
			} else {
				_, err = c.Run("NOOP")
			}
			if e, ok := errors.AsType[*ProtocolError](err); !ok || !e.Flood {
				t.Errorf("%s: %v, want a flood", name, err)
			}
			if s.sent > 2*maxUnasked {
				t.Errorf("%s: %d octets were read", name, s.sent)
			}
			if more := heap() - held; more > 2<<20 {
				t.Errorf("%s: %d octets are held", name, more)
			}
			runtime.KeepAlive(c)
			c.Close()
		}
	}
}

// heap returns the octets on the heap that are in use.
func heap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// I-CONN-8: an upstream may send much that nobody has asked for, in proportion to its
// mailbox, and the answers to many commands in one flight.
func TestUnaskedAccepted(t *testing.T) {
	const messages = 300_000
	all := "* 12345 FETCH (UID 12345 RFC822.SIZE 90)\n* 12345 FETCH (UID 12345 RFC822.SIZE 90)\n* 12345 FETCH (FLAGS (\\Seen))\n* 12345 FETCH (FLAGS (\\Seen))\n" +
		"* 1 EXPUNGE\n* 299999 EXISTS\n* 0 RECENT\n* SEARCH 12345\n"
	s := &repeated{before: crlf("* 300000 EXISTS\nabc OK x\n"), again: crlf(all), times: messages, after: crlf("P1 OK x\n")}
	c := New(s, time.Minute)
	defer c.Close()
	c.Begin("TEST")
	io.WriteString(c, "abc SELECT x\r\n")
	if _, err := c.Read(make([]byte, 100)); err != nil {
		t.Fatal(err)
	}
	if status, err := c.Drain(); err != nil || !status.OK() {
		t.Errorf("all of a large mailbox, several times: %v %v", status, err)
	}

	var answers strings.Builder
	c = New(&stream{step: 1 << 20}, time.Minute)
	defer c.Close()
	for i := range 3 * maxResults {
		c.Start("TEST")
		answers.WriteString(strings.Repeat("* 1 FETCH (FLAGS ())\r\n", 100) + "P" + strconv.Itoa(i+1) + " OK " + strings.Repeat("x", 1000) + "\r\n")
	}
	c.Conn.(*stream).in = answers.String()
	if status, err := c.Drain(); err != nil || !status.OK() {
		t.Errorf("many commands: %v %v", status, err)
	}
	for i := range 3 * maxResults {
		if !c.ResultOf(i + 1).OK() {
			t.Fatalf("the result of command %d is missing", i+1)
		}
	}
}

// I-CONN-8: commands that overlap for ever, each with a long text, hold no memory.
func TestResultsForgotten(t *testing.T) {
	text := strings.Repeat("x", 2000)
	s := &stream{step: 1 << 20}
	c := New(s, time.Minute)
	defer c.Close()
	held := heap()
	c.Start("TEST")
	for i := range 3 * maxResults {
		c.Start("TEST")
		s.in = "P" + strconv.Itoa(i+1) + " NO [X " + text + "] " + text + "\r\n"
		if _, err := c.Next(); err != nil || c.ResultOf(i+1).Code != "X" {
			t.Fatalf("command %d: %v %v", i+1, c.ResultOf(i+1).Type, err)
		}
		s.wrote.Reset()
	}
	if more := heap() - held; more > 3<<20 {
		t.Errorf("%d octets are held", more)
	}
	if c.ResultOf(1).Type != "" || c.ResultOf(3*maxResults).Type != "NO" {
		t.Errorf("the first result is kept, or the last is not")
	}
	runtime.KeepAlive(c)
}

// I-CONN-8: EXISTS beyond what can be served ends the connection, and no flood is
// larger because of it. What Exceed reports is the cause of the loss.
func TestExceed(t *testing.T) {
	c := New(&stream{in: crlf("* 8388609 EXISTS\nP1 OK x\n"), step: 7}, time.Minute)
	defer c.Close()
	if _, err := c.Run("TEST"); err == nil || !strings.Contains(err.Error(), "8388609 EXISTS") {
		t.Errorf("%v", err)
	}
	c = New(&stream{in: crlf("* OK x\n* OK y\nP1 OK x\n"), step: 700}, time.Minute)
	defer c.Close()
	c.Start("TEST")
	c.Next()
	c.Exceed("too much of it")
	_, err := c.Next()
	if e, ok := errors.AsType[*ProtocolError](err); !ok || !e.Flood || e.Text != "too much of it" {
		t.Errorf("%v", err)
	}
}

// I-CONN-8: the result of the last command has its text, however many came before it
// while another one was in flight.
func TestLastTextKept(t *testing.T) {
	const commands = 3 * maxTexts / 1000
	var answers strings.Builder
	for n := range commands {
		fmt.Fprintf(&answers, "P%d OK %s\r\n", n+1, strings.Repeat("x", 1000))
	}
	fmt.Fprintf(&answers, "P%d NO [LIMIT 5] wait\r\n", commands+1)
	c := New(&stream{in: answers.String(), step: 1000}, time.Minute)
	defer c.Close()
	c.Start("FETCH")
	for range commands {
		c.Start("FETCH")
		if _, err := c.Next(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Drain(); err != nil {
		t.Fatal(err)
	}
	if s := c.ResultOf(commands + 1); s.Text != "wait" || s.Args != "5" {
		t.Errorf("%+v", s)
	}
}

// I-CONN-8: the octets that are granted do not count.
func TestGrant(t *testing.T) {
	for _, granted := range []int64{0, 3 * maxUnasked, 1<<63 - 1} {
		s := &repeated{before: crlf("* 1 FETCH (BODY[] {50331648}\n"), again: strings.Repeat("x", 1<<20), times: 48, after: crlf(")\nP1 OK x\n")}
		c := New(s, time.Minute)
		c.Start("TEST")
		if _, err := c.Next(); err != nil {
			t.Fatal(err)
		}
		c.Grant(granted)
		_, err := c.BodyTo(io.Discard)
		if err == nil {
			_, err = c.Drain()
		}
		if (err == nil) != (granted > 0) {
			t.Errorf("%d granted: %v", granted, err)
		}
		c.Close()
	}
}

// I-CONN-8: what compressed data expand to counts, not what comes on the line.
func TestFloodCompressed(t *testing.T) {
	for _, text := range []string{
		strings.Repeat("* 1 FETCH (UID 1 RFC822.SIZE 90)\r\n", 2*maxResponses),
		"* 1 FETCH (X {999999999}\r\n" + strings.Repeat("x", 2*maxUnasked),
	} {
		data := compressed(t, text)
		near, far := net.Pipe()
		go func() {
			far.Write([]byte("P1 OK go\r\n"))
			far.Write(data)
			far.Close()
		}()
		c := New(discardWrites{near}, time.Minute)
		if _, err := c.Run("COMPRESS DEFLATE"); err != nil {
			t.Fatal(err)
		}
		c.Compress()
		held := heap()
		_, err := c.Run("NOOP")
		if e, ok := errors.AsType[*ProtocolError](err); !ok || !e.Flood {
			t.Errorf("%d octets on the line: %v, want a flood", len(data), err)
		}
		if more := heap() - held; more > 1<<20 {
			t.Errorf("%d octets are held", more)
		}
		c.Close()
	}
}

// discardWrites is a connection to which writing does nothing.
type discardWrites struct{ net.Conn }

func (discardWrites) Write(p []byte) (int, error) { return len(p), nil }

// I-CONN-8: a limited number of capabilities is kept.
func TestCapabilitiesBounded(t *testing.T) {
	c := New(&stream{in: crlf("* CAPABILITY IMAP4rev1" + strings.Repeat(" A", 30000) + "\nP1 OK x\n"), step: 1000}, time.Minute)
	defer c.Close()
	if _, err := c.Run("CAPABILITY"); err != nil || len(c.Capabilities()) != maxCapabilities || !c.Has("IMAP4REV1") {
		t.Errorf("%d capabilities, %v", len(c.Capabilities()), err)
	}
}
