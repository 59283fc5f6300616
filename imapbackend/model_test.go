package imapbackend

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/flate"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// model is an upstream that knows what is right: one mailbox in memory, behind
// a network with a round trip, both in fake time.
type model struct {
	caps   string
	rtt    time.Duration
	before func(cmd string) // runs before each command is carried out

	// passwords are those of each user, by authorization identity, NUL and
	// name; nil: everybody is let in and sees all.
	passwords map[string]string

	mu          sync.Mutex
	uidValidity uint32
	uidNext     uint32
	messages    []modelMessage
	commands    []string
	octets      int64 // sent
	dials       int
	conns       map[*modelConn]net.Conn // open
}

type modelMessage struct {
	uid     uint32
	body    string
	deleted bool
	owner   string // whose user is whom a login acts as, in lower case
}

func newModel() *model {
	return &model{caps: "IMAP4rev1 AUTH=PLAIN SASL-IR UIDPLUS ID ESEARCH", uidValidity: 7, uidNext: 1,
		conns: make(map[*modelConn]net.Conn)}
}

// add appends a message.
func (m *model) add(body string) uint32 {
	m.mu.Lock()
	defer m.mu.Unlock()
	uid := m.uidNext
	m.uidNext++
	m.messages = append(m.messages, modelMessage{uid: uid, body: body})
	return uid
}

// remove expunges the message at index i.
func (m *model) remove(i int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.messages = slices.Delete(slices.Clone(m.messages), i, i+1)
}

// backend returns a Backend before the model.
func (m *model) backend(t testing.TB, opts Options) *Backend {
	b := backend(t, opts)
	b.dial = m.dial
	return b
}

func (m *model) dial(ctx context.Context) (net.Conn, error) {
	m.mu.Lock()
	m.dials++
	m.mu.Unlock()
	near, a := net.Pipe()
	b, far := net.Pipe()
	if m.rtt > 0 { // TCP's own
		select {
		case <-time.After(m.rtt):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	go carry(a, b, m.rtt/2)
	go carry(b, a, m.rtt/2)
	go m.serve(far)
	return near, nil
}

// carry moves octets from one end to the other, each after delay, as many as
// there are on the way.
func carry(from, to net.Conn, delay time.Duration) {
	type packet struct {
		data []byte
		due  time.Time
	}
	room := 1 << 10
	if delay > 0 {
		room = 1 << 16
	}
	packets := make(chan packet, room)
	go func() {
		defer close(packets)
		buf := make([]byte, 64<<10)
		for {
			n, err := from.Read(buf)
			if n > 0 {
				packets <- packet{bytes.Clone(buf[:n]), time.Now().Add(delay)}
			}
			if err != nil {
				return
			}
		}
	}()
	for p := range packets {
		if d := time.Until(p.due); d > 0 {
			<-time.After(d)
		}
		if _, err := to.Write(p.data); err != nil {
			break
		}
	}
	to.Close()
	from.Close()
	for range packets {
	}
}

// modelConn is one connection to the model.
type modelConn struct {
	m    *model
	w    *bufio.Writer
	view []uint32 // UIDs by sequence number
	user string   // as modelMessage.owner
}

func (m *model) serve(conn net.Conn) {
	defer conn.Close()
	c := &modelConn{m: m, w: bufio.NewWriterSize(conn, 32<<10)}
	r := bufio.NewReader(conn)
	m.mu.Lock()
	m.conns[c] = conn
	defer func() {
		m.mu.Lock()
		delete(m.conns, c)
		m.mu.Unlock()
	}()
	c.say("* OK [CAPABILITY %s] ready", m.caps)
	m.mu.Unlock()
	for {
		if r.Buffered() == 0 && c.w.Flush() != nil {
			return
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		tag, cmd, _ := strings.Cut(strings.TrimSpace(line), " ")
		if m.before != nil {
			m.before(cmd)
		}
		m.mu.Lock()
		m.commands = append(m.commands, cmd)
		c.execute(tag, cmd)
		m.mu.Unlock()
		switch cmd {
		case "COMPRESS DEFLATE":
			c.w.Flush()
			r = bufio.NewReader(flate.NewReader(r))
			c.w = bufio.NewWriterSize(newFlushing(conn), 32<<10)
		case "LOGOUT":
			c.w.Flush()
			return
		}
	}
}

func (c *modelConn) say(format string, args ...any) {
	n, _ := fmt.Fprintf(c.w, format+"\r\n", args...)
	c.m.octets += int64(n)
}

func (c *modelConn) execute(tag, cmd string) {
	m := c.m
	verb, args, _ := strings.Cut(cmd, " ")
	if verb == "UID" {
		verb, args, _ = strings.Cut(args, " ")
		verb = "UID " + verb
	}
	result := "OK done"
	switch verb {
	case "AUTHENTICATE":
		result = "OK [CAPABILITY " + m.caps + "] in"
		if m.passwords != nil && !c.admits(args) {
			result = "NO [AUTHENTICATIONFAILED] no"
		}
	case "SELECT":
		c.view = c.view[:0]
		for _, msg := range m.messages {
			if msg.owner == c.user {
				c.view = append(c.view, msg.uid)
			}
		}
		c.say("* %d EXISTS", len(c.view))
		c.say("* OK [UIDVALIDITY %d] x", m.uidValidity)
		c.say("* OK [UIDNEXT %d] x", m.uidNext)
		result = "OK [READ-WRITE] selected"
	case "UID SEARCH":
		c.search(tag, args)
		c.announce()
	case "UID FETCH":
		c.fetch(args)
		c.announce()
	case "UID STORE":
		set, flags, _ := strings.Cut(args, " ")
		for i := range m.messages {
			if inSet(m.messages[i].uid, set) && strings.Contains(flags, "Deleted") {
				m.messages[i].deleted = strings.HasPrefix(flags, "+")
			}
		}
	case "UID EXPUNGE":
		m.messages = slices.DeleteFunc(slices.Clone(m.messages), func(msg modelMessage) bool {
			return msg.deleted && inSet(msg.uid, args)
		})
		c.announce()
	case "NOOP":
		c.announce()
	case "LOGOUT":
		c.say("* BYE x")
	case "UNSELECT":
		c.view = nil
	case "COMPRESS", "ID":
	default:
		result = "BAD what"
	}
	c.say("%s %s", tag, result)
}

// admits takes the argument of AUTHENTICATE PLAIN with a response.
func (c *modelConn) admits(args string) bool {
	response, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(args, "PLAIN "))
	user, password, ok := cutLast(string(response), "\x00")
	want, known := c.m.passwords[user]
	if err != nil || !ok || !known || password != want {
		return false
	}
	authzid, name, _ := strings.Cut(user, "\x00")
	c.user = strings.ToLower(cmp.Or(authzid, name))
	return true
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

// push sends a line unasked on every connection, with end as the last words.
func (m *model) push(line string, end bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for c, conn := range m.conns {
		c.say("%s", line)
		c.w.Flush()
		if end {
			conn.Close()
		}
	}
}

// received returns the commands so far.
func (m *model) received() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.commands)
}

// open returns the number of connections.
func (m *model) open() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.conns)
}

// flushing compresses, and sends at once.
type flushing struct{ *flate.Writer }

func newFlushing(w io.Writer) flushing {
	f, _ := flate.NewWriter(w, flate.BestSpeed) // a level that exists
	return flushing{f}
}

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	if err == nil {
		err = f.Flush()
	}
	return n, err
}

// announce tells what others have done to the mailbox.
func (c *modelConn) announce() {
	for i := len(c.view) - 1; i >= 0; i-- {
		if !slices.ContainsFunc(c.m.messages, func(msg modelMessage) bool { return msg.uid == c.view[i] }) {
			c.view = slices.Delete(c.view, i, i+1)
			c.say("* %d EXPUNGE", i+1)
		}
	}
	for _, msg := range c.m.messages {
		if msg.owner == c.user && !slices.Contains(c.view, msg.uid) {
			c.view = append(c.view, msg.uid)
		}
	}
	c.say("* %d EXISTS", len(c.view))
}

func (c *modelConn) search(tag, args string) {
	extended := strings.HasPrefix(args, "RETURN (ALL) ")
	args = strings.TrimPrefix(args, "RETURN (ALL) ")
	var uids []string
	for _, msg := range c.m.messages {
		found := false
		switch {
		case args == "ALL":
			found = true
		case args == "DELETED":
			found = msg.deleted
		case strings.HasPrefix(args, "UID "):
			found = inSet(msg.uid, strings.TrimPrefix(args, "UID "))
		}
		if found && slices.Contains(c.view, msg.uid) {
			uids = append(uids, strconv.Itoa(int(msg.uid)))
		}
	}
	switch {
	case !extended:
		c.say("* SEARCH %s", strings.Join(uids, " "))
	case len(uids) == 0:
		c.say("* ESEARCH (TAG %q) UID", tag)
	default:
		c.say("* ESEARCH (TAG %q) UID ALL %s", tag, strings.Join(uids, ","))
	}
}

func (c *modelConn) fetch(args string) {
	set, items, _ := strings.Cut(args, " ")
	if low, ok := strings.CutSuffix(set, ":*"); ok && len(c.view) > 0 {
		n, _ := strconv.Atoi(low)
		set = fmt.Sprintf("%d:%d", min(uint32(n), c.view[len(c.view)-1]), c.view[len(c.view)-1])
	}
	for _, msg := range c.m.messages {
		seq := slices.Index(c.view, msg.uid) + 1
		if seq == 0 || !inSet(msg.uid, set) {
			continue
		}
		header, text, _ := strings.Cut(msg.body, "\r\n\r\n")
		header += "\r\n\r\n"
		switch {
		case items == "(UID RFC822.SIZE)":
			c.say("* %d FETCH (UID %d RFC822.SIZE %d)", seq, msg.uid, len(msg.body))
		case items == "(UID BODY.PEEK[])":
			c.say("* %d FETCH (UID %d BODY[] {%d}\r\n%s)", seq, msg.uid, len(msg.body), msg.body)
		case items == "(UID BODY.PEEK[HEADER])":
			c.say("* %d FETCH (UID %d BODY[HEADER] {%d}\r\n%s)", seq, msg.uid, len(header), header)
		default:
			var from, n int
			i := strings.Index(items, "[TEXT]<")
			fmt.Sscanf(items[i:], "[TEXT]<%d.%d>", &from, &n)
			piece := text[min(from, len(text)):min(from+n, len(text))]
			item := fmt.Sprintf("BODY[TEXT]<%d> {%d}\r\n%s", from, len(piece), piece)
			if strings.Contains(items, "[HEADER]") {
				item = fmt.Sprintf("BODY[HEADER] {%d}\r\n%s %s", len(header), header, item)
			}
			c.say("* %d FETCH (UID %d %s)", seq, msg.uid, item)
		}
	}
}

// inSet reports whether uid is in a sequence-set without "*".
func inSet(uid uint32, set string) bool {
	for part := range strings.SplitSeq(set, ",") {
		low, high, isRange := strings.Cut(part, ":")
		if !isRange {
			high = low
		}
		a, _ := strconv.ParseUint(low, 10, 32)
		b, _ := strconv.ParseUint(high, 10, 32)
		if uint64(uid) >= min(a, b) && uint64(uid) <= max(a, b) {
			return true
		}
	}
	return false
}
