package dialect

import (
	"testing"
	"testing/synctest"
	"time"
)

// I-LOGIN-6: which forms are used: without knowledge, by a profile, and after
// something has been learned.
func TestUses(t *testing.T) {
	dovecot := Choice{}.Dialect("OK Dovecot ready.", nil)
	for _, tt := range []struct {
		name    string
		dialect Dialect
		facts   Facts
		form    Form
		want    bool
	}{
		{"nothing is sent after a login unasked", Dialect{}, Facts{}, LoginFlight, false},
		{"nor after ID", Dialect{}, Facts{}, IDFlight, false},
		{"a profile knows better", dovecot, Facts{}, IDFlight | LoginFlight, true},
		{"but was wrong", dovecot, Facts{Fails: LoginFlight}, IDFlight | LoginFlight, false},
		{"about one of them only", dovecot, Facts{Fails: LoginFlight}, IDFlight, true},
		{"has succeeded", Dialect{}, Facts{Works: LoginFlight}, LoginFlight, true},
		{"SELECT with more", Dialect{}, Facts{}, SelectFlight | InitialResponse | Authenticate | ID, true},
		{"avoided", Dialect{Avoids: InitialResponse}, Facts{}, InitialResponse, false},
		{"avoided, and has succeeded", Dialect{Avoids: InitialResponse}, Facts{Works: InitialResponse}, InitialResponse, false},
		{"ID after the login", dovecot, Facts{}, IDAfterLogin, false},
		{"ID after the login is needed", dovecot, Facts{Works: IDAfterLogin}, IDAfterLogin, true},
	} {
		if got := NewLearned(tt.facts).Uses(tt.dialect, tt.form); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
}

// I-LOGIN-7: what fails no longer works, and only news are news.
func TestLearned(t *testing.T) {
	var l Learned
	for i, tt := range []struct {
		learn      func(Form) bool
		form       Form
		news, uses bool
		want       string
	}{
		{l.Succeeded, LoginFlight, true, true, "works=login-flight fails="},
		{l.Succeeded, LoginFlight, false, true, "works=login-flight fails="},
		{l.Succeeded, LoginFlight | ID, true, true, "works=login-flight,id fails="},
		{l.Failed, LoginFlight, true, false, "works=id fails=login-flight"},
		{l.Failed, LoginFlight, false, false, "works=id fails=login-flight"},
		{l.Failed, SearchPlain, true, false, "works=id fails=login-flight,search"},
	} {
		news := tt.learn(tt.form)
		text, _ := l.Facts().MarshalText()
		if news != tt.news || l.Uses(Dialect{}, tt.form) != tt.uses || string(text) != tt.want {
			t.Errorf("step %d: %s, news %v", i, text, news)
		}
		var back Facts
		if err := back.UnmarshalText(text); err != nil || back != l.Facts() {
			t.Errorf("step %d: %+v, %v", i, back, err)
		}
	}
	for _, text := range []string{"", "works=id", "works=x fails=", "works= fails=id,x"} {
		if new(Facts).UnmarshalText([]byte(text)) == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

// I-LOGIN-7: a form that may have failed for another reason is used again later.
func TestDoubt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dovecot := Choice{}.Dialect("OK Dovecot ready.", nil)
		var l Learned
		if !l.Doubt(SelectFlight) || l.Doubt(SelectFlight) || l.Uses(dovecot, SelectFlight) || !l.Uses(dovecot, LoginFlight) {
			t.Error("not in doubt")
		}
		if l.Facts() != (Facts{}) {
			t.Errorf("%+v is kept", l.Facts())
		}
		<-time.After(doubt)
		if !l.Uses(dovecot, SelectFlight) || !l.Doubt(LoginFlight) || !l.Uses(dovecot, SelectFlight) {
			t.Error("still in doubt after a day")
		}
	})
}

// I-LOGIN-7: what changes with each connection does not count, what another
// server or version says does.
func TestFingerprint(t *testing.T) {
	caps := []string{"IMAP4REV1", "ID", "AUTH=PLAIN"}
	gmail := Fingerprint("OK Gimap ready for requests from 192.0.2.7 d9443c01a7336-2a1mb88", caps)
	for _, same := range []string{
		Fingerprint("OK Gimap ready for requests from 2001:db8::1 41be03b00d2f7-b4mb1", []string{"ID", "AUTH=PLAIN", "IMAP4REV1", "ID"}),
		Fingerprint("OK [CAPABILITY IMAP4rev1 ID AUTH=PLAIN] Gimap ready for requests from x1 y2", caps),
	} {
		if same != gmail {
			t.Error("the same server has two fingerprints")
		}
	}
	for _, other := range []string{
		Fingerprint("OK Gimap ready for requests from 192.0.2.7", caps[:2]),
		Fingerprint("OK Dovecot ready.", caps),
	} {
		if other == gmail {
			t.Error("two servers have one fingerprint")
		}
	}
	if len(gmail) != 32 {
		t.Error(gmail)
	}
}
