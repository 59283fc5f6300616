//go:build integration

package servertest_test

import (
	"fmt"
	"strings"
	"testing"

	"popgate/imapbackend/servertest"
)

// checkCommands sends every command, in order, in both states.
func checkCommands(t *testing.T, s *servertest.Server) {
	user, g := seeded(s, 3), serve(t, s, nil)
	c := g.Dial()
	c.Greeting()
	for _, capability := range []string{"TOP\r\n", "UIDL\r\n", "USER\r\n", "RESP-CODES\r\n", "PIPELINING\r\n"} {
		if list := c.Fetch("CAPA"); !strings.Contains(list, capability) {
			t.Errorf("CAPA lacks %q:\n%s", capability, list)
		}
	}
	c.Do("STAT", "-ERR")
	c.OK("USER "+user, "PASS "+s.Password, "NOOP")
	sizes, ids := c.Fetch("LIST"), c.Fetch("UIDL")
	total := 0
	for n := 1; n <= 3; n++ {
		var octets int
		var id string
		if _, err := fmt.Sscanf(c.Do(fmt.Sprintf("LIST %d", n), "+OK"), fmt.Sprintf("+OK %d %%d", n), &octets); err != nil {
			t.Fatal(err)
		}
		if _, err := fmt.Sscanf(c.Do(fmt.Sprintf("UIDL %d", n), "+OK"), fmt.Sprintf("+OK %d %%s", n), &id); err != nil {
			t.Fatal(err)
		}
		if line := fmt.Sprintf("%d %d\r\n", n, octets); !strings.Contains("\r\n"+sizes, "\r\n"+line) {
			t.Errorf("LIST has no %q:\n%s", line, sizes)
		}
		if line := fmt.Sprintf("%d %s\r\n", n, id); !strings.Contains("\r\n"+ids, "\r\n"+line) {
			t.Errorf("UIDL has no %q:\n%s", line, ids)
		}
		total += octets
		if i := numberOf(t, c.Fetch(fmt.Sprintf("RETR %d", n))); i != n-1 {
			t.Errorf("RETR %d: message %d", n, i)
		}
		if top := c.Fetch(fmt.Sprintf("TOP %d 0", n)); !strings.HasSuffix(top, "\r\n\r\n") {
			t.Errorf("TOP %d 0: %q", n, top)
		}
	}
	c.Do("STAT", fmt.Sprintf("+OK 3 %d", total))
	c.Do("DELE 2", "+OK")
	for _, command := range []string{"DELE 2", "RETR 2", "TOP 2 0", "LIST 2", "UIDL 2", "RETR 4", "RETR 0", "LAST", "USER x"} {
		c.Do(command, "-ERR")
	}
	c.Do("STAT", "+OK 2 ")
	if list := c.Fetch("LIST"); strings.Count(list, "\r\n") != 2 || strings.Contains("\r\n"+list, "\r\n2 ") {
		t.Errorf("LIST after DELE 2:\n%s", list)
	}
	c.Do("RSET", "+OK")
	if list := c.Fetch("UIDL"); list != ids {
		t.Errorf("UIDL after RSET:\n%s, was\n%s", list, ids)
	}
	g.quit(t, c)
	g.wantShown(t, user, 0, 1, 2)

	c = g.session(s.NewUser())
	c.Do("STAT", "+OK 0 0")
	if list := c.Fetch("LIST"); list != "" {
		t.Errorf("LIST of an empty maildrop:\n%s", list)
	}
	c.Do("RETR 1", "-ERR")
	g.quit(t, c)
}
