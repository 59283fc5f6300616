//go:build integration

package dovecottest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Append adds messages to user's INBOX.
func (s *Server) Append(user string, messages ...[]byte) {
	s.t.Helper()
	c := s.Login(user)
	c.Append("INBOX", messages...)
	c.Logout()
}

// Flags returns UID and flags of each message in user's INBOX. It changes
// nothing.
func (s *Server) Flags(user string) []Message { s.t.Helper(); return s.examine(user, false) }

// Messages returns what Flags does and the octets of each message.
func (s *Server) Messages(user string) []Message { s.t.Helper(); return s.examine(user, true) }

func (s *Server) examine(user string, bodies bool) []Message {
	s.t.Helper()
	c := s.Login(user)
	c.Examine("INBOX")
	messages := c.Fetch(bodies)
	c.Logout()
	return messages
}

// Rebuild gives user's INBOX another UIDVALIDITY, and its messages other UIDs, as
// happens when Dovecot has lost its list of UIDs. All sessions must have ended.
// The store must be "maildir".
func (s *Server) Rebuild(user string) {
	s.t.Helper()
	if s.options.store != "maildir" {
		s.t.Fatalf("dovecottest: Rebuild of a store of format %s", s.options.store)
	}
	dir := filepath.Join(s.dir, "mail", user, "maildir")
	lists, err := filepath.Glob(filepath.Join(dir, "dovecot*"))
	if err != nil || len(lists) == 0 {
		s.t.Fatalf("dovecottest: no lists of %s: %v", user, err)
	}
	for _, name := range lists {
		// With dovecot-uidvalidity, Dovecot does not repeat a value.
		if strings.HasPrefix(filepath.Base(name), "dovecot-uidvalidity") {
			continue
		}
		if err := os.Remove(name); err != nil {
			s.t.Fatalf("dovecottest: %v", err)
		}
	}
}

// Maildir returns the directory of user's INBOX, if the store is "maildir".
func (s *Server) Maildir(user string) string { return filepath.Join(s.dir, "mail", user, "maildir") }

// Deliver puts a message that is too large to append into the files of user's
// INBOX. write must write exactly octets octets, in lines that end in CRLF. The
// store must be "maildir".
func (s *Server) Deliver(user string, octets int64, write func(*os.File) error) {
	s.t.Helper()
	if s.options.store != "maildir" {
		s.t.Fatalf("dovecottest: Deliver into a store of format %s", s.options.store)
	}
	dir := filepath.Join(s.Maildir(user), "new")
	// With both sizes in its name Dovecot need not read the file to know them.
	name := fmt.Sprintf("1.M%d.test,S=%d,W=%d", octets, octets, octets)
	c := s.Login(user)
	c.Select("INBOX") // creates the maildir
	c.Logout()
	file, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		s.t.Fatalf("dovecottest: %v", err)
	}
	defer file.Close()
	if err := write(file); err != nil {
		s.t.Fatalf("dovecottest: %v", err)
	}
	if os.Geteuid() == 0 {
		if err := file.Chown(mailID, mailID); err != nil {
			s.t.Fatalf("dovecottest: %v", err)
		}
	}
}

// SetUIDValidity gives one of user's mailboxes another UIDVALIDITY. Its sessions
// may not notice. The messages keep their UIDs.
func (s *Server) SetUIDValidity(user, mailbox string, value uint32) {
	s.t.Helper()
	out, err := exec.Command("doveadm", "-c", s.path("dovecot.conf"),
		"mailbox", "update", "-u", user, "--uid-validity", fmt.Sprint(value), mailbox).CombinedOutput()
	if err != nil {
		s.t.Fatalf("dovecottest: doveadm mailbox update: %v\n%s", err, out)
	}
}
