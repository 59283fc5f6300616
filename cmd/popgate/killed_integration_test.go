//go:build integration

package main_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"

	"popgate/imapbackend/imapmodel"
)

// killer ends a gateway by SIGKILL when the upstream has got its k-th command,
// or has answered it.
type killer struct {
	mu      sync.Mutex
	gateway *gateway
	left    int // events until then
}

func (k *killer) arm(g *gateway, events int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.gateway, k.left = g, events
}

// event counts one; the gateway is dead when it returns from the last.
func (k *killer) event(string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.left--; k.left == 0 {
		k.gateway.kill()
	}
}

// takeAll is a session that retrieves and marks all messages.
type takeAll struct {
	got    map[string]bool // messages that came whole, and were marked
	quit   bool            // QUIT was sent
	quitOK bool
}

func (s *takeAll) play(addr string) error {
	c, err := dialPOP(addr)
	if err != nil {
		return err
	}
	defer c.conn.Close()
	if err := c.login("joe"); err != nil {
		return err
	}
	reply, err := c.ask("STAT")
	if err != nil {
		return err
	}
	var count int
	if _, err := fmt.Sscanf(reply, "+OK %d", &count); err != nil {
		return err
	}
	for n := 1; n <= count; n++ {
		body, err := c.fetch(fmt.Sprintf("RETR %d", n))
		if err != nil {
			return err
		}
		if err := c.ok(fmt.Sprintf("DELE %d", n)); err != nil {
			return err
		}
		s.got[string(body)] = true
	}
	s.quit = true
	err = c.ok("QUIT")
	s.quitOK = err == nil
	return err
}

// P-SESS-5, P-QUIT-2, P-QUIT-3: the process is killed at each point of
// a session that the upstream can tell of, again and again on one mailbox.
// What a client has not got whole, and asked to remove by QUIT, is
// there, and the next process serves it.
func TestGatewayKilled(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m, k := imapmodel.New(), new(killer)
	m.Before, m.After = k.event, k.event
	served := make(chan error)
	go func() { served <- m.Serve(l) }()
	defer func() {
		l.Close()
		<-served
	}()
	config := plainConfig(l.Addr().String())
	inbox := m.Inbox()
	number := 0
	for events := 1; ; events++ {
		for len(inbox.Messages()) < 5 {
			number++
			inbox.Add(fmt.Sprintf("Subject: %d\r\n\r\n.%s\r\n", number, strings.Repeat("x", 50*number)))
		}
		before := inbox.Messages()
		g := startBinary(t, popgatePlain, config)
		k.arm(g, events)
		s := takeAll{got: make(map[string]bool)}
		err := s.play(g.addr)
		k.arm(nil, 0)
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
		if killed := g.killed.Load(); !killed {
			if err != nil {
				t.Errorf("not killed, and yet: %v", err)
			}
			t.Logf("killed at %d points", events-1)
			return
		}
		// Messages that are flagged and not expunged are not shown any more.
		for _, msg := range inbox.Messages() {
			if msg.Deleted() {
				inbox.SetFlag(msg.UID, `\Deleted`, false)
			}
		}
	}
}
