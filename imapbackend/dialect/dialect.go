// Package dialect says how an upstream IMAP server is to be addressed where
// servers differ in what they take. The other packages ask a Dialect, never the name
// of a server.
//
// Three parts make up a Dialect: a Profile, by host, greeting or capabilities; what
// an operator has set, in a Choice; and what was Learned. Where none of them says
// otherwise, what could make a server hang is not done.
//
// Some things that servers do differently are no part of it, as they are handled for
// all of them alike: UIDNEXT and EXISTS are compared with the messages that there
// are before they are relied on, and the UID of a FETCH response may be anywhere in
// it. Sets of UIDs always ascend.
package dialect

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

	// SearchesSets reports that the numbers of SEARCH UID <set> are UIDs, from tests
	// with such a server. GNU mailutils imap4d 3.15 takes them as sequence numbers,
	// so that its answer shows a message as gone that is there.
	SearchesSets bool

	// IgnoresNumbers reports that sequence numbers may belong to other messages
	// than EXISTS and EXPUNGE suggest: only UIDs count.
	IgnoresNumbers bool

	// Placeholders reports that the server delivers a text of its own in place of
	// a message that it cannot convert, as Microsoft Exchange does.
	Placeholders bool

	// Substitutes reports that the server delivers a text of its own in place of
	// a message that another client has removed, as Courier does, and that its
	// RFC822.SIZE is otherwise right.
	Substitutes bool

	// ClosesAtMove reports that the server may close the connection at MOVE. COPY is
	// tried then.
	ClosesAtMove bool

	// UserConnections is how many connections of one user the server accepts, 0
	// where no limit is known.
	UserConnections int
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
