package imapbackend

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"popgate/imapbackend/uniqueid"
	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// attack is what a hostileServer sends before the end of its answer: text, times
// times. # in it becomes a number that counts up.
type attack struct {
	text  string
	times int

	first string        // is sent before
	pause time.Duration // after each text, if not 0
}

// hostileServer is an upstream with three messages that answers properly, except that
// it repeats something in the answers to some commands.
type hostileServer struct {
	caps    string
	attacks map[string]attack // by what phaseOf returns
	ends    bool              // the connection ends after an attack

	mu       sync.Mutex
	commands []string
	open     int
	held     int64 // octets that were held at most during an attack, beyond base and a listing of what was announced
	base     int64
}

const hostileCaps = "IMAP4rev1 SASL-IR ID UIDPLUS MOVE ESEARCH OBJECTID AUTH=PLAIN"

// hostileMessage is each of its messages.
const hostileMessage = "From: a\r\nSubject: b\r\nMessage-ID: <c@d>\r\n\r\nhello\r\nworld\r\n"

// phases are the parts of a session with answers of their own.
var phases = []string{"greeting", "ID", "AUTHENTICATE", "STATUS", "SELECT", "SEARCH", "listing", "body", "ids", "STORE", "EXPUNGE", "NOOP", "LIST", "LOGOUT"}

// phaseOf returns the phase of a command.
func phaseOf(cmd string) string {
	verb, rest, _ := strings.Cut(strings.TrimPrefix(cmd, "UID "), " ")
	switch {
	case verb != "FETCH":
		return verb
	case strings.Contains(rest, "HEADER.FIELDS"), strings.Contains(rest, "EMAILID"):
		return "ids"
	case strings.Contains(rest, "BODY"):
		return "body"
	}
	return "listing"
}

// Dial opens a connection.
func (h *hostileServer) Dial(context.Context) (net.Conn, error) {
	client, server := net.Pipe()
	h.count(1)
	go h.serve(server)
	return client, nil
}

// count adds to the number of open connections, and returns it.
func (h *hostileServer) count(n int) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.open += n
	return h.open
}

// times returns how many commands of a phase have come.
func (h *hostileServer) times(phase string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := 0
	for _, cmd := range h.commands {
		if phaseOf(cmd) == phase {
			n++
		}
	}
	return n
}

func (h *hostileServer) serve(conn net.Conn) {
	defer func() {
		conn.Close()
		h.count(-1)
	}()
	if !h.send(conn, "greeting", "* OK [CAPABILITY "+h.caps+"] zebra ready\r\n") {
		return
	}
	lines := bufio.NewScanner(conn)
	for lines.Scan() {
		tag, cmd, _ := strings.Cut(lines.Text(), " ")
		h.mu.Lock()
		h.commands = append(h.commands, cmd)
		h.mu.Unlock()
		phase := phaseOf(cmd)
		if !h.send(conn, phase, hostileAnswer(phase, cmd)+tag+" OK "+h.code(phase)+"done\r\n") || phase == "LOGOUT" {
			return
		}
	}
}

func (h *hostileServer) code(phase string) string {
	if phase == "AUTHENTICATE" {
		return "[CAPABILITY " + h.caps + "] "
	}
	return ""
}

// hostileAnswer returns the proper answer to a command, without its last line.
func hostileAnswer(phase, cmd string) string {
	switch phase {
	case "STATUS":
		return "* STATUS INBOX (MAILBOXID (F1))\r\n"
	case "SELECT":
		return "* 3 EXISTS\r\n* OK [UIDVALIDITY 9] x\r\n* OK [UIDNEXT 8] x\r\n"
	case "SEARCH":
		if strings.Contains(cmd, "DELETED") || strings.Contains(cmd, " UID ") {
			return "* SEARCH\r\n"
		}
		return "* SEARCH 5 6 7\r\n"
	case "listing", "ids", "body":
		items := regexp.MustCompile(`BODY\.PEEK(\[[^]]*\])(?:(<0)\.\d+)?`).FindAllStringSubmatch(cmd, -1)
		header, text, _ := strings.Cut(hostileMessage, "\r\n\r\n")
		var b strings.Builder
		for i := range 3 {
			uid := 5 + i
			if set := strings.Fields(cmd)[2]; !strings.Contains(set, ":") && !strings.Contains(set, strconv.Itoa(uid)) {
				continue
			}
			fmt.Fprintf(&b, "* %d FETCH (UID %d RFC822.SIZE %d EMAILID (M%d)", i+1, uid, len(hostileMessage), uid)
			for _, item := range items {
				data := hostileMessage
				switch {
				case item[1] == "[TEXT]":
					data = text
				case item[1] != "[]":
					data = header + "\r\n\r\n"
				}
				if item[2] != "" {
					item[1] += "<0>"
				}
				fmt.Fprintf(&b, " BODY%s {%d}\r\n%s", item[1], len(data), data)
			}
			b.WriteString(")\r\n")
		}
		return b.String()
	case "LIST":
		return "* LIST (\\Trash) \"/\" \"Trash\"\r\n"
	}
	return ""
}

// send sends an attack, if there is one, and then the answer, and reports whether the
// connection is still there.
func (h *hostileServer) send(conn net.Conn, phase, answer string) bool {
	a, ok := h.attacks[phase]
	if _, err := io.WriteString(conn, a.first); err != nil {
		return false
	}
	for n := 0; a.pause > 0 && n < a.times; n++ {
		if _, err := io.WriteString(conn, a.text); err != nil {
			return false
		}
		<-time.After(a.pause)
	}
	ok = ok && a.pause == 0
	for n, sent, next := 0, 0, 1<<20; ok && n < a.times && sent < 64<<20; {
		var b strings.Builder
		for ; n < a.times && b.Len() < 32<<10; n++ {
			b.WriteString(strings.ReplaceAll(a.text, "#", strconv.Itoa(n+1)))
		}
		if _, err := conn.Write([]byte(b.String())); err != nil {
			return false
		}
		if sent += b.Len(); sent >= next || n == a.times {
			next *= 2
			h.measure(n)
		}
	}
	if h.ends && (ok || a.pause > 0) {
		return false
	}
	_, err := conn.Write([]byte(answer))
	return err == nil
}

// announced finds what a text announces as the number of messages.
var announced = regexp.MustCompile(`(\d+) EXISTS`)

// measure records what is held now, beyond a listing of what was announced and of what
// was sent so far.
func (h *hostileServer) measure(sent int) {
	messages := 0
	for _, a := range h.attacks {
		for _, m := range announced.FindAllStringSubmatch(a.text, -1) {
			n, _ := strconv.Atoi(m[1])
			messages = max(messages, min(n, sent))
		}
	}
	held := heapInUse() - h.base - 64*int64(messages)
	h.mu.Lock()
	h.held = max(h.held, held)
	h.mu.Unlock()
}

// most returns the most that was held. A connection may still be open.
func (h *hostileServer) most() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.held
}

// heapInUse returns the octets on the heap, without what the pools hold.
func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// play runs a whole session in front of h: login, unique-ids, RETR, TOP and QUIT with
// a mark. It returns the first error.
func (h *hostileServer) play(t *testing.T, log *proxytest.Log, opts Options) (failure error) {
	b := backend(t, opts)
	b.dial = h.Dial
	defer b.Close()
	h.base = heapInUse()
	ctx := proxy.WithLogger(context.WithoutCancel(t.Context()), log.Logger())
	l, err := b.Login(ctx, joe)
	if err != nil {
		return err
	}
	d, err := l.Open(ctx)
	if err != nil {
		l.Close()
		return err
	}
	defer d.Close()
	_, failure = d.UniqueIDs()
	for _, read := range []func() error{
		func() error { return discard(d.Read(ctx, 5)) },
		func() error { return discard(d.Top(ctx, 6, 1)) },
		func() error { return discard(d.Read(ctx, 6)) },
		func() error { return d.Update(ctx, []uint64{5}) },
	} {
		failure = errors.Join(failure, read())
	}
	return failure
}

func discard(body proxy.Body, err error) error {
	if err != nil {
		return err
	}
	defer body.Close()
	_, err = body.WriteTo(io.Discard)
	return err
}

// maxHeld is how many octets a session may hold beyond its listing.
const maxHeld = 4 << 20

// hostileOptions are the options of a session by bits of a number.
func hostileOptions(bits byte) Options {
	opts := Options{ReadAhead: 1 << 20, UIDLMemory: bits&1 != 0}
	if bits&2 != 0 {
		opts.Sizes = SizesExact
	}
	if bits&4 != 0 {
		opts.Delete = DeleteTrash
	}
	if bits&8 != 0 {
		opts.UIDL = uniqueid.SourceEmailID
	}
	return opts
}

// hostileAttacks are texts that were, or would be, kept without a bound, with the phase
// in which they come, the bits of hostileOptions, and the bound that they meet.
var hostileAttacks = []struct {
	phase, text string
	options     byte
	cause       string // in the error of the session
}{
	{"ID", "* ID (\"name\" \"x\")\r\n", 0, "responses"},
	{"AUTHENTICATE", "* 1 FETCH (FLAGS ())\r\n", 0, "responses"},
	{"AUTHENTICATE", "* OK [ALERT] " + strings.Repeat("x", 60000) + "\r\n", 0, "octets"},
	{"AUTHENTICATE", "* CAPABILITY" + strings.Repeat(" A#", 9000) + "\r\n", 0, "octets"},
	{"STATUS", "* STATUS INBOX (MAILBOXID (F#))\r\n", 0, "responses"},
	{"SELECT", "* 1 EXISTS\r\n", 0, "responses"},
	{"SELECT", "* OK [PERMANENTFLAGS (" + strings.Repeat("k# ", 9000) + ")] x\r\n", 0, "octets"},
	{"SELECT", "* # FETCH (UID # RFC822.SIZE 90)\r\n", 0, "responses"},
	{"SEARCH", "* SEARCH 1 2 3 4 5 6 7\r\n", 0, "responses"},
	{"SEARCH", "* SEARCH #\r\n", 0, "larger than the mailbox"},
	{"SEARCH", "* ESEARCH (TAG \"x\") UID ALL 1:#\r\n", 0, "responses"},
	{"SEARCH", "* # FETCH (UID # FLAGS (\\Deleted))\r\n", 0, "larger than the mailbox"},
	{"listing", "* 1 FETCH (UID 1 RFC822.SIZE 90)\r\n", 0, "responses"},
	{"listing", "* # FETCH (UID # RFC822.SIZE 90)\r\n", 0, "larger than the mailbox"},
	{"listing", "* 1 FETCH (UID # RFC822.SIZE 90)\r\n", 0, "larger than the mailbox"},
	{"listing", "* # FETCH (UID 1)\r\n", 0, "larger than the mailbox"},
	{"listing", "* # FETCH (UID 0)\r\n* 1 EXISTS\r\n", 0, "responses"},
	{"listing", "* # FETCH (RFC822.SIZE 1)\r\n* 1 EXPUNGE\r\n", 0, "responses"},
	{"listing", "* 8000000 EXISTS\r\n* # FETCH (UID # RFC822.SIZE 90)\r\n", 0, "larger than the mailbox"},
	{"listing", "* VANISHED 1:#\r\n", 0, "responses"},
	{"listing", "* 1 FETCH (UID 5 ENVELOPE (\"" + strings.Repeat("x", 30000) + "\"))\r\n", 0, "octets"},
	{"ids", "* 1 FETCH (UID # EMAILID (M#) THREADID (T#))\r\n", 9, "responses"},
	{"ids", "* 1 FETCH (UID # BODY[HEADER.FIELDS (DATE)] {1000}\r\n" + strings.Repeat("x", 1000) + ")\r\n", 1, "octets"},
	{"body", "* # FETCH (UID # FLAGS ())\r\n", 0, "responses"},
	{"body", "* # FETCH (UID #)\r\n", 2, "responses"},
	{"body", "* # FETCH (BODY[] {1000}\r\n" + strings.Repeat("x", 1000) + ")\r\n", 0, "octets"},
	{"body", "* 9 FETCH (UID 9 BODY[] {100000}\r\n" + strings.Repeat("x", 100000) + ")\r\n", 0, "octets"},
	{"STORE", "* OK still working\r\n", 0, "responses"},
	{"EXPUNGE", "* # EXPUNGE\r\n", 0, "responses"},
	{"LIST", "* LIST (\\Trash) \"/\" \"" + strings.Repeat("a/", 200) + "#\"\r\n", 4, "octets"},
}

// I-CONN-8, I-LOGIN-1, M-1, M-4: whatever an upstream sends for ever, a session holds no more
// memory for it, ends the connection, and does not send the credential again; the
// error has the cause.
func TestHostileSession(t *testing.T) {
	for _, tt := range hostileAttacks {
		t.Run(tt.phase+" "+tt.text[:min(len(tt.text), 40)], func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &hostileServer{caps: hostileCaps, attacks: map[string]attack{tt.phase: {text: tt.text, times: 1 << 30}}}
				var log proxytest.Log
				err := h.play(t, &log, hostileOptions(tt.options))
				e, ok := errors.AsType[*proxy.Error](err)
				if !ok || e.Code != proxy.CodeSysTemp || !strings.Contains(err.Error(), tt.cause) {
					t.Errorf("error %v, want [SYS/TEMP] and %q", err, tt.cause)
				}
				if held := h.most(); held > maxHeld {
					t.Errorf("%d octets were held", held)
				}
				if n := h.times("AUTHENTICATE"); n > 1 {
					t.Errorf("the credential was sent %d times", n)
				}
			})
		})
	}
}

// FuzzHostile plays two attacks to a whole session, in phases given by their index, and
// measures what it holds (I-CONN-8).
func FuzzHostile(f *testing.F) {
	for i, a := range hostileAttacks {
		f.Add(byte(slices.Index(phases, a.phase)), a.text, uint32(2000), byte(i), "* 1 FETCH (FLAGS ())\r\n", uint32(i), a.options|byte(i)<<4)
	}
	f.Fuzz(func(t *testing.T, phase1 byte, text1 string, times1 uint32, phase2 byte, text2 string, times2 uint32, options byte) {
		synctest.Test(t, func(t *testing.T) {
			h := &hostileServer{caps: hostileCaps, ends: options&16 != 0, attacks: map[string]attack{
				phases[int(phase1)%len(phases)]: {text: text1, times: int(times1 % (1 << 20))},
				phases[int(phase2)%len(phases)]: {text: text2, times: int(times2 % (1 << 20))},
			}}
			var log proxytest.Log
			_ = h.play(t, &log, hostileOptions(options)) // it need not fail
			if held := h.most(); held > maxHeld {
				t.Errorf("%d octets were held", held)
			}
		})
	})
}

// P-SESS-14, I-KEEP-2: a client that is gone takes its session and its upstream
// connection with it within a second, whatever the upstream sends: during the login,
// RETR and TOP.
func TestHostileClientGone(t *testing.T) {
	const login, retr, top = "USER joe\r\nPASS secret\r\n", "RETR 1\r\n", "TOP 1 1\r\n"
	endless := attack{first: "* 1 FETCH (UID 5 BODY[] {9223372036854775807}\r\n", text: strings.Repeat("x", 1000), times: 1 << 30}
	drip := attack{first: endless.first, text: "x", times: 1 << 20, pause: time.Second}
	for _, tt := range []struct {
		name, phase, commands string
		attack
	}{
		{"notices, login", "AUTHENTICATE", login, attack{text: "* OK wait\r\n", times: 1000, pause: 2 * time.Second}},
		{"a line without an end, login", "AUTHENTICATE", login, attack{first: "* OK ", text: "x", times: 1000, pause: 2 * time.Second}},
		{"a listing that trickles", "listing", login, attack{text: "* 1 FETCH (UID 5 RFC822.SIZE 9)\r\n", times: 1000, pause: 2 * time.Second}},
		{"notices, RETR", "body", login + retr, attack{text: "* OK wait\r\n", times: 1000, pause: time.Second}},
		{"notices, TOP", "body", login + top, attack{text: "* OK wait\r\n", times: 1000, pause: time.Second}},
		{"unasked bodies, RETR", "body", login + retr, attack{text: "* 9 FETCH (UID 9 BODY[] {9}\r\nabcdefghi)\r\n", times: 1000, pause: 100 * time.Millisecond}},
		{"an unasked body without an end, RETR", "body", login + retr, attack{first: "* 9 FETCH (UID 9 BODY[] {9223372036854775807}\r\n", text: "x", times: 1000, pause: time.Second}},
		{"an endless message", "body", login + retr, endless},
		{"a message that trickles", "body", login + retr, drip},
		{"a message that trickles, TOP", "body", login + "TOP 1 9999999\r\n", drip},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				h := &hostileServer{caps: hostileCaps, attacks: map[string]attack{tt.phase: tt.attack}}
				b := backend(t, Options{})
				b.dial = h.Dial
				g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b}, proxytest.Insecure)
				const clients = 50
				var all []*proxytest.Client
				for i := range clients {
					p := g.Dial()
					p.Greeting()
					p.Write(strings.Replace(tt.commands, "joe", "joe"+itoa(i), 1))
					all = append(all, p)
				}
				<-time.After(20 * time.Second)
				if h.count(0) != clients {
					t.Errorf("%d upstream connections of clients that wait", h.count(0))
				}
				for _, p := range all {
					p.Conn.Close()
				}
				<-time.After(time.Second)
				synctest.Wait()
				<-time.After(tt.pause) // the upstream notices at its next write
				synctest.Wait()
				if h.count(0) != 0 {
					t.Errorf("%d upstream connections a second later", h.count(0))
				}
			})
		})
	}
}
