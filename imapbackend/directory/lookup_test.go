package directory

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"popgate/proxy"
)

// authServer is an auth_http server that answers as a function says, and records the
// requests.
type authServer struct {
	*httptest.Server
	mu       sync.Mutex
	requests []http.Header
}

func newAuthServer(t *testing.T, answer func(w http.ResponseWriter, r *http.Request)) *authServer {
	t.Helper()
	s := new(authServer)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.requests = append(s.requests, r.Header.Clone())
		s.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *authServer) asked() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.requests)
}

// says returns a handler that sends these header fields, as "Name: value".
func says(status int, fields ...string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		for _, f := range fields {
			name, value, _ := strings.Cut(f, ": ")
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		fmt.Fprint(w, "the body is not read")
	}
}

// lookupOf returns a Lookup at url with the options of the configuration, of which
// change may change some.
func lookupOf(t *testing.T, url string, change func(*LookupOptions)) *Lookup {
	t.Helper()
	opts := LookupOptions{URL: url, Timeout: 5 * time.Second, Cache: time.Minute, CacheNegative: 10 * time.Second, Stale: time.Hour,
		Upstreams: []UpstreamAddress{{"north", "imap.north.example:993"}, {"south", "192.0.2.7:143"}}}
	for _, s := range []string{"imap.north.example:993", "backend-*.example.net:993", "192.0.2.0/24:143", "[2001:db8::]/32:993"} {
		p, err := ParseAddressPattern(s)
		if err != nil {
			t.Fatal(err)
		}
		opts.Allowed = append(opts.Allowed, p)
	}
	if change != nil {
		change(&opts)
	}
	return NewLookup(opts)
}

// login is one with a password.
func login(name string) Login { return Login{Name: name, Password: "secret", Attempt: 2} }

// O-LOOKUP-1: what is asked is what nginx asks, with the values encoded as it does.
func TestLookupRequest(t *testing.T) {
	for _, send := range []bool{false, true} {
		s := newAuthServer(t, says(200, "Auth-Status: OK", "Auth-Server: imap.north.example"))
		l := lookupOf(t, s.URL, func(o *LookupOptions) {
			o.SendPassword, o.Header = send, map[string]string{"X-Auth-Key": "open sesame"}
		})
		ctx := proxy.WithClient(t.Context(), proxy.Client{
			Addr: netip.MustParseAddrPort("[::ffff:198.51.100.7]:40000"), Local: netip.MustParseAddrPort("192.0.2.1:110")})
		if _, err := l.Resolve(ctx, Login{Name: "añn 100%@x.example", Password: "p w\r\nX: é%", Attempt: 2}); err != nil {
			t.Fatal(err)
		}
		got := s.requests[0]
		for _, name := range []string{"User-Agent", "Accept-Encoding"} {
			got.Del(name)
		}
		want := http.Header{
			"Auth-Method":        {"plain"},
			"Auth-User":          {"a%C3%B1n%20100%25@x.example"},
			"Auth-Protocol":      {"imap"},
			"Auth-Login-Attempt": {"2"},
			"Client-Ip":          {"198.51.100.7"},
			"X-Auth-Key":         {"open sesame"},
		}
		if send {
			want["Auth-Pass"] = []string{"p%20w%0D%0AX:%20%C3%A9%25"}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("send_password %v (-want +got):\n%s", send, diff)
		}
	}
}

// Each answer, and what becomes of it. Only addresses on the list are reached
// (O-DISC-1).
func TestLookupAnswers(t *testing.T) {
	north := Target{Upstream: "north", User: "ann"}
	ok := func(fields ...string) []string { return append([]string{"Auth-Status: OK"}, fields...) }
	for _, test := range []struct {
		name   string
		send   bool
		status int
		fields []string
		want   Target
		err    string // "" for none
	}{
		{"an upstream's address", false, 200, ok("Auth-Server: imap.north.example", "Auth-Port: 993"), north, ""},
		{"in other letters", false, 200, ok("Auth-Server: IMAP.North.example"), north, ""},
		{"an upstream's number", false, 200, ok("Auth-Server: 192.0.2.7", "Auth-Port: 143", "Auth-User: a.nn"), Target{Upstream: "south", User: "a.nn"}, ""},
		{"an upstream's name", false, 200, ok("X-Popgate-Upstream: north"), north, ""},
		{"another address", false, 200, ok("Auth-Server: backend-17.example.net", "Auth-Port: 993"), Target{Address: "backend-17.example.net:993", User: "ann"}, ""},
		{"another number", false, 200, ok("Auth-Server: 2001:db8::5", "Auth-Port: 993"), Target{Address: "[2001:db8::5]:993", User: "ann"}, ""},
		{"in other letters and forms", false, 200, ok("Auth-Server: BACKEND-17.Example.net"), Target{Address: "backend-17.example.net:993", User: "ann"}, ""},
		{"IPv4 as IPv6", false, 200, ok("Auth-Server: ::ffff:192.0.2.9", "Auth-Port: 143"), Target{Address: "192.0.2.9:143", User: "ann"}, ""},
		{"another password", true, 200, ok("X-Popgate-Upstream: north", "Auth-Pass: master"), Target{Upstream: "north", User: "ann", Password: "master"}, ""},
		{"refused", false, 200, []string{"Auth-Status: Invalid login or password"}, Target{},
			`[AUTH] authentication failed: lookup: Auth-Status is "Invalid login or password"`},
		{"a password that nobody has verified", false, 200, ok("X-Popgate-Upstream: north", "Auth-Pass: master"), Target{},
			"[SYS/PERM] login is not possible, ask the operator: lookup: an answer with Auth-Pass to a request without the password, which nobody has verified"},
		{"address not on the list", false, 200, ok("Auth-Server: backend-17.x.example.net", "Auth-Port: 993"), Target{},
			"[SYS/PERM] login is not possible, ask the operator: lookup: backend-17.x.example.net:993 is not among the upstreams that the lookup may choose"},
		{"port not on the list", false, 200, ok("Auth-Server: imap.north.example", "Auth-Port: 22"), Target{},
			"[SYS/PERM] login is not possible, ask the operator: lookup: imap.north.example:22 is not among the upstreams that the lookup may choose"},
		{"no port", false, 200, ok("Auth-Server: imap.north.example", "Auth-Port: x"), Target{},
			`[SYS/PERM] login is not possible, ask the operator: lookup: Auth-Server and Auth-Port: "x" is not a port`},
		{"no upstream of that name", false, 200, ok("X-Popgate-Upstream: east"), Target{},
			`[SYS/PERM] login is not possible, ask the operator: lookup: X-Popgate-Upstream is "east", which is no upstream`},
		{"OK alone", false, 200, ok(), Target{},
			"[SYS/PERM] login is not possible, ask the operator: lookup: OK without Auth-Server, and there are several upstreams"},
		{"control characters", true, 200, ok("X-Popgate-Upstream: north", "Auth-Pass: a\tb\x00c"), Target{}, "[SYS/TEMP]"},
		{"trouble", false, 503, ok("X-Popgate-Upstream: north"), Target{}, `status 503 and "OK" in Auth-Status`},
		{"no status", false, 200, nil, Target{}, `status 200 and "" in Auth-Status`},
		{"redirect", false, 302, []string{"Location: /elsewhere"}, Target{}, `status 302 and "" in Auth-Status`},
		{"not modified", false, 304, ok(), Target{}, `status 304 and "OK" in Auth-Status`},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := newAuthServer(t, says(test.status, test.fields...))
			l := lookupOf(t, s.URL, func(o *LookupOptions) { o.SendPassword = test.send })
			got, err := l.Resolve(t.Context(), login("ann"))
			if got != test.want {
				t.Errorf("target %+v, want %+v", got, test.want)
			}
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("error %v, want %q", err, test.err)
			}
			if test.status != 200 && proxy.AsError(err).Code != proxy.CodeSysTemp {
				t.Errorf("error %v is not temporary", err)
			}
			if n := s.asked(); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// OK without an address means the only upstream.
func TestLookupOnlyUpstream(t *testing.T) {
	s := newAuthServer(t, says(200, "Auth-Status: OK"))
	l := lookupOf(t, s.URL, func(o *LookupOptions) { o.Upstreams = o.Upstreams[:1] })
	testResolver(t, withPassword{l}, map[string]Target{"ann": {Upstream: "north", User: "ann"}})
}

// withPassword gives each login a password.
type withPassword struct{ *Lookup }

func (w withPassword) Resolve(ctx context.Context, l Login) (Target, error) {
	l.Password = "secret"
	return w.Lookup.Resolve(ctx, l)
}

// A login without a password, as with a token, is not asked for.
func TestLookupWithoutPassword(t *testing.T) {
	s := newAuthServer(t, says(200, "Auth-Status: OK", "X-Popgate-Upstream: north"))
	testResolver(t, lookupOf(t, s.URL, nil), nil, "ann")
	if n := s.asked(); n != 0 {
		t.Errorf("%d requests", n)
	}
}

// transport answers requests in fake time, without a network.
type transport struct {
	asked  atomic.Int64
	answer func(n int64) (*http.Response, error)
}

func (f *transport) RoundTrip(*http.Request) (*http.Response, error) { return f.answer(f.asked.Add(1)) }

func response(fields ...string) *http.Response {
	w := httptest.NewRecorder()
	says(200, fields...)(w, nil)
	return w.Result()
}

// Answers and refusals are used for a while; with send_password each for its
// password only. While the server is in trouble the last answer is used, up to
// stale, and a refusal is not.
func TestLookupCache(t *testing.T) {
	errTrouble := errors.New("trouble")
	type step struct {
		wait     time.Duration
		password string
		want     string // the user, or the code of the error
		asked    int64  // requests so far
	}
	for _, test := range []struct {
		name   string
		send   bool
		answer func(n int64) (*http.Response, error)
		steps  []step
	}{
		{"answer", false, func(n int64) (*http.Response, error) {
			return response("Auth-Status: OK", "X-Popgate-Upstream: north", fmt.Sprintf("Auth-User: u%d", n)), nil
		}, []step{{0, "a", "u1", 1}, {59 * time.Second, "a", "u1", 1}, {0, "b", "u1", 1}, {time.Second, "a", "u2", 2}}},
		{"for its password", true, func(n int64) (*http.Response, error) {
			return response("Auth-Status: OK", "X-Popgate-Upstream: north", fmt.Sprintf("Auth-User: u%d", n)), nil
		}, []step{{0, "a", "u1", 1}, {0, "b", "u2", 2}, {59 * time.Second, "a", "u1", 2}}},
		{"refusal", true, func(n int64) (*http.Response, error) {
			if n == 1 {
				return response("Auth-Status: no"), nil
			}
			return response("Auth-Status: OK", "X-Popgate-Upstream: north"), nil
		}, []step{{0, "a", "AUTH", 1}, {9 * time.Second, "a", "AUTH", 1}, {time.Second, "a", "ann", 2}}},
		{"stale", false, func(n int64) (*http.Response, error) {
			if n > 1 {
				return nil, errTrouble
			}
			return response("Auth-Status: OK", "X-Popgate-Upstream: north"), nil
		}, []step{{0, "a", "ann", 1}, {time.Minute, "a", "ann", 2}, {time.Hour - time.Minute, "a", "SYS/TEMP", 3}}},
		{"no stale refusal", false, func(n int64) (*http.Response, error) {
			if n > 1 {
				return nil, errTrouble
			}
			return response("Auth-Status: no"), nil
		}, []step{{0, "a", "AUTH", 1}, {time.Minute, "a", "SYS/TEMP", 2}}},
		{"wait", false, func(n int64) (*http.Response, error) {
			return response("Auth-Status: no", "Auth-Wait: 7"), nil
		}, []step{{0, "a", "AUTH", 1}, {2 * time.Second, "a", "AUTH", 1}, {time.Second, "a", "AUTH", 2}}}, // 7 seconds each
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := lookupOf(t, "http://127.0.0.1/", func(o *LookupOptions) { o.SendPassword = test.send })
				tr := &transport{answer: test.answer}
				l.client.Transport = tr
				for i, s := range test.steps {
					<-time.After(s.wait)
					target, err := l.Resolve(t.Context(), Login{Name: "ann", Password: s.password})
					got := target.User
					if err != nil {
						got = string(proxy.AsError(err).Code)
					}
					if got != s.want || tr.asked.Load() != s.asked {
						t.Errorf("step %d: %q after %d requests, want %q after %d (%v)", i, got, tr.asked.Load(), s.want, s.asked, err)
					}
				}
			})
		})
	}
}

// What the server says of one client is not used for another: it may refuse a guesser's
// address, or accept those of an office only.
func TestLookupByClient(t *testing.T) {
	s := newAuthServer(t, func(w http.ResponseWriter, r *http.Request) {
		status := "OK"
		if r.Header.Get("Client-IP") != "192.0.2.1" {
			status = "from the office only"
		}
		says(200, "Auth-Status: "+status, "X-Popgate-Upstream: north")(w, r)
	})
	l := lookupOf(t, s.URL, nil)
	for range 2 {
		for client, want := range map[string]bool{"192.0.2.1:1": true, "192.0.2.1:2": true, "198.51.100.1:1": false} {
			ctx := proxy.WithClient(t.Context(), proxy.Client{Addr: netip.MustParseAddrPort(client), Local: netip.MustParseAddrPort("192.0.2.9:110")})
			if _, err := l.Resolve(ctx, login("ann")); (err == nil) != want {
				t.Errorf("%s: %v", client, err)
			}
		}
	}
	if n := s.asked(); n != 2 {
		t.Errorf("%d requests", n)
	}
}

// Logins that ask the same at a time cost one request, and one whose client leaves
// takes the answer from nobody.
func TestLookupOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		l := lookupOf(t, "http://127.0.0.1/", nil)
		tr := &transport{answer: func(int64) (*http.Response, error) {
			<-release
			return response("Auth-Status: OK", "X-Popgate-Upstream: north"), nil
		}}
		l.client.Transport = tr
		ctx, leave := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() {
			if _, err := l.Resolve(ctx, login("ann")); err == nil {
				t.Error("a client that has left gets an answer")
			}
		})
		synctest.Wait()
		for range 50 {
			wg.Go(func() {
				if _, err := l.Resolve(t.Context(), login("ann")); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		leave()
		synctest.Wait()
		close(release)
		wg.Wait()
		if n := tr.asked.Load(); n != 1 {
			t.Errorf("%d requests", n)
		}
	})
}

// A server that does not answer costs the timeout, and the error names it without a
// secret.
func TestLookupTimeout(t *testing.T) {
	stop := make(chan struct{})
	s := newAuthServer(t, func(http.ResponseWriter, *http.Request) { <-stop })
	defer close(stop)
	l := lookupOf(t, s.URL, func(o *LookupOptions) { o.Timeout, o.SendPassword = 50*time.Millisecond, true })
	_, err := l.Resolve(t.Context(), login("ann"))
	if e := proxy.AsError(err); e.Code != proxy.CodeSysTemp || !strings.Contains(err.Error(), s.URL) || strings.Contains(err.Error(), "secret") {
		t.Errorf("%v", err)
	}
}

// Over TLS the server needs a certificate of the configured CA.
func TestLookupTLS(t *testing.T) {
	s := httptest.NewTLSServer(http.HandlerFunc(says(200, "Auth-Status: OK", "X-Popgate-Upstream: north")))
	defer s.Close()
	s.Config.ErrorLog = nil
	pool := x509.NewCertPool()
	pool.AddCert(s.Certificate())
	for _, roots := range []*x509.CertPool{pool, x509.NewCertPool()} {
		_, err := lookupOf(t, s.URL, func(o *LookupOptions) { o.RootCAs = roots }).Resolve(t.Context(), login("ann"))
		if trusted := roots == pool; (err == nil) != trusted {
			t.Errorf("trusted %v: %v", trusted, err)
		}
	}
}

func TestAddressPatterns(t *testing.T) {
	for _, test := range []struct {
		pattern, address string
		want             bool
	}{
		{"imap.example.net:993", "IMAP.example.net:993", true},
		{"imap.example.net:993", "imap.example.net:143", false},
		{"backend-*.example.net:993", "backend-1.example.net:993", true},
		{"backend-*.example.net:993", "backend-1.x.example.net:993", false},
		{"backend-*.example.net:993", "backend-1.example.net.evil.example:993", false},
		{"*.example.net:993", "example.net:993", false},
		{"10.1.0.0/16:143", "10.1.2.3:143", true},
		{"10.1.0.0/16:143", "10.2.2.3:143", false},
		{"10.1.0.0/16:143", "[::ffff:10.1.2.3]:143", true},
		{"10.1.0.0/16:143", "ten.example:143", false},
		{"127.0.0.1:143", "127.0.0.1:143", true},
		{"[::1]:143", "[::1]:143", true},
		{"[2001:db8::]/32:143", "[2001:db8:1::1]:143", true},
		{"[fe80::]/10:143", "[fe80::1%eth0]:143", false},
	} {
		p, err := ParseAddressPattern(test.pattern)
		if err != nil {
			t.Errorf("%s: %v", test.pattern, err)
		} else if got := p.matches(test.address); got != test.want {
			t.Errorf("%s matches %s: %v", test.pattern, test.address, got)
		}
	}
	for _, s := range []string{"", "imap.example.net", ":993", "10.0.0.0/8", "10.0.0.0/33:143", "10.0.0.0/8:x", "10.0.0.1/8:143", "x/8:143"} {
		if _, err := ParseAddressPattern(s); err == nil {
			t.Errorf("%q is a pattern", s)
		}
	}
}

// Whatever a login name has, it is one header value, which the server can decode.
func FuzzEscape(f *testing.F) {
	for _, s := range []string{"ann", "a b", "100%", "é\r\nX: y\x00\x7f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		escaped := escape(s)
		if back, err := url.PathUnescape(escaped); err != nil || back != s {
			t.Errorf("%q is sent as %q, which is %q, %v", s, escaped, back, err)
		}
		if strings.ContainsFunc(escaped, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Errorf("%q is sent as %q", s, escaped)
		}
	})
}
