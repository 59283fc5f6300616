package imapbackend

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"popgate/imapbackend/upstream"
	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// reaction is what an upstream does with commands that it does not take.
type reaction string

const (
	silent  reaction = "silent" // it discards them
	drops   reaction = "drops"  // it closes the connection
	saysBAD reaction = "BAD"
	saysNO  reaction = "NO"
)

// trap is an upstream that does not take commands in a certain form: those that
// match pattern when they arrive together, from the group at on.
type trap struct {
	*model
	pattern  *regexp.Regexp
	reaction reaction
	dials    int
	sprung   int // how many times
}

func (tr *trap) dial(context.Context) (net.Conn, error) {
	tr.dials++
	near, far := proxytest.Pipe(&net.TCPAddr{Port: 49152}, &net.TCPAddr{Port: 143})
	go tr.ServeConn(&trapped{Conn: far, trap: tr})
	return near, nil
}

// trapped is the server's end of a connection to a trap.
type trapped struct {
	net.Conn
	trap  *trap
	ready []byte // to be read
	then  func() error
}

func (c *trapped) Read(p []byte) (int, error) {
	for len(c.ready) == 0 {
		if f := c.then; f != nil { // the answers to what came before have been sent
			c.then = nil
			if err := f(); err != nil {
				return 0, err
			}
		}
		buf := make([]byte, 64<<10)
		n, err := c.Conn.Read(buf)
		if err != nil {
			return 0, err
		}
		c.ready = c.take(buf[:n])
	}
	n := copy(p, c.ready)
	c.ready = c.ready[n:]
	return n, nil
}

// take returns what the server executes of a flight.
func (c *trapped) take(flight []byte) []byte {
	m := c.trap.pattern.FindSubmatchIndex(flight)
	if m == nil {
		return flight
	}
	c.trap.sprung++
	rest := flight[m[2]:]
	switch c.trap.reaction {
	case drops:
		c.then = func() error { return io.EOF }
	case saysBAD, saysNO:
		c.then = func() error {
			for line := range bytes.Lines(rest) {
				tag, _, _ := bytes.Cut(line, []byte(" "))
				if _, err := fmt.Fprintf(c.Conn, "%s %s AUTHENTICATE or what came with it: zebra\r\n", tag, c.trap.reaction); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return flight[:m[2]]
}

// traps are the forms that an upstream may not take. The last match is what it does
// not execute.
var traps = []struct {
	name, pattern string
	no            bool // NO is an answer to the form, and not to the command
}{
	{"ID", `(?m)^(\S+ ID )`, false},
	{"a login after ID", `(?m)^\S+ ID [^\n]*\n(\S+ (?:AUTHENTICATE|LOGIN) )`, true},
	{"ID in front of a login", `(?m)^(\S+ ID [^\n]*\n\S+ (?:AUTHENTICATE|LOGIN) )`, true},
	{"AUTHENTICATE", `(?m)^(\S+ AUTHENTICATE )`, true},
	{"an initial response", `(?m)^(\S+ AUTHENTICATE PLAIN \S)`, true},
	{"STATUS after AUTHENTICATE", `(?m)^\S+ AUTHENTICATE [^\n]*\n(\S+ STATUS )`, true},
	{"AUTHENTICATE in front of STATUS", `(?m)^(\S+ AUTHENTICATE [^\n]*\n\S+ STATUS )`, false},
	{"SELECT in front of others", `(?m)^(\S+ SELECT [^\n]*\n\S+ UID )`, false},
	{"what follows SELECT", `(?m)^\S+ SELECT [^\n]*\n(\S+ UID )`, false},
	{"FETCH after SELECT", `(?m)^\S+ SELECT [^\n]*\n\S+ UID SEARCH [^\n]*\n(\S+ UID )`, false},
}

// I-LOGIN-7, I-LOGIN-8: whatever form an upstream does not take, and whatever it
// does then, a login succeeds within 10 s on at most four connections, at most one
// login pays for it, and what was learned is logged once.
func TestAdapting(t *testing.T) {
	for _, tt := range traps {
		for _, r := range []reaction{silent, drops, saysBAD, saysNO} {
			for _, unknown := range []bool{true, false} {
				if r == saysNO && (!tt.no || !unknown) {
					continue // NO from a server that is known to take the command is a verdict
				}
				for _, mechanism := range []string{" AUTH=PLAIN SASL-IR", " AUTH=PLAIN", ""} {
					t.Run(fmt.Sprint(tt.name, "/", r, "/unknown=", unknown, mechanism), func(t *testing.T) {
						synctest.Test(t, func(t *testing.T) { testTrap(t, tt.pattern, r, unknown, mechanism) })
					})
				}
			}
		}
	}
}

func testTrap(t *testing.T, pattern string, r reaction, unknown bool, mechanism string) {
	tr := &trap{model: newModel(), pattern: regexp.MustCompile(pattern), reaction: r}
	tr.Caps = "IMAP4rev1 UIDPLUS ID ESEARCH OBJECTID" + mechanism
	tr.Unknown = unknown
	for i := range 3 {
		tr.add(mail(i, 10))
	}
	b := backend(t, Options{})
	b.dial = tr.dial
	var log proxytest.Log
	ctx := proxy.WithLogger(t.Context(), log.Logger())
	var paid []int
	for i := range 4 {
		before, began := tr.dials, time.Now()
		l, err := b.Login(ctx, joe)
		if err != nil {
			t.Fatalf("login %d: %v", i, err)
		}
		d, err := l.Open(ctx)
		if err != nil {
			l.Close()
			t.Fatalf("login %d: %v", i, err)
		}
		took, dials := time.Since(began), tr.dials-before
		if len(d.Messages()) != 3 {
			t.Errorf("login %d: %d messages", i, len(d.Messages()))
		}
		d.Close()
		if took > 2*upstream.Silence || dials > 4 {
			t.Errorf("login %d: %v, %d connections", i, took, dials)
		}
		if took > 0 || dials > 1 {
			paid = append(paid, i)
		}
	}
	if len(paid) > 1 || slices.Contains(paid, 3) {
		t.Errorf("the logins %v pay", paid)
	}
	if n := len(log.Lines("upstream does not take")) + len(log.Lines("does not search")); tr.sprung > 0 && (n == 0 || n > 2) {
		t.Errorf("%d log records:\n%s", n, log.String())
	}
	last := tr.sprung
	openMaildrop(t, b).Close()
	if tr.sprung != last {
		t.Error("the form is still tried")
	}
}

// P-SASL-1, I-LOGIN-2, O-ID-1: a login in another form than the one that was
// rejected, on the same connection, and in that form at once the next time.
func TestRejected(t *testing.T) {
	const in = " OK [CAPABILITY IMAP4rev1 ID] x\n"
	const rest = "C: <s> SELECT INBOX\n" + lists + "S: * 0 EXISTS\nS: * OK [UIDVALIDITY 9] x\nS: <s> OK x\nS: <d> OK x\nS: <f> BAD x\n" + bye
	const login = "C: <n> LOGIN \"joe\" \"secret\"\nS: <n>" + in
	const id = "C: <i> ID (\"name\" \"popgate\")\nS: * ID NIL\nS: <i> OK x\n"
	plain := greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\n"
	slow := strings.Replace(greeted, " SASL-IR", "", 1) + "C: <l> AUTHENTICATE PLAIN\n"
	asked := "C: <m> AUTHENTICATE PLAIN\nS: + \nC: " + ir + "\nS: <m>" + in
	for _, tt := range []struct{ name, first, second, forms string }{
		{"Coremail, mailutils: BAD for the initial response", plain + "S: <l> BAD zebra\n" + asked + rest,
			greeted + asked + rest, "initial-response"},
		{"NO for the initial response, by name", plain + "S: <l> NO unsupported AUTHENTICATE zebra\n" + asked + rest,
			greeted + asked + rest, "initial-response"},
		{"the initial response is ignored", plain + "S: +\nC: " + ir + "\nS: <l>" + in + rest,
			greeted + asked + rest, "initial-response"},
		{"QQ, Sina: AUTHENTICATE is not there", plain + "S: <l> BAD zebra\nC: <m> AUTHENTICATE PLAIN\nS: <m> BAD zebra\n" + login + rest,
			greeted + login + rest, "authenticate"},
		{"the mechanism is not there", slow + "S: <l> NO mechanism PLAIN zebra\n" + login + rest,
			strings.Replace(greeted, " SASL-IR", "", 1) + login + rest, "authenticate"},
		{"go-imap v1, maddy: + without a space", slow + "S: +\nC: " + ir + "\nS: <l>" + in + rest, slow + "S: +\nC: " + ir + "\nS: <l>" + in + rest, ""},
		{"go-imap v2: + with =", slow + "S: + =\nC: " + ir + "\nS: <l>" + in + rest, slow + "S: + =\nC: " + ir + "\nS: <l>" + in + rest, ""},
		{"ID is needed after the login", plain + "S: <l>" + in + "C: <s> SELECT INBOX\n" + lists + "S: <s> NO Unsafe Login zebra\nS: <d> BAD x\nS: <f> BAD x\n" + id + rest,
			plain + "S: <l>" + in + id + rest, "ID has been sent after the login"},
	} {
		play(t, tt.name, tt.first+"-- connection 2 --\n"+tt.second, Options{}, func(s *session) {
			s.open().Close()
			s.open().Close()
			if n := len(s.log.Lines("level=WARN", tt.forms)); n != min(len(tt.forms), 1) {
				s.Errorf("%d warnings in %s", n, s.log.String())
			}
		})
	}
}

// I-LOGIN-7: a credential is not sent again once the upstream has refused it, also
// if that takes long, and a refusal teaches nothing.
func TestRefusedOnce(t *testing.T) {
	const refused = "S: <l> NO [AUTHENTICATIONFAILED] zebra\n" + bye
	careful := greeted + "C: <l> AUTHENTICATE PLAIN\nS: + \nC: " + ir + "\n"
	play(t, "I-LOGIN-7 late", greeted+"C: <l> AUTHENTICATE PLAIN "+ir+"\nW: stall\n-- connection 2 --\n"+careful+"T: 15s\n"+refused+
		"-- connection 3 --\n"+opened+bye, Options{}, func(s *session) {
		began := time.Now()
		s.fails(s.openFails(), auth)
		if d := time.Since(began); d != upstream.Silence+15*time.Second {
			s.Errorf("after %v", d)
		}
		s.after(time.Minute)
		s.open().Close()
	})
	// A form that has succeeded is not given up because the answer is late.
	late := strings.Replace(opened, "S: <l> OK", "T: 30s\nS: <l> OK", 1)
	play(t, "I-LOGIN-7 not given up", opened+bye+"-- connection 2 --\n"+strings.Replace(late, "1:*", "8:*", 1)+bye, Options{}, func(s *session) {
		s.open().Close()
		s.open().Close()
	})
	play(t, "I-LOGIN-7 BYE", greeted+"C: <l> AUTHENTICATE PLAIN "+ir+"\nS: * BYE zebra\nW:\n", Options{}, func(s *session) {
		s.fails(s.openFails(), temp)
	})
}

// I-LOGIN-8: a connection that is lost during a login is replaced once, whatever it
// was used for.
func TestLossReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel()
		m.Caps += " OBJECTID"
		m.add(mail(1, 10))
		b := m.backend(t, Options{})
		openMaildrop(t, b).Close() // what works is known
		dial := b.dial
		for octets := 0; ; octets += 7 {
			for losses := 1; losses <= 2; losses++ {
				conns := cuttable(b)
				conns.next = slices.Repeat([]int{octets}, losses)
				before := m.Dials()
				l, err := b.Login(t.Context(), joe)
				var d proxy.Maildrop
				if err == nil {
					if d, err = l.Open(t.Context()); err != nil {
						l.Close()
					}
				}
				dials := m.Dials() - before
				b.dial = dial
				if d != nil {
					d.Close()
				}
				if dials == 1 && err == nil { // it was not lost
					return
				}
				if dials != 2 || (err == nil) != (losses == 1) {
					t.Fatalf("lost %d times after %d octets: %d connections, %v", losses, octets, dials, err)
				}
			}
		}
	})
}

// I-LOGIN-8, P-SASL-5: after an exchange that has answered a challenge, a lost
// connection is not replaced.
func TestLossAfterChallenge(t *testing.T) {
	script := "S: * OK [CAPABILITY IMAP4rev1 AUTH=CRAM-MD5] x\nC: <l> AUTHENTICATE CRAM-MD5\nS: + Yw==\nC: cg==\n" +
		"S: <l> OK [CAPABILITY IMAP4rev1] x\nC: <s> SELECT INBOX\n" + lists + "X:\n"
	play(t, "I-LOGIN-8", script, Options{}, func(s *session) {
		l, err := s.b.Exchange(s.ctx, bearer("CRAM-MD5", "joe", &saslClient{answers: []string{"r"}}))
		if err != nil {
			s.Fatal(err)
		}
		defer l.Close()
		dialled := false
		dial := s.b.dial
		s.b.dial = func(ctx context.Context) (net.Conn, error) {
			dialled = true
			return dial(ctx)
		}
		if _, err = l.Open(s.ctx); dialled {
			s.Error("another connection was opened")
		}
		s.fails(err, temp)
	})
}

// I-LOGIN-8: the time of a login, wherever the upstream stalls or trickles. What
// works is known from a login before.
func TestLoginLimit(t *testing.T) {
	known := opened + bye + "-- connection 2 --\n"
	warm := strings.Replace(listed, "1:*", "8:*", 1)
	const object = greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\nS: <l> OK [CAPABILITY IMAP4rev1 OBJECTID COMPRESS=DEFLATE ENABLE UTF8=ACCEPT] x\n"
	trickle := strings.Repeat("T: 1s\nS+: x\n", 57) + "W: stall\n"
	for _, tt := range []struct{ name, script string }{
		{"AUTHENTICATE", known + greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\nW: stall\n"},
		{"AUTHENTICATE, trickling", known + greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\nS+: * OK \n" + trickle},
		{"AUTHENTICATE, unknown and trickling", greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\nS+: * OK \n" + trickle},
		{"LOGIN", "S: * OK [CAPABILITY IMAP4rev1] x\nC: <l> LOGIN \"joe\" \"secret\"\nW: stall\n"},
		{"the greeting, trickling", "S+: * OK \n" + trickle},
		{"CAPABILITY", "S: * OK x\nC: <c> CAPABILITY\nW: stall\n"},
		{"ENABLE", object + "C: <e> ENABLE UTF8=ACCEPT\nW: stall\n"},
		{"STATUS", object + "C: <e> ENABLE UTF8=ACCEPT\nS: <e> OK x\nC: <m> STATUS INBOX (MAILBOXID)\nW: stall\n"},
		{"COMPRESS", object + "C: <e> ENABLE UTF8=ACCEPT\nS: <e> OK x\nC: <m> STATUS INBOX (MAILBOXID)\nS: <m> OK x\nC: <c> COMPRESS DEFLATE\nW: stall\n"},
		{"SELECT", known + strings.Replace(selecting, "1:*", "8:*", 1) + "W: stall\n"},
		{"SELECT, trickling", known + strings.Replace(selecting, "1:*", "8:*", 1) + "S+: * OK \n" + trickle},
		{"listing, trickling", known + warm + "S+: * OK \n" + trickle},
		{"listing, few messages", known + warm + strings.Repeat("T: 1s\nS: * 1 FETCH (UID 7 RFC822.SIZE 100)\n", 57) + "W: stall\n"},
	} {
		opts := Options{Compress: strings.Contains(tt.script, "COMPRESS")}
		play(t, "I-LOGIN-8 "+tt.name, tt.script, opts, func(s *session) {
			cred := joe
			cred.UTF8 = strings.Contains(tt.script, "ENABLE")
			if strings.Contains(tt.script, "connection 2") {
				s.open().Close()
			}
			s.took(upstream.LoginLimit, func() {
				l, err := s.b.Login(s.ctx, cred)
				if err == nil {
					_, err = l.Open(s.ctx)
					l.Close()
				}
				s.fails(err, temp)
			})
		})
	}
}

// took checks how long f takes.
func (s *session) took(want time.Duration, f func()) {
	s.Helper()
	began := time.Now()
	if f(); time.Since(began) != want {
		s.Errorf("after %v, want %v", time.Since(began), want)
	}
}

// I-LOGIN-8: waiting for a connection that was opened ahead, and for the lock,
// counts.
func TestLoginLimitWaits(t *testing.T) {
	play(t, "I-LOGIN-8 lock", loggedIn+"C: <s> SELECT INBOX\n"+lists+"T: 4s\nS: * OK x\nT: 4s\nS: * OK x\nW: stall\n-- connection 2 --\n"+
		loggedInCarefully+"C: <s> SELECT INBOX\nW: stall\n", Options{}, func(s *session) {
		s.took(upstream.LoginLimit, func() {
			l := s.login()
			<-time.After(5 * time.Second)
			_, err := l.Open(s.ctx)
			s.fails(err, temp)
			l.Close()
		})
	})
	play(t, "I-LOGIN-8 opened ahead", "S+: * OK \n"+strings.Repeat("T: 1s\nS+: x\n", 67)+"W: stall\n", Options{}, func(s *session) {
		p := s.b.Prepare(s.ctx, proxy.Caller{})
		<-time.After(10 * time.Second)
		s.took(upstream.LoginLimit, func() {
			_, err := p.Login(s.ctx, joe)
			s.fails(err, temp)
		})
	})
}

// I-LOGIN-8, P-AUTH-9: while the client thinks about a challenge, the time of the
// login stands still.
func TestLoginLimitExchange(t *testing.T) {
	script := "S: * OK [CAPABILITY IMAP4rev1 AUTH=CRAM-MD5] x\nC: <l> AUTHENTICATE CRAM-MD5\nT: 4s\nS: + Yw==\nC: cg==\n"
	for _, tt := range []struct {
		name, rest string
		took       time.Duration
		want       proxy.Code
	}{
		{"answered", "S: <l> OK [CAPABILITY IMAP4rev1] x\n" + bye, 63 * time.Second, ""},
		{"never answered", "W: stall\n", 59*time.Second + upstream.LoginLimit, temp},
	} {
		play(t, tt.name, script+tt.rest, Options{}, func(s *session) {
			ex := bearer("CRAM-MD5", someuser, &saslClient{answers: []string{"r"}})
			answer := ex.Challenge
			ex.Challenge = func(ctx context.Context, data string) (string, error) {
				<-time.After(59 * time.Second)
				return answer(ctx, data)
			}
			s.took(tt.took, func() {
				l, err := s.b.Exchange(s.ctx, ex)
				if tt.want != "" {
					s.fails(err, tt.want)
					return
				}
				if err != nil {
					s.Fatal(err)
				}
				defer l.Close()
			})
		})
	}
}

// I-CONN-7, I-LOGIN-8: a connection opened ahead that the upstream has ended before
// the credential came is replaced, with or without a BYE, unless that refuses the
// credential.
func TestClosedAhead(t *testing.T) {
	for _, tt := range []struct {
		name, ending string
		want         proxy.Code
	}{
		{"closed", "X:\n", ""},
		{"restart", "S: * BYE shutting down\nX:\n", ""},
		{"idle", "S: * BYE [UNAVAILABLE] idle for too long\nX:\n", ""},
		{"refused", "C: <l> AUTHENTICATE PLAIN " + ir + "\nS: * BYE [AUTHENTICATIONFAILED] x\nX:\n", proxy.CodeAuth},
	} {
		second := ""
		if tt.want == "" {
			second = another + loggedIn + bye
		}
		play(t, tt.name, greeted+tt.ending+second, Options{}, func(s *session) {
			p := s.b.Prepare(s.ctx, proxy.Caller{})
			synctest.Wait()
			l, err := p.Login(s.ctx, joe)
			if tt.want != "" {
				s.fails(err, tt.want)
				return
			}
			if err != nil {
				s.Fatal(err)
			}
			l.Close()
		})
	}
}

const loggedInCarefully = greeted + "C: <l> AUTHENTICATE PLAIN\nS: + \nC: " + ir + "\nS: <l> OK [CAPABILITY IMAP4rev1 UIDPLUS] zebra\n"

// I-LOGIN-8: a cold listing goes on as long as 100 new messages arrive in every five
// seconds, and not longer.
func TestLoginLimitListing(t *testing.T) {
	for _, tt := range []struct {
		perSecond int
		end       time.Duration // of the listing, which then stalls; 0: it is whole
		want      time.Duration
	}{
		{20, 0, 300*time.Second + 500*time.Millisecond},
		{19, 57 * time.Second, upstream.LoginLimit},
		{100, 90 * time.Second, 98 * time.Second},
	} {
		var script strings.Builder
		script.WriteString(selecting + fmt.Sprintf("S: * %d EXISTS\nS: * OK [UIDVALIDITY 9] x\nS: <s> OK x\nS: * SEARCH\nS: <d> OK x\nT: 500ms\n", 300*tt.perSecond))
		for second, uid := 0, 0; second < 300 && (tt.end == 0 || time.Duration(second)*time.Second < tt.end); second++ {
			script.WriteString("T: 1s\n")
			for range tt.perSecond {
				uid++
				fmt.Fprintf(&script, "S: * %d FETCH (UID %d RFC822.SIZE 1)\n", uid, uid)
			}
		}
		if tt.want < 300*time.Second { // it does not come to the end
			script.WriteString("W: stall\n")
		} else {
			script.WriteString("S: <f> OK x\n" + bye)
		}
		play(t, fmt.Sprintf("I-LOGIN-8 %d a second until %v", tt.perSecond, tt.end), strings.ReplaceAll(opened+bye+"-- connection 2 --\n"+
			strings.Replace(script.String(), ir, "AEpPRQBzZWNyZXQ=", 1), "zebra ready", "Dovecot ready"), Options{}, func(s *session) {
			s.open().Close()
			s.took(tt.want, func() {
				l, err := s.b.Login(s.ctx, proxy.Credential{Username: "JOE", Password: "secret"})
				if err != nil {
					s.Fatal(err)
				}
				d, err := l.Open(s.ctx)
				if tt.want > 300*time.Second && err == nil {
					d.Close()
					return
				}
				s.fails(err, temp)
				l.Close()
			})
		})
	}
}
