// Command goimap1 serves go-imap v1's server and its backend/memory, which has
// one user: each name gets a backend of its own, with an empty INBOX.
//
// The backend is not safe for concurrent use, so that its calls are made one
// at a time. What it does otherwise is left as it is: UIDVALIDITY is always 1,
// the UID of the newest message comes again after its removal, and no session
// hears of what another one does.
package main

import (
	"sync"
	"time"

	"github.com/emersion/go-imap"
	"github.com/emersion/go-imap/backend"
	"github.com/emersion/go-imap/backend/memory"
	"github.com/emersion/go-imap/server"

	"popgate/servertest/goservers/internal/flags"
)

func main() {
	f := flags.Parse()
	b := accounts{password: f.Password, users: map[string]backend.User{}}
	for _, name := range f.Users {
		b.users[name] = newUser()
	}
	s := server.New(b)
	s.AllowInsecureAuth = true
	s.TLSConfig = f.TLS
	f.Serve(s.Serve)
}

type accounts struct {
	password string
	users    map[string]backend.User
}

func (a accounts) Login(_ *imap.ConnInfo, name, password string) (backend.User, error) {
	u, ok := a.users[name]
	if !ok || password != a.password {
		return nil, backend.ErrInvalidCredentials
	}
	return u, nil
}

// newUser returns the only user of a backend of its own.
func newUser() backend.User {
	inner, err := memory.New().Login(nil, "username", "password")
	if err != nil {
		panic(err)
	}
	inbox, err := inner.GetMailbox("INBOX")
	if err != nil {
		panic(err)
	}
	inbox.(*memory.Mailbox).Messages = nil // it comes with a sample
	return &user{User: inner}
}

type user struct {
	backend.User
	mu sync.Mutex
}

func (u *user) ListMailboxes(subscribed bool) ([]backend.Mailbox, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	list, err := u.User.ListMailboxes(subscribed)
	for i, m := range list {
		list[i] = mailbox{m, u}
	}
	return list, err
}

func (u *user) GetMailbox(name string) (backend.Mailbox, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	m, err := u.User.GetMailbox(name)
	if err != nil {
		return nil, err
	}
	return mailbox{m, u}, nil
}

func (u *user) CreateMailbox(name string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.User.CreateMailbox(name)
}

type mailbox struct {
	backend.Mailbox
	user *user
}

func (m mailbox) Status(items []imap.StatusItem) (*imap.MailboxStatus, error) {
	m.user.mu.Lock()
	defer m.user.mu.Unlock()
	return m.Mailbox.Status(items)
}

// ListMessages collects the messages before it hands them on: a client that
// does not read holds up nobody.
func (m mailbox) ListMessages(uid bool, set *imap.SeqSet, items []imap.FetchItem, ch chan<- *imap.Message) error {
	defer close(ch)
	listed := make(chan *imap.Message)
	done := make(chan error, 1)
	go func() {
		m.user.mu.Lock()
		defer m.user.mu.Unlock()
		done <- m.Mailbox.ListMessages(uid, set, items, listed)
	}()
	var all []*imap.Message
	for message := range listed {
		all = append(all, message)
	}
	for _, message := range all {
		ch <- message
	}
	return <-done
}

func (m mailbox) SearchMessages(uid bool, criteria *imap.SearchCriteria) ([]uint32, error) {
	m.user.mu.Lock()
	defer m.user.mu.Unlock()
	return m.Mailbox.SearchMessages(uid, criteria)
}

func (m mailbox) CreateMessage(flags []string, date time.Time, body imap.Literal) error {
	m.user.mu.Lock()
	defer m.user.mu.Unlock()
	return m.Mailbox.CreateMessage(flags, date, body)
}

func (m mailbox) UpdateMessagesFlags(uid bool, set *imap.SeqSet, op imap.FlagsOp, flags []string) error {
	m.user.mu.Lock()
	defer m.user.mu.Unlock()
	return m.Mailbox.UpdateMessagesFlags(uid, set, op, flags)
}

func (m mailbox) CopyMessages(uid bool, set *imap.SeqSet, destination string) error {
	m.user.mu.Lock()
	defer m.user.mu.Unlock()
	return m.Mailbox.CopyMessages(uid, set, destination)
}

func (m mailbox) Expunge() error {
	m.user.mu.Lock()
	defer m.user.mu.Unlock()
	return m.Mailbox.Expunge()
}
