package imapmodel

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// client is a connection that returns the answers to commands.
type client struct {
	t *testing.T
	w io.Writer
	r *bufio.Reader
}

// login connects and logs in.
func login(t *testing.T, m *Model) *client {
	t.Helper()
	conn, err := m.Dial(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	c := &client{t, conn, bufio.NewReader(conn)}
	if line := c.line(); !strings.HasPrefix(line, "* OK [CAPABILITY ") {
		t.Fatalf("greeting %q", line)
	}
	c.do(`LOGIN joe "x"`)
	return c
}

func (c *client) line() string {
	c.t.Helper()
	line, err := c.r.ReadString('\n')
	if err != nil {
		c.t.Fatalf("%q, %v", line, err)
	}
	return strings.TrimRight(line, "\r\n")
}

// do returns the lines of the answer, the last without its tag.
func (c *client) do(cmd string) string {
	c.t.Helper()
	if _, err := io.WriteString(c.w, "a "+cmd+"\r\n"); err != nil {
		c.t.Fatal(err)
	}
	var lines []string
	for {
		line := c.line()
		status, last := strings.CutPrefix(line, "a ")
		lines = append(lines, status)
		if last {
			return strings.Join(lines, "\n")
		}
	}
}

// want checks the answer to a command; "..." matches the rest of the last line.
func (c *client) want(cmd, want string) {
	c.t.Helper()
	got := c.do(cmd)
	if start, open := strings.CutSuffix(want, "..."); got != want && (!open || !strings.HasPrefix(got, start)) {
		c.t.Errorf("%s: got\n%s\nwant\n%s", cmd, got, want)
	}
}

func TestFetch(t *testing.T) {
	m := New()
	m.Inbox().Add("Subject: a\r\n b\r\nTo: c\r\n\r\ntext\r\n")
	c := login(t, m)
	c.do("SELECT INBOX")
	c.want("UID FETCH 1:* (UID RFC822.SIZE)", "* 1 FETCH (UID 1 RFC822.SIZE 31)\n* 1 EXISTS\nOK done")
	c.want("UID FETCH 1 (UID BODY.PEEK[]<3.5>)", "* 1 FETCH (UID 1 BODY[]<3> {5}\nject:)\n* 1 EXISTS\nOK done")
	c.want("UID FETCH 1 (BODY.PEEK[TEXT] BODY.PEEK[HEADER.FIELDS (Subject X)])",
		"* 1 FETCH (UID 1 BODY[TEXT] {6}\ntext\n BODY[HEADER.FIELDS (Subject X)] {18}\nSubject: a\n b\n\n)\n* 1 EXISTS\nOK done")
	c.want("UID FETCH 1 (ENVELOPE)", "* 1 EXISTS\nBAD ...")
	c.want("UID FETCH 1 (EMAILID)", "* 1 EXISTS\nBAD ...")
	if flags := m.Inbox().Messages()[0].Flags; len(flags) > 0 {
		t.Errorf("flags %q after PEEK", flags)
	}
	c.do("UID FETCH 1 (BODY[])")
	if flags := m.Inbox().Messages()[0].Flags; !slices.Equal(flags, []string{`\Seen`}) {
		t.Errorf("flags %q after BODY[]", flags)
	}
}

func TestChanges(t *testing.T) {
	m := New()
	m.Caps += " MOVE"
	m.Mailbox("", "Bin").SetTrash()
	for range 6 {
		m.Inbox().Add("x")
	}
	m.Inbox().SetFlag(6, `\Deleted`, true)
	c := login(t, m)
	c.want("UID EXPUNGE 1:9", "BAD ...")
	c.do("SELECT INBOX")
	c.want(`UID STORE 1,3 +FLAGS.SILENT (\Deleted)`, "OK done")
	c.want("UID SEARCH RETURN (ALL) DELETED", "* ESEARCH (TAG \"a\") UID ALL 1,3,6\n* 6 EXISTS\nOK done")
	c.want("UID SEARCH UID 1:4 UNDELETED", "* SEARCH 2 4\n* 6 EXISTS\nOK done")
	c.want("UID EXPUNGE 1:2", "* 1 EXPUNGE\n* 5 EXISTS\nOK done")
	c.want("UID MOVE 4 Nowhere", "NO [TRYCREATE] ...")
	c.want("UID MOVE 4 Bin", "* 3 EXPUNGE\n* 4 EXISTS\nOK done")
	c.want("UID COPY 5 Bin", "* 4 EXISTS\nOK done")
	c.want("LIST \"\" *", "* LIST (\\HasNoChildren) \"/\" \"INBOX\"\n* LIST (\\HasNoChildren \\Trash) \"/\" \"Bin\"\nOK done")
	if n := len(m.Mailbox("", "Bin").Messages()); n != 2 {
		t.Errorf("%d messages in the trash", n)
	}
	c.do("CLOSE")
	var left []uint64
	for _, msg := range m.Inbox().Messages() {
		left = append(left, msg.UID)
	}
	if !slices.Equal(left, []uint64{2, 5}) { // CLOSE expunges what any client has flagged
		t.Errorf("left %d", left)
	}
}

func TestSearchStyles(t *testing.T) {
	for style, want := range map[SearchStyle][3]string{ // to DELETED, to it with RETURN, and to an empty result
		Searches:       {"* SEARCH 2\n* 3 EXISTS\nOK done", "* ESEARCH (TAG \"a\") UID ALL 2\n* 3 EXISTS\nOK done", "* SEARCH \n* 3 EXISTS\nOK done"},
		CountOnly:      {"* SEARCH 2\n* 3 EXISTS\nOK done", "* ESEARCH (TAG \"a\") UID COUNT 1\n* 3 EXISTS\nOK done", "* SEARCH \n* 3 EXISTS\nOK done"},
		DeletedRefused: {"* 3 EXISTS\nBAD what", "* 3 EXISTS\nBAD what", "* SEARCH \n* 3 EXISTS\nOK done"},
		SilentIfEmpty:  {"* SEARCH 2\n* 3 EXISTS\nOK done", "* ESEARCH (TAG \"a\") UID ALL 2\n* 3 EXISTS\nOK done", "* 3 EXISTS\nOK done"},
		FindsOthers:    {"* SEARCH 1 2\n* 3 EXISTS\nOK done", "* ESEARCH (TAG \"a\") UID ALL 1,2\n* 3 EXISTS\nOK done", "* SEARCH \n* 3 EXISTS\nOK done"},
	} {
		m := New()
		m.Search = style
		for range 3 {
			m.Inbox().Add("x")
		}
		m.Inbox().SetFlag(2, `\Deleted`, true)
		m.Mailbox("bob", "INBOX").AddMessage(Message{Body: "x", Flags: []string{`\Deleted`}})
		c := login(t, m)
		c.do("SELECT INBOX")
		c.want("UID SEARCH DELETED", want[0])
		c.want("UID SEARCH RETURN (ALL) DELETED", want[1])
		c.want("UID SEARCH UID 1 DELETED", want[2])
	}
}

func TestSetsAreNumbers(t *testing.T) {
	m := New()
	m.SetsAreNumbers = true
	for range 5 {
		m.Inbox().Add("x")
	}
	m.Inbox().Remove(2)
	m.Inbox().SetFlag(4, `\Deleted`, true)
	c := login(t, m)
	c.do("SELECT INBOX")
	c.want("UID SEARCH UID 3", "* SEARCH 4\n* 4 EXISTS\nOK done")
	c.want("UID SEARCH UID 5", "* SEARCH \n* 4 EXISTS\nOK done")
	c.want("UID SEARCH RETURN (ALL) UID 3:9 DELETED", "* ESEARCH (TAG \"a\") UID ALL 4\n* 4 EXISTS\nOK done")
	c.want("UID SEARCH ALL", "* SEARCH 1 3 4 5\n* 4 EXISTS\nOK done")
	c.want("UID FETCH 3 (UID)", "* 2 FETCH (UID 3)\n* 4 EXISTS\nOK done")
}

// RFC 2180 §4.1.
func TestStyles(t *testing.T) {
	for style, want := range map[Style]string{
		Omitted: "* 1 EXPUNGE\n* 1 EXISTS\nOK done",
		Served:  "* 1 FETCH (UID 1 BODY[] {3}\none)\n* 2 EXISTS\nOK done",
		Refused: "* 2 EXISTS\nNO ...",
		Nil:     "* 1 FETCH (UID 1 BODY[] NIL)\n* 2 EXISTS\nOK done",
		Kept:    "* 1 FETCH (UID 1 BODY[] {3}\none)\n* 2 EXISTS\nOK done",
	} {
		m := New()
		m.Style = style
		m.Inbox().Add("one")
		m.Inbox().Add("two")
		c := login(t, m)
		c.do("SELECT INBOX")
		if removed := m.Inbox().Remove(1); removed == (style == Kept) {
			t.Errorf("style %d: removed: %v", style, removed)
		}
		c.want("UID FETCH 1 (UID BODY.PEEK[])", want)
	}
}

func TestNumbers(t *testing.T) {
	m := New()
	m.Inbox().SetUIDValidity(1 << 40).Add("one")
	m.UIDNext = func(next uint64) string { return fmt.Sprint(next - 1) }
	c := login(t, m)
	answer := c.do("SELECT INBOX")
	for _, want := range []string{"* OK [UIDVALIDITY 1099511627776] x", "* OK [UIDNEXT 1] x"} {
		if !strings.Contains(answer, want) {
			t.Errorf("no %q in %q", want, answer)
		}
	}
}

func TestRebuilt(t *testing.T) {
	for _, announce := range []bool{false, true} {
		m := New()
		m.AnnounceRebuilt = announce
		m.Inbox().Add("one")
		m.Inbox().Add("two")
		c := login(t, m)
		c.do("SELECT INBOX")
		before := m.Inbox().UIDValidity()
		m.Inbox().Rebuild()
		if all := m.Inbox().Messages(); all[0].Body != "two" || m.Inbox().UIDValidity() == before {
			t.Errorf("UIDVALIDITY %d, messages %v", m.Inbox().UIDValidity(), all)
		}
		if announce {
			c.want("UID FETCH 1 (UID)", "* OK [UIDVALIDITY 107] rebuilt\nNO ...")
			continue
		}
		if _, err := io.WriteString(c.w, "a UID FETCH 1 (UID)\r\n"); err != nil {
			t.Fatal(err)
		}
		if line := c.line(); !strings.HasPrefix(line, "* BYE") {
			t.Errorf("%q after another UIDVALIDITY", line)
		}
	}
}

// TestQuirks shows the form of each quirk that changes what is sent.
func TestQuirks(t *testing.T) {
	const body = "A: b\r\n\r\nx"
	whole := "* 1 FETCH (UID 1 BODY[] {9}\n" + strings.ReplaceAll(body, "\r", "") + ")\n"
	for _, tt := range []struct {
		quirks    Quirks
		cmd, want string
	}{
		{Quirks{}, "UID FETCH 1 (UID BODY.PEEK[])", whole + "OK done"},
		{Quirks{UIDMissing: true}, "UID FETCH 1 (UID BODY.PEEK[TEXT])", "* 1 FETCH (BODY[TEXT] {1}\nx)\nOK done"},
		{Quirks{UIDMissing: true}, "UID FETCH 1 (UID RFC822.SIZE)", "* 1 FETCH (UID 1 RFC822.SIZE 9)\nOK done"},
		{Quirks{Quoted: true}, "UID FETCH 1 (UID BODY.PEEK[TEXT])", "* 1 FETCH (UID 1 BODY[TEXT] \"x\")\nOK done"},
		{Quirks{Quoted: true}, "UID FETCH 1 (UID BODY.PEEK[TEXT]<5.9>)", "* 1 FETCH (UID 1 BODY[TEXT]<5> NIL)\nOK done"},
		{Quirks{Partial: PartialBAD}, "UID FETCH 1 (UID BODY.PEEK[TEXT]<5.9>)", "BAD what is BODY.PEEK[TEXT]<5.9>"},
		{Quirks{Partial: PartialIgnored}, "UID FETCH 1 (UID BODY.PEEK[TEXT]<5.9>)", "* 1 FETCH (UID 1 BODY[TEXT] {1}\nx)\nOK done"},
		{Quirks{EmptyPeek: true}, "UID FETCH 1 (UID BODY.PEEK[])", "* 1 FETCH (UID 1 BODY[] {0}\n)\nOK done"},
		{Quirks{EmptyPeek: true}, "UID FETCH 1 (UID BODY[])", whole + "* 1 FETCH (UID 1 FLAGS (\\Seen))\n* 3 EXISTS\nOK done"},
		{Quirks{NoExists: true, WrongUIDNext: "x", PermanentFlags: "-"}, "SELECT INBOX",
			"* FLAGS (\\Answered \\Flagged \\Deleted \\Seen \\Draft)\n* OK [UIDVALIDITY 7] x\n* OK [UIDNEXT x] x\n* OK [PERMANENTFLAGS] x\nOK [READ-WRITE] selected"},
		{Quirks{AnyOrder: true}, "UID FETCH 1:3 (UID)", "* 3 FETCH (UID 3)\n* 2 FETCH (UID 2)\n* 1 FETCH (UID 1)\nOK done"},
		{Quirks{AfterSelect: Discarded}, "SELECT INBOX\r\nb NOOP", "* FLAGS"},
		{Quirks{AfterSelect: Rejected}, "SELECT INBOX\r\nb NOOP", "* FLAGS"},
	} {
		t.Run(tt.quirks.String(), func(t *testing.T) {
			m := New()
			m.Quirks = tt.quirks
			for range 3 {
				m.Inbox().Add(body)
			}
			c := login(t, m)
			if strings.Contains(tt.cmd, "NOOP") {
				c.do(tt.cmd)
				if m.AfterSelect == Rejected {
					if line := c.line(); line != "b BAD one command at a time" {
						t.Errorf("%q", line)
					}
				}
				if got := c.do("NOOP"); got != "* 3 EXISTS\nOK done" {
					t.Errorf("%q", got)
				}
				return
			}
			c.do("SELECT INBOX")
			got := strings.ReplaceAll(c.do(tt.cmd), "* 3 EXISTS\n", "")
			if want := strings.ReplaceAll(tt.want, "* 3 EXISTS\n", ""); got != want {
				t.Errorf("%s: %q, want %q", tt.cmd, got, want)
			}
		})
	}
}

// TestRandomQuirks draws until each of them has come.
func TestRandomQuirks(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	seen := ""
	for range 400 {
		seen += RandomQuirks(r).String() + "\n"
	}
	for _, name := range []string{"Unknown", "AfterLogin=1", "AfterLogin=2", "AfterSelect=1", "AfterSelect=2", "UIDLast", "UIDMissing", "Loose",
		"Quoted", "AnyOrder", "Partial=1", "Partial=2", "EmptyPeek", "NoExists", "WrongUIDNext", "PermanentFlags", "Search=1", "Search=7"} {
		if !strings.Contains(seen, name) {
			t.Errorf("%s has never come", name)
		}
	}
}
