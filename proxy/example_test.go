package proxy_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"popgate/proxy"
)

// greetings is a Backend with one message for everybody who knows the password.
// It has no state, so it is also its own Login and Maildrop.
type greetings struct{}

const welcome = "Subject: welcome\r\n\r\nHello.\r\n"

func (g greetings) Login(_ context.Context, cred proxy.Credential) (proxy.Login, error) {
	if cred.Password != "sesame" {
		return nil, proxy.ErrAuth
	}
	return g, nil
}

func (greetings) Identity() proxy.Identity {
	return proxy.Identity{Upstream: "greetings", User: "everybody", Mailbox: "INBOX"}
}

func (g greetings) Open(context.Context) (proxy.Maildrop, error) { return g, nil }

func (greetings) Messages() []proxy.Message {
	return []proxy.Message{{UID: 1, Octets: int64(len(welcome))}}
}

func (greetings) UniqueIDs() (func(dst []byte, uid uint64) []byte, error) {
	return func(dst []byte, uid uint64) []byte { return strconv.AppendUint(dst, uid, 10) }, nil
}

func (greetings) ReadOnly() bool { return true }

func (greetings) Read(context.Context, uint64) (proxy.Body, error) {
	return body{strings.NewReader(welcome)}, nil
}

func (g greetings) Top(ctx context.Context, uid uint64, _ uint64) (proxy.Body, error) {
	return g.Read(ctx, uid) // every message is short enough
}

func (greetings) Retrieved(context.Context, uint64, int64) {}

func (greetings) Update(_ context.Context, marked []uint64) error {
	if len(marked) > 0 {
		return proxy.ErrNotRemoved
	}
	return nil
}

func (greetings) Close() error { return nil }

// body is a message in memory.
type body struct{ *strings.Reader }

func (b body) Octets() int64 { return b.Size() }
func (b body) Close() error  { return nil }

// A server needs a Backend; this one serves a fixed message.
func ExampleServer() {
	srv, err := proxy.NewServer(proxy.Options{
		Backend: greetings{},
		Logger:  slog.New(slog.DiscardHandler),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan error)
	go func() {
		served <- srv.Serve(l, proxy.ListenerOptions{
			Mode:              proxy.TLSNone,
			InsecureLoginFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		})
	}()

	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "USER joe\r\nPASS sesame\r\nRETR 1\r\nQUIT\r\n")
	_, _ = io.Copy(crlf{}, conn)

	fmt.Println(srv.Shutdown(context.Background()), <-served)
	// Output:
	// +OK POP3 server ready
	// +OK send PASS
	// +OK maildrop has 1 messages (28 octets)
	// +OK 28 octets
	// Subject: welcome
	//
	// Hello.
	// .
	// +OK bye
	// <nil> proxy: server closed
}

// crlf prints what is written to it, without CR.
type crlf struct{}

func (crlf) Write(p []byte) (int, error) {
	fmt.Print(strings.ReplaceAll(string(p), "\r", ""))
	return len(p), nil
}
