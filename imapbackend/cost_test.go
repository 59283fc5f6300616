package imapbackend_test

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"

	"popgate/imapbackend"
	"popgate/proxy"
)

// What a session allocates. Client and upstream run in this process too, so the
// bounds have room for what they allocate, and for sync.Pool, which drops some
// items under the race detector.
func TestAllocations(t *testing.T) {
	const octets = 4 << 10
	walk := func(command string, most float64) func(*testing.T) {
		return func(t *testing.T) {
			const runs = 500
			c := benchClient(t, benchUpstream(t, runs+50, octets))
			n := 0
			step := func() {
				n++
				fetch(t, c, fmt.Sprintf(command, n))
			}
			for range 40 { // until the read-ahead is in full use
				step()
			}
			atMost(t, "allocations a message", testing.AllocsPerRun(runs, step), most)
		}
	}
	t.Run("RETR", walk("RETR %d", 20))
	t.Run("TOP", walk("TOP %d 0", 16))
	t.Run("large RETR", func(t *testing.T) {
		c := benchClient(t, benchUpstream(t, 1, 8<<20))
		// The size of the message does not matter.
		atMost(t, "allocations for 8 MiB", testing.AllocsPerRun(3, func() {
			fetch(t, c, "RETR 1")
		}), 60)
	})
	t.Run("session", func(t *testing.T) {
		addr := benchGateway(t, benchUpstream(t, 10, octets)).Addr()
		session(t, addr)
		atMost(t, "allocations a session", testing.AllocsPerRun(100, func() { session(t, addr) }), 550)
	})
}

// An idle session has at most three goroutines, besides the one of the
// upstream in this process, and holds no large buffer on either side.
func TestIdleSession(t *testing.T) {
	const sessions = 64
	addr := benchGateway(t, benchUpstream(t, 10, 4<<10)).Addr()
	idle := func(user int) {
		c := benchDial(t, addr)
		t.Cleanup(func() { c.Conn.Close() })
		err := c.Login(fmt.Sprint("u", user), "p")
		for _, command := range []string{"LIST", "RETR 1"} {
			err = errors.Join(err, c.OK(command), c.Discard())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	idle(0) // allocates what all sessions share
	goroutines, octets := runtime.NumGoroutine(), inUse()
	for i := range sessions {
		idle(i + 1)
	}
	const ofUpstream = 1
	atMost(t, "goroutines a session", float64(runtime.NumGoroutine()-goroutines)/sessions, 3+ofUpstream)
	atMost(t, "octets a session", float64((inUse()-octets)/sessions-benchBuffer), 40<<10)
}

// atMost logs a count, and fails if it is above the bound.
func atMost(t *testing.T, what string, got, bound float64) {
	t.Helper()
	t.Logf("%.1f %s", got, what)
	if got > bound {
		t.Errorf("%s: %v at most", what, bound)
	}
}

// inUse returns the octets on heap and stacks, without what the pools hold.
func inUse() int {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc + m.StackInuse)
}

// I-UIDL-5: the memory of a first login with uidl_memory does not depend on the
// headers that identify messages, which any sender can make long. It is measured at
// the end of the answer, before the messages are named (see TestAssignMemory), and
// while the maildrop is open. Twice as many messages take twice as much.
func TestIdentitiesMemory(t *testing.T) {
	const messages = 25_000
	for _, tt := range []struct {
		name, caps    string
		answer, after float64 // octets a message
	}{
		{"headers", "", 450, 200},
		{"EMAILID", " OBJECTID", 350, 200},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var before, answer int
			up := identityUpstream{caps: tt.caps, messages: messages, last: func() { answer = inUse() }}
			opts := imapbackend.Defaults()
			opts.Address, opts.TLS, opts.UIDLMemory = up.listen(t), imapbackend.TLSNone, true
			backend, err := imapbackend.New(opts)
			if err != nil {
				t.Fatal(err)
			}
			defer backend.Close()
			before = inUse()
			login, err := backend.Login(t.Context(), proxy.Credential{Username: "u", Password: "p"})
			if err != nil {
				t.Fatal(err)
			}
			maildrop, err := login.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer maildrop.Close()
			after := inUse()
			if n := len(maildrop.Messages()); n != messages {
				t.Fatalf("%d messages", n)
			}
			atMost(t, "octets a message at the end of the answer", float64(answer-before)/messages, tt.answer)
			atMost(t, "octets a message afterwards", float64(after-before)/messages, tt.after)
		})
	}
}

// identityUpstream is a mailbox whose messages have identities, each hundredth one
// a header of 64 KiB.
type identityUpstream struct {
	caps     string
	messages int
	last     func() // is called before the end of the answer with identities
}

// listen serves one connection, and returns the address.
func (u identityUpstream) listen(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		if conn, err := l.Accept(); err == nil {
			u.serve(conn)
		}
	}()
	return l.Addr().String()
}

func (u identityUpstream) serve(conn net.Conn) {
	defer conn.Close()
	r, w := bufio.NewReader(conn), bufio.NewWriterSize(conn, benchBuffer)
	fmt.Fprintf(w, "* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR UIDPLUS%s] ready\r\n", u.caps)
	long := strings.Repeat("Received: from a.example by b.example; Mon, 1 Jan 2024 00:00:00 +0000\r\n", 900)
	for {
		if r.Buffered() == 0 {
			w.Flush()
		}
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		tag, cmd, _ := strings.Cut(strings.TrimSpace(line), " ")
		fetch := strings.HasPrefix(cmd, "UID FETCH")
		identities := strings.Contains(cmd, "HEADER") || strings.Contains(cmd, "EMAILID")
		switch {
		case strings.HasPrefix(cmd, "UID SEARCH"):
			fmt.Fprint(w, "* SEARCH\r\n")
		case strings.HasPrefix(cmd, "SELECT"):
			fmt.Fprintf(w, "* %d EXISTS\r\n* OK [UIDVALIDITY 1] x\r\n* OK [UIDNEXT %d] x\r\n", u.messages, u.messages+1)
		}
		for i := 1; i <= u.messages && fetch; i++ {
			fmt.Fprintf(w, "* %d FETCH (UID %d RFC822.SIZE 1000", i, i)
			if strings.Contains(cmd, "EMAILID") {
				fmt.Fprintf(w, " EMAILID (M%040d)", i)
			}
			if strings.Contains(cmd, "HEADER") {
				header := fmt.Sprintf("Message-ID: <%d@a.example>\r\n", i)
				if i%100 == 0 {
					header += long
				}
				fmt.Fprintf(w, " BODY[HEADER.FIELDS (X)] {%d}\r\n%s\r\n", len(header)+2, header)
			}
			fmt.Fprint(w, ")\r\n")
		}
		if fetch && identities {
			w.Flush()
			u.last()
		}
		fmt.Fprintf(w, "%s OK [CAPABILITY IMAP4rev1 UIDPLUS%s] done\r\n", tag, u.caps)
	}
}
