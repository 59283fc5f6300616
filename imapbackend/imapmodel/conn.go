package imapmodel

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/flate"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
)

// conn is one connection.
type conn struct {
	m   *Model
	net net.Conn
	r   *bufio.Reader

	writing sync.Mutex // one writer at a time, of w
	w       io.Writer

	// Guarded by Model.mu.
	out      bytes.Buffer // answers not written yet
	owner    string       // owner of the mailboxes that the session sees
	box      *Mailbox     // the selected one
	readOnly bool
	view     []uint64           // UIDs by sequence number
	expunged map[uint64]Message // in view, but expunged by others
	changed  []uint64           // UIDs of messages whose flags others have changed
	stale    bool               // the view is invalid
	flight   Flight             // what happens to commands that have arrived with the last one
	rejected int                // how many of the next ones are answered BAD
	hung     bool               // nothing is answered any more
}

// ServeConn serves one connection until it ends.
func (m *Model) ServeConn(nc net.Conn) {
	defer nc.Close()
	c := &conn{m: m, net: nc, r: bufio.NewReader(nc), w: nc, expunged: make(map[uint64]Message)}
	m.mu.Lock()
	m.conns[c] = struct{}{}
	c.say("* OK [CAPABILITY %s] %s ready", m.Caps, m.name())
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.conns, c)
		m.mu.Unlock()
	}()
	for {
		if c.r.Buffered() == 0 && c.flush() != nil {
			return
		}
		line, err := c.command()
		if err != nil {
			return
		}
		tag, cmd, _ := strings.Cut(line, " ")
		if m.Before != nil {
			m.Before(cmd)
		}
		more := c.execute(tag, cmd)
		c.endFlight()
		if m.After != nil || !more || c.out.Len() > 1<<20 {
			if c.flush() != nil {
				return
			}
		}
		if m.After != nil {
			m.After(cmd)
		}
		if !more {
			return
		}
		if cmd == "COMPRESS DEFLATE" && c.flush() == nil {
			c.r = bufio.NewReader(flate.NewReader(c.r))
			c.w = newFlushing(nc)
		}
	}
}

var literalEnd = regexp.MustCompile(`\{(\d+)(\+?)\}$`)

// command reads a command. It returns literals as quoted strings.
func (c *conn) command() (string, error) {
	var cmd strings.Builder
	for {
		line, err := c.r.ReadString('\n')
		if err != nil {
			return "", err
		}
		line = strings.TrimRight(line, "\r\n")
		m := literalEnd.FindStringSubmatch(line)
		if m == nil {
			cmd.WriteString(line)
			return cmd.String(), nil
		}
		cmd.WriteString(strings.TrimSuffix(line, m[0]))
		n, err := strconv.ParseUint(m[1], 10, 16)
		if err != nil {
			return "", err
		}
		literal := make([]byte, n)
		if m[2] == "" && c.prompt() != nil {
			return "", io.ErrClosedPipe
		}
		if _, err := io.ReadFull(c.r, literal); err != nil {
			return "", err
		}
		cmd.WriteString(quote(string(literal)))
	}
}

// prompt sends a continuation request.
func (c *conn) prompt() error {
	c.m.mu.Lock()
	c.say("+ ")
	c.m.mu.Unlock()
	return c.flush()
}

func (c *conn) say(format string, args ...any) {
	n, _ := fmt.Fprintf(&c.out, format+"\r\n", args...) // never fails for a bytes.Buffer
	c.m.octets += int64(n)
}

// flush writes the answers so far. A client that does not read blocks only its
// own connection.
func (c *conn) flush() error {
	c.m.mu.Lock()
	p := bytes.Clone(c.out.Bytes())
	c.out.Reset()
	c.m.mu.Unlock()
	if len(p) == 0 {
		return nil
	}
	return c.write(p)
}

func (c *conn) write(p []byte) error {
	c.writing.Lock()
	defer c.writing.Unlock()
	_, err := c.w.Write(p)
	return err
}

// execute runs a command and reports whether the connection continues.
func (c *conn) execute(tag, cmd string) bool {
	verb, args := split(cmd)
	if verb == "AUTHENTICATE" && !strings.Contains(args, " ") { // without an initial response
		if c.prompt() != nil {
			return false
		}
		line, err := c.r.ReadString('\n')
		if err != nil {
			return false
		}
		args += " " + strings.TrimRight(line, "\r\n")
	}
	m, refusal := c.m, ""
	if m.Refuse != nil {
		refusal = m.Refuse(cmd)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.commands = append(m.commands, cmd)
	if c.rejected > 0 {
		c.rejected--
		refusal = "BAD one command at a time"
	}
	if c.hung {
		return true
	}
	if refusal != "" {
		c.say("%s %s", tag, refusal)
		return true
	}
	if c.stale && !m.AnnounceRebuilt && verb != "LOGOUT" {
		c.say("* BYE the mailbox has been rebuilt or removed")
		return false
	}
	if verb == "UID SEARCH" && onlyDeleted(args) && (m.Search == DeletedCloses || m.Search == DeletedHangs) {
		c.hung = m.Search == DeletedHangs
		return c.hung
	}
	c.say("%s %s", tag, c.result(tag, verb, args))
	return verb != "LOGOUT"
}

// endFlight deals with the commands that have arrived with the last one.
func (c *conn) endFlight() {
	switch c.flight {
	case Discarded:
		_, _ = c.r.Discard(c.r.Buffered()) // cannot fail
	case Rejected:
		more, _ := c.r.Peek(c.r.Buffered()) // cannot fail
		c.rejected = bytes.Count(more, []byte("\n"))
	}
	c.flight = Executed
}

// split returns the verb of a command, in upper case and with its UID prefix, and
// the arguments.
func split(cmd string) (verb, args string) {
	verb, args, _ = strings.Cut(cmd, " ")
	if verb = strings.ToUpper(verb); verb == "UID" {
		verb, args, _ = strings.Cut(args, " ")
		verb = "UID " + strings.ToUpper(verb)
	}
	return verb, args
}

// result answers the command and returns its status.
func (c *conn) result(tag, verb, args string) string {
	m := c.m
	switch verb {
	case "CAPABILITY":
		c.say("* CAPABILITY %s", m.Caps)
	case "AUTHENTICATE", "LOGIN":
		if !c.login(verb, args) {
			return "NO [AUTHENTICATIONFAILED] no"
		}
		if c.flight = m.AfterLogin; m.Unknown && c.flight == Executed {
			c.flight = Discarded
		}
		return "OK [CAPABILITY " + m.Caps + "] in"
	case "ID":
		c.say(`* ID ("name" "model")`)
	case "ENABLE":
		c.say("* ENABLED %s", args)
	case "COMPRESS":
	case "LOGOUT":
		c.say("* BYE x")
	case "NOOP", "CHECK":
		c.announce(true)
	case "STATUS", "LIST", "CREATE", "SELECT", "EXAMINE":
		return c.aboutMailboxes(verb, args)
	default:
		if c.box == nil {
			return "BAD no mailbox is selected"
		}
		return c.aboutMessages(tag, verb, args)
	}
	return "OK done"
}

// login handles the arguments of LOGIN or AUTHENTICATE PLAIN, and reports whether
// they are right.
func (c *conn) login(verb, args string) bool {
	user := ""
	password := ""
	if verb == "LOGIN" {
		words := unquote(args)
		if len(words) != 2 {
			return false
		}
		user, password = "\x00"+words[0], words[1]
	} else {
		response, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(args, "PLAIN "))
		i := strings.LastIndexByte(string(response), 0)
		if err != nil || i < 0 {
			return false
		}
		user, password = string(response[:i]), string(response[i+1:])
	}
	if c.m.passwords == nil {
		return true
	}
	want, known := c.m.passwords[user]
	if !known || password != want {
		return false
	}
	authzid, name, _ := strings.Cut(user, "\x00")
	c.owner = strings.ToLower(cmp.Or(authzid, name))
	return true
}

// announce sends the changes that others have made to the mailbox: expunges only
// if expunges is set or the Style sends them with any command.
func (c *conn) announce(expunges bool) {
	if c.box == nil {
		return
	}
	for _, uid := range c.changed {
		if i, ok := slices.BinarySearch(c.view, uid); ok {
			if msg, ok := c.box.get(uid); ok {
				c.say("* %d FETCH (UID %d FLAGS (%s))", i+1, uid, strings.Join(msg.Flags, " "))
			}
		}
	}
	c.changed = nil
	if c.stale {
		c.say("* OK [UIDVALIDITY %d] rebuilt", c.box.uidValidity)
		return
	}
	if expunges || c.m.Style == Omitted {
		for i := len(c.view) - 1; i >= 0; i-- {
			if _, ok := c.box.get(c.view[i]); !ok {
				c.view = slices.Delete(c.view, i, i+1)
				c.say("* %d EXPUNGE", i+1)
			}
		}
		clear(c.expunged)
	}
	for _, msg := range c.box.messages {
		if len(c.view) == 0 || msg.UID > c.view[len(c.view)-1] {
			c.view = append(c.view, msg.UID)
		}
	}
	if !c.m.NoExists {
		c.say("* %d EXISTS", len(c.view))
	}
}

// get returns a message by its UID.
func (b *Mailbox) get(uid uint64) (Message, bool) {
	i, ok := slices.BinarySearchFunc(b.messages, uid, func(msg Message, uid uint64) int { return cmp.Compare(msg.UID, uid) })
	if !ok {
		return Message{}, false
	}
	return b.messages[i], true
}

// flushing compresses, and flushes each write.
type flushing struct{ *flate.Writer }

func newFlushing(w io.Writer) flushing {
	f, _ := flate.NewWriter(w, flate.BestSpeed) // fails only for an invalid level
	return flushing{f}
}

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.Writer.Write(p)
	if err == nil {
		err = f.Flush()
	}
	return n, err
}
