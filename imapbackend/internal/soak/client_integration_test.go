//go:build integration

package soak

import (
	"bufio"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"time"

	"popgate/imapbackend/dovecottest"
)

// replyTimeout bounds every wait for the gateway.
const replyTimeout = 5 * time.Minute

// ledger is what is known of one user's messages, by their first line, which
// names each.
type ledger struct {
	mu      sync.Mutex
	added   map[string]string // its octets
	others  map[string]bool   // expunged by the other client
	asked   map[string]bool   // got whole and marked, in a session that sent QUIT
	removed map[string]bool   // of these, those whose QUIT was answered +OK
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

// walker is a POP3 client that comes again and again.
type walker struct {
	addr, user string
	l          *ledger
	r          *rand.Rand

	sessions, whole, broken, quits int
	wrong                          []string // what must not be
}

// errRefused is an -ERR, after which the session goes on.
var errRefused = errors.New("refused")

type popConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *popConn) line() (string, error) {
	if err := c.SetDeadline(time.Now().Add(replyTimeout)); err != nil {
		return "", err
	}
	line, err := c.r.ReadString('\n')
	return strings.TrimSuffix(line, "\r\n"), err
}

func (c *popConn) do(command string) (string, error) {
	if _, err := fmt.Fprintf(c, "%s\r\n", command); err != nil {
		return "", err
	}
	return c.reply(command)
}

func (c *popConn) reply(command string) (string, error) {
	line, err := c.line()
	if err == nil && !strings.HasPrefix(line, "+OK") {
		err = fmt.Errorf("%s: %s: %w", command, line, errRefused)
	}
	return line, err
}

// body reads to the final dot.
func (c *popConn) body() (string, error) {
	var body strings.Builder
	for {
		line, err := c.line()
		if err != nil {
			return "", err
		}
		if line == "." {
			return body.String(), nil
		}
		body.WriteString(strings.TrimPrefix(line, ".") + "\r\n")
	}
}

// session is one session, to its end or that of the connection.
func (w *walker) session() error {
	conn, err := net.Dial("tcp", w.addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	c := &popConn{conn, bufio.NewReader(conn)}
	if _, err := c.reply("greeting"); err != nil {
		return err
	}
	for _, command := range []string{"USER " + w.user, "PASS " + dovecottest.Password} {
		if _, err := c.do(command); err != nil {
			return err
		}
	}
	w.sessions++
	status, err := c.do("STAT")
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
		case errors.Is(err, errRefused): // gone, or the upstream is
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
	if _, err := c.do("QUIT"); err != nil {
		return err
	}
	w.quits++
	w.l.note(w.l.removed, marked...)
	return nil
}

// take retrieves a message and most often marks it; name is "" if it does not.
func (w *walker) take(c *popConn, n int) (name string, err error) {
	if _, err := c.do(fmt.Sprintf("RETR %d", n)); err != nil {
		return "", err
	}
	body, err := c.body()
	if err != nil {
		w.broken++
		return "", err
	}
	w.whole++
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
	if _, err := c.do(fmt.Sprintf("DELE %d", n)); err != nil {
		return "", err
	}
	return name, nil
}
