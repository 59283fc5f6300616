//go:build integration

package main_test

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"popgate/imapbackend/dovecottest"
	"popgate/imapbackend/imapmodel"
	"popgate/proxy/proxytest"
)

// killer kills a gateway at the n-th event. Events are a command that the
// upstream has received, its answer, and each piece of a big body.
type killer struct {
	mu      sync.Mutex
	gateway *gateway
	left    int // events until the kill
	within  int // kills within a body so far
}

func (k *killer) arm(g *gateway, events int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gateway, k.left = g, events
}

// event counts an event. It returns from the last one when the gateway is dead.
func (k *killer) event(cmd string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.left--; k.left == 0 {
		k.gateway.kill()
		if cmd == withinBody {
			k.within++
		}
	}
}

// withinBody is the name of an event that is not a command.
const withinBody = "within a body"

// pieces is the number of pieces of an answer with a big body.
const pieces = 6

// inPieces is a listener whose connections write a big body in pieces. Each
// piece except the last is an event.
type inPieces struct {
	net.Listener
	event func(string)
}

func (l inPieces) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return pieceConn{conn, l.event}, err
}

type pieceConn struct {
	net.Conn
	event func(string)
}

// Write implements io.Writer.
func (c pieceConn) Write(p []byte) (n int, err error) {
	for size := len(p)/pieces + 1; size > bigBody/pieces && len(p)-n > size; {
		k, err := c.Conn.Write(p[n : n+size])
		n += k
		if err != nil {
			return n, err
		}
		c.event(withinBody)
	}
	k, err := c.Conn.Write(p[n:])
	return n + k, err
}

// bigBody is the least number of octets in the big message: more than the
// gateway reads ahead.
const bigBody = 3 << 20

// takeAll is a session that retrieves and marks all messages.
type takeAll struct {
	got    map[string]bool // messages that were received whole, and marked
	quit   bool            // QUIT was sent
	quitOK bool
	listed int
}

func (s *takeAll) play(addr string) error {
	c, err := proxytest.DialConversation(addr)
	if err != nil {
		return err
	}
	defer c.Conn.Close()
	if err := c.Login("joe", dovecottest.Password); err != nil {
		return err
	}
	reply, err := c.Do("STAT")
	if err != nil {
		return err
	}
	var count int
	if _, err := fmt.Sscanf(reply, "+OK %d", &count); err != nil {
		return err
	}
	s.listed = count
	for n := 1; n <= count; n++ {
		body, err := c.Fetch(fmt.Sprintf("RETR %d", n))
		if err != nil {
			return err
		}
		if err := c.OK(fmt.Sprintf("DELE %d", n)); err != nil {
			return err
		}
		s.got[string(body)] = true
	}
	s.quit = true
	err = c.OK("QUIT")
	s.quitOK = err == nil
	return err
}

// P-SESS-5, P-QUIT-2, P-QUIT-3: the process is killed at each point of a session
// that the upstream can see, and within a body, with the same mailbox and store
// every time. A message is removed only if the client has received it whole and
// has sent QUIT; the next process serves all others, and those that were flagged and
// not removed (I-DEL-5).
func TestGatewayKilled(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m, k := imapmodel.New(), new(killer)
	m.Before, m.After = k.event, k.event
	served := make(chan error)
	go func() { served <- m.Serve(inPieces{l, k.event}) }()
	defer func() {
		l.Close()
		<-served
	}()
	dir := t.TempDir()
	config := plainConfig(l.Addr().String()) + fmt.Sprintf("\n[store]\npath = %q\n", filepath.Join(dir, "store"))
	big := fmt.Sprintf("Subject: big\r\n\r\n%s", strings.Repeat(strings.Repeat("x", 70)+"\r\n", bigBody/72+1))
	inbox := m.Inbox()
	number, flagged := 0, false
	for events := 1; ; events++ {
		for len(inbox.Messages()) < 5 {
			if len(inbox.Messages()) == 2 {
				inbox.Add(fmt.Sprintf("X-Number: %d\r\n%s", events, big))
			}
			number++
			inbox.Add(fmt.Sprintf("Subject: %d\r\n\r\n.%s\r\n", number, strings.Repeat("x", 50*number)))
		}
		before := inbox.Messages()
		g := startBinary(t, popgatePlain, config)
		k.arm(g, events)
		s := takeAll{got: make(map[string]bool)}
		err := s.play(g.addr)
		k.arm(nil, 0)
		if !g.killed.Load() && s.listed != len(before) {
			t.Errorf("the last process lists %d of %d messages", s.listed, len(before))
		}
		left := make(map[string]bool)
		for _, msg := range inbox.Messages() {
			left[msg.Body] = true
		}
		for _, msg := range before {
			mayGo := s.quit && s.got[msg.Body]
			if there := left[msg.Body]; !there && !mayGo || there && s.quitOK && !msg.Deleted() {
				t.Errorf("killed at event %d: UID %d: there %v, QUIT sent %v, answered +OK %v", events, msg.UID, there, s.quit, s.quitOK)
			}
			delete(s.got, msg.Body)
		}
		for body := range s.got {
			t.Errorf("killed at event %d: no message is %.40q", events, body)
		}
		if strings.Contains(g.Stderr.String(), "aside") {
			t.Errorf("the store did not survive: %s", g.Stderr.String())
		}
		if killed := g.killed.Load(); !killed {
			if err != nil {
				t.Errorf("not killed, and yet: %v", err)
			}
			k.mu.Lock()
			defer k.mu.Unlock()
			t.Logf("killed at %d points, %d of them within a body", events-1, k.within)
			if !flagged {
				t.Error("no process was killed with messages flagged")
			}
			if k.within != pieces-1 {
				t.Errorf("%d kills within the big body, want %d", k.within, pieces-1)
			}
			return
		}
		for _, msg := range inbox.Messages() {
			flagged = flagged || msg.Deleted()
		}
	}
}
