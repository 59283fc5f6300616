package dialect

import (
	"regexp"
	"slices"
	"strings"
)

// Profile is a kind of server that differs from what is assumed of an unknown one.
type Profile struct {
	Name string

	// Hosts are the domains whose servers have the profile, with all their
	// subdomains.
	Hosts []string

	// Capability is one that only these servers announce before a login, in upper
	// case, or "".
	Capability string

	// Differs says in which way, and Advice which settings of the gateway it
	// needs, "" for none; both are for an operator.
	Differs, Advice string

	// Source is where that is documented, by URL or RFC.
	Source string

	greeting *regexp.Regexp // of the server itself; nil: it shows nothing
	dialect  Dialect
}

// Proxies that repeat the greeting of the server announce one of these.
const imapProxy = "XIMAPPROXY"

// profiles are all of them; the first that fits is used.
var profiles = []Profile{
	{
		Name: "gmail", Hosts: []string{"imap.gmail.com", "imap.googlemail.com"}, greeting: regexp.MustCompile(`^OK Gimap ready`),
		Differs: "at most 15 connections for a user; may close the connection at MOVE to the trash, COPY is used then",
		Advice:  `delete = "trash": a message removed from INBOX stays in All Mail`,
		Source:  "https://support.google.com/mail/answer/7126229, https://github.com/d99kris/nmail/issues/172",
		dialect: Dialect{ClosesAtMove: true, UserConnections: 15},
	},
	{
		Name: "outlook.com", Hosts: []string{"imap-mail.outlook.com"},
		Differs: "as microsoft-365, for personal accounts",
		Advice:  `auth = ["xoauth2"]: passwords are not accepted`,
		Source:  "https://github.com/Foundry376/Mailspring/issues/2038",
		// The text of its refusal of a password names AUTHENTICATE.
		dialect: Dialect{Takes: Authenticate, IgnoresNumbers: true, Placeholders: true},
	},
	{
		Name: "microsoft-365", Hosts: []string{"outlook.office365.com", "outlook.office.com", "partner.outlook.cn"},
		greeting: regexp.MustCompile(`The Microsoft Exchange IMAP4 service is ready`),
		Differs:  "delivers placeholders for some messages; sequence numbers are not reliable; at most 16 connections for a user",
		Advice:   `auth = ["xoauth2"], except for an Exchange server of your own`,
		Source: "https://github.com/Foundry376/Mailspring/issues/2038, " +
			"https://learn.microsoft.com/exchange/set-connection-limits-for-imap4-exchange-2013-help (MaxConnectionsPerUser)",
		dialect: Dialect{Takes: Authenticate, IgnoresNumbers: true, Placeholders: true, UserConnections: 16},
	},
	{
		Name: "icloud", Hosts: []string{"imap.mail.me.com"}, Capability: "XAPPLEPUSHSERVICE AUTH=ATOKEN",
		Differs: "answers SEARCH RETURN with COUNT only; messages may come empty and are asked for once more",
		Advice:  "passwords for applications",
		Source:  "https://github.com/modern-email/defects/issues/36, https://github.com/nextcloud/mail/issues/3401",
		dialect: Dialect{Avoids: SearchReturn},
	},
	{
		Name: "yahoo", Hosts: []string{"imap.mail.yahoo.com", "imap.aol.com"},
		Differs: "EXPUNGE does not renumber the other messages; refuses single messages for a while",
		Advice:  "passwords for applications",
		Source:  "https://github.com/jstedfast/MailKit/issues/358",
		dialect: Dialect{IgnoresNumbers: true},
	},
	{
		Name: "coremail", Hosts: []string{"imap.163.com", "imap.126.com", "imap.yeah.net"}, greeting: regexp.MustCompile(`\bCoremail\b`),
		Differs: "refuses SELECT before it has got ID after the login; refuses the initial response that it announces",
		Advice:  "authorization codes in place of passwords",
		Source:  "https://github.com/OfflineIMAP/offlineimap3/issues/71, https://github.com/modern-email/defects/issues/54",
		dialect: Dialect{Takes: IDAfterLogin, Avoids: InitialResponse},
	},
	{
		Name: "qq", Hosts: []string{"imap.qq.com", "imap.exmail.qq.com"}, greeting: regexp.MustCompile(`\bQQMail\b`),
		Differs: "refuses the AUTHENTICATE that it announces, and takes LOGIN",
		Advice:  "authorization codes in place of passwords",
		Source:  "https://github.com/pimalaya/himalaya/issues/622, https://github.com/nicm/fdm/issues/30",
		dialect: Dialect{Avoids: Authenticate},
	},
	{
		Name: "zimbra", greeting: regexp.MustCompile(`\bZimbra\b`),
		Differs: "the header by itself differs from that of the message in octets beyond ASCII: TOP reads the message",
		Source:  "https://doc.dovecot.org/2.3/settings/core/#core_setting-imapc_features (zimbra-workarounds)",
		dialect: Dialect{Avoids: PartialFetch},
	},
	{
		Name: "cyrus", greeting: regexp.MustCompile(`\bCyrus IMAP\b`),
		Differs: "takes commands after ID, and discards those after AUTHENTICATE",
		Source:  "tests with Cyrus IMAP 3.6; RFC 9051 §5.5",
		dialect: Dialect{Takes: IDFlight, Avoids: LoginFlight, SearchesMailbox: true, SearchesSets: true},
	},
	{
		Name: "courier", greeting: regexp.MustCompile(`\bCourier-IMAP\b`),
		Differs: "discards commands after LOGIN; has no UIDNEXT, so that each login lists all messages; sends a notice in place of a removed message",
		Source:  "tests with Courier 5.0; RFC 9051 §5.5",
		dialect: Dialect{Avoids: IDFlight | LoginFlight, SearchesMailbox: true, SearchesSets: true, Substitutes: true},
	},
	{
		Name: "dovecot", greeting: regexp.MustCompile(`\bDovecot\b`),
		Differs: "takes all commands of a login in one flight",
		Source:  "tests with Dovecot 2.3; RFC 9051 §5.5",
		dialect: Dialect{Takes: AllForms &^ IDAfterLogin, SearchesMailbox: true, SearchesSets: true},
	},
	{
		Name: "stalwart", greeting: regexp.MustCompile(`\bStalwart\b`),
		Differs: "a mailbox-id means something within one account only; at most 16 connections for a user",
		Source: "https://datatracker.ietf.org/doc/draft-degennaro-imap-objectid-accountid/, " +
			"https://stalw.art/docs/email/settings/ratelimit/ (maxConcurrent)",
		dialect: Dialect{UserConnections: 16},
	},
	{
		Name: "proton-bridge", greeting: regexp.MustCompile(`\bgluon session ID\b`),
		Differs: "has no AUTHENTICATE; UIDs change when its cache is rebuilt",
		Advice:  "uidl_memory = true",
		Source:  "https://github.com/ProtonMail/proton-bridge/issues/220, tests with gluon",
		dialect: Dialect{Avoids: Authenticate, SearchesSets: true},
	},
}

// Profiles returns all profiles, in the order in which they are tried.
func Profiles() []Profile { return slices.Clone(profiles) }

// Recognised says, for an operator, by what servers get the profile.
func (p *Profile) Recognised() string {
	var by []string
	if len(p.Hosts) > 0 {
		by = append(by, "host "+strings.Join(p.Hosts, ", "))
	}
	if p.greeting != nil {
		by = append(by, "greeting "+p.greeting.String())
	}
	if p.Capability != "" {
		by = append(by, "capabilities "+p.Capability)
	}
	return strings.Join(by, "; ")
}

// Dialect returns what is known of servers of the profile.
func (p *Profile) Dialect() Dialect {
	d := p.dialect
	d.Profile = p.Name
	return d
}

// fits reports whether a server has the profile. A proxy may repeat a greeting.
func (p *Profile) fits(host, greeting string, capabilities []string) bool {
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if slices.ContainsFunc(p.Hosts, func(h string) bool { return host == h || strings.HasSuffix(host, "."+h) }) {
		return true
	}
	if p.Capability != "" && !slices.ContainsFunc(strings.Fields(p.Capability), func(c string) bool { return !slices.Contains(capabilities, c) }) {
		return true
	}
	return p.greeting != nil && p.greeting.MatchString(greeting) && !slices.Contains(capabilities, imapProxy)
}
