package main

import (
	"encoding/base64"
	"encoding/hex"
	"net/url"
	"strings"
	"testing"

	"popgate/proxy"
)

// O-CHECK-1: a transcript has the dialogue, and neither password, nor name, nor
// message, in whatever form they occur and wherever the dialogue is cut.
func TestTranscript(t *testing.T) {
	const password, user = `se"cr\et zebra`, "joe@example.com"
	const quoted = `se\"cr\\et zebra`
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + user + "\x00" + password))
	authzid := base64.StdEncoding.EncodeToString([]byte(user + "\x00" + user + "\x00" + password))
	for name, tt := range map[string]struct{ sent, received, want string }{
		"initial response": {"P1 AUTHENTICATE PLAIN " + plain + "\r\nP2 STATUS INBOX (MAILBOXID)\r\n", "P1 OK " + password + " " + plain + " " + authzid + "\r\n",
			"C: P1 AUTHENTICATE PLAIN ***\nC: P2 STATUS INBOX (MAILBOXID)\nS: P1 OK *** "},
		"challenge": {"P1 AUTHENTICATE PLAIN\r\n" + plain + "\r\n", "+ " + password + "\r\nP1 NO [ALERT] no " + quoted + "\r\n",
			"C: P1 AUTHENTICATE PLAIN\nC: ***\nS: + ***\nS: P1 NO [ALERT] no ***\n"},
		"quoted":   {"P1 LOGIN \"" + user + "\" \"" + quoted + "\"\r\n", "P1 BAD LOGIN " + user + " " + strings.ToUpper(quoted) + "\r\n", "C: P1 LOGIN ***\nS: P1 BAD LOGIN USER ***\n"},
		"literals": {"P1 LOGIN {15}\r\n" + user + " {16+}\r\n" + password + "\r\n", "+ go\r\n* BYE " + hex.EncodeToString([]byte(password)) + "\r\n", "C: P1 LOGIN ***\nC: ***\nC: ***\nS: + ***\nS: * BYE ***\n"},
		"URL":      {"P1 NOOP\r\n", "* OK " + url.QueryEscape(password) + " " + url.PathEscape(password) + "\r\n", "C: P1 NOOP\nS: * OK *** ***\n"},
		"messages": {"P1 UID FETCH 7 (UID BODY.PEEK[HEADER])\r\n", "* 1 FETCH (UID 7 BODY[HEADER] {20}\r\nSubject: private\r\n\r\n)\r\n* 2 FETCH (BODY[HEADER]<0.9> \"Subject: \\\"private\")\r\nP1 OK x\r\n",
			"C: P1 UID FETCH 7 (UID BODY.PEEK[HEADER])\nS: * 1 FETCH (UID 7 BODY[HEADER] {20} [octets left out]\nS: )\nS: * 2 FETCH (BODY[HEADER]<0.9> \"***\")\nS: P1 OK x\n"},
		"cut off":   {"P1 NOOP\r\n", "* OK x\r\n* BYE " + password[:8], "C: P1 NOOP\nS: * OK x\n"},
		"long line": {"P1 NOOP\r\n", "* OK " + strings.Repeat("x", maxSeen) + password + "\r\n", "S: * OK xxx"},
	} {
		for _, step := range []int{1, 2, 7, 1 << 20} {
			var out strings.Builder
			tr := newTranscript(&out, &proxy.Credential{Username: user, Password: password})
			tap := tr.tap()
			inSteps(tt.sent, step, tap.Sent)
			inSteps(tt.received, step, tap.Received)
			if err := tr.close(); err != nil {
				t.Error(err)
			}
			got := out.String()
			if !strings.Contains(got, tt.want) {
				t.Errorf("%s, %d octets at a time: %s\nwant %s", name, step, got, tt.want)
			}
			for _, secret := range []string{"zebra", "joe", "private", plain, authzid, plain[8:30], authzid[24:44]} {
				if strings.Contains(strings.ToLower(got), strings.ToLower(secret)) {
					t.Errorf("%s, %d octets at a time: %q is in it: %s", name, step, secret, got)
				}
			}
		}
	}
}

// inSteps calls f with n octets of s at a time.
func inSteps(s string, n int, f func([]byte)) {
	for len(s) > 0 {
		n = min(n, len(s))
		f([]byte(s[:n]))
		s = s[n:]
	}
}

// O-CHECK-1: the password is found in base64 at each distance from its start.
func TestTranscriptBase64(t *testing.T) {
	for before := range 9 {
		for _, password := range []string{"secret word", "p4ss", "\u00fc\u00e9\u00e5x!"} {
			s := textsOf(password)
			text := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("a", before) + password + "\x01\x01"))
			if !s.MatchString(text) {
				t.Errorf("%q after %d octets is not found in %s", password, before, text)
			}
		}
	}
}
