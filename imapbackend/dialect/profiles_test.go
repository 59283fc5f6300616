package dialect

import (
	"strings"
	"testing"
)

// I-PROF-1: each profile is recognised by what its servers are seen to announce, at
// a host of their own or at one that says nothing, and behaves as it says.
func TestProfiles(t *testing.T) {
	for _, tt := range []struct {
		host, greeting, capabilities string
		profile                      string
		takes, avoids                Form
	}{
		{"imap.gmail.com", "", "", "gmail", ID, LoginFlight},
		{"mx", "OK Gimap ready for requests from 192.0.2.1 5mb77833782lfi", "IMAP4REV1 X-GM-EXT-1", "gmail", SearchReturn, IDFlight},
		{"IMAP-Mail.Outlook.com.", "OK The Microsoft Exchange IMAP4 service is ready. [QQ==]", "", "outlook.com", ID, LoginFlight},
		{"outlook.office365.com", "", "", "microsoft-365", ID, LoginFlight},
		{"mx", "OK The Microsoft Exchange IMAP4 service is ready. [QQ==]", "IMAP4 IMAP4REV1", "microsoft-365", ID, LoginFlight},
		{"imap.mail.me.com", "", "", "icloud", SearchPlain, SearchReturn},
		{"p33-imap.mail.me.com", "OK x", "XAPPLEPUSHSERVICE IMAP4REV1 SASL-IR AUTH=ATOKEN AUTH=PLAIN", "icloud", SearchPlain, SearchReturn},
		{"imap.mail.yahoo.com", "", "", "yahoo", ID, LoginFlight},
		{"export.imap.aol.com", "", "", "yahoo", ID, LoginFlight},
		{"imap.yeah.net", "", "", "coremail", IDAfterLogin | Authenticate, InitialResponse},
		{"mail.example.cn", "OK Coremail System IMap Server Ready(163com[8db7])", "", "coremail", IDAfterLogin, InitialResponse},
		{"imap.exmail.qq.com", "", "", "qq", ID, Authenticate},
		{"mx", "OK [CAPABILITY IMAP4 IMAP4rev1 ID AUTH=LOGIN NAMESPACE] QQMail IMAP4Server ready", "", "qq", ID, Authenticate},
		{"mx", "OK mx.example.com Zimbra 8.8.15_GA IMAP4 service ready", "", "zimbra", ID, PartialFetch},
		{"mx", "OK [CAPABILITY IMAP4rev1] mx Cyrus IMAP 3.6.1-Debian-3.6.1-4 server ready", "", "cyrus", IDFlight, LoginFlight},
		{"mx", "OK [CAPABILITY IMAP4rev1] Courier-IMAP ready.", "", "courier", SelectFlight, LoginFlight | IDFlight},
		{"mx", "OK [CAPABILITY IMAP4rev1] Dovecot ready.", "", "dovecot", LoginFlight | IDFlight, IDAfterLogin},
		{"mx", "OK [CAPABILITY IMAP4rev2 IMAP4rev1] Stalwart IMAP4rev2 at your service.", "", "stalwart", ID, LoginFlight},
		{"127.0.0.1", "OK [CAPABILITY IMAP4rev1] Proton Mail Bridge 03.12.00 - gluon session ID 1", "", "proton-bridge", ID, Authenticate},
		{"mx", "OK [CAPABILITY IMAP4rev1 XIMAPPROXY] mx Cyrus IMAP 3.6.1 server ready", "IMAP4REV1 XIMAPPROXY", "", ID, IDFlight | LoginFlight},
		{"gmail.com.example.org", "OK ready", "IMAP4REV1", "", ID, IDFlight | LoginFlight},
		{"notimap.gmail.com", "OK ready", "IMAP4REV1", "", ID, IDFlight | LoginFlight},
	} {
		d := Choice{Host: tt.host}.Dialect(tt.greeting, strings.Fields(tt.capabilities))
		if d.Profile != tt.profile {
			t.Errorf("%s %q: %q, want %q", tt.host, tt.greeting, d.Profile, tt.profile)
		}
		check(t, d, tt.takes, tt.avoids)
	}
}

// check checks that all of the forms takes are used, and none of avoids.
func check(t *testing.T, d Dialect, takes, avoids Form) {
	t.Helper()
	for f := Form(1); f < end; f <<= 1 {
		if takes&f != 0 && !d.Uses(f) || avoids&f != 0 && d.Uses(f) {
			t.Errorf("%s: %s: %v", d.Profile, f, d.Uses(f))
		}
	}
}

// I-PROF-1: each profile says for an operator how it is recognised, what differs, and where
// that is from, and can be chosen by its name.
func TestProfileTexts(t *testing.T) {
	all := Profiles()
	if len(all) != len(Name("").Values())-2 {
		t.Errorf("%d profiles, %d names", len(all), len(Name("").Values()))
	}
	for _, p := range all {
		if p.Recognised() == "" || p.Differs == "" || p.Source == "" {
			t.Errorf("%s: recognised by %q, differs %q, source %q", p.Name, p.Recognised(), p.Differs, p.Source)
		}
		if !strings.Contains(p.Source, "https://") && !strings.Contains(p.Source, "RFC ") {
			t.Errorf("%s: source %q", p.Name, p.Source)
		}
		d := Choice{Profile: Name(p.Name)}.Dialect("OK ready", nil)
		if d != p.Dialect() || d.Profile != p.Name {
			t.Errorf("%s chosen by name: %+v", p.Name, d)
		}
	}
	if d := (Choice{Profile: Careful}).Dialect("OK Dovecot ready.", nil); d != (Dialect{}) {
		t.Errorf("careful: %+v", d)
	}
}

// I-PROF-1: what an operator sets wins over the profile.
func TestChoice(t *testing.T) {
	const dovecot, cyrus, unknown = "OK Dovecot ready.", "OK mx Cyrus IMAP ready", "OK ready"
	for _, tt := range []struct {
		greeting      string
		choice        Choice
		takes, avoids Form
	}{
		{unknown, Choice{}, ID | Authenticate | InitialResponse | SearchReturn | SelectFlight | PartialFetch, IDFlight | LoginFlight | IDAfterLogin},
		{unknown, Choice{Pipelining: SwitchOn}, IDFlight | LoginFlight | SelectFlight, 0},
		{cyrus, Choice{Pipelining: SwitchOn}, LoginFlight, 0},
		{dovecot, Choice{Pipelining: SwitchOff}, ID, IDFlight | LoginFlight | SelectFlight},
		{unknown, Choice{SendID: IDBefore, Profile: "coremail"}, ID, IDAfterLogin},
		{unknown, Choice{SendID: IDAfter}, IDAfterLogin, ID},
		{unknown, Choice{SendID: IDBoth}, ID | IDAfterLogin, 0},
		{dovecot, Choice{SendID: IDNever}, LoginFlight, ID | IDAfterLogin},
		{unknown, Choice{Authenticate: AuthenticateInitial, Profile: "qq"}, Authenticate | InitialResponse, 0},
		{dovecot, Choice{Authenticate: AuthenticateAsked}, Authenticate, InitialResponse},
		{dovecot, Choice{Authenticate: AuthenticateLogin}, ID, Authenticate},
		{unknown, Choice{Search: SearchByReturn, Profile: "icloud"}, SearchReturn, 0},
		{dovecot, Choice{Search: SearchByPlain}, SearchPlain, SearchReturn},
		{dovecot, Choice{Search: SearchByFetch}, ID, SearchPlain | SearchReturn},
		{dovecot, Choice{PartialFetch: SwitchOff}, ID, PartialFetch},
		{unknown, Choice{PartialFetch: SwitchOn, Profile: "zimbra"}, PartialFetch, 0},
	} {
		check(t, tt.choice.Dialect(tt.greeting, nil), tt.takes, tt.avoids)
	}
	if d := (Choice{UserConnections: 3, Profile: "gmail"}).Dialect(unknown, nil); d.UserConnections != 3 {
		t.Errorf("%d connections of a user", d.UserConnections)
	}
}
