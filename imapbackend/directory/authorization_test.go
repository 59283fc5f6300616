package directory

import (
	"errors"
	"strings"
	"testing"

	"popgate/proxy"
)

// A password of a lookup is sent only with the name for which the lookup has
// verified the client's: never with another that the client has chosen as its
// authentication identity (P-PASS-5).
func TestPasswordOfAnotherName(t *testing.T) {
	s := newAuthServer(t, says(200, "Auth-Status: OK", "Auth-Pass: secret", "Auth-User: eve2", "X-Popgate-Upstream: north"))
	for _, test := range []struct{ authzid, user, asked, err string }{
		{"", "eve", "/eve2", ""},
		{"eve", "eve", "eve2/eve2", ""},
		{"eve", "bob", "", "directory: the password of the lookup is for the authorization identity"},
	} {
		l := lookupOf(t, s.URL, func(o *LookupOptions) { o.SendPassword = true })
		north := newFake("eve2", "bob")
		d := New([]Upstream{{"north", north, nil}, {"south", newFake(), nil}}, nil, l)
		_, err := d.Login(t.Context(), proxy.Credential{Authzid: test.authzid, Username: test.user, Password: "eve's own"})
		if got := strings.Join(north.asked, ","); got != test.asked {
			t.Errorf("%q for %q: upstream asked for %q, want %q", test.user, test.authzid, got, test.asked)
		}
		if test.err != "" && (!errors.Is(err, proxy.ErrAuth) || !strings.Contains(err.Error(), test.err)) {
			t.Errorf("%q for %q: %v, want %s", test.user, test.authzid, err, test.err)
		}
	}
}

// Who authenticates for himself, and says so, has one name at the upstream (P-PASS-5).
func TestOwnAuthorizationIdentity(t *testing.T) {
	d, _, south := two(t)
	_, _ = d.Login(t.Context(), proxy.Credential{Authzid: "bob@south.example", Username: "bob@south.example", Password: "secret"})
	if got := strings.Join(south.asked, ","); got != "bob/bob" {
		t.Errorf("upstream asked for %q", got)
	}
}
