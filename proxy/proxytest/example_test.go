package proxytest_test

import (
	"fmt"
	"io"
	"net"
	"testing"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// The tests of a package that has a Backend: the suite, and a session.
func ExampleTestBackend() {
	_ = func(t *testing.T) {
		proxytest.TestBackend(t, proxytest.MemoryMailbox) // a Mailbox of the package's own
	}
	_ = func(t *testing.T) {
		m := proxytest.MemoryMailbox(t)
		m.Seed(t, []byte("Subject: x\r\n\r\ntext\r\n"))
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: m.Backend}, proxytest.Insecure)
		c := g.Dial()
		c.Login("alice", "secret")
		c.Do("STAT", "+OK 1 20")
		c.OK("DELE 1", "QUIT")
		c.Closed()
	}
}

// A Conversation returns errors, and records what was said.
func ExampleConversation() {
	near, far := proxytest.Pipe(new(net.TCPAddr), new(net.TCPAddr))
	_, _ = io.WriteString(far, "+OK ready\r\n+OK\r\n-ERR [AUTH] who?\r\n")
	c := proxytest.NewConversation(near)
	fmt.Println(c.Login("joe", "sesame"))
	fmt.Print(c)
	// Output:
	// PASS sesame: -ERR [AUTH] who?: refused
	// S: +OK ready
	// C: USER joe
	// S: +OK
	// C: PASS sesame
	// S: -ERR [AUTH] who?
}
