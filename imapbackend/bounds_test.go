package imapbackend

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"popgate/imapbackend/upstream"
	"popgate/proxy"
)

// dribble sends text n times, once a second.
func dribble(n int, text string) string {
	return strings.Repeat(text+"\nT: 1s\n", n)
}

// timed checks that f takes at least least and at most most.
func (s *session) timed(least, most time.Duration, f func()) {
	s.Helper()
	began := time.Now()
	f()
	if took := time.Since(began); took < least || took > most {
		s.Errorf("it took %v, want %v to %v", took, least, most)
	}
}

// P-RETR-2, I-KEEP-2: the first octet of RETR and TOP comes within a minute, all
// attempts together, or the answer is -ERR, whatever else the upstream sends.
func TestFirstOctet(t *testing.T) {
	const slow = "D: 1h\n"
	header := topCommand("r", "BODY.PEEK[HEADER]")
	never := map[string]string{
		"silence":               "W: stall\n",
		"notices":               dribble(80, "S: * OK still searching") + "W: stall\n",
		"a line without an end": "S+: * OK \n" + dribble(80, "S+: x") + "W: stall\n",
		"empty lines":           dribble(80, "S: ") + "W: stall\n",
		"another message":       "S: * 2 FETCH (UID 9 BODY[] {1000}\n" + dribble(80, "S+: x") + "W: stall\n",
		"the start of it":       "S+: * 1 FETCH (UID 7 FLAGS (\n" + dribble(80, "S+: x") + "W: stall\n",
	}
	calls := map[string]struct {
		command string
		run     func(*session, proxy.Maildrop) (proxy.Body, error)
	}{
		"RETR": {retr, func(s *session, d proxy.Maildrop) (proxy.Body, error) { return d.Read(s.ctx, 7) }},
		"TOP":  {header, func(s *session, d proxy.Maildrop) (proxy.Body, error) { return d.Top(s.ctx, 7, 0) }},
	}
	for what, wait := range never {
		for verb, call := range calls {
			fails := func(s *session) {
				d := s.open()
				s.timed(answerTime-retryTime, answerTime, func() {
					_, err := call.run(s, d)
					s.fails(err, temp)
				})
			}
			play(t, verb+", "+what+", twice", slow+opened+call.command+wait+another+slow+reselected+call.command+wait, Options{}, fails)
			play(t, verb+", "+what+", and not to be reached", slow+opened+call.command+wait, Options{}, fails)
			play(t, verb+", "+what+", and no greeting", slow+opened+call.command+wait+another+"W:\n", Options{}, fails)
			play(t, verb+", "+what+", and silent at SELECT", slow+opened+call.command+wait+another+slow+loggedIn+"C: <s> SELECT INBOX\nW:\n", Options{}, fails)
			answer := "S: * 1 FETCH (UID 7 BODY[] {5}\nS+: hello\nS: )\nS: <r> OK x\n"
			if verb == "TOP" {
				answer = strings.Replace(answer, "BODY[]", "BODY[HEADER]", 1)
			}
			play(t, verb+", "+what+", then an answer", slow+opened+call.command+wait+another+reselected+call.command+answer+bye, Options{}, func(s *session) {
				d := s.open()
				s.timed(answerTime-retryTime, answerTime-retryTime+reconnectJitter, func() {
					if got := s.text(call.run(s, d)); got != "hello" {
						s.Errorf("%q", got)
					}
				})
			})
		}
	}
	play(t, "no other connection is possible", slow+strings.Replace(opened, "S: * OK [UIDVALIDITY 9] x\n", "S: * OK [UIDVALIDITY 9] x\nS: * NO [UIDNOTSTICKY] x\n", 1)+
		"C: <h> UID FETCH 1:* (UID BODY.PEEK[HEADER])\nS: * 1 FETCH (UID 7 BODY[HEADER] \"A: b\")\nS: <h> OK x\n"+retr+dribble(59, "S: * OK x")+hello+bye, Options{}, func(s *session) {
		d := s.open()
		s.timed(59*time.Second, answerTime, func() { s.text(d.Read(s.ctx, 7)) })
	})
	// Nor is another one possible in a call that has replaced the connection.
	play(t, "a connection that has just been replaced", slow+opened+"C: <k> NOOP\nX:\n"+another+slow+reselected+retr+"T: 50s\n"+hello+bye, Options{}, func(s *session) {
		d := s.open()
		s.after(keepAlive)
		s.timed(50*time.Second, answerTime, func() {
			if got := s.text(d.Read(s.ctx, 7)); got != "hello\r\n" {
				s.Errorf("%q", got)
			}
		})
	})
	play(t, "the checks of an empty answer", slow+opened+retr+"T: 30s\nS: <r> NO x\nC: <n> NOOP\nT: 9s\nS: <n> OK x\nC: <q> UID FETCH 7 (UID)\nW:\n", Options{}, func(s *session) {
		d := s.open()
		s.timed(0, answerTime, func() {
			_, err := d.Read(s.ctx, 7)
			s.fails(err, temp)
		})
	})
}

// P-RETR-7: a message may take as long as it makes progress. One that stops is
// resumed or given up within 75 s, in whatever way it stops.
func TestBodyStops(t *testing.T) {
	const slow, most = "D: 1h\n", 75 * time.Second
	begun := slow + opened + retr + "S: * 1 FETCH (UID 7 BODY[] {20}\nS+: 0123456789\n"
	resumed := announce + "C: <p> UID FETCH 7 (UID BODY.PEEK[]<0.20>)\n"
	rest := "S: * 1 FETCH (UID 7 BODY[]<0> {20}\nS: 0123456789abcdefgh\nS: )\nS: <p> OK x\n"
	steady := slow + opened + retr + "S: * 1 FETCH (UID 7 BODY[] {20}\n" + strings.Repeat("S+: x\nT: 44s\n", 18) + "S: \nT: 44s\nS: )\nT: 15s\nS: <r> OK x\n"
	play(t, "slow, but steady", steady+bye, Options{}, func(s *session) {
		if got := s.text(s.open().Read(s.ctx, 7)); got != strings.Repeat("x", 18)+"\r\n" {
			s.Errorf("%q", got)
		}
	})
	play(t, "resumed", begun+"W: stall\n"+another+reselected+resumed+"T: 20s\n"+rest+bye, Options{}, func(s *session) {
		body, err := s.open().Read(s.ctx, 7)
		s.timed(0, most, func() {
			if got := s.text(body, err); got != "0123456789abcdefgh\r\n" {
				s.Errorf("%q", got)
			}
		})
	})
	tail := strings.Replace(begun, "{20}", "{10}", 1)
	uidLast := slow + opened + retr + "S: * 1 EXPUNGE\nS: * 1 FETCH (BODY[] {10}\nS+: 0123456789\nS: )\n" + dribble(80, "S: * OK x") + "W: stall\n"
	first := slow + openedSize(5000) + topCommand("r", "BODY.PEEK[HEADER] BODY.PEEK[TEXT]<0.1024>") + "S: * 1 FETCH (UID 7 BODY[HEADER] " + lit("A: b\r\n\r\n") + "\nS:  BODY[TEXT]<0> " +
		lit(strings.Repeat("x", 1024)) + "\nS: )\nS: <r> OK x\n" + topCommand("r", "BODY.PEEK[TEXT]<1024.2048>") + dribble(80, "S: * OK x") + "W: stall\n"
	retr := func(s *session, d proxy.Maildrop) (proxy.Body, error) { return d.Read(s.ctx, 7) }
	top := func(s *session, d proxy.Maildrop) (proxy.Body, error) { return d.Top(s.ctx, 7, 2) }
	for _, tt := range []struct {
		name, script string
		call         func(*session, proxy.Maildrop) (proxy.Body, error)
	}{
		{"silent, and silent again", begun + "W: stall\n" + another + slow + reselected + resumed + "W: stall\n", retr},
		{"silent, then notices", begun + "W: stall\n" + another + slow + reselected + resumed + dribble(80, "S: * OK x") + "W: stall\n", retr},
		{"silent, then no login", begun + "W: stall\n" + another + slow + greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\n" + dribble(80, "S: * OK x") + "W: stall\n", retr},
		{"silent, then not to be reached", begun + "W: stall\n", retr},
		{"silent after it", tail + "W: stall\n", retr},
		{"the response does not end", tail + dribble(80, "S+:  ") + "W: stall\n", retr},
		{"the UID does not come", uidLast, retr},
		{"TOP, the next piece", first, top},
	} {
		play(t, tt.name, tt.script, Options{}, func(s *session) {
			d := s.open()
			body, err := tt.call(s, d)
			if err != nil {
				s.Fatal(err)
			}
			s.timed(stallTimeout, most, func() {
				if _, err := body.WriteTo(io.Discard); err == nil {
					s.Error("what was read counts as whole")
				}
				body.Close()
				d.Close()
			})
		})
	}
}

// P-RETR-7: an abandoned message holds the lock no longer than what is left of it
// takes, at most 20 s.
func TestAbandonedStops(t *testing.T) {
	play(t, "dribbles", "D: 1h\n"+opened+retr+"S: * 1 FETCH (UID 7 BODY[] {1000}\n"+dribble(80, "S+: x")+"W: stall\n", Options{}, func(s *session) {
		d := s.open()
		body, err := d.Read(s.ctx, 7)
		if err != nil {
			s.Fatal(err)
		}
		if _, err := body.WriteTo(&fullWriter{}); !errors.Is(err, errFull) {
			s.Errorf("%v", err)
		}
		s.timed(closeTime, closeTime+upstream.LogoutTimeout, func() {
			body.Close()
			d.Close()
		})
	})
}
