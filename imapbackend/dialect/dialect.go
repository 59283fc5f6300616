// Package dialect says how an upstream IMAP server is to be addressed where
// servers differ in what they take. The other packages ask a Dialect; only the
// placeholders of Exchange are recognised elsewhere, in package imapbackend.
package dialect

import (
	"regexp"
	"slices"
)

// Dialect is what a server is known to take. The zero value is the careful one:
// it costs round trips, and no server hangs because of it. A Dialect is a value
// and never changes.
type Dialect struct {
	// Profile names the profile that the server was recognised by, "" if by
	// none.
	Profile string

	// PipelinesLogin reports that the server executes commands that arrive
	// before it has answered ID, AUTHENTICATE or LOGIN. RFC 9051 §5.5 allows
	// them, but some servers and proxies discard what they have buffered when
	// a login ends, and then wait for a command that has already been sent.
	PipelinesLogin bool

	// SearchesMailbox reports that SEARCH finds messages of the selected mailbox
	// only. SEARCH DELETED of maddy 0.8.1 has those of other users too, whose
	// UIDs may be those of messages that are not flagged.
	SearchesMailbox bool
}

// String describes the Dialect in one line, for an operator.
func (d Dialect) String() string {
	if d.Profile == "" {
		return "careful: during a login each command waits for the answer to the one before"
	}
	return d.Profile + ": commands of a login are sent together"
}

// profiles are the servers that differ from the zero Dialect.
var profiles = []struct {
	greeting *regexp.Regexp
	without  string // a capability of proxies that pass this greeting on
	dialect  Dialect
}{
	{regexp.MustCompile(`\bDovecot\b`), "XIMAPPROXY", Dialect{Profile: "dovecot", PipelinesLogin: true, SearchesMailbox: true}},
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
