// Package dialect says how an upstream IMAP server is to be addressed where
// servers differ in what they take. The other packages ask a Dialect; only the
// placeholders of Exchange are recognised elsewhere, in package imapbackend.
package dialect

import (
	"regexp"
	"slices"
)

// Dialect is how a server is to be addressed before anything has been learned of
// it. The zero value is the careful one: it costs round trips, and no server hangs
// because of it. A Dialect is a value and never changes.
type Dialect struct {
	// Profile names the profile that the server was recognised by, "" if by
	// none.
	Profile string

	// Takes are the forms that servers of this profile are known to take, from
	// tests with them.
	Takes Form

	// Avoids are the forms that they do not take.
	Avoids Form

	// SearchesMailbox reports that SEARCH finds messages of the selected mailbox
	// only. SEARCH DELETED of maddy 0.8.1 has those of other users too, whose
	// UIDs may be those of messages that are not flagged.
	SearchesMailbox bool
}

// Uses reports whether all of the forms are to be used, as long as nothing else is
// learned.
func (d Dialect) Uses(f Form) bool { return f&^((AllForms&^unasked|d.Takes)&^d.Avoids) == 0 }

// String describes the Dialect in one line, for an operator.
func (d Dialect) String() string {
	name := d.Profile
	if name == "" {
		name = "careful"
	}
	if d.Uses(IDFlight | LoginFlight) {
		return name + ": commands of a login are sent together"
	}
	return name + ": during a login each command waits for the answer to the one before"
}

// profiles are the servers that differ from the zero Dialect.
var profiles = []struct {
	greeting *regexp.Regexp
	without  string // a capability of proxies that pass this greeting on
	dialect  Dialect
}{
	{regexp.MustCompile(`\bDovecot\b`), "XIMAPPROXY", Dialect{Profile: "dovecot", Takes: AllForms &^ IDAfterLogin, SearchesMailbox: true}},
}

// Recognise returns the Dialect of the server with this greeting and these
// capabilities, in upper case, as it sends them before the login. That of a
// server it does not know is the zero Dialect.
func Recognise(greeting string, capabilities []string) Dialect {
	for _, p := range profiles {
		if p.greeting.MatchString(greeting) && !slices.Contains(capabilities, p.without) {
			return p.dialect
		}
	}
	return Dialect{}
}
