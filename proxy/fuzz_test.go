package proxy_test

import (
	"io"
	"net/netip"
	"regexp"
	"slices"
	"strings"
	"testing"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// replyLine matches every line that a session of FuzzSession may send: status
// lines, challenges, capabilities and mechanisms, listings, and the lines of
// its messages. The input never appears in a reply.
var replyLine = regexp.MustCompile(`^(?:` +
	`\+OK(?: [ -Z\\-~]+)?` +
	`|-ERR (?:\[(?:AUTH|IN-USE|SYS/TEMP|SYS/PERM)\] )?[ -Z\\-~]+` +
	`|\+ [A-Za-z0-9+/]*=*` +
	`|TOP|UIDL|RESP-CODES|AUTH-RESP-CODE|PIPELINING|USER|SASL [A-Z0-9 -]+|STLS|UTF8 USER|PLAIN|LOGIN|XOAUTH2|OAUTHBEARER|CRAM-MD5|SCRAM-SHA-1|SCRAM-SHA-256` +
	`|[123] (?:1\.)?[0-9]+` +
	`|\.|body: [123]||\.\.dots|text` +
	`)$`)

// FuzzSession sends an input before or after login. It shows that every reply is
// well formed, that no error is unclassified, that the maildrop is not read before
// login, and that only QUIT in TRANSACTION removes messages, only marked ones.
func FuzzSession(f *testing.F) {
	for _, input := range []string{
		"CAPA\r\nAUTH\r\nNOOP\r\nQUIT\r\n",
		"USER alice\r\nPASS secret\r\nDELE 1\r\nQUIT\r\n",
		"USER alice\r\nPASS secret\r\nRETR 1\r\nTOP 2 1\r\nUIDL\r\nLIST\r\nRSET\r\nSTAT\r\n",
		"DELE 1\r\nDELE 3\r\nRSET\r\nDELE 2\r\nQUIT\r\n",
		"AUTH PLAIN AGFsaWNlAHNlY3JldA==\r\nRETR 2\r\n",
		"AUTH LOGIN\r\nYWxpY2U=\r\nc2VjcmV0\r\nLIST 1\nTOP 1 0\nQUIT",
		"AUTH PLAIN\r\n*\r\nAUTH PLAIN =\r\n\x00\r\n\r\r\n",
		"AUTH XOAUTH2 dXNlcj1hbGljZQFhdXRoPUJlYXJlciB4AQE=\r\n\r\nAUTH OAUTHBEARER\r\nbixhPWFsaWNlLAFhdXRoPUJlYXJlciBzZWNyZXQBAQ==\r\n",
		"AUTH CRAM-MD5\r\nYWxpY2UgMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA=\r\nAUTH SCRAM-SHA-1 biwsbj1hbGljZSxyPXg=\r\nYz1iaXdz\r\n",
		"UTF8\r\nSTLS\r\nUSER \u00e4\r\nPASS \xff\r\nCAPA\r\n",
		"STLS\r\nUSER alice\r\n\x16\x03\x01\x00\x05",
		strings.Repeat("x", 300) + "\r\nretr 18446744073709551617\r\n",
	} {
		f.Add(input, true)
		f.Add(input, false)
	}
	f.Fuzz(func(t *testing.T, input string, loggedIn bool) {
		fuzzSession(t, input, loggedIn)
	})
}

// FuzzBehindProxy sends an input where a PROXY header must come first. It shows
// O-PP-1: without one there is no reply.
func FuzzBehindProxy(f *testing.F) {
	for _, input := range []string{
		"CAPA\r\n",
		"PROXY TCP4 203.0.113.9 192.0.2.1 40000 110\r\nCAPA\r\nUSER alice\r\nPASS secret\r\n",
		"PROXY UNKNOWN\r\nQUIT\r\n",
		"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00NOOP\r\n",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x09\xc0\x00\x02\x01\x9c\x40\x00\x6eSTLS\r\n",
	} {
		f.Add(input)
	}
	opts := proxytest.Insecure
	opts.ProxyProtocolFrom = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	f.Fuzz(func(t *testing.T, input string) {
		log := new(proxytest.Log)
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: memory(), Logger: log.Logger()}, opts)
		conn := g.Dial().Conn.(*proxytest.Conn)
		_, _ = io.WriteString(conn, input) // the session may end before it has all
		_ = conn.CloseWrite()
		output, err := io.ReadAll(conn)
		if err != nil {
			t.Fatal(err)
		}
		checkOutput(t, string(output))
		header := strings.HasPrefix(input, "PROXY ") || strings.HasPrefix(input, "\r\n\r\n\x00\r\nQUIT\n")
		if len(output) > 0 && !header {
			t.Errorf("%q is answered by %q", input, output)
		}
		if got := log.String(); strings.Contains(got, "level=ERROR") {
			t.Errorf("log: %s", got)
		}
	})
}

func fuzzSession(t *testing.T, input string, loggedIn bool) {
	b := memory(
		proxytest.Stored{Body: []byte("body: 1\r\n\r\n.dots\r\ntext\r\n")},
		proxytest.Stored{Body: []byte("body: 2\n\ntext")},
		proxytest.Stored{Body: []byte("body: 3\r\n")})
	log := new(proxytest.Log)
	opts := proxytest.Insecure
	opts.Mode, opts.TLS = proxy.TLSStartTLS, serverTLS(t)
	g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b, Logger: log.Logger(), UTF8: true, Mechanisms: allMechanisms}, opts)
	conn := g.Dial().Conn.(*proxytest.Conn)
	prelude := ""
	if loggedIn {
		prelude = "USER alice\r\nPASS secret\r\n"
	}
	_, _ = io.WriteString(conn, prelude+input) // the session may end before it has all
	_ = conn.CloseWrite()
	output, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	checkOutput(t, string(output))
	if got := log.String(); strings.Contains(got, "level=ERROR") {
		t.Errorf("log: %s", got)
	}
	removed := b.Removed("alice")
	if len(removed) > 0 && !strings.Contains(string(output), " messages removed\r\n") {
		t.Errorf("removed %v without QUIT", removed)
	}
	for _, uid := range removed {
		if !slices.Contains(deleted(string(output)), uid) {
			t.Errorf("message %d was removed and never marked", uid)
		}
	}
	if c := b.Counts(); c.Reads > 0 && !strings.Contains(string(output), "+OK maildrop has") {
		t.Errorf("%d reads before login", c.Reads)
	}
}

// checkOutput checks each line that the client has received. A successful STLS is
// followed by TLS records.
func checkOutput(t *testing.T, output string) {
	t.Helper()
	output, records, tls := strings.Cut(output, "+OK begin TLS\r\n")
	if tls && len(records) > 0 && records[0] != 21 && records[0] != 22 {
		t.Errorf("after STLS: %q", records)
	}
	for output != "" {
		line, rest, found := strings.Cut(output, "\r\n")
		if !found || len(line) > 510 || !replyLine.MatchString(line) {
			t.Errorf("malformed reply %q", line)
		}
		output = rest
	}
}

// deleted returns the messages for which DELE succeeded.
func deleted(output string) []uint64 {
	var uids []uint64
	for _, m := range regexp.MustCompile(`\+OK message ([123]) deleted`).FindAllStringSubmatch(output, -1) {
		uids = append(uids, uint64(m[1][0]-'0'))
	}
	return uids
}
