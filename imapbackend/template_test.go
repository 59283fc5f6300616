package imapbackend

import (
	"strings"
	"testing"

	"popgate/imapbackend/uniqueid"
)

// I-UIDL-1, I-UIDL-2: unique-ids have the form of the template. Only the
// default template adds the mailbox.
func TestTemplateConfigured(t *testing.T) {
	play(t, "Dovecot", opened+bye, Options{UIDL: "{uid:08x}{uidvalidity:08x}"}, func(s *session) {
		if got := s.ids(s.open()); got != "0000000700000009" {
			s.Errorf("unique-id %s", got)
		}
	})
	other := strings.Replace(opened, "SELECT INBOX", `SELECT "Archive"`, 1)
	play(t, "other mailbox", other+bye, Options{UIDL: "{uid}", Mailbox: "Archive"}, func(s *session) {
		if got := s.ids(s.open()); got != "7" {
			s.Errorf("unique-id %s", got)
		}
	})
	play(t, "other mailbox, default", other+bye, Options{UIDL: uniqueid.Default, Mailbox: "Archive"}, func(s *session) {
		if got := s.ids(s.open()); got != "66f4804e.9.7" {
			s.Errorf("unique-id %s", got)
		}
	})
	if _, err := New(orDefaults(Options{Address: "a:1", UIDL: "{uid"})); err == nil {
		t.Error("a template without its brace is accepted")
	}
}
