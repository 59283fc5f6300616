package demo

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/emersion/go-imap"
	"github.com/google/go-cmp/cmp"
)

func uidsLeft(s *Server) []uint32 {
	var uids []uint32
	for _, m := range s.Messages("demo") {
		uids = append(uids, m.UID)
	}
	return uids
}

func TestUIDsAreNotReused(t *testing.T) {
	s := New()
	addr := start(t, s)
	add(t, s, "1", "2", "3")
	c := login(t, addr, "SELECT INBOX")
	c.ok(`STORE 2:3 +FLAGS.SILENT (\Deleted)`)
	c.want("EXPUNGE", "* 3 EXPUNGE\r\n* 2 EXPUNGE\r\n")
	if uid, err := s.Append("demo", []byte("4")); uid != 4 || err != nil {
		t.Errorf("UID %d, %v; want 4", uid, err)
	}
	c.want("STATUS INBOX (UIDNEXT)", "* STATUS INBOX (UIDNEXT 5)\r\n")
}

// I-DEL-2: messages that others have flagged stay.
func TestUIDExpungeRemovesNothingElse(t *testing.T) {
	s := New()
	addr := start(t, s)
	add(t, s, "1", "2", "3", "4", "5")
	c := login(t, addr, "SELECT INBOX")
	c.ok(`UID STORE 2:4 +FLAGS.SILENT (\Deleted)`)
	c.want("UID EXPUNGE 1:2,4", "* 4 EXPUNGE\r\n* 2 EXPUNGE\r\n")
	if diff := cmp.Diff([]uint32{1, 3, 5}, uidsLeft(s)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	c.want("UID EXPUNGE 1,2,99", "")
	c.refused("UID EXPUNGE", "BAD")
	c.refused("UID EXPUNGE 1 2", "NO")
	c.refused("EXPUNGE 3", "BAD")
	c.refused("UID EXPUNGE x", "NO")
	c.ok("UNSELECT")
	c.refused("UID EXPUNGE 3", "NO")
	c.ok("EXAMINE INBOX")
	c.refused("UID EXPUNGE 3", "NO")
	c.ok("CLOSE") // RFC 3501 §6.4.2: removes nothing after EXAMINE
	if diff := cmp.Diff([]uint32{1, 3, 5}, uidsLeft(s)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
	c.ok("SELECT INBOX")
	c.ok("CLOSE")
	if diff := cmp.Diff([]uint32{1, 5}, uidsLeft(s)); diff != "" {
		t.Errorf("left after CLOSE (-want +got):\n%s", diff)
	}
}

func TestNoUIDPLUS(t *testing.T) {
	s := New()
	s.NoUIDPLUS = true
	addr := start(t, s)
	add(t, s, "1")
	c := login(t, addr, "SELECT INBOX", `STORE 1 +FLAGS (\Deleted)`)
	if caps := c.ok("CAPABILITY"); strings.Contains(caps, "UIDPLUS") {
		t.Errorf("%q", caps)
	}
	c.refused("UID EXPUNGE 1", "BAD")
	if _, status := c.cmd("APPEND INBOX {1+}\r\n2"); strings.Contains(status, "APPENDUID") {
		t.Errorf("APPEND: %s", status)
	}
	if diff := cmp.Diff([]uint32{1, 2}, uidsLeft(s)); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

// TestTwoSessions checks what a session sees of the changes of another: nothing
// before it asks, and no number ever means another message.
func TestTwoSessions(t *testing.T) {
	s := New()
	addr := start(t, s)
	add(t, s, "1", "2", "3", "4")
	a := login(t, addr, "SELECT INBOX")
	b := login(t, addr, "SELECT INBOX")
	b.ok(`STORE 2:3 +FLAGS.SILENT (\Deleted)`)
	b.ok("EXPUNGE")
	b.want("APPEND INBOX (\\Flagged) {1+}\r\n5", "* 3 EXISTS\r\n")

	a.want("FETCH 1:4 (UID)", "* 1 FETCH (UID 1)\r\n* 4 FETCH (UID 4)\r\n")
	a.want("UID FETCH 2 (BODY.PEEK[])", "")
	a.want("UID FETCH 5 (FLAGS)", "") // not announced yet
	a.want("SEARCH ALL", "* SEARCH 1 4\r\n")
	a.want("NOOP", "* 3 EXPUNGE\r\n* 2 EXPUNGE\r\n* 3 EXISTS\r\n")
	a.want("UID FETCH 2:* (FLAGS)", "* 2 FETCH (FLAGS () UID 4)\r\n* 3 FETCH (FLAGS (\\Flagged) UID 5)\r\n")
	a.want("CHECK", "")
}

func TestSeen(t *testing.T) {
	s := New()
	addr := start(t, s)
	add(t, s, "H: 1\r\n\r\ntext\r\n")
	c := login(t, addr, "SELECT INBOX")
	for _, step := range []struct{ command, untagged string }{
		{"FETCH 1 (BODY.PEEK[TEXT])", "* 1 FETCH (BODY[TEXT] {6}\r\ntext\r\n)\r\n"},
		{"FETCH 1 (FLAGS RFC822.HEADER)", "* 1 FETCH (FLAGS () RFC822.HEADER {8}\r\nH: 1\r\n\r\n)\r\n"},
		{"EXAMINE INBOX", ""},
		{"FETCH 1 (BODY[TEXT])", "* 1 FETCH (BODY[TEXT] {6}\r\ntext\r\n)\r\n"},
		{"FETCH 1 (FLAGS)", "* 1 FETCH (FLAGS ())\r\n"},
		{"SELECT INBOX", ""},
		{"FETCH 1 (BODY[TEXT])", "* 1 FETCH (BODY[TEXT] {6}\r\ntext\r\n FLAGS (\\Seen))\r\n"},
		{"FETCH 1 RFC822.TEXT", "* 1 FETCH (RFC822.TEXT {6}\r\ntext\r\n)\r\n"},
		{`STORE 1 -FLAGS (\Seen)`, "* 1 FETCH (FLAGS ())\r\n"},
		{"UID FETCH 1 (RFC822)", "* 1 FETCH (RFC822 {14}\r\nH: 1\r\n\r\ntext\r\n UID 1 FLAGS (\\Seen))\r\n"},
		{`STORE 1 FLAGS (\Answered $Work \Answered \Recent)`, "* 1 FETCH (FLAGS ($work \\Answered))\r\n"},
		{`UID STORE 1 FLAGS.SILENT ()`, ""},
	} {
		if strings.HasSuffix(step.command, "INBOX") {
			c.ok(step.command)
		} else {
			c.want(step.command, step.untagged)
		}
	}
}

func TestFetchSections(t *testing.T) {
	s := New()
	addr := start(t, s)
	add(t, s, "A: 1\r\nb: 2\r\n folded\r\nno field\r\nB : 3\r\n\r\n.text\r\n", "")
	c := login(t, addr, "EXAMINE INBOX")
	for _, tt := range []struct{ item, name, want string }{
		{"BODY.PEEK[]<0.4>", "BODY[]<0>", "A: 1"},
		{"BODY.PEEK[]<6.1>", "BODY[]<6>", "b"},
		{fmt.Sprintf("BODY.PEEK[TEXT]<1.%d>", math.MaxInt), "BODY[TEXT]<1>", "text\r\n"},
		{"BODY.PEEK[TEXT]<7.5>", "BODY[TEXT]<7>", ""},
		{"BODY.PEEK[TEXT]<700.5>", "BODY[TEXT]<700>", ""},
		{"BODY.PEEK[HEADER.FIELDS (B)]", "BODY[HEADER.FIELDS (B)]", "b: 2\r\n folded\r\nB : 3\r\n\r\n"},
		{"BODY.PEEK[HEADER.FIELDS.NOT (B)]", "BODY[HEADER.FIELDS.NOT (B)]", "A: 1\r\nno field\r\n\r\n"},
		{"BODY.PEEK[HEADER.FIELDS (X)]", "BODY[HEADER.FIELDS (X)]", "\r\n"},
	} {
		untagged := c.ok("FETCH 1 (" + tt.item + ")")
		if _, got, _ := strings.Cut(untagged, "}\r\n"); !strings.HasPrefix(untagged, "* 1 FETCH ("+tt.name+" {") ||
			got != tt.want+")\r\n" {
			t.Errorf("%s: %q", tt.item, untagged)
		}
	}
	c.want("FETCH 2 (RFC822.SIZE BODY.PEEK[] BODY.PEEK[HEADER])", "* 2 FETCH (RFC822.SIZE 0 BODY[] {0}\r\n BODY[HEADER] {0}\r\n)\r\n")
	for _, item := range []string{
		"ENVELOPE", "ALL", "BODY", "BODY[1]", "BODY[1.MIME]", "BODY[]<5>", "BODY[]<0.0>", "BODY[]<-1.5>", "FOO", "(())",
	} {
		c.refused("FETCH 1 "+item, "BAD")
	}
}

func TestViewIndexes(t *testing.T) {
	v := &view{uids: []uint32{10, 20, 30}}
	for _, tt := range []struct {
		uid  bool
		set  string
		want []int
	}{
		{false, "1:*", []int{0, 1, 2}},
		{false, "2", []int{1}},
		{false, "4", nil},
		{false, "3:9", []int{2}},
		{false, "*", []int{2}},
		{false, "9:*", []int{2}},
		{true, "1:*", []int{0, 1, 2}},
		{true, "10,30", []int{0, 2}},
		{true, "11:29", []int{1}},
		{true, "11:19", nil},
		{true, "30,31:*", []int{2}},
		{true, "4294967295", nil},
		{true, "*:20", []int{1, 2}},
	} {
		set, err := imap.ParseSeqSet(tt.set)
		if err != nil {
			t.Fatal(err)
		}
		if got := v.indexes(tt.uid, set); !slices.Equal(got, tt.want) {
			t.Errorf("indexes(%v, %s) = %v, want %v", tt.uid, tt.set, got, tt.want)
		}
	}
	if got := (&view{}).indexes(true, &imap.SeqSet{Set: []imap.Seq{{Start: 1}}}); got != nil {
		t.Errorf("1:* of an empty mailbox: %v", got)
	}
}

func TestSearch(t *testing.T) {
	s := New()
	addr := start(t, s)
	add(t, s, "Subject: One\r\nDate: Tue, 02 Jan 2024 03:04:05 +0000\r\n\r\nthe text\r\n", "no header", "")
	c := login(t, addr, "SELECT INBOX", `STORE 2 +FLAGS.SILENT (\Deleted \Seen)`, `STORE 3 +FLAGS.SILENT (\Deleted)`)
	for criteria, want := range map[string]string{
		"ALL":                               " 1 2 3",
		"DELETED":                           " 2 3",
		"UNDELETED":                         " 1",
		"DELETED UNSEEN":                    " 3",
		"OR UNDELETED SEEN":                 " 1 2",
		"NOT UID 2":                         " 1 3",
		"UID 2:*":                           " 2 3",
		"9:*":                               " 3",
		"SUBJECT one":                       " 1",
		"SUBJECT two":                       "",
		`HEADER Date ""`:                    " 1",
		"TEXT header":                       " 2",
		"BODY TEXT":                         " 1",
		"LARGER 9":                          " 1",
		"SMALLER 9":                         " 3",
		"SENTON 2-Jan-2024":                 " 1",
		"SENTBEFORE 2-Jan-2024":             "",
		"SINCE 1-Jan-1990":                  " 1 2 3",
		"BEFORE 1-Jan-1990":                 "",
		"UID 1,3 DELETED SINCE 1-Jan-1990 ": " 3",
	} {
		c.want("UID SEARCH "+criteria, "* SEARCH"+want+"\r\n")
	}
}

func TestAppendAndCopy(t *testing.T) {
	s := New()
	s.UIDValidity = 9
	addr := start(t, s)
	c := login(t, addr)
	if _, status := c.cmd("APPEND inbox (\\Seen) {3+}\r\na\nb"); status != "OK [APPENDUID 9 1] APPEND completed" {
		t.Errorf("APPEND: %s", status)
	}
	c.ok("SELECT INBOX")
	c.ok("COPY 1 INBOX")
	c.want("NOOP", "* 2 EXISTS\r\n")
	want := []Message{
		{UID: 1, Flags: []string{imap.SeenFlag}, Octets: []byte("a\nb")},
		{UID: 2, Flags: []string{imap.SeenFlag}, Octets: []byte("a\nb")},
	}
	if diff := cmp.Diff(want, s.Messages("demo")); diff != "" {
		t.Errorf("messages (-want +got):\n%s", diff)
	}
	for _, cmd := range []string{
		"APPEND Sent {1+}\r\nx", "COPY 1 Sent", "MOVE 1 INBOX", "CREATE Sent", "DELETE INBOX", "RENAME INBOX x", "SELECT Sent",
	} {
		c.refused(cmd, "NO")
	}
	c.want(`LIST "" *`, "* LIST (\\HasNoChildren) \"/\" INBOX\r\n")
	c.ok("SUBSCRIBE INBOX")
}
