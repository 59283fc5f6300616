package imapbackend

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"strings"
	"testing"
	"testing/synctest"
)

// I-UIDL-5: the memory of a first login with uidl_memory does not depend on the
// headers that identify messages, which any sender can make long. It is measured at
// the end of the answer, before the messages are named (see TestAssignMemory), and
// while the maildrop is open. Twice as many messages take twice as much.
func TestIdentitiesMemory(t *testing.T) {
	const messages = 25_000
	for _, tt := range []struct {
		name, caps    string
		answer, after float64 // octets a message at most
	}{
		{"headers", "", 250, 170},
		{"EMAILID", " OBJECTID", 300, 170},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var answer int64
				up := identityUpstream{caps: tt.caps, messages: messages, last: func() {
					synctest.Wait() // all of the answer has been taken
					answer = heapInUse()
				}}
				b := backend(t, Options{UIDLMemory: true})
				b.dial = func(context.Context) (net.Conn, error) {
					client, server := net.Pipe()
					go up.serve(server)
					return client, nil
				}
				before := heapInUse()
				d := openMaildrop(t, b)
				after := heapInUse()
				if n := len(d.Messages()); n != messages {
					t.Fatalf("%d messages", n)
				}
				for _, m := range []struct {
					what      string
					got, most float64
				}{
					{"at the end of the answer", float64(answer-before) / messages, tt.answer},
					{"afterwards", float64(after-before) / messages, tt.after},
				} {
					if t.Logf("%.1f octets a message %s", m.got, m.what); m.got > m.most {
						t.Errorf("%v octets at most", m.most)
					}
				}
				d.Close()
			})
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

func (u identityUpstream) serve(conn net.Conn) {
	defer conn.Close()
	r, w := bufio.NewReader(conn), bufio.NewWriterSize(conn, 64<<10)
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
