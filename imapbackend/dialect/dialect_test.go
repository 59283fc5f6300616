package dialect

import (
	"strings"
	"testing"
)

// TestRecognise has greetings as the servers send them. I-LOGIN-6: only a server
// that is known to execute what follows a login is sent anything after it.
func TestRecognise(t *testing.T) {
	for _, tt := range []struct {
		name, greeting, capabilities string
		profile                      string
		pipelinesLogin               bool
	}{
		{"Dovecot", "OK [CAPABILITY IMAP4rev1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ AUTH=PLAIN] Dovecot (Debian) ready.",
			"IMAP4REV1 SASL-IR LOGIN-REFERRALS ID ENABLE IDLE LITERAL+ AUTH=PLAIN", "dovecot", true},
		{"up-imapproxy, which repeats Dovecot's text", "OK [CAPABILITY IMAP4rev1 AUTH=LOGIN XIMAPPROXY] Dovecot (Debian) ready.",
			"IMAP4REV1 AUTH=LOGIN XIMAPPROXY", "", false},
		{"Cyrus", "OK [CAPABILITY IMAP4rev1 LITERAL+ ID ENABLE AUTH=PLAIN SASL-IR] mx Cyrus IMAP 3.6.1-Debian-3.6.1-4 server ready",
			"IMAP4REV1 LITERAL+ ID ENABLE AUTH=PLAIN SASL-IR", "cyrus", false},
		{"Courier", "OK [CAPABILITY IMAP4rev1 UIDPLUS] Courier-IMAP ready. Copyright 1998-2020 Double Precision, Inc.",
			"IMAP4REV1 UIDPLUS", "courier", false},
		{"nginx", "OK IMAP4 ready", "IMAP4REV1 UIDPLUS ID SASL-IR", "", false},
		{"Perdition", "OK [CAPABILITY IMAP4 IMAP4REV1] perdition ready on mx", "IMAP4 IMAP4REV1", "", false},
		{"a host name", "OK dovecot.example.com ready", "IMAP4REV1", "", false},
		{"nothing", "", "", "", false},
	} {
		got := Choice{}.Dialect(tt.greeting, strings.Fields(tt.capabilities))
		if got.Profile != tt.profile || got.Uses(IDFlight|LoginFlight) != tt.pipelinesLogin {
			t.Errorf("%s: %+v", tt.name, got)
		}
	}
}

// TestString: an operator can see which dialect is used.
func TestString(t *testing.T) {
	for _, tt := range []struct {
		greeting, want string
	}{
		{"OK Dovecot ready.", "dovecot: "},
		{"OK ready", "careful: "},
	} {
		if got := (Choice{}).Dialect(tt.greeting, nil).String(); !strings.HasPrefix(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.greeting, got, tt.want)
		}
	}
}
