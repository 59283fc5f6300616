package imapbackend

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"popgate/proxy"
)

// The mechanisms with a token.
const (
	mechXOAuth2     = "XOAUTH2"
	mechOAuthBearer = "OAUTHBEARER"
)

// saslClient is a POP3 client in an exchange: what it answers to each
// challenge, "*" to cancel.
type saslClient struct {
	answers []string
	got     []string // challenges
}

func (c *saslClient) challenge(_ context.Context, data string) (string, error) {
	c.got = append(c.got, data)
	if len(c.got) > len(c.answers) {
		return "", errHungUp
	}
	answer := c.answers[len(c.got)-1]
	if answer == "*" {
		return "", proxy.ErrCancelled
	}
	return answer, nil
}

var errHungUp = errors.New("the client has hung up")

// bearer returns an exchange with a token.
func bearer(mechanism, user string, c *saslClient) *proxy.Exchange {
	return &proxy.Exchange{Mechanism: mechanism, Username: user, Authorization: "Bearer tok", Challenge: c.challenge}
}

const (
	// The vectors of the requirements, section 13, for someuser@example.com
	// and user@example.com.
	xoauth2Vector = "dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB0b2sBAQ=="
	bearerVector  = "bixhPXVzZXJAZXhhbXBsZS5jb20sAWF1dGg9QmVhcmVyIHRvawEB"

	someuser, user = "someuser@example.com", "user@example.com"

	refusedJSON = `{"status":"invalid_token"}`
	refused64   = "eyJzdGF0dXMiOiJpbnZhbGlkX3Rva2VuIn0="
)

// offering is the beginning of a script of a server with these capabilities.
func offering(mechanisms string) string {
	return "S: * OK [CAPABILITY IMAP4rev1 SASL-IR" + mechanisms + "] x\n"
}

// P-SASL-2, P-SASL-3: a token is sent by the client's mechanism where the
// upstream has it, without host and port, after ID, and with or without an
// initial response.
func TestTokenForms(t *testing.T) {
	const in = "S: <l> OK [CAPABILITY IMAP4rev1] x\n" + bye
	for _, tt := range []struct{ name, script, mechanism, user string }{
		{"P-SASL-3 XOAUTH2", offering(" AUTH=OAUTHBEARER AUTH=XOAUTH2") + "C: <l> AUTHENTICATE XOAUTH2 " + xoauth2Vector + "\n" + in, mechXOAuth2, someuser},
		{"P-SASL-2 OAUTHBEARER", offering(" AUTH=XOAUTH2 AUTH=OAUTHBEARER") + "C: <l> AUTHENTICATE OAUTHBEARER " + bearerVector + "\n" + in, mechOAuthBearer, user},
		{"P-SASL-3 OAUTHBEARER rewritten", offering(" AUTH=XOAUTH2") + "C: <l> AUTHENTICATE XOAUTH2 " + xoauth2Vector + "\n" + in, mechOAuthBearer, someuser},
		{"P-SASL-3 XOAUTH2 rewritten", offering(" AUTH=OAUTHBEARER") + "C: <l> AUTHENTICATE OAUTHBEARER " + bearerVector + "\n" + in, mechXOAuth2, user},
		{"P-SASL-3 name escaped", offering(" AUTH=OAUTHBEARER") + "C: <l> AUTHENTICATE OAUTHBEARER bixhPWE9M0RiPTJDYywBYXV0aD1CZWFyZXIgdG9rAQE=\n" + in, mechXOAuth2, "a=b,c"},
		{"I-LOGIN-2 without SASL-IR", "S: * OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2] x\nC: <l> AUTHENTICATE XOAUTH2\nS: + \nC: " + xoauth2Vector + "\n" + in, mechXOAuth2, someuser},
		{"I-LOGIN-2 initial response rejected", offering(" AUTH=XOAUTH2") + "C: <k> AUTHENTICATE XOAUTH2 " + xoauth2Vector +
			"\nS: <k> BAD x\nC: <l> AUTHENTICATE XOAUTH2\nS: + \nC: " + xoauth2Vector + "\n" + in, mechXOAuth2, someuser},
		{"I-LOGIN-2 initial response ignored", offering(" AUTH=XOAUTH2") + "C: <l> AUTHENTICATE XOAUTH2 " + xoauth2Vector +
			"\nS: + =\nC: " + xoauth2Vector + "\n" + in, mechXOAuth2, someuser},
		{"I-LOGIN-7 initial response not answered", offering(" AUTH=XOAUTH2") + "C: <l> AUTHENTICATE XOAUTH2 " + xoauth2Vector +
			"\nW: stall\n-- connection 2 --\n" + offering(" AUTH=XOAUTH2") + "C: <l> AUTHENTICATE XOAUTH2\nS: + \nC: " + xoauth2Vector + "\n" + in, mechXOAuth2, someuser},
		{"O-ID-1 ID in the same flight", strings.Replace(offering(" ID AUTH=XOAUTH2"), "] x", "] Dovecot x", 1) + "C: <i> ID (\"name\" \"popgate\")\nC: <l> AUTHENTICATE XOAUTH2 " + xoauth2Vector +
			"\nS: * ID NIL\nS: <i> OK x\n" + in, mechXOAuth2, someuser},
		{"I-CONN-2 capabilities asked for", offering(" AUTH=XOAUTH2") + "C: <l> AUTHENTICATE XOAUTH2 " + xoauth2Vector +
			"\nS: <l> OK x\nC: <c> CAPABILITY\nS: * CAPABILITY IMAP4rev1\nS: <c> OK x\n" + bye, mechXOAuth2, someuser},
	} {
		play(t, tt.name, tt.script, Options{}, func(s *session) {
			l, err := s.b.Exchange(s.ctx, bearer(tt.mechanism, tt.user, new(saslClient)))
			if err != nil {
				s.Fatal(err)
			}
			defer l.Close()
			if got := l.Identity().User; got != tt.user {
				s.Errorf("user %q", got)
			}
			if strings.Contains(s.log.String(), "tok") {
				s.Errorf("O-LOG-1, O-OAUTH-1: the token is in the log:\n%s", &s.log)
			}
		})
	}
}

// P-SASL-4, P-RESP-7, M-1: what the client gets when its token is refused.
func TestTokenRefused(t *testing.T) {
	const xoauth2 = "C: <l> AUTHENTICATE XOAUTH2 " + xoauth2Vector + "\n"
	json := func(b64 string) string { return offering(" AUTH=XOAUTH2") + xoauth2 + "S: + " + b64 + "\nC: \n" }
	no := "S: <l> NO zebra tok\n" + bye
	for _, tt := range []struct {
		name, script string
		answers      []string
		challenges   []string
		want         proxy.Code
	}{
		{"P-SASL-4 dummy of XOAUTH2", json(refused64) + no, []string{""}, []string{refusedJSON}, auth},
		{"P-SASL-4 dummy of OAUTHBEARER, rewritten", offering(" AUTH=OAUTHBEARER") + "C: <l> AUTHENTICATE OAUTHBEARER ...\nS: + " + refused64 + "\nC: AQ==\n" + no,
			[]string{""}, []string{refusedJSON}, auth},
		{"P-SASL-4 cancelled", offering(" AUTH=XOAUTH2") + xoauth2 + "S: + " + refused64 + "\nC: *\nS: <l> BAD zebra\n" + bye,
			[]string{"*"}, []string{refusedJSON}, auth},
		{"P-SASL-4 cancelled, server trouble", offering(" AUTH=XOAUTH2") + xoauth2 + "S: + eyJzdGF0dXMiOiI1MDMifQ==\nC: *\nS: <l> BAD zebra\n" + bye,
			[]string{"*"}, []string{`{"status":"503"}`}, temp},
		{"P-SASL-4 temporarily_unavailable", json("eyJzdGF0dXMiOiJ0ZW1wb3JhcmlseV91bmF2YWlsYWJsZSJ9") + no, []string{"x"}, []string{`{"status":"temporarily_unavailable"}`}, temp},
		{"P-SASL-4 a number", json("eyJzdGF0dXMiOjUwMH0=") + no, []string{""}, []string{`{"status":500}`}, temp},
		{"P-SASL-4 no JSON", json("eg==") + no, []string{""}, []string{"z"}, auth},
		{"P-SASL-4 BAD to the dummy", json(refused64) + "S: <l> BAD zebra\n" + bye, []string{""}, []string{refusedJSON}, auth},
		{"P-SASL-4 [UNAVAILABLE] to the dummy", json(refused64) + "S: <l> NO [UNAVAILABLE] zebra\n" + bye, []string{""}, []string{refusedJSON}, temp},
		{"P-SASL-4 no challenge", offering(" AUTH=XOAUTH2") + xoauth2 + no, nil, nil, auth},
		{"P-SASL-4 two challenges", json(refused64) + "S: + " + refused64 + "\nC: *\nS: <l> BAD zebra\n" + bye, []string{""}, []string{refusedJSON}, perm},
		{"M-1 lost after the challenge", json(refused64) + "X:\n", []string{""}, []string{refusedJSON}, temp},
		{"M-1 a challenge not in base64", offering(" AUTH=XOAUTH2") + xoauth2 + "S: + zebra!\nW:\n", nil, nil, perm},
		{"P-SASL-3 neither mechanism", offering(" AUTH=PLAIN") + bye, nil, nil, perm},
	} {
		play(t, tt.name, tt.script, Options{}, func(s *session) {
			c := &saslClient{answers: tt.answers}
			_, err := s.b.Exchange(s.ctx, bearer(mechXOAuth2, someuser, c))
			e := s.fails(err, tt.want)
			if !slices.Equal(c.got, tt.challenges) {
				s.Errorf("the client got %q, want %q", c.got, tt.challenges)
			}
			if strings.Contains(e.Error()+s.log.String(), "tok ") || strings.Contains(s.log.String(), xoauth2Vector[:30]) {
				s.Errorf("O-LOG-1: the token is in %v or\n%s", e, &s.log)
			}
		})
	}
}

// P-SASL-5, P-SASL-6: challenges and responses pass unchanged. The SCRAM
// conversation is that of RFC 7677 §3, CRAM-MD5 that of RFC 2195 §2.
func TestRelay(t *testing.T) {
	const (
		scramFirst  = "biwsbj11c2VyLHI9ck9wck5HZndFYmVSV2diTkVrcU8="
		scramServer = "cj1yT3ByTkdmd0ViZVJXZ2JORWtxTyVodllEcFdVYTJSYVRDQWZ1eEZJbGopaE5sRiRrMCxzPVcyMlphSjBTTlk3c29Fc1VFamI2Z1E9PSxpPTQwOTY="
		scramFinal  = "dj02cnJpVFJCaTIzV3BSUi93dHVwK21NaFVaVW4vZEI1bkxUSlJzamw5NUc0PQ=="
		cram        = "PDE4OTYuNjk3MTcwOTUyQHBvc3RvZmZpY2UucmVzdG9uLm1jaS5uZXQ+"
		cramAnswer  = "dGltIGI5MTNhNjAyYzdlZGE3YTQ5NWI0ZTZlNzMzNGQzODkw"
	)
	first := "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
	server := "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
	final := "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
	scram := offering(" AUTH=SCRAM-SHA-256") + "C: <l> AUTHENTICATE SCRAM-SHA-256 " + scramFirst + "\nS: + " + scramServer + "\n"
	in := "S: <l> OK [CAPABILITY IMAP4rev1] x\n" + bye
	for _, tt := range []struct {
		name, script, mechanism, first string
		answers, challenges            []string
		want                           proxy.Code // "": success
		hungUp                         bool
	}{
		{"P-SASL-6 SCRAM", scram + "C: cHJvb2Y=\nS: + " + scramFinal + "\nC: \n" + in, "SCRAM-SHA-256", first,
			[]string{"proof", ""}, []string{server, final}, "", false},
		{"P-SASL-5 CRAM-MD5", offering(" AUTH=CRAM-MD5") + "C: <l> AUTHENTICATE CRAM-MD5\nS: + " + cram + "\nC: " + cramAnswer + "\n" + in, "CRAM-MD5", "",
			[]string{"tim b913a602c7eda7a495b4e6e7334d3890"}, []string{"<1896.697170952@postoffice.reston.mci.net>"}, "", false},
		{"P-SASL-5 wrong secret", scram + "C: cHJvb2Y=\nS: <l> NO [AUTHENTICATIONFAILED] zebra\n" + bye, "SCRAM-SHA-256", first,
			[]string{"proof"}, []string{server}, auth, false},
		{"P-AUTH-4 cancelled", scram + "C: *\nS: <l> BAD zebra\n" + bye, "SCRAM-SHA-256", first,
			[]string{"*"}, []string{server}, proxy.CodeNone, false},
		{"P-SESS-5 the client hangs up", scram + "C: *\nS: <l> BAD zebra\n" + bye, "SCRAM-SHA-256", first,
			nil, []string{server}, "", true},
		{"P-SESS-5 the client hangs up, the upstream hangs", scram + "C: *\nW: stall\n", "SCRAM-SHA-256", first,
			nil, []string{server}, "", true},
		{"P-SASL-5 not offered", offering(" AUTH=SCRAM-SHA-1") + bye, "SCRAM-SHA-256", first, nil, nil, perm, false},
		{"P-SASL-5 -PLUS", offering(" AUTH=SCRAM-SHA-256 AUTH=SCRAM-SHA-256-PLUS") + bye, "SCRAM-SHA-256", first, nil, nil, perm, false},
		{"I-CONN-8 challenges without end", offering(" AUTH=SCRAM-SHA-256") + "C: <l> AUTHENTICATE SCRAM-SHA-256 " + scramFirst + "\n" +
			strings.Repeat("S: + "+scramFinal+"\nC: cHJvb2Y=\n", 8) + "S: + " + scramFinal + "\nW:\n", "SCRAM-SHA-256", first,
			slices.Repeat([]string{"proof"}, 8), slices.Repeat([]string{final}, 8), temp, false},
		{"M-1 lost", scram + "C: cHJvb2Y=\nX:\n", "SCRAM-SHA-256", first, []string{"proof"}, []string{server}, temp, false},
	} {
		play(t, tt.name, tt.script, Options{}, func(s *session) {
			c := &saslClient{answers: tt.answers}
			l, err := s.b.Exchange(s.ctx, &proxy.Exchange{Mechanism: tt.mechanism, Initial: tt.first, Username: "user", Challenge: c.challenge})
			switch {
			case tt.hungUp:
				if err != errHungUp {
					s.Errorf("error %v", err)
				}
			case tt.want != "" || len(tt.answers) > 0 && tt.answers[0] == "*":
				s.fails(err, tt.want)
			case err != nil:
				s.Error(err)
			default:
				if got := l.Identity().User; got != "user" {
					s.Errorf("user %q", got)
				}
				l.Close()
			}
			if !slices.Equal(c.got, tt.challenges) {
				s.Errorf("the client got %q, want %q", c.got, tt.challenges)
			}
			for _, secret := range []string{"proof", "cHJvb2Y", cramAnswer, scramFirst[:30]} {
				if strings.Contains(s.log.String(), secret) {
					s.Errorf("O-LOG-1: %q is in the log:\n%s", secret, &s.log)
				}
			}
		})
	}
}

// P-SASL-5, P-CAPA-4: clients are offered the mechanisms that the upstream last
// announced, and before it has announced any, only those with a token.
func TestOffers(t *testing.T) {
	for caps, want := range map[string]string{
		"AUTH=PLAIN": "",
		"AUTH=CRAM-MD5 AUTH=SCRAM-SHA-1 AUTH=SCRAM-SHA-256":      "CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256",
		"AUTH=CRAM-MD5 AUTH=SCRAM-SHA-1 AUTH=SCRAM-SHA-256-PLUS": "CRAM-MD5",
		"auth=scram-sha-1": "SCRAM-SHA-1",
	} {
		play(t, "P-SASL-5 "+caps, "S: * OK [CAPABILITY IMAP4rev1 "+caps+"] x\n"+bye, Options{}, func(s *session) {
			if got := offered(s.b); got != "" {
				s.Errorf("before the upstream was asked offered: %s", got)
			}
			defer s.learn("CRAM-MD5")()
			if got := offered(s.b); got != want {
				s.Errorf("offered: %q, want %q", got, want)
			}
			if !s.b.Offers(mechXOAuth2, proxy.Caller{}) || !s.b.Offers(mechOAuthBearer, proxy.Caller{}) {
				s.Error("mechanisms with a token are not offered")
			}
		})
	}
}

func offered(b *Backend) string {
	var names []string
	for _, m := range []string{"CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256", "SCRAM-SHA-256-PLUS", "PLAIN", "DIGEST-MD5"} {
		if b.Offers(m, proxy.Caller{}) && m != "PLAIN" {
			names = append(names, m)
		}
	}
	return strings.Join(names, " ")
}

// learn runs Learn until stop is called.
func (s *session) learn(mechanisms ...string) (stop func()) {
	ctx, cancel := context.WithCancel(s.ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.b.Learn(ctx, mechanisms...)
	}()
	synctest.Wait()
	return func() {
		cancel()
		<-done
	}
}

// P-CAPA-4: an upstream that does not answer, or offers less than is
// configured, is asked again after a while; each login updates what is known.
func TestLearn(t *testing.T) {
	script := "X:\n-- connection 2 --\nX:\n-- connection 3 --\n" + offering(" AUTH=CRAM-MD5") + bye +
		"-- connection 4 --\n" + strings.Replace(loggedIn, "AUTH=PLAIN", "AUTH=PLAIN AUTH=SCRAM-SHA-1", 1) + bye +
		"-- connection 5 --\n" + offering(" AUTH=CRAM-MD5 AUTH=SCRAM-SHA-1") + bye
	play(t, "P-CAPA-4", script, Options{}, func(s *session) {
		defer s.learn("CRAM-MD5")()
		s.after(learnInterval - time.Second)
		for i, step := range []struct {
			next func()
			want string
		}{
			{func() {}, ""},
			{func() { s.after(2 * time.Second) }, "CRAM-MD5"},
			{func() { s.after(10 * learnInterval) }, "CRAM-MD5"}, // without a connection
			{func() { s.login().Close() }, "SCRAM-SHA-1"},
			{func() { s.after(learnInterval) }, "CRAM-MD5 SCRAM-SHA-1"},
		} {
			if step.next(); offered(s.b) != step.want {
				s.Errorf("step %d: offered %q, want %q", i, offered(s.b), step.want)
			}
		}
	})
	play(t, "P-CAPA-4 nothing is offered after a failed probe", offering(" AUTH=CRAM-MD5")+bye+"-- connection 2 --\nX:\n", Options{}, func(s *session) {
		defer s.learn("CRAM-MD5", "SCRAM-SHA-1")()
		if got := offered(s.b); got != "CRAM-MD5" {
			s.Errorf("offered %q", got)
		}
		s.after(learnInterval)
		if got := offered(s.b); got != "" {
			s.Errorf("after a failure offered %q", got)
		}
	})
}

// P-SASL-5: an exchange uses a prepared connection. If the upstream has closed
// it, another one is opened, unless the client has been sent its challenge.
func TestPreparedExchange(t *testing.T) {
	const caps = "S: * OK [CAPABILITY IMAP4rev1 SASL-IR AUTH=CRAM-MD5 AUTH=XOAUTH2] x\n"
	const token = "C: <l> AUTHENTICATE XOAUTH2 " + xoauth2Vector + "\n"
	const in = "S: <l> OK [CAPABILITY IMAP4rev1] x\n" + bye
	for _, tt := range []struct {
		name, script, mechanism string
		want                    proxy.Code
	}{
		{"good", caps + token + in, mechXOAuth2, ""},
		{"dead", caps + "S: * BYE idle\nX:\n-- connection 2 --\n" + caps + token + in, mechXOAuth2, ""},
		{"lost before the challenge", caps + "C: <l> AUTHENTICATE CRAM-MD5\nX:\n-- connection 2 --\n" + caps + "C: <l> AUTHENTICATE CRAM-MD5\nS: + Yw==\nC: cg==\n" + in, "CRAM-MD5", ""},
		{"lost after the challenge", caps + "C: <l> AUTHENTICATE CRAM-MD5\nS: + Yw==\nC: cg==\nX:\n", "CRAM-MD5", temp},
	} {
		play(t, tt.name, tt.script, Options{}, func(s *session) {
			dials := s.countDials()
			p := s.b.Prepare(s.ctx, proxy.Caller{})
			synctest.Wait()
			ex := bearer(tt.mechanism, someuser, &saslClient{answers: []string{"r"}})
			l, err := p.(proxy.PreparedExchanger).Exchange(s.ctx, ex)
			if tt.want != "" {
				s.fails(err, tt.want)
				if *dials != 1 {
					s.Errorf("%d connections", *dials)
				}
				return
			}
			if err != nil {
				s.Fatal(err)
			}
			l.Close()
		})
	}
}

// O-ID-2: the client's address is reported to an upstream for which that is
// configured, with every way to log in, and to no other.
func TestClientID(t *testing.T) {
	const id = `C: <i> ID ("name" "popgate" "x-originating-ip" "192.0.2.9" "x-originating-port" "4711" ` +
		`"x-connected-ip" "2001:db8::1" "x-connected-port" "995" "x-session-id" "0123" "x-proxy-ttl" "4")` + "\n"
	const no = `C: <i> ID ("name" "popgate")` + "\n"
	script := func(id, login string) string {
		return "S: * OK [CAPABILITY IMAP4rev1 SASL-IR ID AUTH=PLAIN AUTH=XOAUTH2] Dovecot x\n" + id + login +
			"S: <i> OK x\nS: <l> OK [CAPABILITY IMAP4rev1 ID] x\n" + bye
	}
	const plain, token = "C: <l> AUTHENTICATE PLAIN " + ir + "\n", "C: <l> AUTHENTICATE XOAUTH2 " + xoauth2Vector + "\n"
	client := proxy.Client{Addr: netip.MustParseAddrPort("192.0.2.9:4711"), Local: netip.MustParseAddrPort("[2001:db8::1%eth0]:995"), Session: "0123"}
	for _, tt := range []struct {
		name, script string
		send, known  bool
		exchange     bool
	}{
		{"reported", script(id, plain), true, true, false},
		{"reported in an exchange", script(id, token), true, true, true},
		{"not configured", script(no, plain), false, true, false},
		{"no client", script(no, plain), true, false, false},
	} {
		play(t, "O-ID-2 "+tt.name, tt.script, Options{SendClientID: tt.send}, func(s *session) {
			ctx := s.ctx
			if tt.known {
				ctx = proxy.WithClient(ctx, client)
			}
			login := func() (proxy.Login, error) { return s.b.Login(ctx, joe) }
			if tt.exchange {
				login = func() (proxy.Login, error) {
					return s.b.Exchange(ctx, bearer(mechXOAuth2, someuser, new(saslClient)))
				}
			}
			l, err := login()
			if err != nil {
				s.Fatal(err)
			}
			l.Close()
		})
	}
}
