package proxy

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// The SASL mechanisms there are.
const (
	mechPlain = "PLAIN"
	mechLogin = "LOGIN"
)

// Errors of AUTH. Those of the exchange are bad commands, not failed logins.
var (
	errMechanism   = &Error{Text: "unknown authentication mechanism"}
	errCancelled   = &Error{Text: "authentication cancelled", Err: errBadCommand}
	errBase64      = &Error{Text: "invalid base64", Err: errBadCommand}
	errSASLMessage = &Error{Text: "invalid authentication message", Err: errBadCommand}
	errInitial     = &Error{Text: "mechanism takes no initial response", Err: errBadCommand}
)

// auth answers AUTH: RFC 5034 §4.
func (s *session) auth(args []string) error {
	if len(args) == 0 {
		return s.authList()
	}
	mechanism := strings.ToUpper(args[0])
	switch {
	case !s.offers(mechanism):
		return errMechanism
	case !s.plaintextAllowed():
		return s.refusePlaintext()
	}
	cred, err := s.exchange(mechanism, args[1:])
	if err != nil {
		return err
	}
	return s.logIn(cred, checkNames(cred))
}

// authList answers AUTH without argument as servers did before RFC 2449.
// Departure: RFC 5034 §4 makes it a syntax error.
func (s *session) authList() error {
	if s.srv.opts.NoAuthList {
		return errSyntax
	}
	s.w.ok("mechanisms follow")
	for _, m := range s.mechanisms() {
		s.w.line(m)
	}
	s.w.end()
	return nil
}

// exchange has the client send its credential. initial holds the initial
// response, if there is one.
func (s *session) exchange(mechanism string, initial []string) (Credential, error) {
	if mechanism == mechLogin {
		return s.exchangeLogin(initial)
	}
	var message string
	var err error
	switch {
	case len(initial) == 0:
		message, err = s.challenge("")
	case initial[0] == "=": // an empty response
	default:
		message, err = decodeSASL(initial[0])
	}
	if err != nil {
		return Credential{}, err
	}
	return parsePlain(message)
}

// exchangeLogin is the LOGIN mechanism (draft-murchison-sasl-login), in which
// the server speaks first.
func (s *session) exchangeLogin(initial []string) (cred Credential, err error) {
	if len(initial) > 0 {
		return cred, errInitial
	}
	if cred.Username, err = s.challenge("Username:"); err != nil {
		return cred, err
	}
	cred.Password, err = s.challenge("Password:")
	return cred, err
}

// challenge sends a challenge and returns the client's response, decoded. The
// backend connects meanwhile.
func (s *session) challenge(data string) (string, error) {
	s.w.challenge(data)
	s.prepare()
	line, err := s.readLine(saslLine)
	switch {
	case err != nil:
		return "", err
	case line == "*":
		return "", errCancelled
	}
	return decodeSASL(line)
}

// decodeSASL decodes base64. Lines have no CR or LF, which the decoder would
// pass over.
func decodeSASL(line string) (string, error) {
	data, err := base64.StdEncoding.DecodeString(line)
	if err != nil {
		return "", errBase64 // without the cause, which quotes from the line
	}
	return string(data), nil
}

// parsePlain splits the message of PLAIN: [authzid] NUL authcid NUL passwd
// (RFC 4616 §2).
func parsePlain(message string) (Credential, error) {
	parts := strings.Split(message, "\x00")
	if len(parts) != 3 {
		return Credential{}, errSASLMessage
	}
	return Credential{Authzid: parts[0], Username: parts[1], Password: parts[2]}, nil
}

// checkNames refuses what RFC 5034 §4 does not allow in a name, without asking
// the upstream.
func checkNames(cred Credential) error {
	if cred.Username == "" || !utf8.ValidString(cred.Username) || !utf8.ValidString(cred.Authzid) {
		return ErrAuth
	}
	if strings.ContainsRune(cred.Username+cred.Password, 0) {
		return ErrAuth
	}
	return nil
}
