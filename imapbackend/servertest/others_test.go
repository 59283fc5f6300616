//go:build integration

package servertest_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"popgate/imapbackend/servertest"
	"popgate/proxy/proxytest"
)

// checkFlagged has another client flag a message \Deleted: it is hidden, and all
// messages of other users are shown, also those with the same UID (I-SNAP-3).
func checkFlagged(t *testing.T, s *servertest.Server) {
	one, two := seeded(s, 4), seeded(s, 4)
	g := serve(t, s, nil)
	other := s.Login(one)
	other.Select("INBOX")
	other.Store(uidOf(t, other, 2), `+FLAGS (\Deleted)`)
	other.Logout()
	for range 2 {
		g.wantShown(t, one, 0, 1, 3)
		g.wantShown(t, two, 0, 1, 2, 3)
	}
}

// expunge has another client remove message i.
func expunge(t *testing.T, s *servertest.Server, user string, i int) {
	t.Helper()
	other := s.Login(user)
	other.Select("INBOX")
	other.Store(uidOf(t, other, i), `+FLAGS (\Deleted)`)
	other.Expunge()
	other.Logout()
}

// checkDuring has another client add messages while a session is open, and then
// remove one: the maildrop stays as it is (I-SNAP-9), and QUIT removes what was
// marked.
func checkDuring(t *testing.T, s *servertest.Server) {
	user, g := seeded(s, 5), serve(t, s, nil)
	c := g.session(user)
	list, ids := c.Fetch("LIST"), c.Fetch("UIDL")
	same := func() {
		t.Helper()
		if got := c.Fetch("LIST"); got != list {
			t.Errorf("LIST was\n%s, is\n%s", list, got)
		}
		if got := c.Fetch("UIDL"); got != ids {
			t.Errorf("UIDL was\n%s, is\n%s", ids, got)
		}
	}
	s.Append(user, message(5))
	same()
	c.OK("DELE 3")
	g.quit(t, c)
	g.wantShown(t, user, 0, 1, 3, 4, 5)

	c = g.session(user)
	list, ids = c.Fetch("LIST"), c.Fetch("UIDL")
	expunge(t, s, user, 1)
	wantLimit(t, s, servertest.Substitutes, substituted(t, c))
	for n, i := range map[int]int{1: 0, 3: 3, 4: 4, 5: 5} {
		if got := numberOf(t, c.Fetch(fmt.Sprintf("RETR %d", n))); got != i {
			t.Errorf("RETR %d: message %d", n, got)
		}
	}
	same()
	c.OK("DELE 4")
	g.quit(t, c)
	c = g.session(user)
	shown := show(t, c)
	g.quit(t, c)
	wantLimit(t, s, servertest.UndoesRemoval, slices.Equal(shown, []int{0, 1, 3, 5}))
	if shown = slices.DeleteFunc(shown, func(i int) bool { return i == 1 }); !slices.Equal(shown, []int{0, 3, 5}) {
		t.Errorf("messages %v are shown, want 0, 3 and 5", shown)
	}
}

// checkSets has messages whose UIDs are not their sequence numbers: what another
// client has flagged is hidden, messages from the middle are removed and others stay,
// and a message that another client has removed is not taken for one that is there
// (I-SNAP-3, I-DEL-4). A server that is searched among UIDs has to get that right.
func checkSets(t *testing.T, s *servertest.Server) {
	user, g := seeded(s, 8), serve(t, s, nil)
	expunge(t, s, user, 1)
	other := s.Login(user)
	other.Select("INBOX")
	uid := uidOf(t, other, 4)
	var found []string
	for _, r := range other.Command("UID SEARCH UID %s", uid) {
		if result, ok := strings.CutPrefix(r.Text, "* SEARCH"); ok {
			found = append(found, strings.TrimSpace(result))
		}
	}
	right := slices.Equal(found, []string{uid})
	wantLimit(t, s, servertest.SearchesNumbers, !right)
	report, err := g.backend.Probe(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if report.Dialect.SearchesSets && !right {
		t.Errorf("UID SEARCH UID %s finds %q, and the profile says that it is right", uid, found)
	}
	other.Store(uid, `+FLAGS (\Deleted)`)
	other.Logout()
	g.wantShown(t, user, 0, 2, 3, 5, 6, 7)

	c := g.session(user)
	c.OK("DELE 3", "DELE 5")
	g.quit(t, c)
	g.wantShown(t, user, 0, 2, 5, 7)

	c = g.session(user)
	expunge(t, s, user, 2)
	c.Send("TOP 2 0")
	if reply := c.Line(); strings.HasPrefix(reply, "+OK") {
		if top := c.Body(); !strings.Contains(top, "Subject: message 2\r\n") {
			t.Errorf("TOP of a removed message:\n%s", top)
		}
	} else if reply != "-ERR message removed by another client" {
		t.Errorf("TOP of a removed message: %s", reply)
	}
	c.Send("RETR 2")
	if reply := c.Line(); strings.HasPrefix(reply, "+OK") {
		c.Body()
	} else if reply != "-ERR message removed by another client" {
		t.Errorf("RETR of a removed message: %s", reply)
	}
	for n, i := range map[int]int{1: 0, 3: 5, 4: 7} {
		if got := numberOf(t, c.Fetch(fmt.Sprintf("RETR %d", n))); got != i {
			t.Errorf("RETR %d: message %d", n, got)
		}
	}
	c.OK("DELE 3")
	g.quit(t, c)
	c = g.session(user)
	shown := show(t, c)
	g.quit(t, c)
	if shown = slices.DeleteFunc(shown, func(i int) bool { return i == 2 }); !slices.Equal(shown, []int{0, 7}) {
		t.Errorf("messages %v are shown, want 0 and 7", shown)
	}
}

// substituted reads message 1, which another client has removed, as message-number
// 2: it is refused (P-RETR-8), or the server still has it, or has something else.
func substituted(t *testing.T, c *proxytest.Client) bool {
	t.Helper()
	c.Send("RETR 2")
	reply := c.Line()
	if strings.HasPrefix(reply, "-ERR") {
		if reply != "-ERR message removed by another client" {
			t.Errorf("RETR of a removed message: %s", reply)
		}
		return false
	}
	return !strings.Contains(c.Body(), "Subject: message 1\r\n")
}

// checkBetween has another client remove and add messages between sessions of one
// gateway, which remembers the listing (I-SNAP-7).
func checkBetween(t *testing.T, s *servertest.Server) {
	user, g := seeded(s, 5), serve(t, s, nil)
	g.wantShown(t, user, 0, 1, 2, 3, 4)
	expunge(t, s, user, 1)
	g.wantShown(t, user, 0, 2, 3, 4)
	s.Append(user, message(5), message(6))
	g.wantShown(t, user, 0, 2, 3, 4, 5, 6)
	expunge(t, s, user, 0)
	s.Append(user, message(7))
	g.wantShown(t, user, 2, 3, 4, 5, 6, 7)
}

// checkUniqueIDs compares unique-ids from one session to the next and from one
// gateway to another, and has the newest message replaced: its unique-id is never
// given again (P-UIDL-2).
func checkUniqueIDs(t *testing.T, s *servertest.Server) {
	user, g := seeded(s, 4), serve(t, s, nil)
	before := uniqueIDs(t, g, user)
	if after := uniqueIDs(t, g, user); !slices.Equal(after, before) {
		t.Errorf("unique-ids were %v, are %v", before, after)
	}
	if other := uniqueIDs(t, serve(t, s, nil), user); !slices.Equal(other, before) {
		t.Errorf("unique-ids were %v, are %v with another gateway", before, other)
	}
	slices.Sort(before)
	if len(slices.Compact(before)) != 4 {
		t.Errorf("unique-ids are not unique: %v", before)
	}
	expunge(t, s, user, 3)
	s.Append(user, message(4))
	after := uniqueIDs(t, g, user)
	again := len(after) == 4 && slices.Contains(before, after[3])
	wantLimit(t, s, servertest.ReusesUIDs, again)
	if len(after) != 4 {
		t.Errorf("%d unique-ids, want 4", len(after))
	}
}

// uniqueIDs returns the unique-ids of a session, in order.
func uniqueIDs(t *testing.T, g gateway, user string) []string {
	t.Helper()
	c := g.session(user)
	var ids []string
	for line := range strings.Lines(c.Fetch("UIDL")) {
		_, id, _ := strings.Cut(strings.TrimSpace(line), " ")
		ids = append(ids, id)
	}
	g.quit(t, c)
	return ids
}

// checkCut cuts the connection to the server in front of RETR, TOP and QUIT.
func checkCut(t *testing.T, s *servertest.Server) {
	user, g := seeded(s, 5), serve(t, s, nil)
	r := g.upstream
	if limited(s, servertest.AddsFields) {
		g.wantShown(t, user, 0, 1, 2, 3, 4) // after which they stay as they are
	}
	c := g.session(user)
	ids := c.Fetch("UIDL")
	r.cut()
	if i := numberOf(t, c.Fetch("RETR 1")); i != 0 {
		t.Errorf("RETR 1: message %d", i)
	}
	r.cut()
	if top := c.Fetch("TOP 4 1"); !strings.Contains(top, "Subject: message 3\r\n") || !strings.HasSuffix(top, "\r\n\r\nThis is message 3.\r\n") {
		t.Errorf("TOP 4 1: %q", top)
	}
	r.cut()
	if got := c.Fetch("UIDL"); got != ids {
		t.Errorf("UIDL was\n%s, is\n%s", ids, got)
	}
	for n := 1; n <= 5; n++ {
		r.cut()
		if i := numberOf(t, c.Fetch(fmt.Sprintf("RETR %d", n))); i != n-1 {
			t.Errorf("RETR %d: message %d", n, i)
		}
	}
	c.OK("DELE 2", "DELE 5")
	r.cut()
	g.quit(t, c)
	g.wantShown(t, user, 0, 2, 3)
	c = g.session(user)
	if got := c.Fetch("UIDL"); !sameIDs(ids, got, 1, 3, 4) {
		t.Errorf("UIDL was\n%s, is\n%s", ids, got)
	}
	g.quit(t, c)
}

// sameIDs reports whether the unique-id listing now has those of then with these
// message-numbers.
func sameIDs(then, now string, numbers ...int) bool {
	lines, left := strings.Split(then, "\r\n"), strings.Split(strings.TrimSuffix(now, "\r\n"), "\r\n")
	if len(left) != len(numbers) {
		return false
	}
	for i, n := range numbers {
		_, was, _ := strings.Cut(lines[n-1], " ")
		_, is, _ := strings.Cut(left[i], " ")
		if was != is {
			return false
		}
	}
	return true
}
