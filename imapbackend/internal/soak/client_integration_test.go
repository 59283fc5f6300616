//go:build integration

package soak

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"popgate/imapbackend/dovecottest"
	"popgate/proxy/proxytest"
)

// replyTimeout bounds every wait for the gateway.
const replyTimeout = 5 * time.Minute

// ledger records what has happened to one user's messages. Its keys are the first
// lines of messages, which are unique.
type ledger struct {
	mu      sync.Mutex
	added   map[string]string // octets
	others  map[string]bool   // expunged by the other client
	asked   map[string]bool   // received whole and marked, in a session that sent QUIT
	removed map[string]bool   // those of asked whose QUIT was answered +OK
}

func newLedger() *ledger {
	return &ledger{added: make(map[string]string), others: make(map[string]bool), asked: make(map[string]bool), removed: make(map[string]bool)}
}

func nameOf(body string) string {
	line, _, _ := strings.Cut(body, "\r\n")
	return line
}

func (l *ledger) note(m map[string]bool, names ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, name := range names {
		m[name] = true
	}
}

// walker is a POP3 client that has one session after another.
type walker struct {
	addr, user string
	l          *ledger
	r          *rand.Rand

	sessions, whole, broken, quits int
	wrong                          []string // errors of the gateway
}

// session runs one session, until it ends or the connection does.
func (w *walker) session() error {
	c, err := proxytest.DialConversation(w.addr)
	if err != nil {
		return err
	}
	defer c.Conn.Close()
	c.Timeout = replyTimeout
	if err := c.Login(w.user, dovecottest.Password); err != nil {
		return err
	}
	w.sessions++
	status, err := c.Do("STAT")
	if err != nil {
		return err
	}
	var count int
	if _, err := fmt.Sscanf(status, "+OK %d", &count); err != nil {
		return err
	}
	var marked []string
	for n := 1; n <= min(count, 30); n++ {
		name, err := w.take(c, n)
		switch {
		case errors.Is(err, proxytest.ErrRefused): // gone, or the upstream is
		case err != nil:
			return err
		case name != "":
			marked = append(marked, name)
		}
	}
	if w.r.IntN(10) == 0 {
		return nil // without QUIT
	}
	w.l.note(w.l.asked, marked...)
	if err := c.OK("QUIT"); err != nil {
		return err
	}
	w.quits++
	w.l.note(w.l.removed, marked...)
	return nil
}

// take retrieves a message and, two times in three, marks it; name is "" if it
// does not.
func (w *walker) take(c *proxytest.Conversation, n int) (name string, err error) {
	if err := c.OK(fmt.Sprintf("RETR %d", n)); err != nil {
		return "", err
	}
	octets, err := c.Body()
	if err != nil {
		w.broken++
		return "", err
	}
	w.whole++
	body := string(octets)
	name = nameOf(body)
	w.l.mu.Lock()
	want := w.l.added[name]
	w.l.mu.Unlock()
	if body != want {
		w.wrong = append(w.wrong, fmt.Sprintf("%s: %q ended by a dot is %d octets, want %d", w.user, name, len(body), len(want)))
	}
	if w.r.IntN(3) == 0 {
		return "", nil
	}
	if err := c.OK(fmt.Sprintf("DELE %d", n)); err != nil {
		return "", err
	}
	return name, nil
}
