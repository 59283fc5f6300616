package imapbackend

import (
	"io"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"popgate/imapbackend/imapmodel"
	"popgate/proxy"
)

// inWork is a script for the mailbox "Work" in place of INBOX.
func inWork(script string) string {
	return strings.ReplaceAll(script, "SELECT INBOX", `SELECT "Work"`)
}

// I-CONC-5: a mailbox other than INBOX that another client has created again is
// noticed by the sizes of its messages, before the final line of one of them.
func TestRecreated(t *testing.T) {
	again := inWork(strings.TrimPrefix(reselected, loggedIn))
	another10 := strings.ReplaceAll(again, "UIDVALIDITY 9", "UIDVALIDITY 10")
	first := inWork(mailbox("UIDPLUS", "", "7", "20", "40"))
	sized := strings.Replace(retr, "BODY", "RFC822.SIZE BODY", 1)
	answer := func(items string) string { return "S: * 1 FETCH (UID 7 " + items + ")\nS: <r> OK x\n" }
	const text = "BODY[] {7}\nS: hello\nS: "
	later := strings.Replace(retr, "7", "40", 1) + strings.Replace(hello, "UID 7", "UID 40", 1)
	laterSized := strings.Replace(later, "BODY.PEEK", "RFC822.SIZE BODY.PEEK", 1)
	for _, tt := range []struct {
		name, script string
		want         proxy.Code
	}{
		{"the size of the listing, not that of the octets", sized + answer("RFC822.SIZE 100 "+text) + laterSized, proxy.CodeNone},
		{"left out", sized + answer(text) + laterSized, proxy.CodeNone},
		{"NIL", sized + answer("RFC822.SIZE NIL "+text) + laterSized, proxy.CodeNone},
		{"another, the same mailbox", sized + answer("RFC822.SIZE 101 "+text) + again + later, proxy.CodeNone},
		{"another, after the body", sized + answer(text+" RFC822.SIZE 101") + again + later, proxy.CodeNone},
		{"another, another mailbox", sized + answer("RFC822.SIZE 101 "+text) + another10, temp},
		{"another after the body, another mailbox", sized + answer(text+" RFC822.SIZE 101") + another10, temp},
		{"another, no mailbox", sized + answer("RFC822.SIZE 101 "+text) + "C: <s> SELECT \"Work\"\nS: <s> NO [NONEXISTENT] zebra\n", perm},
	} {
		play(t, tt.name, first+tt.script+bye, Options{Mailbox: "Work"}, func(s *session) {
			d := s.open()
			body, err := d.Read(s.ctx, 7)
			if err != nil {
				s.Fatal(err)
			}
			_, err = body.WriteTo(io.Discard)
			body.Close()
			if tt.want != proxy.CodeNone {
				s.fails(err, tt.want)
				return
			}
			if err != nil {
				s.Error(err)
			}
			s.text(d.Read(s.ctx, 40))
		})
	}
	play(t, "INBOX", opened+retr+answer("RFC822.SIZE 101 "+text)+bye, Options{}, func(s *session) {
		s.text(s.open().Read(s.ctx, 7))
	})
}

// I-CONC-5: the pieces of TOP and what is read ahead are compared too.
func TestRecreatedParts(t *testing.T) {
	another10 := strings.ReplaceAll(inWork(strings.TrimPrefix(reselected, loggedIn)), "UIDVALIDITY 9", "UIDVALIDITY 10")
	pieces := inWork(openedSize(5000)) + "C: <t> UID FETCH 7 (UID RFC822.SIZE BODY.PEEK[HEADER] BODY.PEEK[TEXT]<0.1024>)\n" +
		"S: * 1 FETCH (UID 7 RFC822.SIZE 5000 BODY[HEADER] {8}\nS: A: b\nS: \nS:  BODY[TEXT]<0> {1}\nS+: c\nS: )\nS: <t> OK x\n" +
		"C: <p> UID FETCH 7 (UID RFC822.SIZE BODY.PEEK[TEXT]<1.2048>)\n" +
		"S: * 1 FETCH (UID 7 RFC822.SIZE 4000 BODY[TEXT]<1> {3}\nS: d\nS: )\nS: <p> OK x\n"
	enough := inWork(openedSize(5000)) + "C: <t> UID FETCH 7 (UID RFC822.SIZE BODY.PEEK[HEADER] BODY.PEEK[TEXT]<0.1024>)\n" +
		"S: * 1 FETCH (UID 7 RFC822.SIZE 5000 BODY[HEADER] {8}\nS: A: b\nS: \nS:  BODY[TEXT]<0> {100}\nS: c\nT: 10s\nS+: " +
		strings.Repeat("x", 97) + "\nS: )\nS: <t> OK x\n"
	play(t, "TOP does not wait for text that it does not send", enough+bye, Options{Mailbox: "Work"}, func(s *session) {
		body, err := s.open().Top(s.ctx, 7, 1)
		if err != nil {
			s.Fatal(err)
		}
		defer body.Close()
		s.timed(0, time.Second, func() {
			if _, err := body.WriteTo(io.Discard); err != nil {
				s.Error(err)
			}
		})
	})
	play(t, "TOP", pieces+another10+bye, Options{Mailbox: "Work"}, func(s *session) {
		body, err := s.open().Top(s.ctx, 7, 1)
		if err != nil {
			s.Fatal(err)
		}
		_, err = body.WriteTo(io.Discard)
		s.rebuilt(err)
		body.Close()
	})
	fetch := func(n, uid string, size string) string {
		return "S: * " + n + " FETCH (UID " + uid + " BODY[] {7}\nS: hello\nS:  RFC822.SIZE " + size + ")\n"
	}
	ahead := inWork(mailbox("UIDPLUS", "", "7", "8", "9")) +
		"C: <a> UID FETCH 7 (UID RFC822.SIZE BODY.PEEK[])\n" + fetch("1", "7", "100") + "S: <a> OK x\n" +
		"C: <b> UID FETCH 8 (UID RFC822.SIZE BODY.PEEK[])\nC: <c> UID FETCH 9 (UID RFC822.SIZE BODY.PEEK[])\n" +
		fetch("2", "8", "100") + "S: <b> OK x\n" + fetch("3", "9", "101") + "S: <c> OK x\n"
	play(t, "read ahead", ahead+another10+bye, Options{Mailbox: "Work"}, func(s *session) {
		d := s.open()
		s.text(d.Read(s.ctx, 7))
		s.text(d.Read(s.ctx, 8))
		body, err := d.Read(s.ctx, 9)
		if err != nil {
			s.Fatal(err)
		}
		_, err = body.WriteTo(io.Discard)
		s.rebuilt(err)
		body.Close()
	})
}

// I-CONC-5: after a pause of the client such a mailbox is selected again before
// anything is read from it.
func TestConfirmedAfterPause(t *testing.T) {
	again := inWork(strings.TrimPrefix(reselected, loggedIn))
	first := inWork(mailbox("UIDPLUS", "", "7"))
	read := strings.Replace(retr, "BODY", "RFC822.SIZE BODY", 1) + hello
	for _, tt := range []struct {
		name, script string
		pause        time.Duration
		want         proxy.Code
	}{
		{"short", first + read + bye, probeAfter - time.Second, proxy.CodeNone},
		{"the same", first + again + read + bye, probeAfter, proxy.CodeNone},
		{"after a NOOP", first + "C: <n> NOOP\nS: <n> OK x\n" + again + read + bye, keepAlive + time.Second, proxy.CodeNone},
		{"another", first + strings.ReplaceAll(again, "UIDVALIDITY 9", "UIDVALIDITY 10") + bye, probeAfter, temp},
		{"deleted", first + "C: <s> SELECT \"Work\"\nS: <s> NO [NONEXISTENT] zebra\n" + bye, probeAfter, perm},
		{"lost", first + "C: <s> SELECT \"Work\"\nX:\n" + another + inWork(reselected) + read + bye, probeAfter, proxy.CodeNone},
		{"lost, another", first + "C: <s> SELECT \"Work\"\nX:\n" + another + strings.ReplaceAll(inWork(reselected), "UIDVALIDITY 9", "UIDVALIDITY 10") + bye, probeAfter, temp},
	} {
		play(t, tt.name, tt.script, Options{Mailbox: "Work"}, func(s *session) {
			d := s.open()
			s.after(tt.pause)
			body, err := d.Read(s.ctx, 7)
			if tt.want != proxy.CodeNone {
				s.fails(err, tt.want)
				return
			}
			s.text(body, err)
		})
	}
}

// I-CONC-5, I-FETCH-8: comparing sizes, in a mailbox other than INBOX, costs a walk
// no message that is read twice, and takes no more into memory.
func TestComparedCost(t *testing.T) {
	const size, total = 10_000, 300
	for _, seen := range []Seen{SeenNever, SeenOnRetr} {
		for _, limit := range []int64{100_000, 1 << 20} {
			var cost [2]int64
			for i, name := range []string{"INBOX", "Work"} {
				synctest.Test(t, func(t *testing.T) {
					m := newModel()
					box := m.Mailbox("", name)
					for i := range total {
						box.Add(mail(i, size))
					}
					d := openMaildrop(t, m.backend(t, Options{Mailbox: name, Seen: seen, ReadAhead: limit}))
					defer d.Close()
					before := m.Octets()
					for _, msg := range d.Messages() {
						read(t, d, msg.UID)
						d.Retrieved(t.Context(), msg.UID, msg.Octets)
						if a := d.(*maildrop).readAhead; seen == SeenNever && len(a.kept) > 0 {
							t.Fatalf("%s: %d messages in memory after UID %d", name, len(a.kept), msg.UID)
						}
					}
					cost[i] = m.Octets() - before
				})
			}
			if cost[1] > cost[0]+cost[0]/20 {
				t.Errorf("seen %v, %d octets kept at most: a walk costs %d octets, one of INBOX %d", seen, limit, cost[1], cost[0])
			}
		}
	}
}

// I-CONC-5, P-RETR-8: where a message is not as long as announced, or its size has
// changed, all that is on its way is read at once, and not waited for a second time.
func TestComparedWrongSize(t *testing.T) {
	for _, tt := range []struct {
		name, mailbox string
		wrong         []int // whose size in the listing, and later, is wrong
		other         int   // that has another size than in the listing, if not 0
	}{
		{"INBOX", "INBOX", []int{7, 9}, 0},
		{"with others, not as announced", "Work", []int{7, 9}, 0},
		{"by itself, with others after it, not as announced", "Work", []int{1}, 0},
		{"with others, changed", "Work", nil, 7},
		{"by itself, with others after it, changed", "Work", nil, 1},
		{"last, changed", "Work", nil, 19},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newModel()
				box := m.Mailbox("", tt.mailbox)
				for i := range 20 {
					msg := imapmodel.Message{Body: mail(i, 1000)}
					if slices.Contains(tt.wrong, i) {
						msg.Size = 1200
					}
					box.AddMessage(msg)
				}
				d := openMaildrop(t, m.backend(t, Options{Mailbox: tt.mailbox}))
				defer d.Close()
				if tt.other > 0 {
					box.Replace(d.Messages()[tt.other].UID, mail(tt.other, 1200))
				}
				began := time.Now()
				for i, msg := range d.Messages() {
					if got := read(t, d, msg.UID); got != box.Messages()[i].Body {
						t.Errorf("UID %d: another text", msg.UID)
					}
				}
				if took := time.Since(began); took > time.Second || m.Dials() != 1 {
					t.Errorf("%v, %d connections", took, m.Dials())
				}
			})
		})
	}
}

// I-CONC-5, I-KEEP-2: the time for a message that could not be read, as the mailbox
// could not be selected again, is not the time for what follows.
func TestConfirmRefused(t *testing.T) {
	again := inWork(strings.TrimPrefix(reselected, loggedIn))
	script := inWork(mailbox("UIDPLUS", "", "7")) + "C: <x> SELECT \"Work\"\nS: <x> NO zebra\n" +
		"C: <n> NOOP\nS: <n> OK x\n" + again + removing("7") + bye
	play(t, "QUIT", script, Options{Mailbox: "Work"}, func(s *session) {
		d := s.open()
		s.after(probeAfter)
		_, err := d.Read(s.ctx, 7)
		s.fails(err, perm)
		s.after(answerTime + time.Second)
		if err := d.Update(s.ctx, []uint64{7}); err != nil {
			s.Error(err)
		}
	})
}
