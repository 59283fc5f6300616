package imapbackend

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"
	"testing"

	"golang.org/x/net/dns/dnsmessage"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// nameServer answers on loopback for example.test: SRV records for imaps, and the
// address of every host. It is the system's resolver until the end of the test.
func nameServer(t *testing.T, targets ...dnsmessage.SRVResource) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1500)
		for {
			n, from, err := conn.ReadFrom(buf)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			var query dnsmessage.Message
			if err == nil && query.Unpack(buf[:n]) == nil {
				answer, _ := answerTo(query, targets).Pack()
				_, _ = conn.WriteTo(answer, from)
			}
		}
	}()
	former := net.DefaultResolver
	net.DefaultResolver = &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "udp", conn.LocalAddr().String())
	}}
	t.Cleanup(func() {
		net.DefaultResolver = former
		conn.Close()
		<-done
	})
}

func answerTo(query dnsmessage.Message, targets []dnsmessage.SRVResource) *dnsmessage.Message {
	q := query.Questions[0]
	m := &dnsmessage.Message{Header: dnsmessage.Header{ID: query.ID, Response: true, Authoritative: true}, Questions: query.Questions}
	header := dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, Type: q.Type, TTL: 60}
	switch {
	case q.Type == dnsmessage.TypeSRV && strings.HasPrefix(q.Name.String(), "_imaps."):
		for _, target := range targets {
			m.Answers = append(m.Answers, dnsmessage.Resource{Header: header, Body: &target})
		}
	case q.Type == dnsmessage.TypeSRV:
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{Header: header, Body: &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}}}}
	}
	return m
}

// O-DISC-2, O-DISC-3: the servers of a domain are tried in their order, over TLS, and
// the certificate must name the domain or a server within it.
func TestSRV(t *testing.T) {
	for _, test := range []struct {
		name, target string
		names        []string // in the certificate
		want         proxy.Code
	}{
		{"in the domain", "imap.example.test.", []string{"imap.example.test"}, ""},
		{"elsewhere, for the domain", "imap.hoster.test.", []string{"example.test"}, ""},
		{"elsewhere, for itself", "imap.hoster.test.", []string{"imap.hoster.test"}, proxy.CodeSysPerm},
	} {
		t.Run(test.name, func(t *testing.T) {
			m := newModel()
			cert := proxytest.NewCertificate(t, proxytest.CertificateOptions{Names: test.names})
			l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{cert.Pair}})
			if err != nil {
				t.Fatal(err)
			}
			done := make(chan struct{})
			go func() {
				defer close(done)
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					go m.ServeConn(conn)
				}
			}()
			defer func() { l.Close(); <-done }()
			nameServer(t,
				dnsmessage.SRVResource{Priority: 1, Port: 1, Target: dnsmessage.MustNewName("dead.example.test.")},
				dnsmessage.SRVResource{Priority: 2, Port: uint16(l.Addr().(*net.TCPAddr).Port), Target: dnsmessage.MustNewName(test.target)})
			opts := Defaults()
			opts.SRV, opts.RootCAs = "example.test", cert.CA
			b, err := New(opts)
			if err != nil {
				t.Fatal(err)
			}
			login, err := b.Login(t.Context(), proxy.Credential{Username: "joe", Password: "secret"})
			if err == nil {
				login.Close()
			}
			if err == nil && test.want != "" || err != nil && proxy.AsError(err).Code != test.want {
				t.Errorf("%v, want code %q", err, test.want)
			}
		})
	}
}

// O-DISC-2: without records nobody is asked; the domain itself is no server.
func TestSRVMissing(t *testing.T) {
	nameServer(t)
	opts := Defaults()
	opts.SRV = "example.test"
	b, err := New(opts)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.Login(t.Context(), proxy.Credential{Username: "joe", Password: "secret"}); proxy.AsError(err).Code != proxy.CodeSysPerm {
		t.Errorf("%v", err)
	}
}
