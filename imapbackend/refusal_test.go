package imapbackend

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"popgate/proxy"
)

// refusalTexts are answers that servers really give, with the code that a client gets
// where they answer AUTHENTICATE, and where they answer SELECT.
var refusalTexts = []struct {
	answer         string
	login, selects proxy.Code
	source         string
}{
	{"NO Request is throttled. Suggested Backoff Time: 299910 milliseconds", temp, temp, "Microsoft 365: ikvk/imap_tools#135"},
	{"BAD Request is throttled. Suggested Backoff Time: 89117 milliseconds", temp, temp, "Microsoft 365: simonrob/email-oauth2-proxy#191"},
	{"BAD User is authenticated but not connected.", temp, temp, "Microsoft 365: jstedfast/MailKit#1494"},
	{"NO Server Unavailable. 15", temp, temp, "Exchange"},
	{"NO [ALERT] Too many simultaneous connections. (Failure)", temp, temp, "Gmail: jstedfast/MailKit#377"},
	{"NO [OVERQUOTA] Account exceeded command or bandwidth limits.", temp, temp, "Gmail: ljmerza/ha-email-sensor#16"},
	{"NO [TEMPFAIL] SELECT Temporary failure on server [CODE: WBL]", temp, temp, "Yahoo: mscdex/node-imap#340"},
	{"NO [UNAVAILABLE] Temporary authentication failure.", temp, temp, "Dovecot: thunderbird/thunderbird-android#7287"},
	{"NO [UNAVAILABLE] Account is temporarily unavailable.", temp, temp, "twentyhq/twenty#20273"},
	{"NO [SERVERBUG] Internal error occurred. Refer to server log for more information.", temp, temp, "Dovecot"},
	{"NO [ALERT] Maximum number of connections from user+IP exceeded (mail_max_userip_connections=10)", temp, temp, "Dovecot"},
	{"NO imapsql: CreateUser: sql: database is locked", temp, temp, "maddy 0.8.1 under load"},
	{"NO GetMailbox INBOX: imapsql: serialization failure, try again later", temp, temp, "maddy: foxcpp/maddy#786"},
	{"NO mailbox is locked by another session", temp, temp, "mbox servers"},
	{"NO System busy!", temp, temp, "Coremail"},
	{"BAD System error, please retry", temp, temp, "Coremail"},

	{"NO AUTHENTICATE failed.", auth, perm, "Exchange: jstedfast/MailKit#483"},
	{"NO [AUTHENTICATIONFAILED] Invalid credentials (Failure)", auth, auth, "Gmail: jstedfast/MailKit#377"},
	{"NO [AUTHENTICATIONFAILED] Authentication failed.", auth, auth, "Dovecot"},
	{"NO [ALERT] Application-specific password required: https://support.google.com/", auth, perm, "Gmail"},
	{"NO Invalid login or password, please try again", auth, perm, "the password is blamed"},
	{"NO Your account is locked", auth, perm, "P-RESP-7: a locked account"},
	{"NO Access blocked by policy", auth, perm, "not a lock"},
	{"NO sql: no rows in result set", auth, perm, "an unknown user in an SQL table"},
	{"NO user not found in database", auth, perm, "an unknown user"},
	{"BAD Command Argument Error. 11", perm, perm, "Exchange"},
}

// Q6, M-1: a refusal that passes by itself never blames the credential or the
// operator, whatever its form.
func TestRefusalTexts(t *testing.T) {
	for _, tt := range refusalTexts {
		other := "" // where the form of the command may be at fault
		if tt.login != temp && (strings.HasPrefix(tt.answer, "BAD") || strings.Contains(tt.answer, "NO AUTHENTICATE")) {
			other = "C: <m> AUTHENTICATE PLAIN\nS: + \nC: " + ir + "\nS: <m> " + tt.answer + "\n"
		}
		play(t, "login/"+tt.answer, greeted+"C: <l> AUTHENTICATE PLAIN "+ir+"\nS: <l> "+tt.answer+"\n"+other+bye, Options{},
			func(s *session) { s.fails(s.openFails(), tt.login) })
		alone := ""
		if tt.selects != temp && strings.HasPrefix(tt.answer, "BAD") {
			alone = "C: <t> SELECT INBOX\nS: <t> " + tt.answer + "\n"
		}
		play(t, "select/"+tt.answer, selecting+"S: <s> "+tt.answer+"\nS: <d> BAD x\nS: <f> BAD x\n"+alone+bye, Options{},
			func(s *session) { s.fails(s.openFails(), tt.selects) })
	}
}

// M-1: the log has the server that a login referral names.
func TestReferral(t *testing.T) {
	const referral = "NO [REFERRAL imap://joe;AUTH=*@server2.example/] Specified user is unknown here. Try server2."
	play(t, "M-1", greeted+"C: <l> AUTHENTICATE PLAIN "+ir+"\nS: <l> "+referral+"\n"+bye, Options{}, func(s *session) {
		if err := s.fails(s.openFails(), perm); !strings.Contains(err.Error(), `referral to "server2.example"`) {
			s.Errorf("no host in %v", err)
		}
	})
}

// throttledLogin is a login that is answered by text.
func throttledLogin(text string) string {
	return greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\nS: <l> " + text + "\n" + bye
}

// next is s as the script of connection n.
func next(n int, s string) string { return fmt.Sprintf("-- connection %d --\n", n) + s }

// M-4: a suggested wait is kept, at most 15 minutes, without a connection to the
// upstream, and logged once.
func TestSuggestedWait(t *testing.T) {
	for _, tt := range []struct {
		text string
		want time.Duration
	}{
		{"NO Request is throttled. Suggested Backoff Time: 299961 milliseconds", 299961 * time.Millisecond},
		{"BAD Request is throttled. Suggested Backoff Time: 89117 milliseconds", 89117 * time.Millisecond},
		{"NO [LIMIT] Rate limit hit, try again in 30 seconds", 30 * time.Second},
		{"NO [UNAVAILABLE] please wait 5 minutes", 5 * time.Minute},
		{"NO Too many attempts, retry in about 2 hours", 15 * time.Minute},
		{"NO throttled, try again in 99999999999999999999 s", 15 * time.Minute},
		{"NO [UNAVAILABLE] try again in a minute", 0},
		{"NO [AUTHENTICATIONFAILED] Wrong password, try again in 30 seconds", 0},
	} {
		play(t, tt.text, throttledLogin(tt.text)+next(2, opened+bye),
			Options{}, func(s *session) {
				s.openFails()
				if tt.want > 0 {
					s.after(tt.want / 2)
					s.fails(s.openFails(), temp)
					s.after(tt.want - tt.want/2 - time.Millisecond)
					s.fails(s.openFails(), temp)
				}
				if n := len(s.log.Lines("upstream asks to wait")); n != int(min(tt.want, 1)) {
					s.Errorf("%d log records", n)
				}
				s.after(time.Millisecond)
				if strings.Contains(tt.text, "AUTHENTICATIONFAILED") {
					s.after(time.Minute) // I-LOGIN-10
				}
				s.open().Close()
			})
	}
}

// M-4: a wait that comes before the upstream has judged the credential is for
// that credential only; one that comes later is for the user, whatever the
// credential, and for no other user.
func TestSuggestedWaitOf(t *testing.T) {
	const wait = "NO throttled, try again in 60 seconds"
	attempt := func(s *session, name, password string) error {
		l, err := s.b.Login(s.ctx, proxy.Credential{Username: name, Password: password})
		if err == nil {
			l.Close()
		}
		return err
	}
	asked := func(n int) string {
		return next(n, greeted+"C: <l> AUTHENTICATE PLAIN ...\nS: <l> NO [AUTHENTICATIONFAILED] x\n"+bye)
	}
	play(t, "before", throttledLogin(wait)+asked(2)+asked(3), Options{}, func(s *session) {
		s.fails(s.openFails(), temp)
		s.fails(attempt(s, "joe", "secret"), temp)
		s.fails(attempt(s, "joe", "another"), auth) // was not refused by the upstream yet
		s.fails(attempt(s, "ann", "secret"), auth)
	})
	play(t, "after", selecting+"S: <s> "+wait+"\nS: <d> BAD x\nS: <f> BAD x\n"+bye+asked(2), Options{}, func(s *session) {
		s.fails(s.openFails(), temp)
		s.fails(attempt(s, "joe", "secret"), temp)
		s.fails(attempt(s, "joe", "another"), temp)
		s.fails(attempt(s, "ann", "secret"), auth)
	})
}

// M-4: a wait holds for kept and prepared connections and for exchanges, and a
// connection that it ends is not replaced.
func TestSuggestedWaitConnections(t *testing.T) {
	const wait = "BAD throttled, try again in 20 seconds"
	refused := "S: <d> BAD x\nS: <f> BAD x\nS: <s> " + wait + "\n" // the client does not wait for more
	play(t, "kept, ended by the wait", openedKeep+leaving+"S: <u> OK x\n"+again+"S: <n> OK x\n"+refused+dismissed, keeping, func(s *session) {
		quit(s.T, s.open())
		s.fails(s.openFails(), temp)
	})
	const twice = leaving + "S: <u> OK x\n" + again + "S: <n> OK x\n" + openedWarm
	play(t, "kept, in the wait", openedKeep+"C: <r> UID FETCH 7 (UID BODY.PEEK[])\nS: <r> "+wait+"\n"+twice+bye, keeping, func(s *session) {
		d := s.open()
		_, err := d.Read(s.ctx, 7)
		s.fails(err, temp)
		quit(s.T, d)
		s.fails(s.openFails(), temp)
		s.after(20 * time.Second)
		s.open().Close()
	})
	play(t, "exchange", "S: * OK [CAPABILITY IMAP4rev1 AUTH=XOAUTH2 SASL-IR] x\nC: <l> AUTHENTICATE XOAUTH2 ...\nS: <l> "+wait+"\n"+bye+
		next(2, greeted+"W:\n"), Options{}, func(s *session) {
		ex := &proxy.Exchange{Mechanism: "XOAUTH2", Username: "joe", Authorization: "Bearer t"}
		_, err := s.b.Exchange(s.ctx, ex)
		s.fails(err, temp)
		_, err = s.b.Exchange(s.ctx, ex)
		s.fails(err, temp)
		p := s.b.Prepare(s.ctx, proxy.Caller{}).(proxy.PreparedExchanger)
		s.after(time.Second)
		_, err = p.Exchange(s.ctx, ex)
		s.fails(err, temp)
	})
	play(t, "prepared", throttledLogin(wait)+next(2, greeted+"W:\n"), Options{}, func(s *session) {
		s.fails(s.openFails(), temp)
		p := s.b.Prepare(s.ctx, proxy.Caller{})
		s.after(time.Second)
		_, err := p.Login(s.ctx, joe)
		s.fails(err, temp)
	})
}
