package imapbackend

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"popgate/proxy"
)

const keepOpen = time.Minute

// Parts of scripts with UNSELECT. openedWarm opens a mailbox that is
// remembered and has not changed.
const (
	greetedKeep = "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] zebra ready\n" +
		"C: <l> AUTHENTICATE PLAIN " + ir + "\n" +
		"S: <l> OK [CAPABILITY IMAP4rev1 UIDPLUS UNSELECT] zebra\n"
	nowSelected = "S: * 1 EXISTS\nS: * OK [UIDVALIDITY 9] x\nS: * OK [UIDNEXT 8] x\n" +
		"S: <s> OK [READ-WRITE] selected\nS: * SEARCH\nS: <d> OK x\n"
	openedKeep = greetedKeep + "C: <s> SELECT INBOX\n" + lists + nowSelected +
		"S: * 1 FETCH (UID 7 RFC822.SIZE 100)\nS: <f> OK x\n"
	leaving    = "C: <u> UNSELECT\n"
	again      = "C: <n> NOOP\nC: <s> SELECT INBOX\nC: <d> UID SEARCH DELETED\nC: <f> UID FETCH 8:* (UID RFC822.SIZE)\n"
	openedWarm = nowSelected + "S: * 1 FETCH (UID 7 RFC822.SIZE 100)\nS: <f> OK x\n"
	// A connection that is closed without waiting for the answer.
	dismissed = "C: <z> LOGOUT\nW:\n"
	newDial   = "-- connection 2 --\n"
)

var keeping = Options{KeepOpen: keepOpen}

// quit ends a session by QUIT without marks.
func quit(t testing.TB, d proxy.Maildrop) {
	t.Helper()
	if err := d.Update(context.Background(), nil); err != nil {
		t.Errorf("Update: %v", err)
	}
	if err := d.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// reopened is a script up to a second session on a kept connection, on which
// the upstream has sent pushed in between.
func reopened(pushed string) string {
	return openedKeep + leaving + pushed + again + "S: <n> OK x\n" + openedWarm
}

// I-CONN-6, I-DEL-6, keep_open: a kept connection costs the next session one
// round trip, whatever the upstream sends in between.
func TestKept(t *testing.T) {
	const unselected = "S: <u> OK x\n"
	reSelect := strings.ReplaceAll(strings.ReplaceAll(reopened(""), leaving, ""), " UNSELECT", "")
	for _, tt := range []struct{ name, script string }{
		{"UNSELECT, answered at once", reopened(unselected)},
		{"UNSELECT, answered late", strings.Replace(reopened(""), again, again+unselected, 1)},
		{"UNSELECT refused", reopened("S: <u> BAD what\n")},
		{"I-DEL-6 re-SELECT where there is no UNSELECT", reSelect},
		{"re-SELECT with CLOSED", strings.Replace(reSelect, "S: <n> OK x\n",
			"S: * OK [UIDVALIDITY 3] stale\nS: * OK [UIDNEXT 2] stale\nS: <n> OK x\nS: * OK [CLOSED] x\n", 1)},
		{"re-SELECT after pushes", strings.Replace(reSelect, "S: <n> OK x\n",
			"S: * 5 EXISTS\nS: * OK [UIDVALIDITY 3] stale\nS: * OK [UIDNEXT 2] stale\nS: <n> OK x\n", 1)},
		{"NOOP answered last", strings.Replace(reSelect, "S: <n> OK x\n"+openedWarm, openedWarm+"S: <n> OK x\n", 1)},
		{"pushes about the old mailbox", reopened("S: * 5 EXISTS\nS: * 2 EXPUNGE\nS: * OK [UIDVALIDITY 3] stale\n" +
			"S: * OK [UIDNEXT 2] stale\nS: * 1 FETCH (UID 9 FLAGS ())\n" + unselected)},
		{"pushes without a mailbox", reopened(unselected + "S: * OK [ALERT] zebra\nS: * NO x\nS: * BYE x\nS: * 3 EXISTS\n")},
	} {
		play(t, tt.name, tt.script+bye, keeping, func(s *session) {
			quit(s.T, s.open())
			s.after(time.Second)
			before := s.up.Flights()
			d := s.open()
			if n := s.up.Flights() - before; n != 1 {
				s.Errorf("%d round trips from PASS to +OK, want 1", n)
			}
			if got := d.Messages(); len(got) != 1 || got[0] != (proxy.Message{UID: 7, Octets: 100}) {
				s.Errorf("messages: %v", got)
			}
			d.Close()
		})
	}
}

// keep_open, P-SESS-5, P-QUIT-4: which connections are not kept, and how they
// end.
func TestNotKept(t *testing.T) {
	asked := "C: <r> UID FETCH 7 (UID BODY.PEEK[])\n"
	for _, tt := range []struct {
		name, script string
		end          func(s *session, d proxy.Maildrop)
	}{
		{"P-SESS-5 a session without QUIT", openedKeep + bye, func(s *session, d proxy.Maildrop) { d.Close() }},
		{"an UPDATE that fails", openedKeep + storing("7") + "S: <st> NO x\n" + checking("7") +
			left("7") + unflagging("7") + "S: <u> OK x\n" + bye, func(s *session, d proxy.Maildrop) {
			if d.Update(s.ctx, []uint64{7}) == nil {
				s.Error("UPDATE succeeds")
			}
			d.Close()
		}},
		{"a connection lost", openedKeep + asked + "X:\n", func(s *session, d proxy.Maildrop) {
			_, err := d.Read(s.ctx, 7)
			s.fails(err, proxy.CodeSysTemp)
			quit(s.T, d)
		}},
		{"something pushed after the last answer", openedKeep + removingPushed + bye, func(s *session, d proxy.Maildrop) {
			if err := d.Update(s.ctx, []uint64{7}); err != nil {
				s.Error(err)
			}
			d.Close()
		}},
		{"a Backend that is closed", openedKeep + "C: <u> UNSELECT\nC: <z> LOGOUT\nS: <u> OK x\nS: * BYE x\nS: <z> OK x\n",
			func(s *session, d proxy.Maildrop) {
				s.b.Close()
				quit(s.T, d)
			}},
		{"P-QUIT-4 a connection that is kept, until then", openedKeep + leaving + "S: <u> OK x\n" + dismissed,
			func(s *session, d proxy.Maildrop) {
				quit(s.T, d)
				s.after(keepOpen)
			}},
		{"until the Backend is closed", openedKeep + leaving + "S: <u> OK x\n" + dismissed,
			func(s *session, d proxy.Maildrop) {
				quit(s.T, d)
				s.after(0)
				s.b.Close()
			}},
	} {
		play(t, tt.name, tt.script, keeping, func(s *session) {
			tt.end(s, s.open())
			s.after(0)
			if n := len(s.b.pool.kept); n != 0 {
				s.Errorf("%d connections are kept", n)
			}
		})
	}
}

// removingPushed is UPDATE with a message that arrives at the last moment.
var removingPushed = strings.Replace(removing("7"), "S: <q> OK x\n", "S+: <q> OK x\nS64: DQoqIDUgRVhJU1RTDQo=\n", 1)

// keep_open, P-PASS-4: Open replaces a kept connection that is dead, and the
// upstream then verifies the credential.
func TestKeptDead(t *testing.T) {
	cold := strings.Replace(openedKeep, "1:*", "8:*", 1)
	first := openedKeep + leaving + "S: <u> OK x\n"
	refused := strings.Replace(greetedKeep, "OK [CAPABILITY IMAP4rev1 UIDPLUS UNSELECT] zebra", "NO [AUTHENTICATIONFAILED] zebra", 1)
	opens := func(s *session, took time.Duration) {
		s.Helper()
		start := time.Now()
		d := s.open()
		if got := time.Since(start); got != took {
			s.Errorf("%v until +OK, want %v", got, took)
		}
		d.Close()
	}
	for _, tt := range []struct {
		name, script string
		second       func(s *session)
	}{
		{"closed", first + "X:\n" + newDial + cold + bye, func(s *session) { opens(s, 0) }},
		{"closed with BYE", first + "S: * BYE zebra\nX:\n" + newDial + cold + bye, func(s *session) { opens(s, 0) }},
		{"closed during the flight", first + again + "S: <n> OK x\nS: * 1 EXISTS\nX:\n" + newDial + cold + bye,
			func(s *session) { opens(s, 0) }},
		{"SELECT refused", first + again + "S: <n> OK x\nS: <s> NO zebra\nS: <d> BAD x\nS: <f> BAD x\nW: stall\n" + newDial + cold + bye,
			func(s *session) { opens(s, 0) }},
		{"answered out of order", first + again + "S: * 1 EXISTS\nS: * OK [UIDVALIDITY 9] x\nS: <n> OK x\nS: <s> OK x\n" +
			"S: * SEARCH\nS: <d> OK x\nS: <f> OK x\nW: stall\n" + newDial + cold + bye, func(s *session) { opens(s, 0) }},
		{"silent", first + again + "W: stall\n" + newDial + cold + bye, func(s *session) { opens(s, keptTimeout) }},
		{"SELECT that takes long on a live connection", first + again + "S: <n> OK x\nT: 40s\n" + openedWarm + bye,
			func(s *session) { opens(s, 40*time.Second) }},
		{"P-PASS-4 password changed in between", first + "X:\n" + newDial + refused + bye, func(s *session) {
			s.fails(s.openFails(), proxy.CodeAuth)
		}},
		{"upstream no longer reachable", first + "X:\n" + newDial + "X:\n", func(s *session) {
			s.fails(s.openFails(), proxy.CodeSysTemp)
		}},
		{"the client gives up", first + again + "W: stall\n", func(s *session) {
			l := s.login()
			ctx, cancel := context.WithTimeout(s.ctx, time.Second)
			defer cancel()
			_, err := l.Open(ctx)
			s.fails(err, proxy.CodeSysTemp)
			l.Close()
		}},
		{"not opened", first + bye, func(s *session) { s.login().Close() }},
	} {
		play(t, tt.name, tt.script, keeping, func(s *session) {
			quit(s.T, s.open())
			s.after(time.Second)
			tt.second(s)
		})
	}
}

// O-LOCK-1, O-LOCK-2: the mailbox-id is kept with the connection, and a mailbox
// with another one is not opened with the lock of the old one.
func TestKeptMailboxID(t *testing.T) {
	in := func(id string) string {
		return "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] Dovecot zebra ready\nC: <l> AUTHENTICATE PLAIN " + ir + "\n" +
			"S: <l> OK [CAPABILITY IMAP4rev1 UNSELECT OBJECTID] zebra\nC: <m> STATUS INBOX (MAILBOXID)\n" +
			"S: * STATUS INBOX (MAILBOXID (" + id + "))\nS: <m> OK x\n"
	}
	opened := func(id string) string {
		return "S: * OK [MAILBOXID (" + id + ")] x\n" + nowSelected + "S: * 1 FETCH (UID 7 RFC822.SIZE 100)\nS: <f> OK x\n"
	}
	first := in("F1") + "C: <s> SELECT INBOX\n" + lists + opened("F1") + leaving + "S: <u> OK x\n"
	play(t, "the same", first+again+"S: <n> OK x\n"+opened("F1")+bye, keeping, func(s *session) {
		quit(s.T, s.open())
		l := s.login()
		if got := l.Identity().MailboxID; got != "F1" {
			s.Errorf("mailbox-id %q", got)
		}
		d, err := l.Open(s.ctx)
		if err != nil {
			s.Fatal(err)
		}
		d.Close()
	})
	initial := strings.Replace(in("F2"), "C: <m> STATUS INBOX (MAILBOXID)\n", "", 1)
	initial = strings.Replace(initial, ir+"\n", ir+"\nC: <m> STATUS INBOX (MAILBOXID)\n", 1)
	play(t, "another", first+again+"S: <n> OK x\n"+opened("F2")+"W: stall\n"+newDial+initial+bye, keeping, func(s *session) {
		quit(s.T, s.open())
		s.fails(s.openFails(), proxy.CodeSysTemp)
	})
}

// keep_open: a login on a kept connection takes one round trip from PASS to
// +OK, and at most five commands. USER prepares no connection while logins
// find kept ones.
func TestKeptFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel()
		m.Caps += " UNSELECT"
		m.RTT = rtt
		for i := range 50 {
			m.add(mail(i, 100))
		}
		b := m.backend(t, keeping)
		quit(t, openMaildrop(t, b))
		for _, pause := range []time.Duration{0, rtt / 4, time.Second} {
			<-time.After(pause)
			if p := b.Prepare(t.Context(), proxy.Caller{}); p != nil {
				p.Close()
			}
			before := len(m.Commands())
			start := time.Now()
			d := openMaildrop(t, b)
			if n := trips(start); n > 1.01 {
				t.Errorf("%.2f round trips from PASS to +OK, %v after QUIT", n, pause)
			}
			if n := len(d.Messages()); n != 50 {
				t.Errorf("%d messages", n)
			}
			if got := m.Commands()[before:]; len(got) > 5 {
				t.Errorf("commands %q", got)
			}
			read(t, d, 3)
			quit(t, d)
		}
		if b.Prepare(t.Context(), proxy.Caller{}) != nil {
			t.Error("a connection is prepared though logins find kept ones")
		}
		b.Close()
		<-time.After(rtt)
	})
}

// keep_open: a connection prepared at USER is closed if PASS finds a kept one.
func TestKeptPrepared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel()
		b := m.backend(t, keeping)
		quit(t, openMaildrop(t, b))
		p := b.Prepare(t.Context(), proxy.Caller{})
		l, err := p.Login(t.Context(), joe)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if m.Open() != 1 || len(b.waiting) != 0 {
			t.Errorf("%d connections, %d prepared", m.Open(), len(b.waiting))
		}
		l.Close()
	})
}

// keep_open: QUIT keeps the connection if the octets of the read-ahead that
// are on their way are few, and ends it otherwise.
func TestKeptReadAhead(t *testing.T) {
	for _, tt := range []struct {
		size  int
		dials int
	}{{1000, 1}, {40_000, 2}} {
		synctest.Test(t, func(t *testing.T) {
			m := newModel()
			for i := range 200 {
				m.add(mail(i, tt.size))
			}
			b := m.backend(t, keeping)
			d := openMaildrop(t, b)
			for uid := range uint64(2) {
				read(t, d, uid+1)
			}
			if d.(*maildrop).readAhead.coming == 0 {
				t.Fatal("nothing is on its way")
			}
			quit(t, d)
			d = openMaildrop(t, b)
			if got := read(t, d, 100); got != m.messages()[99].Body {
				t.Errorf("UID 100 is %q", got)
			}
			d.Close()
			if m.Dials() != tt.dials {
				t.Errorf("messages of %d octets: %d connections, want %d", tt.size, m.Dials(), tt.dials)
			}
		})
	}
}

// keep_open: the pool keeps the newest connection of an account. It has a
// limit, and some of more users than that who log in one after the other find
// theirs.
func TestKeptLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel()
		b := m.backend(t, keeping)
		open := func(name string) proxy.Maildrop {
			m.SetPassword("\x00"+name, "x")
			l, err := b.Login(t.Context(), proxy.Credential{Username: name, Password: "x"})
			if err != nil {
				t.Fatal(err)
			}
			d, err := l.Open(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		one, two := open("joe"), open("joe")
		quit(t, one)
		quit(t, two)
		synctest.Wait()
		if len(b.pool.kept) != 1 || m.Open() != 1 {
			t.Errorf("%d connections kept, %d open", len(b.pool.kept), m.Open())
		}
		b.pool.limit = 5
		for i := range 12 {
			<-time.After(time.Millisecond)
			quit(t, open("user"+strconv.Itoa(i)))
		}
		synctest.Wait()
		if len(b.pool.kept) != 5 || m.Open() != 5 {
			t.Errorf("%d connections kept, %d open", len(b.pool.kept), m.Open())
		}
		if b.pool.kept[account{"", "user11"}] == nil {
			t.Error("the newest one is not kept")
		}
		found := 0
		for i := range 20 * 12 { // users one after the other, more than the limit
			name := "user" + strconv.Itoa(i%12)
			if b.pool.kept[account{"", name}] != nil {
				found++
			}
			quit(t, open(name))
			synctest.Wait()
		}
		if found == 0 {
			t.Error("no user finds a connection")
		}
		b.Close()
		synctest.Wait()
		if m.Open() != 0 {
			t.Errorf("%d connections open", m.Open())
		}
	})
}

// keep_open: the time counts from when the upstream verified the user, with
// any number of sessions in between. A login with a new password ends the
// connection opened with the old one.
func TestKeptValidity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel()
		m.SetPassword("\x00joe", "secret")
		b := m.backend(t, keeping)
		quit(t, openMaildrop(t, b))
		m.SetPassword("\x00joe", "new")
		for range 5 {
			<-time.After(keepOpen / 6)
			quit(t, openMaildrop(t, b))
		}
		<-time.After(keepOpen / 6)
		if _, err := b.Login(t.Context(), joe); !errors.Is(err, proxy.ErrAuth) {
			t.Errorf("an expired password: %v", err)
		}
		<-time.After(time.Minute) // I-LOGIN-10

		m.SetPassword("\x00joe", "secret")
		quit(t, openMaildrop(t, b))
		m.SetPassword("\x00joe", "new")
		l, err := b.Login(t.Context(), proxy.Credential{Username: "joe", Password: "new"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.Login(t.Context(), joe); !errors.Is(err, proxy.ErrAuth) {
			t.Errorf("the password before the one in use: %v", err)
		}
		l.Close()
	})
}

// O-LOG-1: the pool does not hold passwords, and the digest depends on each
// field of a credential. Attempt is none: it counts the logins of one client
// connection, and a kept connection is for any of them.
func TestKeptDigest(t *testing.T) {
	var fields []string
	for _, f := range reflect.VisibleFields(reflect.TypeFor[proxy.Credential]()) {
		fields = append(fields, f.Name)
	}
	digested, leftOut := []string{"Authzid", "Username", "Password", "UTF8"}, []string{"Attempt"}
	if want := slices.Concat(digested, leftOut); !slices.Equal(fields, want) {
		t.Errorf("a credential has the fields %q, want %q", fields, want)
	}
	k, other := newPool(keepOpen), newPool(keepOpen)
	seen := make(map[[32]byte]bool)
	for _, c := range []proxy.Credential{
		{}, joe, {Username: "joe", Password: "secret", UTF8: true}, {Authzid: "", Username: "joes", Password: "ecret"}, {Authzid: "joe", Username: "", Password: "secret"}, {Authzid: "j", Username: "oe", Password: "secret"}, {Authzid: "", Username: "joe", Password: "Secret"}, {Authzid: "", Username: "Joe", Password: "secret"},
	} {
		digest := k.digest(c)
		if seen[digest] {
			t.Errorf("%+v has the digest of another", c)
		}
		seen[digest] = true
		if digest != k.digest(c) || digest == other.digest(c) {
			t.Errorf("%+v: the digest does not depend on the key only", c)
		}
	}
	second := joe
	if second.Attempt++; k.digest(second) != k.digest(joe) {
		t.Error("the digest depends on the number of the login")
	}
	synctest.Test(t, func(t *testing.T) {
		b := newModel().backend(t, keeping)
		quit(t, openMaildrop(t, b))
		p := b.pool.kept[accountOf(joe)]
		if p == nil || reflect.ValueOf(p.u).Elem().FieldByName("secrets").Len() > 0 {
			t.Errorf("%+v is kept", p)
		}
	})
}

// keep_open: KeepOpen is from 0 to MaxKeepOpen.
func TestKeepOpenRange(t *testing.T) {
	for _, d := range []time.Duration{-1, 0, time.Minute, MaxKeepOpen, MaxKeepOpen + 1} {
		b, err := New(orDefaults(Options{Address: "127.0.0.1:1", TLS: TLSNone, KeepOpen: d}))
		if ok := d >= 0 && d <= MaxKeepOpen; ok != (err == nil) {
			t.Errorf("KeepOpen %v: %v", d, err)
		}
		if b != nil {
			b.Close()
		}
	}
}
