package imapbackend_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"popgate/imapbackend"
	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// benchBuffer is what each connection of benchUpstream holds, in octets.
const benchBuffer = 64 << 10

// benchUpstream serves one mailbox of equal messages from memory, by the few
// commands of IMAP that the gateway needs.
func benchUpstream(b testing.TB, messages, octets int) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { l.Close() })
	line := strings.Repeat("x", 74) + "\r\n"
	body := strings.Repeat(line, octets/len(line))
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go serveBench(conn, messages, body)
		}
	}()
	return l.Addr().String()
}

func serveBench(conn net.Conn, messages int, body string) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	w := bufio.NewWriterSize(conn, benchBuffer)
	fmt.Fprint(w, "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR UIDPLUS] ready\r\n")
	for {
		if r.Buffered() == 0 {
			w.Flush()
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		tag, cmd, _ := strings.Cut(strings.TrimSpace(line), " ")
		var uid int
		switch {
		case strings.HasPrefix(cmd, "SELECT"):
			fmt.Fprintf(w, "* %d EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n* OK [UIDNEXT %d] x\r\n", messages, messages+1)
		case strings.HasPrefix(cmd, "UID FETCH 1:*"):
			for i := 1; i <= messages; i++ {
				fmt.Fprintf(w, "* %d FETCH (UID %d RFC822.SIZE %d)\r\n", i, i, len(body))
			}
		case strings.HasPrefix(cmd, "UID FETCH"):
			last, section, text := 0, "", body
			if strings.Contains(cmd, "HEADER") {
				section, text = "HEADER", "Subject: x\r\n\r\n"
			}
			if n, _ := fmt.Sscanf(cmd, "UID FETCH %d:%d", &uid, &last); n == 1 {
				last = uid
			}
			for ; uid <= last; uid++ {
				fmt.Fprintf(w, "* %d FETCH (UID %d BODY[%s] {%d}\r\n", uid, uid, section, len(text))
				io.WriteString(w, text)
				fmt.Fprint(w, ")\r\n")
			}
		}
		fmt.Fprintf(w, "%s OK [CAPABILITY IMAP4rev1 UIDPLUS] done\r\n", tag)
	}
}

// benchGateway starts a gateway in front of the upstream.
func benchGateway(b testing.TB, upstream string) *proxytest.Gateway {
	opts := imapbackend.Defaults()
	opts.Address, opts.TLS = upstream, imapbackend.TLSNone
	backend, err := imapbackend.New(opts)
	if err != nil {
		b.Fatal(err)
	}
	return proxytest.Serve(b, proxytest.Loopback(b), proxy.Options{Backend: backend}, proxytest.Insecure)
}

// benchClient logs in through a gateway in front of the upstream. It returns no
// Client, whose calls of Helper would be measured too.
func benchClient(b testing.TB, upstream string) *proxytest.Conversation {
	c := benchGateway(b, upstream).Dial()
	c.Buffer(64 << 10)
	c.Login("u", "p")
	return c.Conversation
}

// fetch reads the message that a command asks for.
func fetch(b testing.TB, c *proxytest.Conversation, command string) {
	if err := errors.Join(c.OK(command), c.Discard()); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkWalk is RETR of all messages of a large maildrop in their order,
// one at a time and with 64 in flight.
func BenchmarkWalk(b *testing.B) {
	const messages, octets = 10000, 4 << 10
	for _, inFlight := range []int{1, 64} {
		b.Run(fmt.Sprintf("%d in flight", inFlight), func(b *testing.B) {
			c := benchClient(b, benchUpstream(b, messages, octets))
			b.SetBytes(octets)
			b.ReportAllocs()
			commands := make([]string, messages)
			for i := range commands {
				commands[i] = fmt.Sprint("RETR ", i+1)
			}
			sent, got := 0, 0
			for b.Loop() {
				if sent == got {
					first := sent % messages
					last := min(first+inFlight, messages)
					if err := c.Send(commands[first:last]...); err != nil {
						b.Fatal(err)
					}
					sent += last - first
				}
				if _, err := c.Reply("RETR"); err != nil {
					b.Fatal(err)
				}
				if err := c.Discard(); err != nil {
					b.Fatal(err)
				}
				got++
			}
		})
	}
}

// BenchmarkLogin is a session without mail to fetch: USER, PASS, STAT, QUIT.
func BenchmarkLogin(b *testing.B) {
	g := benchGateway(b, benchUpstream(b, 10, 4<<10))
	b.ReportAllocs()
	for b.Loop() {
		session(b, g.Addr())
	}
}

// session is the session of BenchmarkLogin.
func session(b testing.TB, addr string) {
	c := benchDial(b, addr)
	if err := errors.Join(c.Greeting(), c.OK("USER u", "PASS p", "STAT", "QUIT")); err != nil {
		b.Fatal(err)
	}
	c.Conn.Close()
}

// benchDial connects to a gateway; the client uses little memory.
func benchDial(b testing.TB, addr string) *proxytest.Conversation {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	c := &proxytest.Conversation{Conn: conn}
	c.Buffer(512)
	return c
}

// BenchmarkRetr is one message, from an upstream that has it in memory through
// the gateway to the client, over loopback.
func BenchmarkRetr(b *testing.B) {
	for _, octets := range []int{4 << 10, 64 << 10, 8 << 20} {
		b.Run(fmt.Sprintf("%dKiB", octets>>10), func(b *testing.B) {
			c := benchClient(b, benchUpstream(b, 1, octets))
			b.SetBytes(int64(octets))
			b.ReportAllocs()
			for b.Loop() {
				fetch(b, c, "RETR 1")
			}
		})
	}
}
