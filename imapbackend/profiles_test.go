package imapbackend

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"popgate/imapbackend/dialect"
	"popgate/proxy"
)

// dialogue is the beginning of a script: a greeting, what is sent up to SELECT, and
// the rest up to a snapshot of message 7, of 100 octets. "@ID" in login is ID
//
//	with its answer.
func dialogue(greeting, login, search string) string {
	id := "C: <i> ID (\"name\" \"popgate\")\nS: * ID NIL\nS: <i> OK x\n"
	login = strings.NewReplacer("@ID\n", id, "@ID again\n", strings.ReplaceAll(id, "<i>", "<j>")).Replace(login)
	return "S: * OK " + greeting + "\n" + login + "C: <s> SELECT INBOX\n" +
		"C: <d> " + search + "\nC: <f> UID FETCH 1:* (UID RFC822.SIZE)\n" +
		"S: * 1 EXISTS\nS: * OK [UIDVALIDITY 9] x\nS: * OK [UIDNEXT 8] x\nS: <s> OK [READ-WRITE] x\n" +
		"S: * SEARCH\nS: <d> OK x\nS: * 1 FETCH (UID 7 RFC822.SIZE 100)\nS: <f> OK x\n"
}

const (
	plainIR = "C: <l> AUTHENTICATE PLAIN " + ir + "\nS: <l> OK [CAPABILITY IMAP4rev1 UIDPLUS MOVE] x\n"
	asked2  = "C: <l> AUTHENTICATE PLAIN\nS: +\nC: " + ir + "\nS: <l> OK [CAPABILITY IMAP4rev1 ID UIDPLUS] x\n"
	byLogin = "C: <l> LOGIN \"joe\" \"secret\"\nS: <l> OK [CAPABILITY IMAP4rev1 UIDPLUS] x\n"
)

// I-PROF-1, I-DEL-15: the dialogue with each kind of server, as its profile has it: how it is
// recognised, and what is sent otherwise than to an unknown server.
func TestProfileDialogues(t *testing.T) {
	const plain, esearch = "UID SEARCH DELETED", "UID SEARCH RETURN (ALL) DELETED"
	none := func(*session, proxy.Maildrop) {}
	removes := func(s *session, d proxy.Maildrop) { s.wants(d.Update(s.ctx, []uint64{7}), nil) }
	reads := func(want string) func(s *session, d proxy.Maildrop) {
		return func(s *session, d proxy.Maildrop) {
			if got := s.text(d.Read(s.ctx, 7)); got != want {
				s.Errorf("read %q, want %q", got, want)
			}
		}
	}
	body := retr + "S: * 1 FETCH (UID 7 BODY[] \"x\")\nS: <r> OK x\n"
	for _, tt := range []struct {
		profile, host, script string
		opts                  Options
		then                  func(*session, proxy.Maildrop)
	}{
		// https://github.com/d99kris/nmail/issues/172: closed at MOVE.
		{"gmail", "imap.gmail.com", dialogue("Gimap ready for requests from 192.0.2.1 5mb7", "C: <k> CAPABILITY\nS: * CAPABILITY IMAP4rev1 ID SASL-IR AUTH=PLAIN\nS: <k> OK x\n@ID\n"+plainIR, plain) +
			moving("7", `"Bin"`) + "X:\n" + another +
			"S: * OK Gimap ready for requests from 192.0.2.1 6mb7\nC: <k> CAPABILITY\nS: * CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN\nS: <k> OK x\n" + plainIR +
			"C: <s> SELECT INBOX\nS: * 1 EXISTS\nS: * OK [UIDVALIDITY 9] x\nS: * OK [UIDNEXT 8] x\nS: <s> OK x\n" +
			copying("7", `"Bin"`) + copied + removing("7"), bin, removes},
		// https://github.com/jstedfast/MailKit/issues/1451: a placeholder.
		{"microsoft-365", "outlook.office365.com", dialogue("The Microsoft Exchange IMAP4 service is ready. [QQ==]", "C: <k> CAPABILITY\nS: * CAPABILITY IMAP4 IMAP4rev1 AUTH=PLAIN SASL-IR ID\nS: <k> OK x\n@ID\n"+plainIR, plain) +
			subject("7") + good7 + asked + removing("7"), Options{}, removes},
		{"outlook.com", "imap-mail.outlook.com", dialogue("The Microsoft Exchange IMAP4 service is ready. [QQ==]", "C: <k> CAPABILITY\nS: * CAPABILITY IMAP4 IMAP4rev1 AUTH=PLAIN SASL-IR ID\nS: <k> OK x\n@ID\n"+plainIR, plain) +
			subject("7") + good7 + asked + removing("7"), Options{}, removes},
		// https://github.com/nextcloud/mail/issues/3401: the greeting.
		{"icloud", "imap.mail.me.com", dialogue("[CAPABILITY XAPPLEPUSHSERVICE IMAP4 IMAP4rev1 SASL-IR AUTH=ATOKEN AUTH=PLAIN] (2109B29-d3af) pv33.me.com",
			strings.Replace(plainIR, "MOVE", "ESEARCH", 1), plain), Options{}, none},
		// https://github.com/jstedfast/MailKit/issues/358: no number has changed.
		{"yahoo", "imap.mail.yahoo.com", dialogue("[CAPABILITY IMAP4rev1 ID AUTH=PLAIN SASL-IR] IMAP4rev1 Hello", "@ID\n"+plainIR, plain) +
			retr + "S: * 1 EXPUNGE\nS: * 2 FETCH (UID 7 BODY[] \"x\")\nS: <r> OK x\n", Options{}, reads("x")},
		// https://github.com/pimalaya/himalaya/issues/729, and ID between login and SELECT.
		{"coremail", "imap.163.com", dialogue("Coremail System IMap Server Ready(163com[8db7])", "C: <k> CAPABILITY\nS: * CAPABILITY IMAP4rev1 SASL-IR AUTH=PLAIN ID\nS: <k> OK x\n@ID\n"+asked2+"@ID again\n", plain), Options{}, none},
		// https://github.com/nicm/fdm/issues/30: the greeting.
		{"qq", "imap.qq.com", dialogue("[CAPABILITY IMAP4 IMAP4rev1 IDLE XAPPLEPUSHSERVICE ID UIDPLUS AUTH=PLAIN AUTH=LOGIN NAMESPACE] QQMail IMAP4Server ready", "@ID\n"+byLogin, plain), Options{}, none},
		{"zimbra", "mx.example.com", dialogue("[CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR ID] mx.example.com Zimbra 8.8.15_GA IMAP4 service ready", "@ID\n"+plainIR, plain) + body, Options{},
			func(s *session, d proxy.Maildrop) { s.text(d.Top(s.ctx, 7, 1)) }},
		// RFC 9051 §5.5: commands after ID, but none after AUTHENTICATE.
		{"cyrus", "mx.example.com", "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR ID] mx Cyrus IMAP 3.6.1 server ready\nC: <i> ID (\"name\" \"popgate\")\n" +
			"C: <l> AUTHENTICATE PLAIN " + ir + "\nS: * ID NIL\nS: <i> OK x\nS: <l> OK [CAPABILITY IMAP4rev1 OBJECTID ESEARCH] x\n" +
			"C: <m> STATUS INBOX (MAILBOXID)\nS: * STATUS INBOX (MAILBOXID (M1))\nS: <m> OK x\n" +
			strings.TrimPrefix(dialogue("x", "", esearch), "S: * OK x\n"), Options{}, none},
		{"courier", "mx.example.com", dialogue("[CAPABILITY IMAP4rev1 UIDPLUS ID] Courier-IMAP ready.", "@ID\n"+byLogin, plain) + body +
			"C: <n> NOOP\nS: <n> OK x\nC: <q> UID SEARCH UID 7\nS: * SEARCH 7\nS: <q> OK x\n", Options{}, reads("x")},
		{"dovecot", "mx.example.com", dialogue("[CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] Dovecot ready.", plainIR, plain), Options{}, none},
		{"stalwart", "mx.example.com", dialogue("[CAPABILITY IMAP4rev2 IMAP4rev1 AUTH=PLAIN SASL-IR ID] Stalwart IMAP4rev2 at your service.", "@ID\n"+strings.Replace(plainIR, "MOVE", "ESEARCH", 1), esearch), Options{}, none},
		{"proton-bridge", "127.0.0.1", dialogue("[CAPABILITY ID IDLE IMAP4rev1 AUTH=PLAIN] Proton Mail Bridge 03.12.00 - gluon session ID 1", "@ID\n"+byLogin, plain), Options{}, none},
	} {
		tt.opts.Address = tt.host + ":143"
		play(t, tt.profile, tt.script+bye, tt.opts, func(s *session) {
			d := s.open()
			if got := d.(*maildrop).u.Dialect().Profile; got != tt.profile {
				s.Errorf("profile %q", got)
			}
			tt.then(s, d)
		})
	}
}

// P-SASL-1: Exchange names AUTHENTICATE when it refuses a password, which is not
// sent once more by LOGIN.
func TestExchangePassword(t *testing.T) {
	script := "S: * OK The Microsoft Exchange IMAP4 service is ready. [QQ==]\nC: <k> CAPABILITY\n" +
		"S: * CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR\nS: <k> OK x\n" +
		"C: <l> AUTHENTICATE PLAIN " + ir + "\nS: <l> NO AUTHENTICATE failed.\n"
	for _, host := range []string{"outlook.office365.com", "imap-mail.outlook.com", "mx.example.com"} {
		play(t, host, script+bye, Options{Address: host + ":143"}, func(s *session) {
			s.fails(s.openFails(), proxy.CodeAuth)
		})
	}
}

// upTo limits the connections of a user.
func upTo(n int) dialect.Choice {
	c := dialect.Defaults()
	c.UserConnections = n
	return c
}

// I-PROF-2: no more connections of one user than the dialect has: a login waits for
// one to end, up to five seconds. What is kept for a next session is ended instead.
func TestUserConnections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel()
		m.add("x\r\n")
		b := m.backend(t, Options{Dialect: upTo(2), KeepOpen: time.Minute})
		other := joe
		other.Username = "jim"
		login := func(cred proxy.Credential) proxy.Login {
			t.Helper()
			l, err := b.Login(t.Context(), cred)
			if err != nil {
				t.Fatal(err)
			}
			return l
		}
		first, second := login(joe), login(joe)
		login(other).Close()
		began := time.Now()
		_, err := b.Login(t.Context(), joe)
		if e := proxy.AsError(err); e.Code != proxy.CodeSysTemp || time.Since(began) != 5*time.Second {
			t.Errorf("a third: %v after %v", err, time.Since(began))
		}
		time.AfterFunc(2*time.Second, func() { second.Close() })
		began = time.Now()
		third := login(joe)
		if d := time.Since(began); d < 2*time.Second || d > 3*time.Second {
			t.Errorf("a third, when the second ends: after %v", d)
		}
		third.Close()
		d, err := first.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Update(t.Context(), nil); err != nil {
			t.Error(err)
		}
		d.Close() // kept
		began = time.Now()
		again := joe
		again.UTF8 = true // another credential
		for range 2 {
			defer login(again).Close()
		}
		if d := time.Since(began); d != 0 {
			t.Errorf("with one that is kept: after %v", d)
		}
		synctest.Wait()
		if n := m.Open(); n != 2 {
			t.Errorf("%d connections", n)
		}
	})
}

// I-PROF-2: a lost connection does not count, so that it can be replaced.
func TestUserConnectionReplaced(t *testing.T) {
	script := opened + "X:\n" + another + reselected + removing("7") + bye
	play(t, "", script, Options{Dialect: upTo(1)}, func(s *session) {
		s.wants(s.open().Update(s.ctx, []uint64{7}), nil)
	})
}

// I-PROF-3: what is learned is kept in the store, and not learned again by another
// process.
func TestLearnedKept(t *testing.T) {
	const count = "S: * ESEARCH (TAG \"<d>\") UID COUNT 1\nS: <d> OK x\n"
	first := strings.Replace(mailbox("ESEARCH", "", "7"), "S: * SEARCH \nS: <d> OK x\n", count, 1)
	plain := "C: <p> UID SEARCH DELETED\nS: * SEARCH\nS: <p> OK x\n"
	warm := strings.Replace(mailbox("ESEARCH", "", "7"), "SEARCH RETURN (ALL)", "SEARCH", 1)
	warm = strings.Replace(warm, "1:*", "4000000000:*", 1)
	play(t, "", first+plain+bye+another+warm+bye, Options{}, func(s *session) {
		s.open().Close()
		b := backend(s.T, Options{Store: s.b.store, Name: s.b.opts.Name})
		b.dial = s.up.Dial
		s.b = b
		s.open()
	})
}
