//go:build integration

package servertest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"popgate/imapbackend"
	"popgate/imapbackend/dovecottest"
	"popgate/imapbackend/servertest"
)

// abilities are what a server announces after login.
type abilities struct{ uidplus, move bool }

func abilitiesOf(t *testing.T, s *servertest.Server, user string) abilities {
	t.Helper()
	c := dovecottest.Dial(t, s.Addr)
	c.Command("LOGIN %q %q", user, s.Password)
	var words []string
	for _, r := range c.Command("CAPABILITY") {
		if list, ok := strings.CutPrefix(r.Text, "* CAPABILITY "); ok {
			words = strings.Fields(list)
		}
	}
	c.Logout()
	rev2 := slices.Contains(words, "IMAP4rev2") // which includes both
	return abilities{rev2 || slices.Contains(words, "UIDPLUS"), rev2 || slices.Contains(words, "MOVE")}
}

// Outcomes of the removal of the messages 1 and 4 of five, where another client
// has flagged 3: what is left, with what is flagged \Deleted in parentheses.
const (
	removed = "0 2 (3)"
	flagged = "0 (1) 2 (3) (4)"
	kept    = "0 1 2 (3) 4"
)

// policies are all ways to remove, with their outcome (I-DEL-7, I-DEL-8, I-DEL-13).
var policies = []struct {
	name  string
	opts  imapbackend.Options // Delete and WithoutUIDPLUS, "" for the default
	alone bool                // no other client has flagged a message
	want  func(abilities) (left string, trashed, ok bool)
}{
	{"expunge", imapbackend.Options{}, false, func(a abilities) (string, bool, bool) {
		if a.uidplus {
			return removed, false, true
		}
		return flagged, false, true
	}},
	{"expunge, or move without UIDPLUS", imapbackend.Options{WithoutUIDPLUS: imapbackend.Move}, false, func(a abilities) (string, bool, bool) {
		switch {
		case a.uidplus:
			return removed, false, true
		case a.move:
			return removed, true, true
		}
		return flagged, true, true
	}},
	{"expunge-if-alone, alone", imapbackend.Options{WithoutUIDPLUS: imapbackend.ExpungeIfAlone}, true, func(abilities) (string, bool, bool) {
		return "0 2 3", false, true
	}},
	{"expunge-if-alone, not alone", imapbackend.Options{WithoutUIDPLUS: imapbackend.ExpungeIfAlone}, false, func(a abilities) (string, bool, bool) {
		if a.uidplus {
			return removed, false, true
		}
		return flagged, false, true
	}},
	{"expunge, or refuse without UIDPLUS", imapbackend.Options{WithoutUIDPLUS: imapbackend.Refuse}, false, func(a abilities) (string, bool, bool) {
		if a.uidplus {
			return removed, false, true
		}
		return kept, false, false
	}},
	{"trash", imapbackend.Options{Delete: imapbackend.DeleteTrash}, false, func(a abilities) (string, bool, bool) {
		if a.uidplus || a.move {
			return removed, true, true
		}
		return flagged, true, true
	}},
	{"flag", imapbackend.Options{Delete: imapbackend.DeleteFlag}, false, func(abilities) (string, bool, bool) {
		return flagged, false, true
	}},
	{"keep", imapbackend.Options{Delete: imapbackend.DeleteKeep}, false, func(abilities) (string, bool, bool) {
		return kept, false, true
	}},
}

// checkRemoval removes by each policy, and looks at the mailbox by IMAP.
func checkRemoval(t *testing.T, s *servertest.Server) {
	announced := abilitiesOf(t, s, s.User)
	for _, p := range policies {
		t.Run(p.name, func(t *testing.T) {
			s := s.In(t)
			user := seeded(s, 5)
			if !p.alone {
				other := s.Login(user)
				other.Select("INBOX")
				other.Store(uidOf(t, other, 3), `+FLAGS (\Deleted)`)
				other.Logout()
			}
			g := serve(t, s, func(o *imapbackend.Options) {
				o.Trash = s.Trash()
				if p.opts.Delete != "" {
					o.Delete = p.opts.Delete
				}
				if p.opts.WithoutUIDPLUS != "" {
					o.WithoutUIDPLUS = p.opts.WithoutUIDPLUS
				}
			})
			wantLeft, trashed, ok := p.want(announced)
			switch {
			case limited(s, servertest.RefusesMove) && trashed:
				wantLeft, trashed, ok = kept, false, false
			case limited(s, servertest.SearchesOthers) && p.alone:
				wantLeft = "0 (1) 2 3 (4)"
			}
			c := g.session(user)
			last := "DELE 4"
			if p.alone {
				last = "DELE 5"
			}
			c.OK("DELE 2", last)
			c.Send("QUIT")
			if reply := c.Line(); strings.HasPrefix(reply, "+OK") != ok {
				t.Errorf("QUIT: %s", reply)
			}
			if limited(s, servertest.WritesLate) {
				g.upstream.awaitEnd(t)
			}
			if left := left(t, s, user, "INBOX"); left != wantLeft {
				t.Errorf("left are %s, want %s", left, wantLeft)
			}
			if trashed {
				if got := left(t, s, user, s.Trash()); got != "1 4" {
					t.Errorf("in the trash are %s, want 1 4", got)
				}
			}
		})
	}
	t.Run("without QUIT", func(t *testing.T) {
		s := s.In(t)
		user := seeded(s, 3)
		c := serve(t, s, nil).session(user)
		c.OK("DELE 1", "DELE 2")
		c.Conn.Close()
		serve(t, s, nil).wantShown(t, user, 0, 1, 2)
	})
}

// uidOf returns the UID of message i of the selected mailbox.
func uidOf(t *testing.T, c *dovecottest.Client, i int) string {
	t.Helper()
	for _, m := range c.Fetch(true) {
		if numberOf(t, string(m.Octets)) == i {
			return fmt.Sprint(m.UID)
		}
	}
	t.Fatalf("message %d is not there", i)
	return ""
}

// left lists the messages of a mailbox, as the outcomes do.
func left(t *testing.T, s *servertest.Server, user, mailbox string) string {
	t.Helper()
	c := s.Login(user)
	c.Examine(mailbox)
	var left []string
	for _, m := range c.Fetch(true) {
		number := fmt.Sprint(numberOf(t, string(m.Octets)))
		if strings.Contains(strings.ToLower(m.Flags), `\deleted`) {
			number = "(" + number + ")"
		}
		left = append(left, number)
	}
	c.Logout()
	slices.SortFunc(left, func(a, b string) int { return strings.Compare(strings.Trim(a, "()"), strings.Trim(b, "()")) })
	return strings.Join(left, " ")
}
