package demo

import (
	"errors"
	"slices"

	"github.com/emersion/go-imap"
	"github.com/emersion/go-imap/commands"
	"github.com/emersion/go-imap/server"
)

// extension adds UIDPLUS to go-imap's server and replaces those of its commands
// that do not work for a mailbox that sessions share.
type extension struct{ server *Server }

var _ server.Extension = extension{}

// Capabilities implements server.Extension.
func (e extension) Capabilities(server.Conn) []string {
	if e.server.NoUIDPLUS {
		return nil
	}
	return []string{"UIDPLUS"}
}

// Command implements server.Extension. UNSELECT, MOVE and IDLE must not be
// among the names: go-imap ignores an extension that has them.
func (e extension) Command(name string) server.HandlerFactory {
	switch name {
	case "AUTHENTICATE":
		return func() server.Handler { return &authenticateCommand{} }
	case "SELECT":
		return func() server.Handler { return &selectCommand{} }
	case "EXAMINE":
		return func() server.Handler {
			c := &selectCommand{}
			c.ReadOnly = true
			return c
		}
	case "NOOP":
		return func() server.Handler { return &noopCommand{} }
	case "CHECK":
		return func() server.Handler { return &checkCommand{} }
	case "FETCH":
		return func() server.Handler { return &fetchCommand{} }
	case "APPEND":
		return func() server.Handler { return &appendCommand{uidplus: !e.server.NoUIDPLUS} }
	case "EXPUNGE":
		return func() server.Handler { return &expungeCommand{uidplus: !e.server.NoUIDPLUS} }
	}
	return nil
}

// announce brings the view of the session up to date, if a mailbox is
// selected.
func announce(c server.Conn) error {
	v, ok := c.Context().Mailbox.(*view)
	if !ok {
		return nil
	}
	return c.WriteResp(v.sync())
}

// authenticateCommand is AUTHENTICATE. Unlike go-imap's, it leaves what the
// client has pipelined after its last response to the parser of commands.
type authenticateCommand struct{ server.Authenticate }

func (h *authenticateCommand) Handle(c server.Conn) error {
	return h.Authenticate.Handle(lineConn{c})
}

// lineConn is a connection of which one Read returns at most a line. It reads
// from the socket, as go-imap does here: what a client sends before it is asked
// is in go-imap's buffer, and lost.
type lineConn struct{ server.Conn }

func (c lineConn) Read(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var m int
		m, err = c.Conn.Read(p[n : n+1])
		n += m
		if m > 0 && p[n-1] == '\n' {
			break
		}
	}
	return n, err
}

// selectCommand is SELECT or EXAMINE, and records in the view which of them.
type selectCommand struct{ server.Select }

func (h *selectCommand) Handle(c server.Conn) error {
	err := h.Select.Handle(c)
	if v, ok := c.Context().Mailbox.(*view); ok {
		v.readOnly = h.ReadOnly
	}
	return err
}

type noopCommand struct{ commands.Noop }

func (h *noopCommand) Handle(c server.Conn) error { return announce(c) }

type checkCommand struct{ commands.Check }

func (h *checkCommand) Handle(c server.Conn) error {
	if c.Context().Mailbox == nil {
		return server.ErrNoMailboxSelected
	}
	return announce(c)
}

// fetchCommand is FETCH. It refuses items that the server does not offer before
// it answers anything.
type fetchCommand struct{ server.Fetch }

func (h *fetchCommand) Parse(fields []any) error {
	if err := h.Fetch.Parse(fields); err != nil {
		return err
	}
	for _, item := range h.Items {
		if err := checkItem(item); err != nil {
			return err
		}
	}
	return nil
}

func (h *fetchCommand) Handle(c server.Conn) error {
	abortable(c)
	return h.Fetch.Handle(c)
}

func (h *fetchCommand) UidHandle(c server.Conn) error {
	abortable(c)
	return h.Fetch.UidHandle(c)
}

var _ server.UidHandler = (*fetchCommand)(nil)

// abortable lets the view of a session end it.
func abortable(c server.Conn) {
	if v, ok := c.Context().Mailbox.(*view); ok {
		v.abort = func() { _ = c.Close() }
	}
}

// appendCommand is APPEND that reports the UID (RFC 4315 §3).
type appendCommand struct {
	commands.Append
	uidplus bool
}

func (h *appendCommand) Handle(c server.Conn) error {
	u, ok := c.Context().User.(*user)
	if !ok {
		return server.ErrNotAuthenticated
	}
	if h.Mailbox != imap.InboxName {
		return status(imap.StatusRespNo, imap.CodeTryCreate, errOnlyInbox.Error())
	}
	uid, err := newView(u.inbox).create(h.Flags, h.Date, h.Message)
	if err != nil {
		return err
	}
	if err := announce(c); err != nil || !h.uidplus {
		return err
	}
	return status(imap.StatusRespOk, "APPENDUID", "APPEND completed", u.inbox.uidValidity, uid)
}

// expungeCommand is EXPUNGE, or UID EXPUNGE of exactly the given messages
// (RFC 4315 §2.1).
type expungeCommand struct {
	uidplus bool
	uids    *imap.SeqSet // nil without UID
}

func (h *expungeCommand) Parse(fields []any) (err error) {
	if len(fields) == 0 {
		return nil
	}
	set, ok := fields[0].(string)
	if !ok || len(fields) > 1 {
		return errors.New("EXPUNGE takes at most one set of UIDs")
	}
	h.uids, err = imap.ParseSeqSet(set)
	return err
}

func (h *expungeCommand) Handle(c server.Conn) error {
	if h.uids != nil {
		return status(imap.StatusRespBad, "", "EXPUNGE takes no argument")
	}
	return h.expunge(c)
}

func (h *expungeCommand) UidHandle(c server.Conn) error {
	if !h.uidplus || h.uids == nil {
		return status(imap.StatusRespBad, "", "UID EXPUNGE needs UIDPLUS and a set of UIDs")
	}
	return h.expunge(c)
}

func (h *expungeCommand) expunge(c server.Conn) error {
	v, ok := c.Context().Mailbox.(*view)
	if !ok {
		return server.ErrNoMailboxSelected
	}
	if v.readOnly {
		return server.ErrMailboxReadOnly
	}
	in := func(uint32) bool { return true }
	if h.uids != nil {
		given := v.uidsOf(true, h.uids)
		in = func(uid uint32) bool {
			_, ok := slices.BinarySearch(given, uid)
			return ok
		}
	}
	v.mailbox.expunge(in)
	return announce(c)
}

var _ server.UidHandler = (*expungeCommand)(nil)
