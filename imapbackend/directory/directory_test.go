package directory

import (
	"context"
	"errors"
	"strings"
	"testing"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// fake is an upstream in memory that records which names it was asked for.
type fake struct {
	*proxytest.Backend
	asked    []string // authzid/username, or prepare
	prepared int      // connections made in advance that are open
}

func newFake(users ...string) *fake {
	f := &fake{Backend: proxytest.NewBackend()}
	for _, u := range users {
		f.AddAccount(u, "secret", false)
	}
	return f
}

func (f *fake) Login(ctx context.Context, cred proxy.Credential) (proxy.Login, error) {
	f.asked = append(f.asked, cred.Authzid+"/"+cred.Username)
	return f.Backend.Login(ctx, cred)
}

func (f *fake) Exchange(ctx context.Context, ex *proxy.Exchange) (proxy.Login, error) {
	f.asked = append(f.asked, ex.Authzid+"/"+ex.Username)
	return f.Backend.Exchange(ctx, ex)
}

func (f *fake) Prepare(_ context.Context, c proxy.Caller) proxy.Prepared {
	f.asked = append(f.asked, "prepare "+c.Username)
	f.prepared++
	return &fakePrepared{f}
}

type fakePrepared struct{ *fake }

func (p *fakePrepared) Login(ctx context.Context, cred proxy.Credential) (proxy.Login, error) {
	p.prepared--
	return p.fake.Login(ctx, cred)
}

func (p *fakePrepared) Exchange(ctx context.Context, ex *proxy.Exchange) (proxy.Login, error) {
	p.prepared--
	return p.fake.Exchange(ctx, ex)
}

func (p *fakePrepared) Close() { p.prepared-- }

// two returns a Directory over the upstreams north and south. South's users have
// names without a domain.
func two(t *testing.T) (d *Directory, north, south *fake) {
	t.Helper()
	north, south = newFake("ann@north.example"), newFake("bob", "carol")
	routes, err := NewRoutes([]Route{
		{Match: "*@north.example", Upstream: "north"},
		{Match: "*@south.example", Upstream: "south", User: "{local}"},
		{Match: "carol", Upstream: "south"},
	})
	if err != nil {
		t.Fatal(err)
	}
	d = New([]Upstream{{"north", north, []string{"XOAUTH2"}}, {"south", south, nil}}, nil, routes)
	return d, north, south
}

// Each login is asked of its upstream only, under its name there; an unknown one of
// none, and looks like a wrong password (P-PASS-5). What a client sends is no host
// name (O-DISC-1).
func TestDirectory(t *testing.T) {
	tests := []struct {
		name         string
		cred         proxy.Credential
		want         string // the error, "" for none
		north, south string // what is asked
	}{
		{"whole name", proxy.Credential{Username: "ann@north.example", Password: "secret"}, "", "/ann@north.example", ""},
		{"rewritten", proxy.Credential{Username: "bob@South.Example", Password: "secret"}, "", "", "/bob"},
		{"full width", proxy.Credential{Username: "ｂｏｂ＠south.example", Password: "secret"}, "", "", "/bob"},
		{"exact", proxy.Credential{Username: "carol", Password: "secret"}, "", "", "/carol"},
		{"wrong password", proxy.Credential{Username: "bob@south.example", Password: "x"},
			"[AUTH] authentication failed: upstream south: refused", "", "/bob"},
		{"no route", proxy.Credential{Username: "eve@elsewhere.example", Password: "secret"},
			"[AUTH] authentication failed: directory: unknown login name", "", ""},
		{"no name left", proxy.Credential{Username: "@south.example", Password: "secret"},
			"[AUTH] authentication failed: directory: nothing is left of the login name for the upstream", "", ""},
		{"host of the client's choice", proxy.Credential{Username: "bob@127.0.0.1:993", Password: "secret"},
			"[AUTH] authentication failed: directory: unknown login name", "", ""},
		{"authorization identity", proxy.Credential{Authzid: "bob@south.example", Username: "admin@north.example", Password: "x"},
			"[AUTH] authentication failed: upstream south: refused", "", "bob/admin@north.example"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d, north, south := two(t)
			l, err := d.Login(t.Context(), test.cred)
			check(t, l, err, test.want)
			if err != nil && !errors.Is(err, proxy.ErrAuth) {
				t.Errorf("%v does not look like a wrong password", err)
			}
			if got := strings.Join(north.asked, ","); got != test.north {
				t.Errorf("north is asked for %q, want %q", got, test.north)
			}
			if got := strings.Join(south.asked, ","); got != test.south {
				t.Errorf("south is asked for %q, want %q", got, test.south)
			}
		})
	}
}

func check(t *testing.T, l proxy.Login, err error, want string) {
	t.Helper()
	got := ""
	if err != nil {
		got = err.Error()
	}
	if got != want || (l == nil) != (err != nil) {
		t.Errorf("login %v, error %q, want %q", l, got, want)
	}
}

// The names of one account have one AccountName, and no others have it. It is where a
// login goes to, and the name there, not the one of the client (P-PASS-6).
func TestAccountName(t *testing.T) {
	routes, err := NewRoutes([]Route{
		{Match: "*@north.example", Upstream: "north", User: "{local}"},
		{Match: "*@south.example", Upstream: "south", User: "{local}"},
		{Match: "*@*", Upstream: "south"},
		{Match: "*", Upstream: "north"},
	})
	if err != nil {
		t.Fatal(err)
	}
	upstreams := []Upstream{{Name: "north", Backend: newFake()}, {Name: "south", Backend: newFake()}}
	d := New(upstreams, nil, routes)
	for _, tt := range []struct {
		authzid, username, want string
	}{
		{"", "joe", "north\x00joe"},
		{"", " JOE ", "north\x00joe"},
		{"", "joe@north.example", "north\x00joe"},
		{"", " Joe @North.Example", "north\x00joe"},
		{"", "\uff4aoe@north.example", "north\x00joe"}, // full width
		{"", "jo\u00ade@north.example", "north\x00joe"},
		{"", "joe@south.example", "south\x00joe"},
		{"", "joe@elsewhere.example", "south\x00joe@elsewhere.example"},
		{"ann@south.example", "joe", "south\x00joe"},
		{"ann", "joe@north.example", "north\x00joe@north.example"}, // it is not changed
		{"", "@north.example", "@north.example"},                   // goes nowhere
	} {
		if got := d.AccountName(tt.authzid, tt.username); got != tt.want {
			t.Errorf("%q %q: %q, want %q", tt.authzid, tt.username, got, tt.want)
		}
	}
	if got := New(upstreams[:1], nil).AccountName("", "Joe"); got != "north\x00joe" {
		t.Errorf("at the only upstream: %q", got)
	}
	// A resolver that has to ask does not: the name counts as it is.
	if got := New(upstreams, nil, NewLookup(LookupOptions{URL: "http://127.0.0.1:9/"}), routes).AccountName("", "Joe@North.example "); got != "joe@north.example" {
		t.Errorf("with a lookup: %q", got)
	}
}

// A connection is made in advance to the upstream of the name alone, and serves a
// login only there; none remains open.
func TestPrepare(t *testing.T) {
	tests := []struct{ name, known, login, north, south string }{
		{"as expected", "bob@south.example", "bob@south.example", "", "prepare bob,/bob"},
		{"another upstream", "bob@south.example", "ann@north.example", "/ann@north.example", "prepare bob"},
		{"then unknown", "bob@south.example", "eve", "", "prepare bob"},
		{"unknown", "eve", "carol", "", "/carol"},
		{"no name yet", "", "carol", "", "/carol"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			d, north, south := two(t)
			logIn := d.Login
			if p := d.Prepare(t.Context(), proxy.Caller{Username: test.known}); p != nil {
				logIn = p.Login
			}
			_, err := logIn(t.Context(), proxy.Credential{Username: test.login, Password: "secret"})
			if (err != nil) != (test.login == "eve") {
				t.Errorf("login: %v", err)
			}
			if got := strings.Join(north.asked, ","); got != test.north {
				t.Errorf("north is asked for %q, want %q", got, test.north)
			}
			if got := strings.Join(south.asked, ","); got != test.south {
				t.Errorf("south is asked for %q, want %q", got, test.south)
			}
			if north.prepared+south.prepared != 0 {
				t.Error("a connection made in advance is left")
			}
		})
	}
}

// P-SASL-5: a token goes to the upstream of its name if that lists the mechanism;
// nothing is relayed where the name decides.
func TestDirectoryExchange(t *testing.T) {
	token := func(user string) *proxy.Exchange {
		return &proxy.Exchange{Mechanism: "XOAUTH2", Username: user, Authorization: "Bearer secret"}
	}
	for _, prepared := range []bool{false, true} {
		d, north, south := two(t)
		exchange := func(ex *proxy.Exchange) (proxy.Login, error) {
			if p := d.Prepare(t.Context(), proxy.Caller{Username: ex.Username}); prepared && p != nil {
				return p.(proxy.PreparedExchanger).Exchange(t.Context(), ex)
			} else if p != nil {
				p.Close()
			}
			return d.Exchange(t.Context(), ex)
		}
		l, err := exchange(token("ann@north.example"))
		check(t, l, err, "")
		l, err = exchange(token("bob@south.example"))
		check(t, l, err, "[AUTH] authentication failed: upstream south: directory: the mechanism is not among those of the upstream")
		if d.Offers("CRAM-MD5", proxy.Caller{}) {
			t.Error("CRAM-MD5 is offered")
		}
		if north.prepared+south.prepared != 0 {
			t.Error("a connection made in advance is left")
		}
	}
}

// The only upstream gets every name as it is, and relays what it offers.
func TestOnlyUpstream(t *testing.T) {
	f := newFake("ann@north.example")
	d := New([]Upstream{{"north", f, nil}}, nil)
	l, err := d.Login(t.Context(), proxy.Credential{Username: "ann@north.example", Password: "secret"})
	check(t, l, err, "")
	l, err = d.Login(t.Context(), proxy.Credential{Username: "eve", Password: "secret"})
	check(t, l, err, "[AUTH] authentication failed")
	if !d.Offers("CRAM-MD5", proxy.Caller{}) {
		t.Error("CRAM-MD5 is not offered")
	}
	if p := d.Prepare(t.Context(), proxy.Caller{}); p == nil {
		t.Error("nothing is prepared before the name is known")
	} else {
		p.Close()
	}
}

// P-PASS-5: routes are asked before the only upstream is.
func TestRoutesOfOnlyUpstream(t *testing.T) {
	routes, err := NewRoutes([]Route{{Match: "*@north.example", Upstream: "north", User: "{local}"}})
	if err != nil {
		t.Fatal(err)
	}
	f := newFake()
	d := New([]Upstream{{"north", f, nil}}, nil, routes)
	for login, want := range map[string]string{"ann@north.example": "ann", "bob": "bob"} {
		if got, err := d.Resolve(t.Context(), Login{Name: login}); err != nil || got != (Target{Upstream: "north", User: want}) {
			t.Errorf("%s goes to %v, %v", login, got, err)
		}
	}
}

// closing is an upstream that an address has opened.
type closing struct {
	*fake
	closed bool
}

func (c *closing) Close() error {
	c.closed = true
	return nil
}

// fixedTarget resolves every name to one Target.
type fixedTarget struct{ t Target }

func (f fixedTarget) Resolve(_ context.Context, l Login) (Target, error) { return f.t, nil }
func (f fixedTarget) Local() bool                                        { return false }

// O-LOOKUP-1: an address without options of its own is opened once, and closed at the
// end. A password from the Resolver that is refused is no failed login.
func TestOtherUpstreams(t *testing.T) {
	var opened []*closing
	open := func(string) (ClosableBackend, error) {
		opened = append(opened, &closing{fake: newFake("ann")})
		return opened[len(opened)-1], nil
	}
	target := Target{Address: "192.0.2.1:993", User: "ann"}
	d := New(nil, open, fixedTarget{target})
	for _, password := range []string{"secret", "secret", "wrong"} {
		want := ""
		if password == "wrong" {
			want = "[AUTH] authentication failed: upstream 192.0.2.1:993: refused"
		}
		l, err := d.Login(t.Context(), proxy.Credential{Username: "x", Password: password})
		check(t, l, err, want)
	}
	if d.Prepare(t.Context(), proxy.Caller{Username: "x"}) != nil {
		t.Error("a connection is made in advance, by asking who is not local")
	}
	if len(opened) != 1 {
		t.Fatalf("%d upstreams are open", len(opened))
	}
	if err := d.Close(); err != nil || !opened[0].closed {
		t.Errorf("closed %v, %v", opened[0].closed, err)
	}
	target.Password = "stale master password"
	l, err := New(nil, open, fixedTarget{target}).Login(t.Context(), proxy.Credential{Username: "x", Password: "secret"})
	check(t, l, err, "[SYS/PERM] the gateway cannot log in upstream, ask the operator: upstream 192.0.2.1:993: refused")
	target = Target{Address: "192.0.2.1:993", User: "ann"}
	l, err = New(nil, nil, fixedTarget{target}).Login(t.Context(), proxy.Credential{Username: "x", Password: "secret"})
	check(t, l, err, "[SYS/PERM] login is not possible, ask the operator: directory: no upstream at 192.0.2.1:993")
}
