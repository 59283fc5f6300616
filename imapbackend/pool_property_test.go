package imapbackend

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"popgate/proxy"
)

// keepWorld is the state of TestKeepProperty: the passwords of the upstream,
// when it has accepted each, and the open sessions.
type keepWorld struct {
	*testing.T
	r         *rand.Rand
	m         *model
	b         *Backend
	users     []proxy.Credential // with their current passwords
	accepted  map[proxy.Credential]time.Time
	refusedAt map[proxy.Credential]time.Time
	open      []openDrop
	passwords,
	hits, refused int
}

type openDrop struct {
	proxy.Maildrop
	user int
}

// mailboxes are the owners of a mailbox, each with one message.
var mailboxes = []string{"ann", "bob", "cid"}

// mailOf is the message in a user's mailbox.
func mailOf(c proxy.Credential) string {
	return mail(slices.Index(mailboxes, strings.ToLower(cmp.Or(c.Authzid, c.Username))), 100)
}

// upstreamUser is the user as the model's passwords know it.
func upstreamUser(c proxy.Credential) string { return c.Authzid + "\x00" + c.Username }

// setPassword gives a user a password that no user has had before.
func (w *keepWorld) setPassword(i int) {
	w.passwords++
	w.users[i].Password = fmt.Sprint("password ", w.passwords)
	w.m.SetPassword(upstreamUser(w.users[i]), w.users[i].Password)
}

// login logs user i in with password, and checks the result and whose maildrop
// it is.
func (w *keepWorld) login(i int, password string) {
	cred := w.users[i]
	right := password == cred.Password
	cred.Password = password
	recent := time.Since(w.accepted[cred]) < keepOpen
	dials := w.m.Dials()
	l, err := w.b.Login(w.Context(), cred)
	var d proxy.Maildrop
	if err == nil {
		if d, err = l.Open(w.Context()); err != nil {
			l.Close()
		}
	}
	asked := w.m.Dials() > dials
	switch {
	case err == nil && !right && (asked || !recent):
		w.Fatalf("%+v is accepted", cred)
	case err != nil && right:
		w.Fatalf("%+v: %v", cred, err)
	case err != nil && (!errors.Is(err, proxy.ErrAuth) || !asked && time.Since(w.refusedAt[cred]) >= time.Minute):
		w.Fatalf("%+v: %v, upstream asked: %v", cred, err, asked)
	case err != nil:
		if asked {
			w.refusedAt[cred] = time.Now()
		}
		w.refused++
		return
	case asked:
		w.accepted[cred] = time.Now()
	default:
		w.hits++
	}
	w.open = append(w.open, openDrop{d, i})
	w.look(len(w.open) - 1)
}

// look reads the only message of an open maildrop and checks whose it is. The
// connection may be lost.
func (w *keepWorld) look(n int) {
	d := w.open[n]
	all := d.Messages()
	if len(all) != 1 {
		w.Fatalf("user %d has %d messages", d.user, len(all))
	}
	body, err := d.Read(w.Context(), all[0].UID)
	if err != nil {
		if d.Maildrop.(*maildrop).u.Wire.Err() == nil {
			w.Fatalf("%+v: %v", w.users[d.user], err)
		}
		return
	}
	if got := text(w.T)(body, nil); got != mailOf(w.users[d.user]) {
		w.Fatalf("%+v gets %q", w.users[d.user], got)
	}
}

// end ends an open session.
func (w *keepWorld) end(n int) {
	d := w.open[n]
	w.open = slices.Delete(w.open, n, n+1)
	if w.r.IntN(4) > 0 {
		d.Update(w.Context(), nil) // QUIT
	}
	d.Close()
	synctest.Wait()
}

func (w *keepWorld) step() {
	i := w.r.IntN(len(w.users))
	switch k := w.r.IntN(24); {
	case k < 9:
		w.login(i, w.users[i].Password)
	case k < 11:
		w.login(i, w.users[w.r.IntN(len(w.users))].Password) // usually another user's
	case k < 13:
		w.login(i, fmt.Sprint("password ", w.r.IntN(w.passwords+2))) // an old one, or none
	case k < 19 && len(w.open) > 0:
		w.end(w.r.IntN(len(w.open)))
	case k == 19 && len(w.open) > 0:
		w.look(w.r.IntN(len(w.open)))
	case k == 20:
		<-time.After(time.Duration(w.r.Int64N(int64(keepOpen / 2))))
	case k == 21:
		w.setPassword(i)
	case k == 22:
		synctest.Wait()
		lines := []string{"* BYE x", "* 7 EXISTS", "* OK [UIDVALIDITY 1] x"}
		if len(w.open) > 0 {
			lines = lines[:2] // for a mailbox in use the last one is an event
		}
		w.m.Push(lines[w.r.IntN(len(lines))], w.r.IntN(2) == 0)
	}
}

// keep_open, I-CONN-6, P-PASS-4: users log in with right and wrong passwords
// in any order, sessions end with and without QUIT, passwords change, and the
// upstream closes connections. No user gets the connection of another, and a
// wrong password is accepted only if the upstream has accepted it within
// KeepOpen and has not been asked since.
func TestKeepProperty(t *testing.T) {
	hits, refused := 0, 0
	for seed := range uint64(8) {
		synctest.Test(t, func(t *testing.T) {
			m := newModel()
			opts := keeping
			if seed%2 == 0 {
				m.Caps += " UNSELECT"
			}
			if seed%3 == 0 {
				m.Caps += " COMPRESS=DEFLATE"
				opts.Compress = true
			}
			w := &keepWorld{
				T: t, r: rand.New(rand.NewPCG(seed, 3)), m: m, b: m.backend(t, opts),
				users: []proxy.Credential{{Username: "ann"}, {Username: "Ann"}, {Authzid: "ann", Username: "bob"},
					{Username: "bob"}, {Username: "cid"}},
				accepted:  make(map[proxy.Credential]time.Time),
				refusedAt: make(map[proxy.Credential]time.Time),
			}
			for i, owner := range mailboxes {
				m.Mailbox(owner, "INBOX").Add(mail(i, 100))
			}
			for i := range w.users {
				w.setPassword(i)
			}
			for range 250 {
				w.step()
			}
			for len(w.open) > 0 {
				w.end(0)
			}
			if n := m.Open(); n > len(w.b.pool.kept) {
				t.Errorf("seed %d: %d connections open, %d of them kept", seed, n, len(w.b.pool.kept))
			}
			w.b.Close()
			synctest.Wait()
			if n := m.Open(); n != 0 {
				t.Errorf("seed %d: %d connections are open at the end", seed, n)
			}
			hits, refused = hits+w.hits, refused+w.refused
		})
	}
	if hits < 60 || refused < 150 {
		t.Errorf("%d logins on a kept connection and %d refused: the test shows little", hits, refused)
	}
}
