package wire

import (
	"bytes"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Begin hands the reading to go-imap's goroutine for one command, which the
// caller executes next. It must be one that no continuation request answers.
// The commands of ours in behind follow it in the same flight; when go-imap has
// its answer, Next reads theirs.
func (c *Conn) Begin(behind ...string) {
	for _, cmd := range behind {
		c.behind = append(c.behind, c.tag()+" "+cmd+"\r\n"...)
	}
	c.notice, c.status, c.chatter = Status{}, Status{}, 0
	c.continuations = 0
	c.mu.Lock()
	c.controlTag = ""
	c.mu.Unlock()
	c.begin <- struct{}{}
}

// Attach prepares for a client of go-imap's: client.New finds a greeting that
// tells the capabilities known, and asks nothing.
func (c *Conn) Attach() {
	c.detach = make(chan struct{})
	c.out = append(c.out[:0], "* OK [CAPABILITY "+strings.Join(c.caps, " ")+"] ready\r\n"...)
}

// Detach ends the client that is attached, whose command has its answer: its
// goroutine sees the end of the stream. The connection stands, for commands of
// ours and for another client.
func (c *Conn) Detach() { close(c.detach) }

// Read gives go-imap the responses to its command.
func (c *Conn) Read(p []byte) (int, error) {
	for len(c.out) == 0 {
		if !c.control {
			select {
			case <-c.begin:
				c.control = true
			case <-c.detach:
				return 0, io.EOF
			case <-c.done:
				return 0, io.EOF
			}
		}
		if err := c.rewrite(); err != nil {
			c.Fail(err)
			return 0, io.EOF
		}
	}
	n := copy(p, c.out)
	c.out = c.out[n:]
	return n, nil
}

// rewrite reads one response and puts what go-imap is to see of it into out.
func (c *Conn) rewrite() error {
	c.out = c.out[:0]
	ev, err := c.response()
	if err != nil {
		return err
	}
	switch ev.Kind {
	case Fetch, Body:
		return c.skipFetch()
	case Search:
		return c.skipSearch()
	case Continue:
		c.out = append(append(c.out, "+ "...), plain(ev.Text)...)
	case Done:
		if ev.Command != 0 { // one of ours that was given up
			c.status = Status{}
			return nil
		}
		c.control = false
		c.release()
		c.out = appendStatus(c.out, c.status)
	case Notice:
		if c.last.Type == "BYE" {
			return nil // go-imap would close before the tagged status behind it
		}
		c.out = appendStatus(c.out, c.last)
	case Data:
		if c.out = appendData(c.out, ev); len(c.out) == 0 {
			return nil
		}
	}
	c.out = append(c.out, "\r\n"...)
	return nil
}

// appendStatus writes s with no response code but those that go-imap uses.
func appendStatus(dst []byte, s Status) []byte {
	dst = append(dst, s.Tag+" "+s.Type+" "...)
	switch s.Code {
	case "CAPABILITY":
		if caps := capabilities(s.Args); len(caps) > 0 {
			dst = append(dst, "[CAPABILITY "+strings.Join(caps, " ")+"] "...)
		}
	case "READ-ONLY", "READ-WRITE":
		dst = append(dst, "["+s.Code+"] "...)
	}
	text := plain(s.Text)
	if text == "" {
		text = "-"
	}
	return append(dst, text...)
}

// appendData writes the untagged data that go-imap keeps.
func appendData(dst []byte, ev Event) []byte {
	switch ev.Name {
	case "EXISTS", "RECENT", "EXPUNGE":
		return fmt.Appendf(dst, "* %d %s", ev.Seq, ev.Name)
	case "CAPABILITY":
		if caps := capabilities(ev.Text); len(caps) > 0 {
			return append(dst, "* CAPABILITY "+strings.Join(caps, " ")...)
		}
	}
	return dst
}

// Write sends what go-imap has to say: a command, in one or several pieces, and
// what is to go behind it. The first word after Begin is the command's tag.
func (c *Conn) Write(p []byte) (int, error) {
	c.mu.Lock()
	if c.controlTag == "" {
		tag, _, _ := bytes.Cut(p, []byte(" "))
		c.controlTag = string(tag)
	}
	c.mu.Unlock()
	flight := p
	if len(c.idle.before) > 0 {
		flight = slices.Concat(c.idle.before, p)
		c.idle.before = nil
	}
	if len(c.behind) > 0 && len(p) > 0 && p[len(p)-1] == '\n' {
		flight = slices.Concat(flight, c.behind)
		c.behind = nil
	}
	if err := c.write(flight); err != nil {
		return 0, err
	}
	return len(p), nil
}
