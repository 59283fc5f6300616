package proxy_test

import (
	"context"
	"encoding/base64"
	"strings"
	"testing"
	"testing/synctest"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// recorder is a Backend that refuses all logins and records their credentials.
type recorder struct{ got []proxy.Credential }

func (r *recorder) Login(_ context.Context, cred proxy.Credential) (proxy.Login, error) {
	r.got = append(r.got, cred)
	return nil, proxy.ErrAuth
}

// TestCredential shows P-USER-2, P-PASS-2, P-UTF8-2 (8-bit octets without UTF8),
// P-AUTH-5, P-AUTH-6 and P-AUTH-7: names and passwords reach the Backend
// unchanged.
func TestCredential(t *testing.T) {
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	long := strings.Repeat("x", 255)
	for _, tt := range []struct {
		input string
		want  proxy.Credential
	}{
		{"USER alice\r\nPASS secret\r\n", proxy.Credential{Username: "alice", Password: "secret"}},
		{"user  a b@c \r\npass  two words  \r\n", proxy.Credential{Username: " a b@c ", Password: " two words  "}},
		{"USER gr\xfc\xdfe\r\nPASS \xe4\t\x7f\r\n", proxy.Credential{Username: "gr\xfc\xdfe", Password: "\xe4\t\x7f"}},
		{"USER a\nPASS [AUTH] *\n", proxy.Credential{Username: "a", Password: "[AUTH] *"}},
		{"AUTH PLAIN " + b64("z\x00a b\x00 p\xff\"\r\n") + "\r\n", proxy.Credential{Authzid: "z", Username: "a b", Password: " p\xff\"\r\n"}},
		{"AUTH PLAIN " + b64("\x00a\"\r\nA2 DELETE x\x00p") + "\r\n", proxy.Credential{Username: "a\"\r\nA2 DELETE x", Password: "p"}},
		{"AUTH PLAIN\r\n" + b64(long+"\x00"+long+"\x00"+long) + "\r\n", proxy.Credential{Authzid: long, Username: long, Password: long}},
		{"AUTH LOGIN\r\n" + b64("gr\u00fc\u00dfe") + "\r\n" + b64(" p ") + "\r\n", proxy.Credential{Username: "gr\u00fc\u00dfe", Password: " p "}},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := new(recorder)
			g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: r}, proxytest.Insecure)
			p := g.Dial()
			p.Greeting()
			p.Write(tt.input)
			synctest.Wait()
			tt.want.Attempt = 1
			if len(r.got) != 1 || r.got[0] != tt.want {
				t.Errorf("%q: got %+v, want %+v", tt.input, r.got, tt.want)
			}
		})
	}
}
