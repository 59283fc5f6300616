package imapbackend

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"popgate/proxy"
)

// I-LOGIN-1, I-LOGIN-2, I-CONN-2, O-ID-1, O-LOCK-2, I-UTF8-2: the commands that
// open a maildrop, in their order.
func TestLoginOrder(t *testing.T) {
	const empty = lists + "S: * 0 EXISTS\nS: * OK [UIDVALIDITY 9] x\nS: <s> OK x\nS: <d> OK x\nS: <f> BAD x\n"
	extended := strings.Replace(empty, "DELETED", "RETURN (ALL) DELETED", 1)
	for _, tt := range []struct {
		name, script string
		opts         Options
	}{
		{"I-LOGIN-1 all in the greeting and the reply", loggedIn + "C: <s> SELECT INBOX\n" + empty, Options{}},
		{"I-CONN-2 capabilities asked for before and after the login",
			"S: * OK x\nC: <c> CAPABILITY\nS: * CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR\nS: <c> OK x\n" +
				"C: <l> AUTHENTICATE PLAIN " + ir + "\nS: <l> OK x\n" +
				"C: <d> CAPABILITY\nS: * CAPABILITY IMAP4rev1\nS: <d> OK x\nC: <s> SELECT INBOX\n" + empty, Options{}},
		{"I-CONN-2 capabilities announced untagged by the login",
			greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\nS: * CAPABILITY IMAP4rev1\nS: <l> OK x\nC: <s> SELECT INBOX\n" + empty, Options{}},
		{"I-LOGIN-2 without SASL-IR",
			"S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] x\nC: <l> AUTHENTICATE PLAIN\nS: + \nC: " + ir +
				"\nS: <l> OK [CAPABILITY IMAP4rev1] x\nC: <s> SELECT INBOX\n" + empty, Options{}},
		{"I-LOGIN-2 a continuation request with text, after other responses",
			"S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN LOGINDISABLED] x\nC: <l> AUTHENTICATE PLAIN\nS: * OK wait\nS: + go ahead\nC: " + ir +
				"\nS: <l> OK [CAPABILITY IMAP4rev1 LOGINDISABLED] x\nC: <s> SELECT INBOX\n" + empty, Options{}},
		{"I-LOGIN-4 IMAP4rev2 alone",
			"S: * OK [CAPABILITY IMAP4rev2 AUTH=PLAIN SASL-IR] x\nC: <l> AUTHENTICATE PLAIN " + ir +
				"\nS: <l> OK [CAPABILITY IMAP4rev2] x\nC: <s> SELECT INBOX\n" + extended, Options{}},
		{"O-ID-1 before the login", "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR ID] x\n" +
			"C: <i> ID (\"name\" \"popgate\" \"version\" \"1.2\")\nS: * ID (\"name\" \"x\")\nS: <i> OK x\n" +
			"C: <l> AUTHENTICATE PLAIN " + ir + "\nS: <l> OK [CAPABILITY IMAP4rev1 ID] x\nC: <s> SELECT INBOX\n" + empty,
			Options{Version: "1.2"}},
		{"O-ID-1 BAD is ignored, ID NIL, sent again where SELECT is refused",
			"S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR ID] x\nC: <i> ID (\"name\" \"popgate\")\nS: <i> BAD x\n" +
				"C: <l> AUTHENTICATE PLAIN " + ir + "\nS: <l> OK [CAPABILITY IMAP4rev1 ID] x\n" +
				"C: <t> SELECT INBOX\nC: <b> UID SEARCH DELETED\nC: <c> UID FETCH 1:* (UID RFC822.SIZE)\n" +
				"S: * 5 EXISTS\nS: <t> NO Unsafe Login\nS: <b> BAD x\nS: <c> BAD x\n" +
				"C: <j> ID (\"name\" \"popgate\")\nS: * ID NIL\nS: <j> OK x\nC: <s> SELECT INBOX\n" + empty, Options{}},
		{"I-UTF8-2 modified UTF-7", loggedIn + "C: <s> SELECT \"Entw&APw-rfe &- \\\"x\\\"\"\n" + empty,
			Options{Mailbox: "Entwürfe & \"x\""}},
		{"I-LOGIN-5 INBOX in any case", loggedIn + "C: <s> SELECT INBOX\n" + empty, Options{Mailbox: "inbox"}},
		{"I-LOGIN-3 UTF8=ACCEPT is not enabled unasked",
			greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\nS: <l> OK [CAPABILITY IMAP4rev1 IMAP4rev2 ENABLE UTF8=ACCEPT QRESYNC] x\n" +
				"C: <s> SELECT INBOX\n" + extended, Options{}},
		{"I-LOGIN-3 UTF8=ONLY, I-UTF8-2 quoted UTF-8",
			greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\nS: <l> OK [CAPABILITY IMAP4rev1 ENABLE UTF8=ONLY OBJECTID] x\n" +
				"C: <e> ENABLE UTF8=ACCEPT\nS: * ENABLED UTF8=ACCEPT\nS: <e> OK x\n" +
				"C: <m> STATUS \"Entwürfe\" (MAILBOXID)\nS: * STATUS \"Entwürfe\" (MAILBOXID (F1))\nS: <m> OK x\n" +
				"C: <s> SELECT \"Entwürfe\"\n" + empty, Options{Mailbox: "Entwürfe"}},
	} {
		play(t, tt.name, tt.script+bye, tt.opts, func(s *session) {
			if n := len(s.open().Messages()); n != 0 {
				s.Errorf("%d messages", n)
			}
		})
	}
}

// P-SASL-1, I-CONN-5, P-AUTH-5, P-AUTH-6: the form in which each credential is
// sent.
func TestCredentials(t *testing.T) {
	const injection = "\"\r\nA2 DELETE x"
	const in = "S: <l> OK [CAPABILITY IMAP4rev1] x\n" + bye
	for _, tt := range []struct {
		name, script string
		cred         proxy.Credential
		user         string
	}{
		{"P-AUTH-5 authzid is passed on", greeted + "C: <l> AUTHENTICATE PLAIN dGVzdAB0ZXN0AHRlc3Q=\n" + in,
			proxy.Credential{Authzid: "test", Username: "test", Password: "test"}, "test"},
		{"P-AUTH-5 authzid of another", greeted + "C: <l> AUTHENTICATE PLAIN Ym9iAGpvZQBzZWNyZXQ=\n" + in,
			proxy.Credential{Authzid: "bob", Username: "joe", Password: "secret"}, "bob"},
		{"P-AUTH-6 octets unchanged, name folded", greeted + "C: <l> AUTHENTICATE PLAIN AErDtmUAw7Y=\n" + in,
			proxy.Credential{Username: "J\u00f6e", Password: "\u00f6"}, "j\u00f6e"},
		{"I-CONN-5 in PLAIN", greeted + "C: <l> AUTHENTICATE PLAIN ACINCkEyIERFTEVURSB4AHA=\n" + in,
			proxy.Credential{Username: injection, Password: "p"}, injection},
		{"I-CONN-5 in LOGIN, LITERAL+", "S: * OK [CAPABILITY IMAP4rev1 LITERAL+] x\nC: <l> LOGIN {14+}\nC: \"\nC: A2 DELETE x \"p\"\n" + in,
			proxy.Credential{Username: injection, Password: "p"}, injection},
		{"I-CONN-5 in LOGIN, LITERAL-", "S: * OK [CAPABILITY IMAP4rev1 LITERAL-] x\nC: <l> LOGIN {14+}\nC: \"\nC: A2 DELETE x \"p\"\n" + in,
			proxy.Credential{Username: injection, Password: "p"}, injection},
		{"I-CONN-5 in LOGIN, synchronising",
			"S: * OK [CAPABILITY IMAP4rev1] x\nC: <l> LOGIN {14}\nS: * OK hold on\nS: + go\nC: \"\nC: A2 DELETE x \"p\"\n" + in,
			proxy.Credential{Username: injection, Password: "p"}, injection},
		{"P-SASL-1 LOGIN quoted", "S: * OK [CAPABILITY IMAP4rev1 AUTH=CRAM-MD5] x\nC: <l> LOGIN \"a\\\"b\" \"c\\\\d e\"\n" + in,
			proxy.Credential{Username: `a"b`, Password: `c\d e`}, `a"b`},
		{"P-SASL-1 PLAIN wins, LITERAL- or not", "S: * OK [CAPABILITY IMAP4rev1 LITERAL- AUTH=PLAIN SASL-IR] x\nC: <l> AUTHENTICATE PLAIN " + ir + "\n" + in,
			joe, "joe"},
	} {
		play(t, tt.name, tt.script, Options{Name: "main"}, func(s *session) {
			l, err := s.b.Login(s.ctx, tt.cred)
			if err != nil {
				s.Fatal(err)
			}
			defer l.Close()
			if id := l.Identity(); id.User != tt.user || id.Upstream != "main" || id.Mailbox != "INBOX" || id.MailboxID != "" {
				s.Errorf("identity %+v", id)
			}
		})
	}
}

// P-SASL-1, I-LOGIN-2: a credential that the upstream cannot take is not sent.
func TestCredentialsRefused(t *testing.T) {
	const plain = "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] zebra\n" + bye
	const login = "S: * OK [CAPABILITY IMAP4rev1 LITERAL+] zebra\n" + bye
	for _, tt := range []struct {
		name, script string
		cred         proxy.Credential
		want         proxy.Code
	}{
		{"P-SASL-1 non-ASCII without PLAIN", login, proxy.Credential{Username: "j\u00f6e", Password: "p"}, perm},
		{"P-UTF8-2 8-bit password without PLAIN", login, proxy.Credential{Username: "joe", Password: "\xff"}, perm},
		{"P-AUTH-5 authzid without PLAIN", login, proxy.Credential{Authzid: "a", Username: "joe", Password: "p"}, perm},
		{"I-LOGIN-2 LOGINDISABLED", "S: * OK [CAPABILITY IMAP4rev1 LOGINDISABLED] zebra\n" + bye, joe, perm},
		{"P-AUTH-6 NUL", plain, proxy.Credential{Username: "j\x00e", Password: "p"}, auth},
		{"P-AUTH-6 NUL in LOGIN", login, proxy.Credential{Username: "joe", Password: "\x00"}, auth},
		{"I-CONN-5 literal refused", "S: * OK [CAPABILITY IMAP4rev1] x\nC: <l> LOGIN {2}\nS: <l> NO [LIMIT] zebra\n" + bye,
			proxy.Credential{Username: "\r\n", Password: "p"}, temp},
		{"I-CONN-5 second literal refused", "S: * OK [CAPABILITY IMAP4rev1] x\nC: <l> LOGIN \"joe\" {2}\nS: <l> BAD zebra\n" + bye,
			proxy.Credential{Username: "joe", Password: "\r\n"}, perm},
		{"I-KEEP-2 no continuation request for the literal", "S: * OK [CAPABILITY IMAP4rev1] x\nC: <l> LOGIN {2}\nW:\n",
			proxy.Credential{Username: "\r\n", Password: "p"}, temp},
		{"P-SASL-1 refused instead of a continuation request, LOGIN disabled",
			"S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN LOGINDISABLED] x\nC: <l> AUTHENTICATE PLAIN\nS: <l> NO zebra\n" + bye, joe, perm},
		{"P-SASL-1 refused instead of a continuation request, authzid",
			"S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] x\nC: <l> AUTHENTICATE PLAIN\nS: <l> BAD zebra\n" + bye,
			proxy.Credential{Authzid: "a", Username: "joe", Password: "p"}, perm},
		{"P-SASL-1 refused instead of a continuation request, for now",
			"S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] x\nC: <l> AUTHENTICATE PLAIN\nS: <l> NO [UNAVAILABLE] zebra\n" + bye, joe, temp},
		{"P-SASL-1 refused instead of a continuation request, and by LOGIN",
			"S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] x\nC: <l> AUTHENTICATE PLAIN\nS: <l> NO zebra\n" +
				"C: <m> LOGIN \"joe\" \"secret\"\nS: <m> NO zebra\n" + bye, joe, auth},
		{"P-SASL-1 judged after the continuation request",
			"S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] x\nC: <l> AUTHENTICATE PLAIN\nS: + \nC: " + ir + "\nS: <l> BAD AUTHENTICATE zebra\n" + bye, joe, perm},
		{"P-SASL-1 judged with the initial response",
			greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\nS: <l> NO [AUTHENTICATIONFAILED] AUTHENTICATE PLAIN zebra\n" + bye, joe, auth},
		{"P-SASL-1 judged with the initial response, by text",
			greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\nS: <l> NO zebra plaintext login failed\n" + bye, joe, auth},
		{"two continuation requests for one response", "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] x\nC: <l> AUTHENTICATE PLAIN " + ir + "\nS: + \nS: + \nW: stall\n", joe, perm},
	} {
		play(t, tt.name, tt.script, Options{}, func(s *session) {
			_, err := s.b.Login(s.ctx, tt.cred)
			s.fails(err, tt.want)
		})
	}
}

// O-LOCK-2: the mailbox-id is asked for before SELECT, with the account that it
// is unique in where the upstream has ids of accounts.
func TestMailboxID(t *testing.T) {
	const objects = greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\nS: <l> OK [CAPABILITY IMAP4rev1 OBJECTID] x\n"
	for _, tt := range []struct{ name, mailbox, asked, answer, want string }{
		{"given", "INBOX", "INBOX", "S: * STATUS INBOX (MAILBOXID (F2212ea87-6097))\nS: <m> OK x\n", "F2212ea87-6097"},
		{"lower case, other items", "INBOX", "INBOX", "S: * STATUS inbox (messages 3 mailboxid (f22))\nS: <m> OK x\n", "f22"},
		{"a name that looks like an answer", "(MAILBOXID (X))", `"(MAILBOXID (X))"`,
			"S: * STATUS \"(MAILBOXID (X))\" (MAILBOXID (F9))\nS: <m> OK x\n", "F9"},
		{"name as literal", "INBOX", "INBOX", "S: * STATUS {5}\nS: INBOX (MAILBOXID (F9))\nS: <m> OK x\n", "F9"},
		{"among other responses", "INBOX", "INBOX", "S: * 4 EXISTS\nS: * STATUS INBOX (MAILBOXID (F9))\nS: * OK x\nS: <m> OK x\n", "F9"},
		{"a name that is shorter in upper case", "ııııı", "\"&ATEBMQExATEBMQ-\"", "S: * STATUS ııııı (MAILBOXID (F9))\nS: <m> OK x\n", "F9"},
		{"refused", "INBOX", "INBOX", "S: <m> NO [NONEXISTENT] x\n", ""},
		{"not given", "INBOX", "INBOX", "S: <m> OK x\n", ""},
		{"unfinished", "INBOX", "INBOX", "S: * STATUS INBOX (MAILBOXID (F9\nS: <m> OK x\n", ""},
	} {
		play(t, tt.name, objects+"C: <m> STATUS "+tt.asked+" (MAILBOXID)\n"+tt.answer+bye, Options{Mailbox: tt.mailbox}, func(s *session) {
			l := s.login()
			defer l.Close()
			if id := l.Identity(); id.MailboxID != tt.want || id.Mailbox != tt.mailbox {
				s.Errorf("identity %+v, want mailbox-id %q", id, tt.want)
			}
		})
	}
	accounts := strings.Replace(objects, "OBJECTID", "OBJECTID OBJECTID=ACCOUNTID", 1)
	for answer, want := range map[string]proxy.Identity{
		"S: * STATUS INBOX (MAILBOXID (F9) ACCOUNTID (A1))\nS: <m> OK x\n": {MailboxID: "F9", AccountID: "A1"},
		"S: * STATUS INBOX (ACCOUNTID (A1) MAILBOXID (F9))\nS: <m> OK x\n": {MailboxID: "F9", AccountID: "A1"},
		"S: * STATUS INBOX (MAILBOXID (F9))\nS: <m> OK x\n":                {MailboxID: "F9"},
		"S: <m> BAD x\n": {},
	} {
		play(t, "account/"+answer, accounts+"C: <m> STATUS INBOX (MAILBOXID ACCOUNTID)\n"+answer+bye, Options{}, func(s *session) {
			l := s.login()
			defer l.Close()
			if id := l.Identity(); id.MailboxID != want.MailboxID || id.AccountID != want.AccountID {
				s.Errorf("identity %+v, want %+v", id, want)
			}
		})
	}
	play(t, "lost", objects+"C: <m> STATUS INBOX (MAILBOXID)\nS: * BYE zebra\nX:\n", Options{}, func(s *session) {
		s.fails(s.openFails(), temp)
	})
}

// I-LOGIN-3: the login fails on an upstream that is UTF8=ONLY and refuses
// ENABLE.
func TestEnableRefused(t *testing.T) {
	script := greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\nS: <l> OK [CAPABILITY IMAP4rev1 UTF8=ONLY] x\nC: <e> ENABLE UTF8=ACCEPT\n"
	for answer, want := range map[string]proxy.Code{
		"S: <e> BAD zebra\n" + bye: perm, "S: <e> NO zebra\n" + bye: perm, "X:\n": temp,
		"S: <e> NO [UNAVAILABLE] zebra\n" + bye: temp,
	} {
		play(t, strings.TrimSpace(answer), script+answer, Options{}, func(s *session) { s.fails(s.openFails(), want) })
	}
}

// O-TLS-8: New refuses Options that make no sense.
func TestNew(t *testing.T) {
	for _, tt := range []struct {
		opts Options
		ok   bool
	}{
		{Options{Address: "imap.example.net:993"}, true},
		{Options{Address: "[::1]:143", TLS: TLSNone}, true},
		{Options{Address: "127.9.9.9:143", TLS: TLSNone}, true},
		{Options{Address: "[::ffff:127.0.0.1]:143", TLS: TLSNone}, true},
		{Options{Address: "LocalHost:143", TLS: TLSNone}, true},
		{Options{Address: "10.0.0.1:143", TLS: TLSNone, Insecure: true}, true},
		{Options{Address: "10.0.0.1:143", TLS: TLSNone}, false},
		{Options{Address: "localhost.example.net:143", TLS: TLSNone}, false},
		{Options{Address: "imap.example.net"}, false},
		{Options{Address: ":993"}, false},
		{Options{Address: "h:993", TLS: "ssl"}, false},
		{Options{Address: "h:993", WithoutUIDPLUS: "erase"}, false},
		{Options{Address: "h:993", WithoutUIDPLUS: ExpungeIfAlone}, true},
		{Options{Address: "h:993", Delete: "erase"}, false},
		{Options{Address: "h:993", Delete: DeleteTrash, Trash: "Gelöscht"}, true},
		{Options{Address: "h:993", Trash: "\xff"}, false},
		{Options{Address: "h:993", Trash: "a\nb"}, false},
		{Options{Address: "h:993", Trash: "inbox"}, false},
		{Options{Address: "h:993", Mailbox: "Bin", Trash: "Bin"}, false},
		{Options{Address: "h:993", Seen: "always"}, false},
		{Options{Address: "h:993", ShowDeleted: true}, false},
		{Options{Address: "h:993", ShowDeleted: true, WithoutUIDPLUS: Refuse}, true},
		{Options{Address: "h:993", ShowDeleted: true, WithoutUIDPLUS: Move}, false},
		{Options{Address: "h:993", ShowDeleted: true, WithoutUIDPLUS: ExpungeIfAlone}, false},
		{Options{Address: "h:993", ShowDeleted: true, WithoutUIDPLUS: Refuse, Delete: DeleteFlag}, false},
		{Options{Address: "h:993", ShowDeleted: true, WithoutUIDPLUS: Refuse, Delete: DeleteTrash}, true},
		{Options{Address: "h:993", ShowDeleted: true, Delete: DeleteKeep}, true},
		{Options{Address: "h:993", Mailbox: "Entw\u00fcrfe"}, true},
		{Options{Address: "h:993", Mailbox: "\xff"}, false},
		{Options{Address: "h:993", Mailbox: "a\r\nA2 DELETE x"}, false},
	} {
		if _, err := New(orDefaults(tt.opts)); (err == nil) != tt.ok {
			t.Errorf("New(%+v): %v", tt.opts, err)
		}
	}
}

// All errors of Options are reported at once, by the names of the options.
func TestResolve(t *testing.T) {
	opts := Defaults()
	opts.Mailbox, opts.Trash, opts.Delete, opts.ShowDeleted, opts.UIDL = "Bin", "Bin", DeleteFlag, true, "{uid"
	opts.TLS, opts.ServerName, opts.KeepOpen, opts.SendClientID = "ssl", "a:993", MaxKeepOpen+1, true
	_, err := New(opts)
	want := strings.Join([]string{
		`address: missing`,
		`tls: unknown value "ssl"`,
		`server_name: "a:993" is not a host name`,
		`trash: "Bin" is the mailbox that is served`,
		`uidl: "{uid" has a "{" without a "}"`,
		`deleted_messages: "show" would bring back what delete = "flag" has removed`,
		`keep_open: 10m0.000000001s is not from 0 to 10m0s`,
		`keep_open: keeps connections on which another client was reported to the upstream`,
	}, "\n")
	if err == nil || err.Error() != want {
		t.Errorf("%v, want\n%s", err, want)
	}
	opts = Defaults()
	opts.Address = "imap.example.net:993"
	resolved, wrong := opts.Resolve()
	if wrong != nil || resolved.Name != "imap.example.net" || resolved.ServerName != resolved.Name {
		t.Errorf("%+v, %v", resolved, wrong)
	}
	opts.Address, opts.TLS, opts.Insecure = "[fe80::1%eth0]:143", TLSNone, true
	if _, wrong = opts.Resolve(); wrong != nil {
		t.Error(wrong)
	}
}

// I-LOGIN-5, I-RO-1: the answer to SELECT decides whether messages can be
// removed.
func TestReadOnly(t *testing.T) {
	for _, tt := range []struct {
		name, answer string
		want         bool
	}{
		{"I-RO-1 READ-WRITE", "S: <s> OK [READ-WRITE] x\n", false},
		{"I-RO-1 READ-ONLY", "S: * FLAGS (\\Deleted)\nS: * OK [PERMANENTFLAGS (\\Deleted)] x\nS: <s> OK [READ-ONLY] x\n", true},
		{"I-RO-1 read-only, lower case", "S: <s> OK [read-only] x\n", true},
		{"I-RO-1 no PERMANENTFLAGS", "S: * FLAGS (\\Seen)\nS: <s> OK x\n", false},
		{"I-RO-1 PERMANENTFLAGS with Deleted", "S: * OK [PERMANENTFLAGS (a]b \\deleted \\*)] x\nS: <s> OK x\n", false},
		{"I-RO-1 PERMANENTFLAGS without Deleted", "S: * OK [PERMANENTFLAGS (\\Seen)] x\nS: <s> OK [READ-WRITE] x\n", false},
		{"I-RO-1 empty PERMANENTFLAGS", "S: * OK [PERMANENTFLAGS ()] x\nS: <s> OK [READ-WRITE] x\n", false},
	} {
		play(t, tt.name, selecting+"S: * 0 EXISTS\nS: * OK [UIDVALIDITY 9] x\n"+tt.answer+"S: <d> OK x\nS: <f> BAD x\n"+bye, Options{}, func(s *session) {
			if got := s.open().ReadOnly(); got != tt.want {
				s.Errorf("read-only: %v", got)
			}
		})
	}
}

// P-PASS-4, P-SESS-5: a Login that is not opened logs out when it is closed,
// which may be done again.
func TestLoginClosed(t *testing.T) {
	play(t, "P-PASS-4", loggedIn+bye, Options{}, func(s *session) {
		l := s.login()
		if err := errors.Join(l.Close(), l.Close()); err != nil {
			s.Error(err)
		}
		if cmds := s.up.Commands(); !slices.Equal(cmds[len(cmds)-1:], []string{"LOGOUT"}) {
			s.Errorf("commands %q", cmds)
		}
	})
}

// I-CONN-7: a connection ahead that could not be made decides a login only as long
// as that is news.
func TestPreparedFailure(t *testing.T) {
	for _, tt := range []struct {
		wait   time.Duration
		script string
		fails  bool
	}{
		{2 * time.Second, "S: * BYE zebra restarts\nX:\n", true},
		{2*time.Second + time.Millisecond, "S: * BYE zebra restarts\nX:\n" + newDial + opened + bye, false},
		{25 * time.Second, "X:\n" + newDial + opened + bye, false},
	} {
		play(t, tt.wait.String(), tt.script, Options{}, func(s *session) {
			p := s.b.Prepare(s.ctx, proxy.Caller{})
			s.after(tt.wait)
			l, err := p.Login(s.ctx, joe)
			if tt.fails {
				s.fails(err, temp)
				return
			}
			if err != nil {
				s.Fatal(err)
			}
			d, err := l.Open(s.ctx)
			if err != nil {
				s.Fatal(err)
			}
			d.Close()
		})
	}
}
