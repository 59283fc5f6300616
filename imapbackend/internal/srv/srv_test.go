package srv

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// records answers lookups by service.
type records map[string][]*net.SRV

var errNotFound = &net.DNSError{Err: "no such host", IsNotFound: true}

func (r records) lookup(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	if found := r[service]; found != nil && proto == "tcp" && name == "example.com" {
		return "", found, nil
	}
	return "", nil, errNotFound
}

func hosts(targets []Target) string {
	var b strings.Builder
	for _, t := range targets {
		fmt.Fprintf(&b, "%s:%d %s,", t.Host, t.Port, t.TLS)
	}
	return b.String()
}

// O-DISC-2 (RFC 6186 §3.2, §3.4; RFC 8314 §5.1): imaps goes before imap, which needs
// STARTTLS; "." means that there is no such service.
func TestTargets(t *testing.T) {
	none := []*net.SRV{{Target: "."}}
	for _, test := range []struct {
		name string
		r    records
		want string // "" for an error
	}{
		{"imaps", records{"imaps": {{Target: "a.example.com.", Port: 993}}, "imap": {{Target: "b.example.com.", Port: 143}}}, "a.example.com:993 implicit,"},
		{"imap", records{"imap": {{Target: "b.example.com.", Port: 143}}}, "b.example.com:143 starttls,"},
		{"no imaps", records{"imaps": none, "imap": {{Target: "b.example.com.", Port: 143}}}, "b.example.com:143 starttls,"},
		{"priorities", records{"imaps": {{Target: "b.", Port: 1, Priority: 20}, {Target: "a.", Port: 2, Priority: 10}}}, "a:2 implicit,b:1 implicit,"},
		{"none", records{"imaps": none, "imap": none}, ""},
		{"nothing", records{}, ""},
	} {
		d := New("example.com.")
		d.lookup = test.r.lookup
		got, err := d.Targets(t.Context())
		if hosts(got) != test.want || (err != nil) != (test.want == "") {
			t.Errorf("%s: %s, %v, want %s", test.name, hosts(got), err, test.want)
		}
	}
}

// A server in the clear is no substitute for one that could not be looked up.
func TestNoDowngrade(t *testing.T) {
	d := New("example.com")
	d.lookup = func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error) {
		if service == "imaps" {
			return "", nil, &net.DNSError{Err: "server misbehaving", IsTemporary: true}
		}
		return "", []*net.SRV{{Target: "b.example.com.", Port: 143}}, nil
	}
	if got, err := d.Targets(t.Context()); err == nil {
		t.Errorf("%s", hosts(got))
	}
}

// RFC 2782: the share of each target is its weight.
func TestWeights(t *testing.T) {
	targets := []Target{{Host: "a", weight: 30}, {Host: "b", weight: 10}, {Host: "c", weight: 0}, {Host: "d", priority: 1}}
	first := map[string]int{}
	const rounds = 4000
	for range rounds {
		order := shuffled(targets)
		if len(order) != 4 || order[3].Host != "d" {
			t.Fatalf("%v", order)
		}
		first[order[0].Host]++
	}
	if first["a"] < rounds/2 || first["b"] < rounds/8 || first["c"] > rounds/8 {
		t.Errorf("first: %v", first)
	}
}

// Records are used for ten minutes, then looked up while the old ones serve; they
// stay in use while that fails.
func TestRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(proxytest.Log)
		ctx := proxy.WithLogger(t.Context(), log.Logger())
		var n atomic.Int64
		var fails atomic.Bool
		d := New("example.com")
		d.lookup = func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error) {
			<-time.After(3 * time.Second)
			if fails.Load() {
				return "", nil, errors.New("no network")
			}
			return "", []*net.SRV{{Target: fmt.Sprintf("a%d.", n.Add(1)), Port: 993}}, nil
		}
		expect := func(after time.Duration, want string) {
			t.Helper()
			<-time.After(after)
			first, began := n.Load() == 0, time.Now()
			got, err := d.Targets(ctx)
			if err != nil || got[0].Host != want || !first && time.Since(began) != 0 {
				t.Errorf("%s after %v, %v, want %s", hosts(got), time.Since(began), err, want)
			}
		}
		expect(0, "a1")
		expect(9*time.Minute, "a1")
		expect(time.Minute, "a1") // looks up in the background
		expect(4*time.Second, "a2")
		fails.Store(true)
		expect(10*time.Minute, "a2")
		expect(10*time.Minute+3*time.Second, "a2")
		<-time.After(time.Minute)
		if n := len(log.Lines("SRV records not found, the former ones stay in use", "domain=example.com")); n != 2 {
			t.Errorf("%d warnings:\n%s", n, log)
		}
	})
}

// A login that leaves does not wait for the resolver, nor end the lookup of others.
func TestTargetsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := New("example.com")
		d.lookup = func(ctx context.Context, service, proto, name string) (string, []*net.SRV, error) {
			<-ctx.Done()
			return "", nil, ctx.Err()
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		began := time.Now()
		if _, err := d.Targets(ctx); err == nil || time.Since(began) != time.Second {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if _, err := d.Targets(t.Context()); err == nil || time.Since(began) != lookupTimeout {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

// O-DISC-3 (RFC 6186 §6, RFC 9525 §6): the certificate names the domain, by DNS-ID or
// SRV-ID, or a target within the domain.
func TestAccepts(t *testing.T) {
	in, out := Target{Host: "imap.example.com", Service: "_imaps"}, Target{Host: "imap.hoster.example", Service: "_imaps"}
	for _, test := range []struct {
		name   string
		target Target
		cert   *x509.Certificate
		want   bool
	}{
		{"target in the domain", in, named(t, []string{"imap.example.com"}), true},
		{"target elsewhere", out, named(t, []string{"imap.hoster.example"}), false},
		{"domain, target elsewhere", out, named(t, []string{"imap.hoster.example", "example.com"}), true},
		{"SRV-ID, target elsewhere", out, named(t, []string{"imap.hoster.example"}, "_imaps.Example.com"), true},
		{"second SRV-ID", out, named(t, nil, "_smtp.example.com", "_imaps.example.com"), true},
		{"SRV-ID of another service", out, named(t, nil, "_imap.example.com"), false},
		{"SRV-ID of another domain", out, named(t, nil, "_imaps.example.net"), false},
		{"another name in the domain", in, named(t, []string{"www.example.com"}), false},
		{"a name that ends alike", Target{Host: "imap.badexample.com", Service: "_imaps"}, named(t, []string{"imap.badexample.com"}), false},
		{"nothing", in, named(t, nil), false},
	} {
		if err := New("example.com").Accepts(test.target, test.cert); (err == nil) != test.want {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	if d := New("example.com"); d.ServerName(in) != "imap.example.com" || d.ServerName(out) != "example.com" {
		t.Errorf("asks for %s and %s", d.ServerName(in), d.ServerName(out))
	}
}

// named returns a certificate with DNS names and SRVNames (RFC 4985).
func named(t testing.TB, dns []string, srvNames ...string) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: dns}
	if len(srvNames) > 0 {
		var names []asn1.RawValue
		for _, name := range dns {
			names = append(names, asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(name)})
		}
		for _, name := range srvNames {
			names = append(names, otherName(t, name))
		}
		value, err := asn1.Marshal(names)
		if err != nil {
			t.Fatal(err)
		}
		template.ExtraExtensions = []pkix.Extension{{Id: oidSubjectAltName, Value: value}}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func otherName(t testing.TB, name string) asn1.RawValue {
	t.Helper()
	ia5, err := asn1.MarshalWithParams(name, "ia5")
	if err != nil {
		t.Fatal(err)
	}
	oid, err := asn1.Marshal(oidDNSSRV)
	if err != nil {
		t.Fatal(err)
	}
	value, err := asn1.Marshal(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: ia5})
	if err != nil {
		t.Fatal(err)
	}
	return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: append(oid, value...)}
}

// Whatever an extension holds, it is read or refused.
func FuzzSRVNames(f *testing.F) {
	for _, e := range named(f, []string{"a.example"}, "_imaps.example.com").Extensions {
		f.Add(e.Value)
	}
	f.Fuzz(func(t *testing.T, der []byte) { _, _ = srvNames(der) })
}
