package demo

import (
	"errors"
	"strings"

	"github.com/emersion/go-imap"
	"github.com/emersion/go-imap/backend"
	"github.com/emersion/go-imap/server"
	"github.com/emersion/go-sasl"
)

// errOnlyInbox answers commands that would need a second mailbox.
var errOnlyInbox = errors.New("the demo server has INBOX only")

// user is an account and its only mailbox. It is the backend.User of all its
// sessions.
type user struct {
	name     string
	password string // guarded by Server.mu
	inbox    *mailbox
}

var _ backend.User = (*user)(nil)

// Login is called by go-imap for LOGIN and AUTHENTICATE. A wrong password and an
// unknown user get the same answer, with the code of RFC 5530 §3.
func (s *Server) Login(_ *imap.ConnInfo, username, password string) (backend.User, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	u, ok := s.users[username]
	if !ok || u.password != password {
		return nil, status(imap.StatusRespNo, "AUTHENTICATIONFAILED", "wrong user name or password")
	}
	return u, nil
}

// status is an error that go-imap sends as the tagged response. It belongs to
// one command: go-imap writes the tag into it.
func status(t imap.StatusRespType, code imap.StatusRespCode, info string, args ...any) error {
	return &imap.ErrStatusResp{Resp: &imap.StatusResp{
		Type: t, Code: code, Arguments: args, Info: info,
	}}
}

func (u *user) Username() string { return u.name }

func (u *user) ListMailboxes(bool) ([]backend.Mailbox, error) {
	return []backend.Mailbox{newView(u.inbox)}, nil
}

func (u *user) GetMailbox(name string) (backend.Mailbox, error) {
	if !strings.EqualFold(name, imap.InboxName) {
		return nil, backend.ErrNoSuchMailbox
	}
	return newView(u.inbox), nil
}

func (u *user) CreateMailbox(string) error         { return errOnlyInbox }
func (u *user) DeleteMailbox(string) error         { return errOnlyInbox }
func (u *user) RenameMailbox(string, string) error { return errOnlyInbox }
func (u *user) Logout() error                      { return nil }

// loginMechanism is the server side of SASL LOGIN
// (draft-murchison-sasl-login), which go-sasl has for clients only.
type loginMechanism struct {
	server   *Server
	conn     server.Conn
	prompts  int
	username string
}

var _ sasl.Server = (*loginMechanism)(nil)

// Next asks for the name, then for the password. A client may send the name as
// its initial response.
func (m *loginMechanism) Next(response []byte) (challenge []byte, done bool, err error) {
	if m.prompts == 0 && response == nil {
		m.prompts++
		return []byte("Username:"), false, nil
	}
	if m.prompts < 2 {
		m.prompts = 2
		m.username = string(response)
		return []byte("Password:"), false, nil
	}
	u, err := m.server.Login(m.conn.Info(), m.username, string(response))
	if err != nil {
		return nil, true, err
	}
	ctx := m.conn.Context()
	ctx.State = imap.AuthenticatedState
	ctx.User = u
	return nil, true, nil
}
