package proxy_test

import (
	"context"
	"encoding/base64"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

var allMechanisms = []string{"PLAIN", "LOGIN", "XOAUTH2", "OAUTHBEARER", "CRAM-MD5", "SCRAM-SHA-1", "SCRAM-SHA-256"}

// exchanger is a recorder that also records exchanges. It sends one challenge.
type exchanger struct {
	recorder
	got       proxy.Exchange
	challenge string
	response  string
	err       error // of Challenge
	client    proxy.Client
	prepared  int // connections prepared
	used      int // of those, how many served an exchange
	closed    int
}

func (e *exchanger) Offers(string, proxy.Caller) bool { return true }

func (e *exchanger) Exchange(ctx context.Context, ex *proxy.Exchange) (proxy.Login, error) {
	e.response, e.err = ex.Challenge(ctx, e.challenge)
	e.got = *ex
	e.got.Challenge = nil
	e.client, _ = proxy.ClientOf(ctx)
	if e.err != nil {
		return nil, e.err
	}
	return nil, proxy.ErrAuth
}

// TestExchange shows P-SASL-2, P-SASL-3, P-SASL-5, P-AUTH-6 and P-UTF8-1: what a
// Backend receives of an exchange. The vectors are those of requirements.md,
// section 13.
func TestExchange(t *testing.T) {
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	const digest = "b913a602c7eda7a495b4e6e7334d3890"
	for _, tt := range []struct {
		input, response string
		want            proxy.Exchange
	}{
		{"AUTH XOAUTH2 dXNlcj1zb21ldXNlckBleGFtcGxlLmNvbQFhdXRoPUJlYXJlciB0b2sBAQ==", "",
			proxy.Exchange{Mechanism: "XOAUTH2", Initial: "user=someuser@example.com\x01auth=Bearer tok\x01\x01",
				Username: "someuser@example.com", Authorization: "Bearer tok"}},
		{"AUTH OAUTHBEARER bixhPXVzZXJAZXhhbXBsZS5jb20sAWF1dGg9QmVhcmVyIHRvawEB", "AQ==",
			proxy.Exchange{Mechanism: "OAUTHBEARER", Initial: "n,a=user@example.com,\x01auth=Bearer tok\x01\x01",
				Username: "user@example.com", Authorization: "Bearer tok"}},
		{"UTF8\r\nAUTH oauthbearer " + b64("y,a=a=3Db=2Cc,\x01host=h\x01port=1\x01auth=bearer x~+/.-_=\x01qs=a\tb\x01\x01"), "",
			proxy.Exchange{Mechanism: "OAUTHBEARER", Initial: "y,a=a=3Db=2Cc,\x01host=h\x01port=1\x01auth=bearer x~+/.-_=\x01qs=a\tb\x01\x01",
				Username: "a=b,c", Authorization: "bearer x~+/.-_=", UTF8: true}},
		{"AUTH CRAM-MD5", b64("tim " + digest), proxy.Exchange{Mechanism: "CRAM-MD5", Username: "tim"}},
		{"AUTH CRAM-MD5", b64("tim the \u00e4 " + digest), proxy.Exchange{Mechanism: "CRAM-MD5", Username: "tim the \u00e4"}},
		{"AUTH SCRAM-SHA-1 " + b64("n,a=z,n=a=2Cb=3D=2C,r=x,e=t"), "",
			proxy.Exchange{Mechanism: "SCRAM-SHA-1", Initial: "n,a=z,n=a=2Cb=3D=2C,r=x,e=t", Authzid: "z", Username: "a,b=,"}},
	} {
		synctest.Test(t, func(t *testing.T) {
			e := &exchanger{challenge: strings.Repeat("challenge ", 4000)}
			g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: e, Mechanisms: allMechanisms, UTF8: true}, proxytest.Insecure)
			p := g.Dial()
			p.Greeting()
			p.Write(tt.input + "\r\n")
			if tt.want.UTF8 {
				p.Expect("+OK")
			}
			if got := p.Line(); got != "+ "+b64(e.challenge) {
				t.Errorf("challenge %.40q of %d octets", got, len(got))
			}
			p.Do(tt.response, "-ERR [AUTH]")
			if e.got.Challenge != nil || !equalExchange(e.got, tt.want) {
				t.Errorf("%s: got %+v, want %+v", tt.input, e.got, tt.want)
			}
			if want, _ := base64.StdEncoding.DecodeString(tt.response); e.response != string(want) || e.err != nil {
				t.Errorf("%s: response %q, %v", tt.input, e.response, e.err)
			}
		})
	}
}

// TestExchangeNames shows P-SASL-4: a name that is empty, or has a NUL or invalid
// UTF-8 in it, is refused in each mechanism, and the Backend does not get it.
func TestExchangeNames(t *testing.T) {
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, name := range []string{"", "a\x00b", "\xff"} {
		for _, tt := range []struct{ mechanism, initial, response string }{
			{"XOAUTH2", "user=" + name + "\x01auth=Bearer tok\x01\x01", ""},
			{"OAUTHBEARER", "n,a=" + name + ",\x01auth=Bearer tok\x01\x01", ""},
			{"SCRAM-SHA-1", "n,,n=" + name + ",r=x", ""},
			{"CRAM-MD5", "", name + " b913a602c7eda7a495b4e6e7334d3890"},
		} {
			synctest.Test(t, func(t *testing.T) {
				e := new(exchanger)
				g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: e, Mechanisms: allMechanisms}, proxytest.Insecure)
				p := g.Dial()
				p.Greeting()
				if tt.initial != "" {
					p.Do("AUTH "+tt.mechanism+" "+b64(tt.initial), "-ERR")
					if e.got.Mechanism != "" {
						t.Errorf("%s: the Backend gets %+v", tt.mechanism, e.got)
					}
					return
				}
				p.Do("AUTH "+tt.mechanism, "+ ")
				p.Do(b64(tt.response), "-ERR [AUTH]")
				if e.err == nil {
					t.Errorf("%s: the Backend gets the response %q", tt.mechanism, e.response)
				}
			})
		}
	}
}

func equalExchange(a, b proxy.Exchange) bool {
	return a.Mechanism == b.Mechanism && a.Initial == b.Initial && a.Authzid == b.Authzid &&
		a.Username == b.Username && a.Authorization == b.Authorization && a.UTF8 == b.UTF8
}

// TestChallengeErrors shows P-AUTH-4 and P-SASL-4: the error of Challenge when the
// client's response is no answer.
func TestChallengeErrors(t *testing.T) {
	for input, want := range map[string]string{
		"*":      "authentication cancelled",
		"AA A":   "invalid base64",
		"AAAA\r": "invalid character in line",
		"dGlt":   "invalid authentication message", // no digest
	} {
		synctest.Test(t, func(t *testing.T) {
			e := new(exchanger)
			g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: e, Mechanisms: allMechanisms}, proxytest.Insecure)
			p := g.Dial()
			p.Greeting()
			p.Do("AUTH CRAM-MD5", "+ ")
			p.Do(input, "-ERR "+want)
			pe, ok := errors.AsType[*proxy.Error](e.err)
			if !ok || pe.Text != want || errors.Is(e.err, proxy.ErrCancelled) != (input == "*") {
				t.Errorf("%q: %v", input, e.err)
			}
			p.Do("NOOP", "-ERR command not valid")
		})
	}
}

// preparer is an exchanger that prepares connections.
type preparer struct{ exchanger }

func (p *preparer) Prepare(context.Context, proxy.Caller) proxy.Prepared {
	p.prepared++
	return &prepared{&p.exchanger}
}

type prepared struct{ e *exchanger }

func (p *prepared) Login(ctx context.Context, cred proxy.Credential) (proxy.Login, error) {
	return p.e.Login(ctx, cred)
}

func (p *prepared) Exchange(ctx context.Context, ex *proxy.Exchange) (proxy.Login, error) {
	p.e.used++
	return p.e.Exchange(ctx, ex)
}

func (p *prepared) Close() { p.e.closed++ }

// TestPreparedExchange shows that a connection prepared while the client sent its
// first message serves the exchange, and that challenges prepare no other.
func TestPreparedExchange(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := new(preparer)
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: e, Mechanisms: allMechanisms}, proxytest.Insecure)
		p := g.Dial()
		p.Greeting()
		p.Do("AUTH SCRAM-SHA-1", "+ ")
		p.Do(base64.StdEncoding.EncodeToString([]byte("n,,n=a,r=b")), "+ ")
		p.Do("", "-ERR [AUTH]")
		p.Do("USER x", "+OK")
		p.Do("QUIT", "+OK")
		p.Closed()
		synctest.Wait()
		if e.prepared != 2 || e.used != 1 || e.closed != 1 {
			t.Errorf("prepared %d, used %d, closed %d", e.prepared, e.used, e.closed)
		}
	})
}

// TestClientOf shows O-ID-2: the Backend knows the client's address and session.
func TestClientOf(t *testing.T) {
	e := new(exchanger)
	g := proxytest.Serve(t, proxytest.Loopback(t), proxy.Options{Backend: e, Mechanisms: allMechanisms}, proxytest.Insecure)
	p := g.Dial()
	p.Greeting()
	p.Do("AUTH CRAM-MD5", "+ ")
	p.Do("*", "-ERR")
	remote, local := netip.MustParseAddrPort(p.Conn.LocalAddr().String()), netip.MustParseAddrPort(g.Addr())
	if c := e.client; c.Addr != remote || c.Local != local || len(c.Session) != 16 {
		t.Errorf("client %+v, want %v and %v", c, remote, local)
	}
	if _, ok := proxy.ClientOf(t.Context()); ok {
		t.Error("a client without a session")
	}
}
