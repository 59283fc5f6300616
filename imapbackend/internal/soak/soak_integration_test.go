//go:build integration

package soak

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"popgate/imapbackend"
	"popgate/imapbackend/dovecottest"
	"popgate/proxy"
	"popgate/proxy/proxytest"
)

const (
	users    = 4
	duration = time.Minute // default of the environment variable SOAK
	pace     = 100 * time.Millisecond
)

// soakTime and seed come from the environment: SOAK=10m, and SOAK_SEED to repeat
// a run.
func soakTime(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("SOAK")
	if text == "" {
		return duration
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func seed() uint64 {
	if n, err := strconv.ParseUint(os.Getenv("SOAK_SEED"), 10, 64); err == nil {
		return n
	}
	return rand.Uint64()
}

// resumptions is a log handler that counts the messages which were resumed where
// they had broken off, and discards everything.
type resumptions struct {
	slog.Handler
	count *atomic.Int64
}

func newResumptions() resumptions { return resumptions{slog.DiscardHandler, new(atomic.Int64)} }

func (r resumptions) Enabled(context.Context, slog.Level) bool { return true }

func (r resumptions) Handle(_ context.Context, record slog.Record) error {
	if record.Message == "message resumes where it broke off" {
		r.count.Add(1)
	}
	return nil
}

func (r resumptions) WithAttrs([]slog.Attr) slog.Handler { return r }

func (r resumptions) WithGroup(string) slog.Handler { return r }

// serve runs a gateway in front of the upstream and returns its address.
func serve(t *testing.T, upstream string, log slog.Handler) string {
	t.Helper()
	options := imapbackend.Defaults()
	options.Address, options.TLS = upstream, imapbackend.TLSNone
	b, err := imapbackend.New(options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	opts := proxy.Options{Backend: b, Logger: slog.New(log)}
	return proxytest.Serve(t, proxytest.Loopback(t), opts, proxytest.Insecure).Addr()
}

// other is an IMAP client that adds, expunges and flags in one user's mailbox.
type other struct {
	c      *dovecottest.Client
	l      *ledger
	r      *rand.Rand
	number int
}

func (o *other) step() {
	switch k := o.r.IntN(10); {
	case k < 7:
		o.add(1 + o.r.IntN(4))
	case k < 9:
		// Nobody else adds messages: the n-th has the UID n. It may be gone.
		n := 1 + max(0, o.number-1-o.r.IntN(40))
		o.l.note(o.l.others, fmt.Sprintf("Subject: %d", n))
		o.c.Store(strconv.Itoa(n), `+FLAGS (\Deleted)`)
		o.c.Command("UID EXPUNGE %d", n)
	default:
		o.c.Store("1:*", `+FLAGS (\Flagged)`)
	}
}

func (o *other) add(count int) {
	var bodies [][]byte
	o.l.mu.Lock()
	for range count {
		o.number++
		lines := strings.Repeat(fmt.Sprintf(".line of %d\r\n", o.number), 1+int(o.r.ExpFloat64()*3000))
		body := fmt.Sprintf("Subject: %d\r\n\r\n%s", o.number, lines)
		o.l.added[nameOf(body)] = body
		bodies = append(bodies, []byte(body))
	}
	o.l.mu.Unlock()
	o.c.Append("INBOX", bodies...)
}

// check compares the messages that are left with those that were added, expunged
// by the other client, and marked in a session with QUIT.
func (l *ledger) check(t *testing.T, user string, left []dovecottest.Message) {
	t.Helper()
	there := make(map[string]bool)
	for _, msg := range left {
		name := nameOf(string(msg.Octets))
		there[name] = true
		if strings.Contains(msg.Flags, `\Deleted`) && !l.asked[name] && !l.others[name] {
			t.Errorf("%s: %q is flagged, but no client asked for that", user, name)
		}
		if l.removed[name] {
			t.Errorf("%s: %q is left, although QUIT was answered +OK", user, name)
		}
	}
	for name := range l.added {
		if !there[name] && !l.others[name] && !l.asked[name] {
			t.Errorf("%s: %q is lost", user, name)
		}
	}
}

// The endurance test (P-RETR-7, P-SESS-5, P-QUIT-2, P-QUIT-3, I-CONC-1): POP3
// clients that try again as real ones do, an IMAP client that changes their
// mailboxes at the same time, and connections that break at any octet. Every
// message that no client has received whole and asked to remove is left at the
// end.
func TestSoak(t *testing.T) {
	limit, start := soakTime(t), seed()
	dovecot := dovecottest.Start(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	n := &network{Listener: l, upstream: dovecot.Addr, r: rand.New(rand.NewPCG(start, 0))}
	served := make(chan struct{})
	go func() { n.serve(); close(served) }()
	t.Cleanup(func() { l.Close(); <-served })
	resumed := newResumptions()
	addr := serve(t, l.Addr().String(), resumed)

	over := make(chan struct{})
	var walkers []*walker
	var others []*other
	var running sync.WaitGroup
	for i := range users {
		w := &walker{addr: addr, user: fmt.Sprintf("user%d", i), l: newLedger(), r: rand.New(rand.NewPCG(start, uint64(i+1)))}
		o := &other{c: dovecot.Login(w.user), l: w.l, r: rand.New(rand.NewPCG(start, uint64(i+100)))}
		o.c.Select("INBOX")
		o.add(10)
		walkers, others = append(walkers, w), append(others, o)
		running.Go(func() { w.run(over) })
	}
	turn := 0
	tick, end := time.NewTicker(pace), time.NewTimer(limit)
	defer tick.Stop()
	for going := true; going; {
		select {
		case <-tick.C:
			others[turn%users].step()
			turn++
		case <-end.C:
			going = false
		}
	}
	close(over)
	n.calm.Store(true)
	running.Wait()
	sessions, whole, broken, quits, left := 0, 0, 0, 0, 0
	for i, w := range walkers {
		messages := dovecot.Messages(w.user)
		w.l.check(t, w.user, messages)
		for _, text := range w.wrong {
			t.Error(text)
		}
		sessions, whole, broken, quits, left = sessions+w.sessions, whole+w.whole, broken+w.broken, quits+w.quits, left+len(messages)
		others[i].c.Logout()
	}
	t.Logf("%v, SOAK_SEED=%d: %d sessions, %d ended by QUIT and +OK; %d connections broken; %d messages whole, %d not; %d resumed; %d left",
		limit, start, sessions, quits, n.cuts.Load(), whole, broken, resumed.count.Load(), left)
	if sessions < 10 || whole < 10 || n.cuts.Load() < 10 || resumed.count.Load() == 0 {
		t.Error("too few sessions, messages, breaks or resumptions to show anything")
	}
}

// run runs sessions until over is closed, with a short pause after a failure.
func (w *walker) run(over <-chan struct{}) {
	for {
		select {
		case <-over:
			return
		default:
		}
		if w.session() != nil {
			timer := time.NewTimer(pace)
			<-timer.C
		}
	}
}
