//go:build integration

package imapbackend

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"popgate/imapbackend/dovecottest"
	"popgate/proxy"
)

const (
	raceRounds  = 36
	raceUsers   = 6
	raceMailbox = "Work" // INBOX can be neither deleted nor renamed away
)

// I-CONC-1, I-CONC-2, I-CONC-3, I-CONC-4, I-CONC-5, I-SNAP-9, I-UIDV-1,
// I-DEL-3, I-DEL-4, P-QUIT-3: a second client changes the mailbox on a real
// Dovecot during the session. Whatever it does, messages, sizes and unique-ids
// stay the same, a body is whole or refused, and only marked messages are
// removed, from the mailbox in which they were marked.
func TestRaceDovecot(t *testing.T) {
	up := dovecottest.Start(t)
	counts := make(map[string]int)
	for i := range raceUsers {
		opts := Options{Address: up.TLSAddr, RootCAs: up.RootCAs, TLS: TLSImplicit, Mailbox: raceMailbox}
		if i%2 == 1 {
			opts.KeepOpen = MaxKeepOpen
		}
		user := fmt.Sprintf("user%d", i)
		w := &rival{T: t, up: up, b: backend(t, opts), user: user, c: up.Login(user), r: rand.New(rand.NewPCG(faultSeed, uint64(i))),
			mails: make(map[string]*raceMail), boxes: make(map[string]*raceBox), all: make(map[uint64]*raceBox), counts: counts}
		w.create()
		for range raceRounds / raceUsers {
			w.round(t.Context())
		}
	}
	t.Logf("%d rounds, POPGATE_FAULT_SEED=%d: %v", raceRounds, faultSeed, counts)
}

// step runs a step of the session, after the other client has acted or while it
// does. begin is called just before the step.
func (w *rival) step(begin, do func()) {
	w.unflagged = false
	together := w.r.IntN(2) == 0
	if !together {
		w.act()
	}
	begin()
	done := make(chan struct{})
	go func() { defer close(done); do() }()
	if together {
		w.act()
	}
	<-done
}

// round is one session.
func (w *rival) round(ctx context.Context) {
	w.replaced = w.boxes[raceMailbox] == nil
	var d *maildrop
	var err error
	w.step(func() {}, func() { d, err = w.open(ctx) })
	if err != nil {
		w.counts["login refused"]++
		if !w.replaced {
			w.Errorf("login: %v", err)
		}
		w.check(raceEnd{})
		return
	}
	if w.all[d.uidValidity] == nil && w.boxes[raceMailbox] == nil {
		d.Close() // see create
		w.check(raceEnd{})
		return
	}
	if w.all[d.uidValidity] == nil {
		w.listUIDs()
	}
	s := &raceSession{rival: w, d: d, box: w.all[d.uidValidity]}
	if s.box == nil {
		w.Fatalf("UIDVALIDITY %d is not known", d.uidValidity)
	}
	s.play(ctx)
}

func (w *rival) open(ctx context.Context) (*maildrop, error) {
	l, err := w.b.Login(ctx, proxy.Credential{Username: w.user, Password: dovecottest.Password})
	if err != nil {
		return nil, err
	}
	d, err := l.Open(ctx)
	if err != nil {
		l.Close()
		return nil, err
	}
	return d.(*maildrop), nil
}

// raceSession is an open maildrop.
type raceSession struct {
	*rival
	d   *maildrop
	box *raceBox
}

// play reads and marks messages, and ends the session.
func (s *raceSession) play(ctx context.Context) {
	messages, first := slices.Clone(s.d.Messages()), s.listing()
	q := raceEnd{marked: make(map[string]bool)}
	var uids []uint64
	for _, msg := range messages {
		name := s.box.named[msg.UID]
		mail := s.mails[name]
		if mail == nil || msg.Octets != int64(len(mail.octets)) {
			s.Fatalf("UIDVALIDITY %d: UID %d has %d octets and is %q", s.box.validity, msg.UID, msg.Octets, name)
		}
		want, lines := mail.octets, s.r.IntN(5)
		if lines < 3 {
			want = topOf(want, uint64(lines))
		} else {
			lines = -1
		}
		var got string
		var err error
		s.step(func() {}, func() { got, err = s.read(ctx, msg.UID, lines) })
		s.checkBody(name, got, want, err)
		if s.r.IntN(2) == 0 {
			q.marked[name], uids = true, append(uids, msg.UID)
		}
		if diff := cmp.Diff(first, s.listing()); diff != "" {
			s.Errorf("the snapshot has changed:\n%s", diff)
		}
	}
	if s.r.IntN(8) == 0 { // without QUIT
		s.d.Close()
		s.check(raceEnd{})
		return
	}
	s.step(func() { q.rebuilt = s.box.stale }, func() { q.err = s.d.Update(ctx, uids) })
	s.d.Close()
	switch {
	case q.err != nil:
		s.counts["QUIT -ERR"]++
		if !s.replaced && !s.unflagged { // EXPUNGE leaves what has lost its flag again
			s.Errorf("Update: %v", q.err)
		}
	case q.rebuilt && len(uids) > 0:
		s.Error("Update of a mailbox with another UIDVALIDITY succeeds")
	default:
		s.counts["QUIT +OK"]++
	}
	s.check(q)
}

// listing is what LIST and UIDL show.
func (s *raceSession) listing() string {
	appendID, err := s.d.UniqueIDs()
	if err != nil {
		return err.Error()
	}
	var all strings.Builder
	for i, msg := range s.d.Messages() {
		fmt.Fprintf(&all, "%d %d %s\n", i+1, msg.Octets, appendID(nil, msg.UID))
	}
	return all.String()
}

// read is RETR, or TOP if lines is not negative.
func (s *raceSession) read(ctx context.Context, uid uint64, lines int) (string, error) {
	var body proxy.Body
	var err error
	if lines < 0 {
		body, err = s.d.Read(ctx, uid)
	} else {
		body, err = s.d.Top(ctx, uid, uint64(lines))
	}
	if err != nil {
		return "", err
	}
	defer body.Close()
	var b strings.Builder
	_, err = body.WriteTo(&b)
	return b.String(), err
}

// checkBody checks that a body is whole, or was refused for a reason.
func (s *raceSession) checkBody(name, got, want string, err error) {
	switch {
	case err == nil:
		s.counts["bodies whole"]++
		if got != want {
			s.Errorf("%q is read as %.60q, %d octets, want %d", name, got, len(got), len(want))
		}
	case s.mails[name].removed: // before it was read, or during that
		s.counts["bodies gone"]++
	default:
		s.counts["bodies refused"]++
		if !s.replaced {
			s.Errorf("%q: %v", name, err)
		}
	}
}
