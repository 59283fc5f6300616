//go:build integration

package servertest_test

import (
	"bufio"
	"bytes"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"popgate/imapbackend"
	"popgate/imapbackend/dovecottest"
	"popgate/imapbackend/servertest"
	"popgate/proxy/proxytest"
)

const fromLines = "From at the start of a line"

// unusual are messages that servers and gateways stumble over.
var unusual = []struct{ name, body string }{
	{"an ordinary message", "\r\nHello.\r\n"},
	{fromLines, "\r\nFrom the start\r\n>From another\r\nFrom \r\n"},
	{"no empty line", ""},
	{"an empty body", "\r\n"},
	{"no final line end", "\r\nThe last line is not ended."},
	{"dots", "\r\n.\r\n..\r\n.a\r\ntext\r\n.\r\n.\r\n"},
	{"empty lines", "\r\n\r\n\r\ntext\r\n\r\n\r\n\r\n"},
	{"a long line", "\r\n" + strings.Repeat("0123456789", 2000) + "\r\nend\r\n"},
	{"many lines", "\r\n" + strings.Repeat("The quick brown fox jumps over the lazy dog.\r\n", 3000)},
	{"8 bit", "MIME-Version: 1.0\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGr\xfc\xdfe aus K\xf6ln \xff\xfe\x80\r\n"},
	{"a line end in the middle of nothing: bare CR", "\r\none\rtwo\r\n"},
	{"bare LF", "\r\none\ntwo\n\n.\nfour\r\n"},
	{"NUL", "\r\none\x00two\r\n"},
}

// appendUnusual gives a new user the unusual messages, except those that the
// server is known to refuse. It returns the user, and the messages as the server
// delivers them by IMAP, in the order of their UIDs.
func appendUnusual(t *testing.T, s *servertest.Server) (user string, stored []dovecottest.Message) {
	t.Helper()
	user = s.NewUser()
	c := s.Login(user)
	for i, m := range unusual {
		if limited(s, servertest.MiscountsOctets) && m.name == fromLines {
			continue
		}
		octets := fmt.Appendf(nil, "From: a@popgate.test\r\nTo: b@popgate.test\r\nSubject: %s\r\n"+
			"Date: Mon, 05 Jan 2026 10:00:00 +0000\r\nMessage-ID: <unusual%d@popgate.test>\r\n%s", m.name, i, m.body)
		accepted := c.TryAppend("INBOX", octets)
		if refused := slices.Contains(s.Refuses(), m.name); accepted == refused {
			t.Errorf("%s: accepted is %v, but refused is what kinds.go says: %v", m.name, accepted, refused)
		}
	}
	c.Select("INBOX") // after which the messages have been seen
	c.Logout()
	return user, s.Messages(user)
}

// checkMessages compares RETR and TOP with what the server delivers by IMAP
// (P-RETR-3, P-TOP-2, P-TOP-3).
func checkMessages(t *testing.T, s *servertest.Server) {
	user, stored := appendUnusual(t, s)
	divided := parts(t, s, user)
	wrong := false
	for i, m := range stored {
		wrong = wrong || !bytes.Equal(divided[i].octets(), m.Octets)
	}
	wantLimit(t, s, servertest.DividesWrongly, wrong)
	wantLimit(t, s, servertest.MiscountsOctets, miscounts(t, s))
	wantLimit(t, s, servertest.AddsFields, addsFields(s))
	g := serve(t, s, nil)
	for range 2 {
		c := g.session(user)
		for i, m := range stored {
			n := i + 1
			whole := string(dovecottest.Expected(m.Octets))
			wantOctets(t, fmt.Sprintf("RETR %d", n), c.Fetch(fmt.Sprintf("RETR %d", n)), whole)
			for _, k := range []int{0, 3, 1 << 20} {
				top := fmt.Sprintf("TOP %d %d", n, k)
				got := c.Fetch(top)
				if wrong && got == topOf(string(dovecottest.Expected(divided[i].octets())), k) {
					continue
				}
				wantOctets(t, top, got, topOf(whole, k))
			}
		}
		g.quit(t, c)
	}
}

// addsFields reports that a message has other octets after a session than before.
func addsFields(s *servertest.Server) bool {
	user := seeded(s, 1)
	before := s.Messages(user)
	c := s.Login(user)
	c.Select("INBOX")
	c.Logout()
	after := s.Messages(user)
	return !bytes.Equal(before[0].Octets, after[0].Octets)
}

// topOf returns the header of a message and k lines of its body.
func topOf(message string, k int) string {
	header, body, divided := strings.Cut(message, "\r\n\r\n")
	if !divided {
		return message
	}
	lines := slices.Collect(strings.Lines(body))
	return header + "\r\n\r\n" + strings.Join(lines[:min(k, len(lines))], "")
}

// divided is a message in two parts.
type divided struct{ header, text []byte }

func (d divided) octets() []byte { return slices.Concat(d.header, d.text) }

var section = regexp.MustCompile(`BODY\[(HEADER|TEXT)\] (?:(\{\d+\})|"([^"]*)"|NIL)`)

// parts returns the messages in the order of their UIDs, as the server divides
// them.
func parts(t *testing.T, s *servertest.Server, user string) []divided {
	t.Helper()
	c := s.Login(user)
	c.Examine("INBOX")
	var all []divided
	for _, m := range c.Fetch(false) {
		var d divided
		for _, r := range c.Command("UID FETCH %d (UID BODY.PEEK[HEADER] BODY.PEEK[TEXT])", m.UID) {
			literals := r.Literals
			for _, found := range section.FindAllStringSubmatch(r.Text, -1) {
				octets := []byte(found[3])
				if found[2] != "" {
					octets, literals = literals[0], literals[1:]
				}
				if found[1] == "HEADER" {
					d.header = octets
				} else {
					d.text = octets
				}
			}
		}
		all = append(all, d)
	}
	c.Logout()
	return all
}

// miscounts reports that the octets of a literal are not those that the server
// announces. It reads a message with lines that begin with From after a part of
// it, as a line of text: a reader of literals would wait for what never comes.
func miscounts(t *testing.T, s *servertest.Server) bool {
	t.Helper()
	user := seeded(s, 1)
	s.Append(user, []byte("From: a@popgate.test\r\nTo: b@popgate.test\r\nSubject: From\r\n"+
		"Date: Mon, 05 Jan 2026 10:00:00 +0000\r\n\r\nFrom the start\r\n>From another\r\nFrom \r\n"))
	conn, err := net.Dial("tcp", s.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(proxytest.Patience)); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(conn)
	answer := ""
	for i, command := range []string{
		fmt.Sprintf("LOGIN %q %q", user, s.Password),
		"SELECT INBOX",
		"FETCH 2 (BODY.PEEK[])",
		"FETCH 2 (BODY.PEEK[HEADER] BODY.PEEK[TEXT]<0.1024>)",
		"FETCH 2 (BODY.PEEK[])",
	} {
		tag := fmt.Sprintf("A%d ", i)
		if _, err := fmt.Fprintf(conn, "%s%s\r\n", tag, command); err != nil {
			t.Fatal(err)
		}
		answer = ""
		for !strings.HasPrefix(answer[strings.LastIndex(strings.TrimSuffix(answer, "\n"), "\n")+1:], tag) {
			line, err := lines.ReadString('\n')
			if err != nil {
				t.Fatalf("%s: %v after %q", command, err, answer)
			}
			answer += line
		}
	}
	start := literal.FindStringSubmatchIndex(answer)
	if start == nil {
		t.Fatalf("no literal in %q", answer)
	}
	announced, err := strconv.Atoi(answer[start[2]:start[3]])
	if err != nil {
		t.Fatal(err)
	}
	rest := answer[start[1]:]
	return announced > len(rest) || !strings.HasPrefix(rest[announced:], ")") && !strings.HasPrefix(rest[announced:], " ")
}

var literal = regexp.MustCompile(`BODY\[\] \{(\d+)\}\r\n`)

// wantOctets reports the first difference.
func wantOctets(t *testing.T, what, got, want string) {
	t.Helper()
	if got == want {
		return
	}
	i := 0
	for i < min(len(got), len(want)) && got[i] == want[i] {
		i++
	}
	part := func(s string) string { return s[max(0, i-40):min(len(s), i+80)] }
	t.Errorf("%s differs at octet %d: %q, want %q (%d octets, want %d)", what, i, part(got), part(want), len(got), len(want))
}

// checkSizes compares LIST with the octets of RETR: with sizes = "exact" from the
// start, else as soon as the message has been delivered once (I-SIZE-2, I-SIZE-3,
// I-SIZE-4).
func checkSizes(t *testing.T, s *servertest.Server) {
	user, _ := appendUnusual(t, s)
	exact := serve(t, s, func(o *imapbackend.Options) { o.Sizes = imapbackend.SizesExact })
	c := exact.session(user)
	announced := c.Fetch("LIST")
	if got := received(c); got != announced {
		t.Errorf(`sizes = "exact": LIST says`+"\n%s, RETR delivers\n%s", announced, got)
	}
	exact.quit(t, c)

	reported := serve(t, s, nil)
	c = reported.session(user)
	before := received(c)
	reported.quit(t, c)
	c = reported.session(user)
	if announced := c.Fetch("LIST"); announced != before {
		t.Errorf(`sizes = "reported": LIST says`+"\n%s, RETR has delivered\n%s", announced, before)
	}
	reported.quit(t, c)
}

// received returns the octets of all messages, in the form of LIST.
func received(c client) string {
	var b bytes.Buffer
	for n := range strings.Count(c.Fetch("LIST"), "\n") {
		fmt.Fprintf(&b, "%d %d\r\n", n+1, len(c.Fetch(fmt.Sprintf("RETR %d", n+1))))
	}
	return b.String()
}

type client interface{ Fetch(command string) string }
