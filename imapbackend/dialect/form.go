package dialect

import (
	"fmt"
	"math/bits"
	"strings"
)

// Form is a set of ways of addressing a server that not all servers take.
type Form uint16

// The forms.
const (
	// IDFlight is commands after ID before its answer. A proxy in front of
	// Dovecot stops answering at it.
	IDFlight Form = 1 << iota

	// LoginFlight is commands after AUTHENTICATE or LOGIN before its answer.
	// RFC 9051 §5.5 allows them, but some servers and proxies discard what they
	// have buffered when a login ends, and then wait for a command that has
	// already been sent.
	LoginFlight

	// SelectFlight is a search and a listing after SELECT before its answer.
	SelectFlight

	// ID is the command, where it is offered (RFC 2971), before the login.
	ID

	// IDAfterLogin is ID once more between login and SELECT. Some providers
	// refuse SELECT without it.
	IDAfterLogin

	// Authenticate is AUTHENTICATE PLAIN, where it is offered, not LOGIN.
	Authenticate

	// InitialResponse is a response in the line of AUTHENTICATE, where SASL-IR
	// is offered (RFC 4959).
	InitialResponse

	// SearchReturn is SEARCH RETURN (ALL) where ESEARCH is offered (RFC 4731).
	SearchReturn

	// SearchPlain is SEARCH without RETURN. Where it is not taken either,
	// messages are looked for by FETCH of the flags.
	SearchPlain

	// PartialFetch is BODY.PEEK[...]<o.c>, a part of a message or of its text.
	// Where it is not taken, the whole message is requested.
	PartialFetch

	end
)

const (
	// AllForms are all of them.
	AllForms = end - 1

	// unasked are the forms that are not used unless the server is known to take
	// or to need them. The others are used unless it is known not to take them.
	unasked = IDFlight | LoginFlight | IDAfterLogin
)

// names are in the order of the forms.
var names = [...]string{"id-flight", "login-flight", "select-flight", "id", "id-after-login",
	"authenticate", "initial-response", "search-return", "search", "partial-fetch"}

// String lists the forms, separated by commas.
func (f Form) String() string {
	var list []string
	for f &= AllForms; f != 0; f &= f - 1 {
		list = append(list, names[bits.TrailingZeros16(uint16(f))])
	}
	return strings.Join(list, ",")
}

// ParseForms reads what String has written. A name that is no form is an error.
func ParseForms(s string) (Form, error) {
	var all Form
	for name := range strings.SplitSeq(s, ",") {
		f := Form(1)
		for _, known := range names {
			if known == name {
				break
			}
			f <<= 1
		}
		if name != "" && f == end {
			return 0, fmt.Errorf("dialect: %q is no form", name)
		}
		if name != "" {
			all |= f
		}
	}
	return all, nil
}
