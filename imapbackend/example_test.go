package imapbackend_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"popgate/imapbackend"
	"popgate/imapbackend/demo"
	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// A gateway in front of an IMAP server, which is that of popgate demo here.
func Example() {
	upstream := demo.New()
	upstream.AddUser("joe", "secret")
	if _, err := upstream.Append("joe", []byte("Subject: x\r\n\r\nHello.\r\n")); err != nil {
		fmt.Println(err)
		return
	}
	imap, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	go func() { _ = upstream.Serve(imap) }()
	defer upstream.Close()

	opts := imapbackend.Defaults()
	opts.Address = imap.Addr().String()
	opts.TLS = imapbackend.TLSNone // it is on this machine
	backend, err := imapbackend.New(opts)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer backend.Close()
	srv, err := proxy.NewServer(proxy.Options{Backend: backend, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}
	pop, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Println(err)
		return
	}
	served := make(chan error)
	go func() { served <- srv.Serve(pop, proxytest.Insecure) }()

	c, err := proxytest.DialConversation(pop.Addr().String())
	if err != nil {
		fmt.Println(err)
		return
	}
	defer c.Conn.Close()
	if err := c.Login("joe", "secret"); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(c.Do("STAT"))
	fmt.Println(c.Do("DELE 1"))
	fmt.Println(c.Do("QUIT"))
	fmt.Println(len(upstream.Messages("joe")), "messages left upstream")
	_ = srv.Shutdown(context.Background())
	<-served
	// Output:
	// +OK 1 22 <nil>
	// +OK message 1 deleted <nil>
	// +OK bye, 1 messages removed <nil>
	// 0 messages left upstream
}
