package imapbackend_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"testing"

	"popgate/imapbackend"
	"popgate/proxy"
)

// benchBuffer is what each connection of benchUpstream holds, in octets.
const benchBuffer = 64 << 10

// benchUpstream serves one mailbox of equal messages from memory, as little of
// IMAP as the gateway needs.
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

// benchGateway starts a gateway before the upstream and returns its address.
func benchGateway(b testing.TB, upstream string) string {
	opts := imapbackend.Defaults()
	opts.Address, opts.TLS = upstream, imapbackend.TLSNone
	backend, err := imapbackend.New(opts)
	if err != nil {
		b.Fatal(err)
	}
	srv, err := proxy.NewServer(proxy.Options{Backend: backend, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	go srv.Serve(l, proxy.ListenerOptions{
		Mode:              proxy.TLSNone,
		InsecureLoginFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
	})
	b.Cleanup(func() { srv.Close() })
	return l.Addr().String()
}

// benchClient logs in through a gateway before the upstream.
func benchClient(b testing.TB, upstream string) *bufio.ReadWriter {
	conn, err := net.Dial("tcp", benchGateway(b, upstream))
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close() })
	c := bufio.NewReadWriter(bufio.NewReaderSize(conn, 64<<10), bufio.NewWriter(conn))
	for _, line := range []string{"", "USER u", "PASS p"} {
		if line != "" {
			fmt.Fprint(c, line+"\r\n")
			c.Flush()
		}
		if reply, err := c.ReadString('\n'); err != nil || !strings.HasPrefix(reply, "+OK") {
			b.Fatalf("%q: %q, %v", line, reply, err)
		}
	}
	return c
}

// BenchmarkWalk is RETR of each message of a large maildrop in turn, one at a
// time and with 64 in flight.
func BenchmarkWalk(b *testing.B) {
	const messages, octets = 10000, 4 << 10
	for _, inFlight := range []int{1, 64} {
		b.Run(fmt.Sprintf("%d in flight", inFlight), func(b *testing.B) {
			c := benchClient(b, benchUpstream(b, messages, octets))
			b.SetBytes(octets)
			b.ReportAllocs()
			sent, got := 0, 0
			for b.Loop() {
				if sent == got {
					for range inFlight {
						fmt.Fprintf(c, "RETR %d\r\n", sent%messages+1)
						sent++
					}
					c.Flush()
				}
				readMessage(b, c)
				got++
			}
		})
	}
}

// BenchmarkLogin is a session without mail to fetch: USER, PASS, STAT, QUIT.
func BenchmarkLogin(b *testing.B) {
	addr := benchGateway(b, benchUpstream(b, 10, 4<<10))
	b.ReportAllocs()
	for b.Loop() {
		session(b, addr)
	}
}

// session is one such session.
func session(b testing.TB, addr string) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	visit(b, conn, "", "USER u\r\n", "PASS p\r\n", "STAT\r\n", "QUIT\r\n")
	conn.Close()
}

// visit sends commands, each with its line end, one at a time, and reads their
// answers; "" stands for the greeting.
func visit(b testing.TB, conn net.Conn, commands ...string) {
	r := bufio.NewReaderSize(conn, 512)
	for _, line := range commands {
		if line != "" {
			io.WriteString(conn, line)
		}
		if reply, err := r.ReadSlice('\n'); err != nil || !bytes.HasPrefix(reply, []byte("+OK")) {
			b.Fatalf("%q: %q, %v", line, reply, err)
		}
		if strings.HasPrefix(line, "LIST") || strings.HasPrefix(line, "RETR") {
			readMessage(b, r)
		}
	}
}

// readMessage reads the answer to RETR.
func readMessage(b testing.TB, c interface{ ReadSlice(byte) ([]byte, error) }) {
	for {
		line, err := c.ReadSlice('\n')
		if err != nil {
			b.Fatal(err)
		}
		if len(line) == 3 && line[0] == '.' {
			return
		}
	}
}

// BenchmarkRetr is a message on its whole way: upstream in memory, gateway and
// client over loopback.
func BenchmarkRetr(b *testing.B) {
	for _, octets := range []int{4 << 10, 64 << 10, 8 << 20} {
		b.Run(fmt.Sprintf("%dKiB", octets>>10), func(b *testing.B) {
			c := benchClient(b, benchUpstream(b, 1, octets))
			b.SetBytes(int64(octets))
			b.ReportAllocs()
			for b.Loop() {
				fmt.Fprint(c, "RETR 1\r\n")
				c.Flush()
				readMessage(b, c)
			}
		})
	}
}
