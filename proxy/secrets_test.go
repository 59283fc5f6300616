package proxy_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

const marker = "s3cr3t-Marker"

// TestNoSecretInLog shows O-LOG-1: no log record contains a secret, even at level
// debug, whatever mistake a client makes in sending it.
func TestNoSecretInLog(t *testing.T) {
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	plain := b64("\x00alice\x00" + marker)
	xoauth2 := b64("user=alice\x01auth=Bearer " + marker + "\x01\x01")
	bearer := b64("n,a=alice,\x01auth=Bearer " + marker + "\x01\x01")
	for _, tt := range []struct {
		name  string
		fault error
		input string
	}{
		{"USER and PASS", nil, "USER alice\r\nPASS " + marker + "\r\nPASS " + marker + "\r\nQUIT\r\n"},
		{"right password", nil, "USER bob\r\nPASS " + marker + "\r\nPASS " + marker + "\r\n" + marker + "\r\nLIST " + marker + "\r\nQUIT\r\n"},
		{"PASS first", nil, "PASS " + marker + "\r\nPASS" + marker + "\r\nPASSWORD " + marker + "\r\n pass " + marker + "\r\n"},
		{"password alone", nil, "USER alice\r\n" + marker + "\r\n" + marker + " x\r\n"},
		{"as argument", nil, "USER alice\r\nSTAT " + marker + "\r\nQUIT " + marker + "\r\nCAPA " + marker + "\r\n"},
		{"with NUL", nil, "USER alice\r\nPASS " + marker + "\x00\r\nPASS \r" + marker + "\r\n"},
		{"too long", nil, "USER alice\r\nPASS " + marker + strings.Repeat("x", 20000) + "\r\nUSER " + marker + strings.Repeat("x", 300) + "\r\n"},
		{"without line end", nil, "USER alice\r\nPASS " + marker},
		{"APOP", nil, "APOP alice " + marker + "\r\n"},
		{"AUTH PLAIN", nil, "AUTH PLAIN " + plain + "\r\nAUTH PLAIN\r\n" + plain + "\r\nQUIT\r\n"},
		{"AUTH without mechanism", nil, "AUTH " + marker + "\r\nAUTH PLAIN " + marker + "\r\nAUTH PLAIN " + marker + " " + marker + "\r\n"},
		{"AUTH refused", nil, "AUTH CRAM-MD5\r\n" + plain + "\r\n" + marker + "\r\nAUTH XOAUTH2 " + plain + "\r\n"},
		{"AUTH cancelled", nil, "AUTH LOGIN\r\n" + b64("alice") + "\r\n*\r\n" + b64(marker) + "\r\n"},
		{"AUTH LOGIN", nil, "AUTH LOGIN\r\n" + b64("alice") + "\r\n" + b64(marker) + "\r\nAUTH LOGIN\r\n" + marker + "\r\n"},
		{"XOAUTH2", nil, "AUTH XOAUTH2 " + xoauth2 + "\r\n\r\nAUTH XOAUTH2\r\n" + xoauth2 + "\r\n*\r\nAUTH XOAUTH2 " + b64(marker) + "\r\n"},
		{"OAUTHBEARER", nil, "AUTH OAUTHBEARER " + bearer + "\r\n" + bearer + "\r\nAUTH OAUTHBEARER " + b64("n,a="+marker) + "\r\n"},
		{"OAUTHBEARER, upstream down", proxytestError, "AUTH OAUTHBEARER " + bearer + "\r\nAUTH XOAUTH2 " + xoauth2 + "\r\n"},
		{"CRAM-MD5", nil, "AUTH CRAM-MD5\r\n" + b64("alice "+marker) + "\r\nAUTH CRAM-MD5 " + plain + "\r\n" + marker + "\r\n"},
		{"SCRAM", nil, "AUTH SCRAM-SHA-1 " + b64("n,,n=alice,r="+marker) + "\r\n" + b64(marker) + "\r\n"},
		{"no base64", nil, "AUTH PLAIN\r\n" + marker + "!\r\nAUTH PLAIN\r\n" + marker + "\x00\r\n"},
		{"no valid message", nil, "AUTH PLAIN " + b64(marker) + "\r\nAUTH PLAIN " + b64("\x00\x00"+marker) + "\r\n"},
		{"upstream down", proxytestError, "USER alice\r\nPASS " + marker + "\r\nAUTH PLAIN " + plain + "\r\n"},
		{"unclassified", errors.New("fault"), "USER alice\r\nPASS " + marker + "\r\nAUTH PLAIN " + plain + "\r\n"},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := memory()
			b.AddAccount("bob", marker, false)
			b.SetFaults(proxytest.Faults{Login: tt.fault})
			log := new(proxytest.Log)
			g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b, Logger: log.Logger(), LoginAttempts: 100, Mechanisms: allMechanisms}, proxytest.Insecure)
			p := g.Dial()
			p.Write(tt.input)
			synctest.Wait()
			_ = p.Conn.Close()
			synctest.Wait()
			got := log.String()
			for _, secret := range []string{marker, b64(marker), strings.TrimRight(b64(marker), "="), plain, plain[8:], xoauth2[:20], bearer[:20]} {
				if strings.Contains(got, secret) {
					t.Errorf("%s: %q is in the log:\n%s", tt.name, secret, got)
				}
			}
			if !strings.Contains(got, "msg=session") || !strings.Contains(got, "msg=command") {
				t.Errorf("%s: records are missing:\n%s", tt.name, got)
			}
		})
	}
}

var proxytestError = &proxy.Error{Code: proxy.CodeSysTemp, Text: "mail server not reachable", Err: errors.New("refused")}

// TestUserEscaped shows O-LOG-1: a user name cannot forge a record.
func TestUserEscaped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(proxytest.Log)
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: memory(), Logger: log.Logger()}, proxytest.Insecure)
		p := g.Dial()
		p.Greeting()
		name := "a\nlevel=ERROR msg=forged\x1b[31m"
		p.Do("AUTH PLAIN "+base64.StdEncoding.EncodeToString([]byte("\x00"+name+"\x00p")), "-ERR [AUTH]")
		p.Do("QUIT", "+OK")
		p.Closed()
		synctest.Wait()
		if got := log.String(); !strings.Contains(got, `user="a\nlevel=ERROR msg=forged\x1b[31m"`) || strings.Contains(got, "\nlevel") {
			t.Errorf("log: %s", got)
		}
	})
}

// TestUnknownInLog shows O-LOG-1: of an unknown command, and of any line after a
// failed AUTH, only the length is logged.
func TestUnknownInLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(proxytest.Log)
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: memory(), Logger: log.Logger()}, proxytest.Insecure)
		p := g.Dial()
		p.Greeting()
		p.Do("HELLO world", "-ERR")
		p.Do("CAPA", "+OK")
		p.Body()
		p.Do("AUTH NONE", "-ERR")
		p.Do("RSET", "-ERR") // could be a base64 response
		p.Do("USER alice", "+OK")
		p.Do("PASS secret", "+OK")
		p.Do("STAT", "+OK")
		_ = p.Conn.Close()
		synctest.Wait()
		var verbs []string
		for line := range strings.Lines(log.String()) {
			if _, rest, found := strings.Cut(line, "msg=command session="); found {
				verb, octets := "", 0
				_, rest, _ = strings.Cut(rest, "verb=")
				_, _ = fmt.Sscanf(rest, "%s", &verb)
				if _, tail, found := strings.Cut(rest, "octets="); found {
					_, _ = fmt.Sscanf(tail, "%d", &octets)
				}
				verbs = append(verbs, fmt.Sprintf("%s %d", verb, octets))
			}
		}
		want := "unknown 11, CAPA 0, AUTH 0, unknown 4, unknown 10, PASS 0, STAT 0"
		if got := strings.Join(verbs, ", "); got != want {
			t.Errorf("verbs: %s, want %s", got, want)
		}
	})
}
