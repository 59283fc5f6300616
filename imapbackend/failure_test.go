package imapbackend

import (
	"fmt"
	"strings"
	"testing"

	"popgate/imapbackend/upstream"
	"popgate/proxy"
)

const (
	auth  = proxy.CodeAuth
	inUse = proxy.CodeInUse
	temp  = proxy.CodeSysTemp
	perm  = proxy.CodeSysPerm
)

// failures are the rows of requirement M-1 (section 11) for a status of the
// upstream: the code that the client gets when the status answers the login,
// SELECT, the listing, a FETCH of RETR or TOP, or a command of UPDATE.
var failures = []struct {
	status                            string // NO by default
	login, selects, list, read, quits proxy.Code
}{
	{"[AUTHENTICATIONFAILED] zebra", auth, auth, auth, temp, temp},
	{"[EXPIRED] zebra", auth, auth, auth, temp, temp},
	{"[AUTHORIZATIONFAILED] zebra", auth, auth, auth, temp, temp},
	{"zebra says no", auth, perm, temp, temp, temp},
	{"zebra: Try Again later", temp, temp, temp, temp, temp},
	{"zebra: temporary failure", temp, temp, temp, temp, temp},
	{"zebra unavailable", temp, temp, temp, temp, temp},
	{"zebra: TOO MANY connections", temp, temp, temp, temp, temp},
	{"zebra: timeout", temp, temp, temp, temp, temp},
	{"[UNAVAILABLE] zebra", temp, temp, temp, temp, temp},
	{"[LIMIT] zebra", temp, temp, temp, temp, temp},
	{"[INUSE] zebra", temp, inUse, temp, temp, temp},
	{"[CONTACTADMIN] zebra", perm, perm, perm, perm, perm},
	{"[NOPERM] zebra", auth, perm, perm, perm, perm},
	{"[PRIVACYREQUIRED] zebra", perm, perm, perm, perm, perm},
	{"[NONEXISTENT] zebra", perm, perm, perm, perm, perm},
	{"[CORRUPTION] zebra", perm, perm, perm, perm, perm},
	{"[SERVERBUG] zebra", perm, perm, perm, perm, perm},
	{"[CLIENTBUG] zebra", perm, perm, perm, perm, perm},
	{"[CANNOT] zebra", perm, perm, perm, perm, perm},
	{"[OVERQUOTA] zebra", temp, temp, temp, temp, perm},
	{"[OVERQUOTA] zebra exceeded command or bandwidth limits", temp, temp, temp, temp, temp},
	{"[SERVERBUG] zebra: internal error", temp, temp, temp, temp, temp},
	{"[AUTHENTICATIONFAILED] zebra, try again", auth, auth, auth, temp, temp},
	{"[AUTHENTICATIONFAILED] zebra: too many failed attempts", temp, temp, temp, temp, temp},
	{"[CONTACTADMIN] zebra: system error", perm, perm, perm, perm, perm},
	{"[INUSE] zebra: the mailbox is locked", temp, inUse, temp, temp, temp},
	{"[REFERRAL imap://joe@zebra.example/] Try zebra.example", perm, perm, perm, perm, perm},
	{"BAD zebra is throttled", temp, temp, temp, temp, temp},
	{"[EXPUNGEISSUED] zebra", auth, perm, temp, temp, temp},
	{"[ALERT] zebra", auth, perm, temp, temp, temp},
	{"[X-UNHEARD 1 (2)] zebra", auth, perm, temp, temp, temp},
	{"BAD zebra", perm, perm, perm, perm, perm},
}

// answers are the forms in which a status can answer the command <name>.
var answers = []struct {
	name string
	form func(name, status string) string
	lost bool
}{
	{"tagged", func(name, status string) string { return "S: <" + name + "> " + typed(status) + "\n" }, false},
	{"lower case", func(name, status string) string {
		code, text, _ := strings.Cut(typed(status), "] ")
		if text != "" {
			code, text = strings.ToLower(code), "] "+text
		}
		return "S: <" + name + "> " + code + text + "\n"
	}, false},
	{"untagged", func(name, status string) string {
		return "S: * OK still here\nS: * NO [ALERT] x\nS: * " + typed(status) + "\nS: <" + name + "> NO zebra\n"
	}, false},
	{"BYE", func(_, status string) string { return "S: * BYE " + status + "\nX:\n" }, true},
}

func typed(status string) string {
	if strings.HasPrefix(status, "BAD ") {
		return status
	}
	return "NO " + status
}

// M-1, M-2, Q6: every row of section 11, in each phase and each form.
func TestFailures(t *testing.T) {
	for _, f := range failures {
		for _, a := range answers {
			hasCode := strings.HasPrefix(f.status, "[") && !strings.Contains(f.status, "X-UNHEARD") &&
				!strings.Contains(f.status, "ALERT") && !strings.Contains(f.status, "EXPUNGEISSUED")
			if a.name == "untagged" && !hasCode || a.name == "BYE" && strings.HasPrefix(f.status, "BAD") {
				continue // has no meaning
			}
			want := f
			if a.lost && (!hasCode || strings.Contains(f.status, "NOPERM")) {
				want.login, want.selects, want.list, want.read, want.quits = temp, temp, temp, temp, temp
				if strings.Contains(f.status, "NOPERM") {
					want.selects, want.list, want.read, want.quits = perm, perm, perm, perm
				}
			}
			end := bye
			if a.lost {
				end = ""
			}
			name := func(phase string) string { return phase + "/" + a.name + "/" + f.status }
			failsToOpen := func(code proxy.Code) func(*session) {
				return func(s *session) {
					e := s.fails(s.openFails(), code)
					if !strings.Contains(e.Error(), "zebra") {
						s.Errorf("the cause lacks the upstream's text: %v", e)
					}
				}
			}
			// What is BAD is tried in other forms.
			bad := func(script string) string { return ifNot(f.status != "BAD zebra", script) }
			play(t, name("AUTHENTICATE"), greeted+"C: <l> AUTHENTICATE PLAIN "+ir+"\n"+a.form("l", f.status)+
				bad("C: <m> AUTHENTICATE PLAIN\n"+a.form("m", f.status)+"C: <n> LOGIN \"joe\" \"secret\"\n"+a.form("n", f.status))+end,
				Options{}, failsToOpen(want.login))
			play(t, name("LOGIN"), "S: * OK [CAPABILITY IMAP4rev1] x\nC: <l> LOGIN \"joe\" \"secret\"\n"+a.form("l", f.status)+end,
				Options{}, failsToOpen(want.login))
			play(t, name("SELECT"), selecting+a.form("s", f.status)+
				bad("S: <d> BAD x\nS: <f> BAD x\nC: <t> SELECT INBOX\n"+a.form("t", f.status))+end, Options{}, failsToOpen(want.selects))
			play(t, name("listing"), listingOf("S: * 1 EXISTS\n")+"S: * SEARCH\nS: <d> OK x\n"+a.form("f", f.status)+
				bad("C: <g> UID FETCH 1:* (UID RFC822.SIZE)\n"+a.form("g", f.status))+end,
				Options{}, failsToOpen(want.list))
			play(t, name("search"), listingOf("S: * 1 EXISTS\n")+a.form("d", f.status)+
				ifNot(a.lost, "S: * 1 FETCH (UID 7 RFC822.SIZE 1)\nS: <f> OK x\nC: <v> UID FETCH 1:* (UID FLAGS)\nS: <v> NO [INUSE] zebra\n")+end, Options{}, failsToOpen(want.list))
			testReadFailure(t, name("RETR"), "BODY.PEEK[]", a.form("r", f.status), a.lost, f.status, want.read)
			testReadFailure(t, name("TOP"), "BODY.PEEK[HEADER]", a.form("r", f.status), a.lost, f.status, want.read)
			testQuitFailure(t, name, a.form, a.lost, f.status, want.quits)
		}
	}
}

func listingOf(exists string) string {
	return selecting + exists + "S: * OK [UIDVALIDITY 9] x\nS: <s> OK x\n"
}

func ifNot(cond bool, s string) string {
	if cond {
		return ""
	}
	return s
}

// testReadFailure checks a refused RETR or TOP, which leaves the session as it
// was.
func testReadFailure(t *testing.T, name, items, answer string, lost bool, status string, want proxy.Code) {
	t.Helper()
	script := opened + "C: <r> UID FETCH 7 (UID " + items + ")\n" + answer
	if !lost {
		if !strings.HasPrefix(status, "BAD") {
			script += "C: <n> NOOP\nS: <n> OK x\nC: <q> UID FETCH 7 (UID)\nS: * 1 FETCH (UID 7)\nS: <q> OK x\n"
		}
		script += bye
	}
	play(t, name, script, Options{}, func(s *session) {
		d := s.open()
		var err error
		if items == "BODY.PEEK[]" {
			_, err = d.Read(s.ctx, 7)
		} else {
			_, err = d.Top(s.ctx, 7, 0)
		}
		s.fails(err, want)
		if len(d.Messages()) != 1 {
			s.Error("the snapshot has changed")
		}
		if !lost {
			return
		}
		// The script has no second connection: the loss is reported
		// again.
		_, err = d.Read(s.ctx, 7)
		s.fails(err, want)
	})
}

// testQuitFailure checks a refusal in UPDATE: the final search decides whether
// a message is left, and the first refusal the code of the answer.
func testQuitFailure(t *testing.T, name func(string) string, form func(_, _ string) string, lost bool, status string, want proxy.Code) {
	t.Helper()
	const store = "C: <st> UID STORE 7 +FLAGS.SILENT (\\Deleted)\n"
	const check = "C: <q> UID FETCH 7 (UID)\nS: * 1 FETCH (UID 7)\nS: <q> OK x\n"
	const unflag = "C: <u> UID STORE 7 -FLAGS.SILENT (\\Deleted)\nS: <u> OK x\n"
	scripts := map[string]string{
		"STORE":   store + form("st", status) + ifNot(lost, check+unflag+bye),
		"EXPUNGE": store + "S: <st> OK x\nC: <e> UID EXPUNGE 7\n" + form("e", status) + ifNot(lost, check+unflag+bye),
		"check": store + "S: <st> OK x\nC: <e> UID EXPUNGE 7\nS: <e> OK x\nC: <q> UID FETCH 7 (UID)\n" +
			form("q", status) + ifNot(lost, noop+"C: <v> UID FETCH 1:* (UID)\nS: <v> NO [INUSE] zebra\n"+unflag+bye),
	}
	for step, script := range scripts {
		play(t, name("UPDATE "+step), opened+script, Options{}, func(s *session) {
			d := s.open()
			e := s.fails(d.Update(s.ctx, []uint64{7}), want)
			text := proxy.ErrNotRemoved.Text
			if status == "[OVERQUOTA] zebra" {
				text = upstream.TextQuota
			}
			if e.Text != text {
				s.Errorf("text %q, want %q", e.Text, text)
			}
		})
	}
}

// P-RESP-7, M-1: a failure up to the login never blames the credentials.
func TestGreetingFailures(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		want         proxy.Code
	}{
		{"M-1 BYE", "S: * BYE zebra\nX:\n", temp},
		{"M-1 BYE UNAVAILABLE", "S: * BYE [UNAVAILABLE] zebra\nX:\n", temp},
		{"M-1 BYE code of credentials", "S: * BYE [AUTHENTICATIONFAILED] zebra\nX:\n", temp},
		{"M-1 BYE CONTACTADMIN", "S: * BYE [CONTACTADMIN] zebra\nX:\n", perm},
		{"I-CONN-1 PREAUTH", "S: * PREAUTH [CAPABILITY IMAP4rev1] zebra\nW:\n", perm},
		{"M-1 BYE REFERRAL", "S: * BYE [REFERRAL imap://zebra.example/] zebra\nX:\n", perm},
		{"M-1 SMTP", "S: 220 zebra ESMTP\nW:\n", temp},
		{"M-1 HTTP", "S: HTTP/1.1 503 Service Unavailable\nS: Server: zebra\nS:\nW:\n", temp},
		{"M-1 garbage", "S64: AAH/Cg==\nW:\n", temp},
		{"M-1 an untagged response", "S: * CAPABILITY IMAP4rev1\nW:\n", temp},
		{"M-1 greeting NO", "S: * NO zebra\nW:\n", temp},
		{"M-1 a UIDVALIDITY in the greeting", "S: * OK [UIDVALIDITY x] zebra\nW:\n", temp},
		{"M-1 reset", "R:\n", temp},
		{"M-1 closed", "X:\n", temp},
		{"I-LOGIN-4 no known revision", "S: * OK [CAPABILITY IMAP4 AUTH=PLAIN] zebra\nW:\n", perm},
		{"CAPABILITY NO", "S: * OK zebra\nC: <c> CAPABILITY\nS: <c> NO zebra\nW:\n", perm},
		{"CAPABILITY BAD", "S: * OK zebra\nC: <c> CAPABILITY\nS: <c> BAD zebra\nW:\n", perm},
		{"CAPABILITY lost", "S: * OK zebra\nC: <c> CAPABILITY\nX:\n", temp},
		{"lost in ID", "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN ID] x\nC: <i> ID ...\nS: * BYE [INUSE] zebra\nX:\n", temp},
		{"untagged BAD, then nothing", greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\nS: * BAD IMAP is disabled, zebra\nW: stall\n", temp},
		{"P-SASL-1 no way to log in", "S: * OK [CAPABILITY IMAP4rev1 LOGINDISABLED] zebra\n" + bye, perm},
		{"endless greeting", "S*: 70000 \"* OK x\"\nW:\n", temp},
	} {
		play(t, tt.name, tt.script, Options{}, func(s *session) { s.fails(s.openFails(), tt.want) })
	}
}

// M-1: a BYE without a code does not hide the code of the tagged status after
// it.
func TestTaggedAfterBye(t *testing.T) {
	script := greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\nS: * BYE zebra\nS: <l> NO [AUTHENTICATIONFAILED] zebra\n" +
		"C: <z> LOGOUT\nX:\n"
	play(t, "M-1", script, Options{}, func(s *session) { s.fails(s.openFails(), auth) })
}

// P-RESP-8, O-LOG-1: errors do not contain a credential that the upstream
// echoes, raw or in base64.
func TestSecretsInCauses(t *testing.T) {
	noSecret := func(s *session, err error) {
		s.Helper()
		text := s.fails(err, proxy.AsError(err).Code).Error()
		for _, secret := range []string{"secret", "AGpvZQBzZWNyZXQ", "c2VjcmV0"} {
			if strings.Contains(text, secret) {
				s.Errorf("%q in %q", secret, text)
			}
		}
		if !strings.Contains(text, "zebra") {
			s.Errorf("no cause in %q", text)
		}
	}
	const echo = "zebra secret c2VjcmV0 AGpvZQBzZWNyZXQ= end"
	command := greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\n"
	for i, script := range []string{
		command + "S: <l> NO " + echo + "\n" + bye,
		command + "S: <l> BAD [CLIENTBUG] " + echo + "\nC: <m> AUTHENTICATE PLAIN\nS: <m> NO " + echo +
			"\nC: <n> LOGIN \"joe\" \"secret\"\nS: <n> BAD " + echo + "\n" + bye,
		command + "S: * BYE " + echo + "\nX:\n",
		command + "S: zebra" + ir + " OK x\nW:\n",
		command + "S: <l> OK x\nC: <c> CAPABILITY\nS: <c> NO " + echo + "\n" + bye,
		selecting + "S: * BYE " + echo + "\nX:\n",
		selecting + "S: <s> NO " + echo + "\n" + bye,
		listed + "S: * BYE " + echo + "\nX:\n",
		listed + "S: <d> NO " + echo + "\nS: * 1 FETCH (UID 7 RFC822.SIZE 1)\nS: <f> OK x\nC: <v> UID FETCH 1:* (UID FLAGS)\nS: <v> NO x\n" + bye,
	} {
		play(t, fmt.Sprint(i), script, Options{}, func(s *session) { noSecret(s, s.openFails()) })
	}
	for i, answer := range []string{"S: * BYE " + echo + "\nX:\n", "S: <r> BAD " + echo + "\n" + bye,
		"S: * 1 FETCH (UID 7 BODY[] {10}\nS+: abc\nX:\n"} {
		play(t, fmt.Sprint("RETR", i), opened+"C: <r> UID FETCH 7 (UID BODY.PEEK[])\n"+answer, Options{}, func(s *session) {
			body, err := s.open().Read(s.ctx, 7)
			if err != nil {
				noSecret(s, err)
				return
			}
			if _, err := body.WriteTo(&strings.Builder{}); err == nil {
				s.Error("a part counts as whole")
			} else {
				s.fails(err, temp)
			}
			body.Close()
		})
	}
	play(t, "UPDATE", opened+"C: <r> UID STORE 7 +FLAGS.SILENT (\\Deleted)\nS: * BYE "+echo+"\nX:\n", Options{}, func(s *session) {
		noSecret(s, s.open().Update(s.ctx, []uint64{7}))
	})
}
