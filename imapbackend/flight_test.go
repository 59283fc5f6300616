package imapbackend

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"popgate/imapbackend/imapmodel"
	"popgate/proxy"
)

const rtt = 100 * time.Millisecond

// trips returns the time since start in round trips.
func trips(start time.Time) float64 { return float64(time.Since(start)) / float64(rtt) }

// mail returns a message of about n octets that contains i.
func mail(i, n int) string {
	return fmt.Sprintf("Subject: %d\r\nTo: x\r\n\r\n.%s\r\nend of %d\r\n", i, strings.Repeat("a line\r\n", n/8), i)
}

// read returns a message, and header the header of one.
func read(t *testing.T, d proxy.Maildrop, uid uint64) string {
	return text(t)(d.Read(t.Context(), uid))
}
func header(t *testing.T, d proxy.Maildrop, uid uint64) string {
	return text(t)(d.Top(t.Context(), uid, 0))
}

func text(t *testing.T) func(proxy.Body, error) string {
	return func(body proxy.Body, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if _, err := body.WriteTo(&b); err != nil {
			t.Errorf("WriteTo: %v", err)
		}
		body.Close()
		return b.String()
	}
}

// I-LOGIN-1: from PASS to +OK a login takes two round trips on a prepared
// connection, with and without a remembered listing. A new connection takes one
// and a half more, for TCP and the greeting; TLS is not simulated.
func TestLoginFlights(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel()
		m.RTT = rtt
		for i := range 50 {
			m.add(mail(i, 100))
		}
		b := m.backend(t, Options{})
		for _, round := range []string{"cold", "warm"} {
			start := time.Now()
			d := openMaildrop(t, b)
			// TCP, half a trip until the greeting, two flights.
			if n := trips(start); n > 3.51 {
				t.Errorf("%s: %.2f round trips with a new connection", round, n)
			}
			if n := len(d.Messages()); n != 50 {
				t.Errorf("%s: %d messages", round, n)
			}
			d.Close()

			p := b.Prepare(t.Context(), proxy.Caller{})
			<-time.After(3 * rtt)
			start = time.Now()
			l, err := p.Login(t.Context(), joe)
			if err != nil {
				t.Fatal(err)
			}
			if d, err = l.Open(t.Context()); err != nil {
				t.Fatal(err)
			}
			if n := trips(start); n > 2.01 {
				t.Errorf("%s: %.2f round trips on a prepared connection", round, n)
			}
			d.Close()
			<-time.After(rtt) // until the last octets have arrived
		}
	})
}

// A prepared connection that is not used is closed, one that the upstream has
// closed is replaced, and their number is limited.
func TestPrepare(t *testing.T) {
	const greetsAndCloses = "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] x\nX:\n-- connection 2 --\n"
	play(t, "closed by the upstream", greetsAndCloses+opened+bye, Options{}, func(s *session) {
		p := s.b.Prepare(s.ctx, proxy.Caller{})
		synctest.Wait()
		l, err := p.Login(s.ctx, joe)
		if err != nil {
			s.Fatal(err)
		}
		d, err := l.Open(s.ctx)
		if err != nil {
			s.Fatal(err)
		}
		d.Close()
	})
	play(t, "not used", "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] x\nW:\n", Options{}, func(s *session) {
		s.b.Prepare(s.ctx, proxy.Caller{})
		s.after(preparedTimeout + time.Second)
		if n := len(s.b.waiting); n != 0 {
			s.Errorf("%d connections wait", n)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		b := newModel().backend(t, Options{})
		var all []proxy.Prepared
		for range maxPrepared {
			all = append(all, b.Prepare(t.Context(), proxy.Caller{}))
		}
		if b.Prepare(t.Context(), proxy.Caller{}) != nil {
			t.Error("no limit")
		}
		for _, p := range all {
			p.Close()
			p.Close()
		}
		p := b.Prepare(t.Context(), proxy.Caller{})
		if p == nil {
			t.Fatal("closed connections count")
		}
		p.Close()
	})
}

// I-SNAP-7: with a remembered listing, the octets of a login do not depend on
// the size of the mailbox, and each new message costs one line.
func TestWarmLogin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel()
		for i := range 5000 {
			m.add(fmt.Sprint(i))
		}
		b := m.backend(t, Options{})
		cost := func() int64 {
			before := m.Octets()
			openMaildrop(t, b).Close()
			synctest.Wait()
			return m.Octets() - before
		}
		cold, unchanged := cost(), cost()
		for i := range 10 {
			m.add(fmt.Sprint(i))
		}
		more := cost()
		if cold < 5000*35 || unchanged > 800 || more > unchanged+10*50 {
			t.Errorf("octets of a login: %d cold, %d unchanged, %d with 10 new messages", cold, unchanged, more)
		}
		d := openMaildrop(t, b)
		if err := d.Update(t.Context(), []uint64{1, 2, 3, 700}); err != nil {
			t.Error(err)
		}
		d.Close()
		if after := cost(); after > unchanged+100 {
			t.Errorf("%d octets after an UPDATE by popgate", after)
		}
	})
}

// I-UIDV-3: a mailbox that was rebuilt between two sessions is listed again,
// has other unique-ids, and is logged.
func TestRebuiltBetween(t *testing.T) {
	rebuilt := strings.Replace(strings.Replace(opened, "UIDVALIDITY 9", "UIDVALIDITY 10", 1), "1:*", "8:*", 1) +
		"C: <g> UID FETCH 1:* (UID RFC822.SIZE)\nS: * 1 FETCH (UID 7 RFC822.SIZE 120)\nS: <g> OK x\n"
	play(t, "UIDVALIDITY", opened+bye+"-- connection 2 --\n"+rebuilt+bye, Options{Name: "main"}, func(s *session) {
		s.open().Close()
		if strings.Contains(s.log.String(), "UIDVALIDITY has changed") {
			s.Error("a change is logged before it happens")
		}
		d := s.open()
		uniqueID, err := d.UniqueIDs()
		if err != nil {
			s.Fatal(err)
		}
		if got := string(uniqueID(nil, 7)); got != "10.7" || d.Messages()[0].Octets != 120 {
			s.Errorf("unique-id %s, messages %v", got, d.Messages())
		}
		d.Close()
		if want := `level=WARN msg="UIDVALIDITY has changed: clients will download all mail again" upstream=main mailbox=INBOX before=9 now=10`; !strings.Contains(s.log.String(), want) {
			s.Errorf("no %q in\n%s", want, s.log.String())
		}
	})
}

// I-SNAP-7: two login names that differ only in case share a lock, as they may
// be one user, and share no listing, as they may be two.
func TestListingOfTwo(t *testing.T) {
	other := strings.Replace(opened, ir, "AEpPRQBzZWNyZXQ=", 1) // which lists everything
	play(t, "joe and JOE", opened+bye+"-- connection 2 --\n"+other+bye, Options{}, func(s *session) {
		s.open().Close()
		l, err := s.b.Login(s.ctx, proxy.Credential{Username: "JOE", Password: "secret"})
		if err != nil {
			s.Fatal(err)
		}
		d, err := l.Open(s.ctx)
		if err != nil {
			s.Fatal(err)
		}
		if l.Identity().User != "joe" {
			s.Errorf("identity %+v", l.Identity())
		}
		d.Close()
	})
}

// I-SNAP-7: whatever has happened before, a remembered listing gives the same
// result as a listing of everything, also if others change the mailbox during
// the login.
func TestSnapshotProperty(t *testing.T) {
	for seed := range uint64(40 + 4*imapmodel.SearchStyles) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			m := newModel()
			if seed >= 40 {
				m.setSearch(imapmodel.SearchStyle(seed/2) % imapmodel.SearchStyles)
			}
			if seed%2 == 1 {
				m.Caps = strings.ReplaceAll(m.Caps, " ESEARCH", "")
			}
			if seed%4 >= 2 {
				m.Inbox().SetUIDValidity(1_700_000_000_000).SetUIDNext(1<<32 - 20)
			}
			if seed%3 == 2 { // UIDNEXT is too small
				m.UIDNext = func(next uint64) string { return strconv.FormatUint(min(next, seed)-uint64(r.IntN(2)), 10) }
			}
			m.NoExists = seed%7 == 6
			b := m.backend(t, Options{})
			change := func() {
				switch k := r.IntN(20); {
				case k < 9:
					m.add(mail(r.IntN(1000), r.IntN(200)))
				case k < 16 && len(m.messages()) > 0:
					m.remove(r.IntN(len(m.messages())))
				case k < 18 && len(m.messages()) > 0:
					msg := m.messages()[r.IntN(len(m.messages()))]
					m.Inbox().SetFlag(msg.UID, `\Deleted`, !msg.Deleted())
				case k == 19 && r.IntN(4) == 0:
					m.Inbox().Clear()
				}
			}
			for range 30 {
				for range r.IntN(6) {
					change()
				}
				// The mailbox at SELECT, and what others do
				// after it.
				var atSelect []imapmodel.Message
				raced := r.IntN(3) == 0
				m.Before = func(cmd string) {
					if strings.HasPrefix(cmd, "SELECT") {
						atSelect = m.messages()
					} else if raced && strings.HasPrefix(cmd, "UID") && r.IntN(2) == 0 && len(m.messages()) > 0 {
						if m.NoExists || r.IntN(2) == 0 { // what comes after SELECT is shown then
							m.remove(r.IntN(len(m.messages())))
						} else {
							m.add("late")
						}
					}
				}
				d := openMaildrop(t, b)
				m.Before = nil
				checkSnapshot(t, d.Messages(), atSelect, m.messages(), m.Search)
				d.Close()
				synctest.Wait()
			}
			if t.Failed() {
				t.Logf("seed %d", seed)
			}
		})
	}
}

// checkSnapshot checks that got has all messages of before that are also in
// after, and none that are not in before; those removed in between may be
// missing. Where the upstream has been asked for flags after the listing, one that
// was flagged and has been removed then may be shown.
func checkSnapshot(t *testing.T, got []proxy.Message, before, after []imapmodel.Message, search imapmodel.SearchStyle) {
	t.Helper()
	if !slices.IsSortedFunc(got, func(a, b proxy.Message) int { return int(a.UID) - int(b.UID) }) {
		t.Errorf("not ascending: %v", got)
	}
	shown := make(map[uint64]int64)
	for _, msg := range got {
		shown[msg.UID] = msg.Octets
	}
	for _, msg := range before {
		octets, isShown := shown[msg.UID]
		delete(shown, msg.UID)
		still := slices.ContainsFunc(after, func(a imapmodel.Message) bool { return a.UID == msg.UID })
		switch {
		case isShown && octets != int64(len(msg.Body)):
			t.Errorf("UID %d: %d octets, has %d", msg.UID, octets, len(msg.Body))
		case isShown && msg.Deleted() && (still || search == imapmodel.Searches):
			t.Errorf("UID %d is shown and flagged \\Deleted", msg.UID)
		case !isShown && still && !msg.Deleted():
			t.Errorf("UID %d is not shown", msg.UID)
		}
	}
	for uid := range shown {
		t.Errorf("UID %d is shown, and was not there", uid)
	}
}

// With read-ahead, the round trips of a walk grow with the logarithm of its
// length, and whatever else the client does, each message is right.
func TestReadAheadFlights(t *testing.T) {
	for _, tt := range []struct {
		name string
		walk func(t *testing.T, d proxy.Maildrop, check func(uid uint64, got string))
		most float64
	}{
		{"RETR of all", func(t *testing.T, d proxy.Maildrop, check func(uint64, string)) {
			for _, msg := range d.Messages() {
				check(msg.UID, read(t, d, msg.UID))
			}
		}, 8},
		{"TOP n 0 of all", func(t *testing.T, d proxy.Maildrop, check func(uint64, string)) {
			for _, msg := range d.Messages() {
				check(msg.UID, header(t, d, msg.UID)+"*")
			}
		}, 8},
		{"TOP n 999999 of all", func(t *testing.T, d proxy.Maildrop, check func(uint64, string)) {
			for _, msg := range d.Messages() {
				check(msg.UID, text(t)(d.Top(t.Context(), msg.UID, 999999)))
			}
		}, 8},
		{"TOP n 0 and RETR n", func(t *testing.T, d proxy.Maildrop, check func(uint64, string)) {
			for _, msg := range d.Messages() {
				check(msg.UID, header(t, d, msg.UID)+"*")
				check(msg.UID, read(t, d, msg.UID))
			}
		}, 16},
		{"every third", func(t *testing.T, d proxy.Maildrop, check func(uint64, string)) {
			for i, msg := range d.Messages() {
				if i%3 == 0 {
					check(msg.UID, read(t, d, msg.UID))
				}
			}
		}, 12},
		{"pipelined", func(t *testing.T, d proxy.Maildrop, check func(uint64, string)) {
			all := d.Messages()
			for i := 0; i < 64; i++ {
				if i == 0 {
					var uids []uint64
					for _, msg := range all[1:64] {
						uids = append(uids, msg.UID)
					}
					d.(proxy.Expecter).Expect(uids)
				}
				check(all[i].UID, read(t, d, all[i].UID))
			}
		}, 2.1},
	} {
		inEachForm(t, tt.name, func(t *testing.T, m *model) {
			m.RTT = rtt
			for i := range 2000 {
				m.add(mail(i, 1000))
			}
			d := openMaildrop(t, m.backend(t, Options{}))
			defer func() { <-time.After(rtt) }() // for what is on its way
			defer d.Close()
			start := time.Now()
			tt.walk(t, d, func(uid uint64, got string) {
				want := m.messages()[uid-1].Body
				if got, ok := strings.CutSuffix(got, "*"); ok {
					want, _, _ = strings.Cut(want, "\r\n\r\n")
					if got != want+"\r\n\r\n" {
						t.Fatalf("header of UID %d: %q", uid, got)
					}
					return
				}
				if got != want {
					t.Fatalf("UID %d: %s", uid, cmp.Diff(want, got))
				}
			})
			if n := trips(start); n > tt.most {
				t.Errorf("%.1f round trips", n)
			}
		})
	}
}

// Single messages cost their own octets only: there is no read-ahead yet.
func TestReadAheadWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel()
		for i := range 100 {
			m.add(mail(i, 1000))
		}
		d := openMaildrop(t, m.backend(t, Options{}))
		defer d.Close()
		before := m.Octets()
		read(t, d, 1)
		read(t, d, 50)
		read(t, d, 20)
		if got := m.Octets() - before; got > 3*1200+300 {
			t.Errorf("%d octets for three messages of 1,000", got)
		}
	})
}

// Whatever a client does, each answer is the message it asked for, or says that
// the message is gone, and read-ahead keeps to its limits of memory and budget
// (P-RETR-5).
func TestReadAheadProperty(t *testing.T) {
	for seed := range uint64(24) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 2))
			m := newModel()
			form := forms[seed%3]
			m.UIDLast, m.Loose = form.uidLast, form.loose
			for i := range 200 {
				n := r.IntN(3000)
				if r.IntN(20) == 0 {
					n = 200_000
				}
				m.add(mail(i, n))
			}
			originals := m.messages()
			const limit, total = 100_000, 400_000
			b := m.backend(t, Options{ReadAhead: limit, ReadAheadTotal: total})
			d := openMaildrop(t, b)
			a := d.(*maildrop).readAhead
			pos := 0
			for range 400 {
				switch r.IntN(12) {
				case 0:
					pos = r.IntN(200)
				case 1:
					pos = max(pos-1, 0)
				case 2:
					pos = min(pos+2, 199)
				case 3:
					if i := r.IntN(len(m.messages())); r.IntN(3) == 0 && len(m.messages()) > 100 {
						m.remove(i)
					}
				case 4:
					d.(proxy.Expecter).Expect([]uint64{uint64(r.IntN(200) + 1), uint64(r.IntN(200) + 1)})
				case 5:
					<-time.After(time.Duration(r.IntN(3)) * keepAlive)
				default:
					pos = min(pos+1, 199)
				}
				uid := uint64(pos + 1)
				want := originals[pos].Body
				var body proxy.Body
				var err error
				if top := r.IntN(5); top == 0 {
					want, _, _ = strings.Cut(want, "\r\n\r\n")
					want += "\r\n\r\n"
					body, err = d.Top(t.Context(), uid, 0)
				} else {
					body, err = d.Read(t.Context(), uid)
				}
				switch {
				case err == nil && r.IntN(10) == 0:
					body.Close() // abandoned unread
				case err == nil:
					if got := text(t)(body, nil); got != want {
						t.Fatalf("seed %d: UID %d: %s", seed, uid, cmp.Diff(want, got))
					}
				case proxy.AsError(err).Is(proxy.ErrGone):
					if slices.ContainsFunc(m.messages(), func(msg imapmodel.Message) bool { return msg.UID == uid }) {
						t.Fatalf("seed %d: UID %d is there: %v", seed, uid, err)
					}
				default:
					t.Fatalf("seed %d: UID %d: %v", seed, uid, err)
				}
				d.(*maildrop).busy <- struct{}{} // keeps the keep-alive out
				if a.keptOctets > limit || a.coming < 0 || b.budget.Left() != total-max(a.coming+a.keptOctets-ownShare, 0) {
					t.Fatalf("seed %d: %d kept, %d coming, %d left", seed, a.keptOctets, a.coming, b.budget.Left())
				}
				<-d.(*maildrop).busy
			}
			d.Close()
			if left := b.budget.Left(); left != total {
				t.Errorf("seed %d: %d octets not returned to the budget", seed, total-left)
			}
		})
	}
}
