package proxy_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// proxyV2TLS is the PROXY header of a client at 203.0.113.9:40000 whose TLS the
// proxy has terminated.
const proxyV2TLS = "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x1e\xcb\x00\x71\x09\xc0\x00\x02\x01\x9c\x40\x00\x6e\x20\x00\x0f\x01\x00\x00\x00\x00\x21\x00\x07TLSv1.3"

// callerRecorder is a Backend that records the Callers it gets, and prepares
// nothing.
type callerRecorder struct {
	exchanger
	prepare, offers []proxy.Caller
}

func (c *callerRecorder) Prepare(_ context.Context, caller proxy.Caller) proxy.Prepared {
	c.prepare = append(c.prepare, caller)
	return nil
}

func (c *callerRecorder) Offers(_ string, caller proxy.Caller) bool {
	c.offers = append(c.offers, caller)
	return true
}

// TestCaller shows what a Backend learns about a client that has not logged in:
// its listener and address, its name once USER or an exchange has named it, and
// whether it uses TLS.
func TestCaller(t *testing.T) {
	for _, tt := range []struct {
		name    string
		drive   func(p *proxytest.Client)
		prepare []string // user name and TLS of each call
		offers  []string
	}{
		{"before USER", func(p *proxytest.Client) {
			p.Do("CAPA", "+OK")
			p.Body()
		}, nil, []string{` false`}},
		{"after USER", func(p *proxytest.Client) {
			p.Do("USER alice", "+OK")
			p.Do("CAPA", "+OK")
			p.Body()
			p.Do("CAPA", "+OK")
			p.Body()
		}, []string{`alice false`}, []string{`alice false`, ` false`}},
		{"another USER", func(p *proxytest.Client) {
			p.Do("USER alice", "+OK")
			p.Do("USER bob", "+OK")
		}, []string{`alice false`, `bob false`}, nil},
		{"after STLS", func(p *proxytest.Client) {
			p.Do("USER alice", "+OK")
			p.Do("STLS", "+OK")
			p.StartTLS(&tls.Config{ServerName: "pop.example"})
			p.Do("CAPA", "+OK")
			p.Body()
			p.Do("USER bob", "+OK")
		}, []string{`alice false`, `bob true`}, []string{` true`}},
		{"behind a proxy with TLS", func(p *proxytest.Client) {
			p.Do("USER alice", "+OK")
			p.Do("CAPA", "+OK")
			p.Body()
		}, []string{`alice true`}, []string{`alice true`}},
		{"AUTH after USER", func(p *proxytest.Client) {
			p.Do("USER alice", "+OK")
			p.Do("AUTH CRAM-MD5", "+ ")
		}, []string{`alice false`}, []string{` false`}},
		{"AUTH LOGIN", func(p *proxytest.Client) {
			p.Do("AUTH LOGIN", "+ ")
			p.Do(base64.StdEncoding.EncodeToString([]byte("alice")), "+ ")
		}, []string{` false`, `alice false`}, nil},
	} {
		synctest.Test(t, func(t *testing.T) {
			b := new(callerRecorder)
			opts := proxytest.Insecure
			opts.Mode, opts.TLS = proxy.TLSStartTLS, serverTLS(t)
			opts.ProxyProtocolFrom = opts.InsecureLoginFrom
			g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b, Mechanisms: []string{"PLAIN", "LOGIN", "CRAM-MD5"}}, opts)
			p := g.Dial()
			if tt.name == "behind a proxy with TLS" {
				p.Write(proxyV2TLS)
			} else {
				p.Write("PROXY TCP4 203.0.113.9 192.0.2.1 40000 110\r\n")
			}
			p.Expect("+OK POP3")
			tt.drive(p)
			_ = p.Conn.Close()
			synctest.Wait()
			for what, got := range map[string][]proxy.Caller{"Prepare": b.prepare, "Offers": b.offers} {
				want := tt.prepare
				if what == "Offers" {
					want = tt.offers
				}
				var names []string
				for _, caller := range got {
					names = append(names, fmt.Sprint(caller.Username, " ", caller.TLS))
					if caller.Listener != g.Addr() || caller.Addr.Addr().String() != "203.0.113.9" || len(caller.Session) != 16 {
						t.Errorf("%s: %s: %+v", tt.name, what, caller)
					}
				}
				if !slices.Equal(names, want) {
					t.Errorf("%s: %s: %q, want %q", tt.name, what, names, want)
				}
			}
		})
	}
}

// TestPreparedForAnother shows that a connection prepared for one name serves the
// login of another.
func TestPreparedForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := new(preparer)
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b}, proxytest.Insecure)
		p := g.Dial()
		p.Expect("+OK POP3")
		p.Do("USER alice", "+OK")
		p.Do("USER bob", "+OK")
		p.Do("PASS secret", "-ERR [AUTH]")
		if got := b.recorder.got; len(got) != 1 || got[0].Username != "bob" || b.prepared != 1 {
			t.Errorf("%d prepared, credentials %+v", b.prepared, got)
		}
	})
}
