package imapmodel

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
)

// Flight is what happens to commands that have arrived together with one that they
// should not have followed before its answer.
type Flight int

// The kinds of a Flight. RFC 9051 §5.5 has only the first.
const (
	Executed  Flight = iota
	Discarded        // they are never answered
	Rejected         // each is answered BAD
)

// Partial is what happens to a request for a part of a body.
type Partial int

// The kinds of a Partial.
const (
	PartialServed  Partial = iota
	PartialBAD             // the command is BAD
	PartialIgnored         // the response has the whole body, without an origin
)

// Quirks are the ways in which real servers differ from one that is easy to use. In
// each of them what the server says can be understood, and stays true. The zero
// value has none. Quirks is a value, which %v prints without the zero fields.
type Quirks struct {
	// Unknown makes the server greet as one that no dialect knows. It then
	// discards what has arrived with an AUTHENTICATE or LOGIN that succeeds, as
	// Cyrus and some proxies do. Otherwise it greets as Dovecot.
	Unknown bool

	// AfterLogin and AfterSelect are what happens to commands that have arrived
	// with a login or a SELECT that succeeds.
	AfterLogin, AfterSelect Flight

	// UIDLast puts the UID at the end of a FETCH response, after any body.
	UIDLast bool

	// UIDMissing leaves the UID out of FETCH responses that have a body.
	UIDMissing bool

	// Loose makes FETCH responses as some servers send them: without the space in
	// front of a literal, with the count after the origin of a partial body, and
	// with an empty line in front of the closing parenthesis and another after it.
	Loose bool

	// Quoted has bodies without line end sent as quoted strings, and NIL in place
	// of empty ones.
	Quoted bool

	// AnyOrder has FETCH responses sent in a random order.
	AnyOrder bool

	// Partial is what happens to requests for a part of a body.
	Partial Partial

	// EmptyPeek has BODY.PEEK[] of the messages with UID 1, 5, 9 and so on
	// answered with an empty body. BODY[] is right.
	EmptyPeek bool

	// NoExists leaves out EXISTS, which an IMAP server must not do.
	NoExists bool

	// WrongUIDNext is what SELECT announces as UIDNEXT, "" for the right one.
	WrongUIDNext string

	// PermanentFlags is the value of PERMANENTFLAGS at SELECT, such as "()"; "-"
	// for the response code without one, "" for none of it.
	PermanentFlags string

	// Search is how UID SEARCH is answered.
	Search SearchStyle

	// SetsAreNumbers has the numbers of UID SEARCH UID <set> taken as sequence
	// numbers, as GNU mailutils imap4d does. The answer has UIDs.
	SetsAreNumbers bool
}

// RandomQuirks returns some Quirks. Each is as likely as the others.
func RandomQuirks(r *rand.Rand) Quirks {
	var q Quirks
	pick := func(set func()) {
		if r.IntN(4) == 0 {
			set()
		}
	}
	pick(func() { q.AfterLogin = Discarded + Flight(r.IntN(2)) })
	pick(func() { q.AfterSelect = Discarded + Flight(r.IntN(2)) })
	pick(func() { q.UIDLast = true })
	pick(func() { q.UIDMissing = true })
	pick(func() { q.Loose = true })
	pick(func() { q.Quoted = true })
	pick(func() { q.AnyOrder = true })
	pick(func() { q.Partial = PartialServed + 1 + Partial(r.IntN(2)) })
	pick(func() { q.EmptyPeek = true })
	pick(func() { q.NoExists = true })
	pick(func() { q.WrongUIDNext = []string{"0", "1", "x", "99999999999999999999"}[r.IntN(4)] })
	pick(func() { q.PermanentFlags = []string{"-", "()", `(\Seen)`, `(\Deleted)`, `(\*)`}[r.IntN(5)] })
	pick(func() {
		if q.Search = 1 + SearchStyle(r.IntN(int(SearchStyles))); q.Search == SearchStyles {
			q.Search = DeletedHangs
		}
	})
	pick(func() { q.SetsAreNumbers = true })
	// What a known server does not do with SEARCH is not looked for there.
	q.Unknown = q.Search != Searches || q.SetsAreNumbers || r.IntN(2) == 0
	return q
}

// String lists the quirks.
func (q Quirks) String() string {
	var list []string
	v := reflect.ValueOf(q)
	for i := range v.NumField() {
		if f := v.Field(i); !f.IsZero() {
			list = append(list, fmt.Sprintf("%s=%v", v.Type().Field(i).Name, f))
		}
	}
	return "{" + strings.Join(list, " ") + "}"
}
