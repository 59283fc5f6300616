package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"popgate/proxy"
	"popgate/proxy/lock"
	"popgate/proxy/lock/locktest"
	"popgate/proxy/proxytest"
)

// identified is a Backend whose mailboxes have ids, by user.
type identified struct {
	*proxytest.Backend
	ids map[string]string
}

func (b identified) Login(ctx context.Context, cred proxy.Credential) (proxy.Login, error) {
	l, err := b.Backend.Login(ctx, cred)
	if err != nil {
		return nil, err
	}
	return identifiedLogin{l, b.ids[cred.Username]}, nil
}

type identifiedLogin struct {
	proxy.Login
	mailboxID string
}

func (l identifiedLogin) Identity() proxy.Identity {
	id := l.Login.Identity()
	id.MailboxID = l.mailboxID
	return id
}

const uuid = "6097-4256-9d51-71338625"

// aliases is a Backend in which alice and ann are two names of one mailbox, and
// bob has another with a short id that is alice's too in her account.
func aliases() identified {
	b := identified{memory(generated(3, 1000)...), map[string]string{"alice": uuid, "ann": uuid, "bob": "1", "carol": "1"}}
	for _, user := range []string{"ann", "bob", "carol"} {
		b.AddAccount(user, "secret", false)
	}
	return b
}

// passes logs a user in by PASS and returns the reply.
func passes(p *proxytest.Client, user string) string {
	p.Greeting()
	p.OK("USER " + user)
	p.Send("PASS secret")
	return p.Line()
}

// TestLockKeys shows O-LOCK-1 and O-LOCK-2: aliases of one mailbox meet, two
// accounts with the same short id do not, and the log names the holder.
func TestLockKeys(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log proxytest.Log
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: aliases(), Logger: log.Logger()}, proxytest.Insecure)
		alice := g.DialFrom("192.0.2.7:40001")
		for _, tt := range []struct {
			p          *proxytest.Client
			user, want string
		}{
			{alice, "alice", "+OK"}, {g.Dial(), "ann", "-ERR [IN-USE]"}, {g.Dial(), "alice", "-ERR [IN-USE]"},
			{g.Dial(), "bob", "+OK"}, {g.Dial(), "carol", "+OK"},
		} {
			began := time.Now()
			if got := passes(tt.p, tt.user); !strings.HasPrefix(got, tt.want) {
				t.Errorf("%s: %q, want %s", tt.user, got, tt.want)
			}
			if took := time.Since(began); strings.Contains(tt.want, "IN-USE") && took != 5*time.Second {
				t.Errorf("%s: answered after %v", tt.user, took)
			}
		}
		if n := len(log.Lines("[IN-USE]", "of 192.0.2.7:40001")); n != 2 {
			t.Errorf("%d records name the holder, want 2", n)
		}
		alice.OK("QUIT")
		alice.Closed()
		if got := passes(g.Dial(), "ann"); !strings.HasPrefix(got, "+OK") {
			t.Errorf("after QUIT: %q", got)
		}
	})
}

// TestLockWaitInAll shows O-LOCK-1: the wait is bounded for both locks together,
// and a login that gets one of them only leaves none.
func TestLockWaitInAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var locks lock.Local
		b := aliases()
		o := new(proxytest.Observer)
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b, Locker: &locks, Observer: o}, proxytest.Insecure)
		keys := proxy.Identity{Upstream: "memory", User: "alice", Mailbox: "INBOX", MailboxID: uuid}.Keys()
		first, err1 := locks.Acquire(t.Context(), keys[0], "first")
		second, err2 := locks.Acquire(t.Context(), keys[1], "second")
		if err := errors.Join(err1, err2); err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(3*time.Second, first.Release)
		began := time.Now()
		if got := passes(g.Dial(), "alice"); !strings.HasPrefix(got, "-ERR [IN-USE]") || time.Since(began) != 5*time.Second {
			t.Errorf("%q after %v", got, time.Since(began))
		}
		if !slices.ContainsFunc(o.Events(), func(e string) bool { return strings.Contains(e, "lock 5s") }) {
			t.Errorf("the time in both queues is not counted: %q", o.Events())
		}
		second.Release()
		for _, key := range keys {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			l, err := locks.Acquire(ctx, key, "test")
			if err != nil {
				t.Fatalf("%q is left held: %v", key, err)
			}
			l.Release()
		}
		if b.Open() != 0 {
			t.Error("a login is left open")
		}
	})
}

// TestEitherLockLost shows O-LOCK-5 for each of two locks.
func TestEitherLockLost(t *testing.T) {
	for i := range 2 {
		synctest.Test(t, func(t *testing.T) {
			b := aliases()
			var locker locktest.Losable
			g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b, Locker: &locker}, proxytest.Insecure)
			p := g.Dial()
			p.Login("alice", "secret")
			p.OK("DELE 1")
			locker.Lose(proxy.Identity{Upstream: "memory", User: "alice", Mailbox: "INBOX", MailboxID: uuid}.Keys()[i])
			synctest.Wait()
			if n := g.Sessions(); n != 0 || b.Open() != 0 || b.Counts().Updates != 0 {
				t.Errorf("lock %d: %d sessions, %d maildrops, %d updates", i, n, b.Open(), b.Counts().Updates)
			}
			g.Dial().Login("alice", "secret")
		})
	}
}

// lockRecorder is a Locker that records what is acquired and released. It fails for
// the key fails.
type lockRecorder struct {
	lock.Local
	fails  string
	mu     sync.Mutex
	events []string
}

func (r *lockRecorder) add(event, key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, event+" "+strings.ReplaceAll(key, "\x00", "|"))
}

func (r *lockRecorder) Acquire(ctx context.Context, key, holder string) (lock.Lock, error) {
	r.add("acquire", key)
	if key == r.fails {
		return nil, errors.New("lock service is down")
	}
	l, err := r.Local.Acquire(ctx, key, holder)
	return &recordedLock{l, r, key}, err
}

type recordedLock struct {
	lock.Lock
	r   *lockRecorder
	key string
}

func (l *recordedLock) Release() {
	l.r.add("release", l.key)
	l.Lock.Release()
}

// TestLockOrder shows O-LOCK-2: the locks are acquired in one order and released
// together, also where the second fails.
func TestLockOrder(t *testing.T) {
	const user, id = "memory|alice|INBOX", "memory||id||" + uuid
	acquired := []string{"acquire " + user, "acquire " + id}
	for _, tt := range []struct {
		fails, reply string
		want         []string
	}{
		{"", "+OK", slices.Concat(acquired, []string{"release " + id, "release " + user})},
		{strings.ReplaceAll(id, "|", "\x00"), "-ERR [SYS/TEMP] maildrop cannot be locked", slices.Concat(acquired, []string{"release " + user})},
		{strings.ReplaceAll(user, "|", "\x00"), "-ERR [SYS/TEMP] maildrop cannot be locked", acquired[:1]},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := &lockRecorder{fails: tt.fails}
			g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: aliases(), Locker: r}, proxytest.Insecure)
			p := g.Dial()
			if got := passes(p, "alice"); !strings.HasPrefix(got, tt.reply) {
				t.Errorf("%q, want %s", got, tt.reply)
			}
			p.OK("QUIT")
			p.Closed()
			if got := fmt.Sprint(r.events); got != fmt.Sprint(tt.want) {
				t.Errorf("%s, want %s", got, tt.want)
			}
		})
	}
}
