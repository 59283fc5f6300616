package wire

import (
	"bytes"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
)

// Begin makes go-imap's goroutine read for one command, which the caller executes
// next. The command must not need a continuation request. The trailing commands
// follow it in the same flight; when go-imap has its answer, Next reads theirs.
func (c *Conn) Begin(trailing ...string) {
	for _, cmd := range trailing {
		c.trailing = append(c.trailing, c.tag()+" "+cmd+"\r\n"...)
	}
	c.notice, c.status = Status{}, Status{}
	c.renew()
	c.continuations = 0
	c.mu.Lock()
	c.controlTag = ""
	c.mu.Unlock()
	c.begin <- struct{}{}
}

// Attach prepares for a client of go-imap's: client.New reads a greeting with
// capabilities, so that it does not ask for them. No command that is executed
// needs more of them.
func (c *Conn) Attach() {
	c.detach = make(chan struct{})
	c.out = append(c.out[:0], "* OK [CAPABILITY IMAP4rev1] ready\r\n"...)
}

// Detach ends the attached client, which must have no command in flight: its
// goroutine reads the end of the stream. The connection stays open, for commands
// of Start and for another client.
func (c *Conn) Detach() { close(c.detach) }

// PanicError is a panic while go-imap's goroutine was reading.
type PanicError struct {
	Value any
	Stack string
}

func (e *PanicError) Error() string { return fmt.Sprintf("imap: panic: %v", e.Value) }

// Read returns responses to go-imap, as rewrite makes them. A panic on go-imap's
// goroutine, which nobody could recover, is the loss of the connection.
func (c *Conn) Read(p []byte) (n int, err error) {
	defer func() {
		if v := recover(); v != nil {
			c.Fail(&PanicError{v, string(debug.Stack())})
			n, err = 0, io.EOF
		}
	}()
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
	n = copy(p, c.out)
	c.out = c.out[n:]
	return n, nil
}

// rewrite reads one response and puts into out what go-imap needs of it: that its
// command has ended and how, or that it may continue. Everything else is recorded
// in c. go-imap does not need the text, which would cost it an allocation for each
// octet.
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
	case continuation:
		c.out = append(c.out, "+ -\r\n"...)
	case Done:
		if ev.Command != 0 { // our own, and no longer waited for
			c.status = Status{}
			return nil
		}
		c.control = false
		c.mailbox.selected = true // SELECT is the first command after ResetMailbox
		c.release()
		c.out = append(c.out, c.status.Tag+" "+c.status.Type+" -\r\n"...)
	}
	return nil
}

// Write sends go-imap's command, which may come in several pieces, and the
// trailing commands. The first word after Begin is the command's tag.
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
	if len(c.trailing) > 0 && len(p) > 0 && p[len(p)-1] == '\n' {
		flight = slices.Concat(flight, c.trailing)
		c.trailing = nil
	}
	if err := c.write(flight); err != nil {
		return 0, err
	}
	return len(p), nil
}
