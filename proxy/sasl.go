package proxy

import (
	"encoding/base64"
	"strings"
	"time"
	"unicode/utf8"
)

// The SASL mechanisms that are offered by default.
const (
	mechPlain = "PLAIN"
	mechLogin = "LOGIN"
)

// mechanism is a row of the table of SASL mechanisms. Either credential or parse
// is set.
type mechanism struct {
	name        string
	safe        bool // reveals no password or token, so it needs no TLS
	relayed     bool // offered only while the Exchanger offers it
	serverFirst bool // the server sends the first message

	// credential asks the client for a name and a password.
	credential func(s *session, initial []string) (Credential, error)

	// parse fills in ex from the client's first message.
	parse func(ex *Exchange, message string) error
}

// mechanisms are all SASL mechanisms: RFC 4616, RFC 7628, RFC 2195, RFC 5802,
// RFC 7677; LOGIN and XOAUTH2 have no RFC.
var mechanisms = [...]mechanism{
	{name: mechPlain, credential: (*session).askPlain},
	{name: mechLogin, credential: (*session).askLogin},
	{name: "XOAUTH2", parse: parseXOAuth2},
	{name: "OAUTHBEARER", parse: parseOAuthBearer},
	{name: "CRAM-MD5", safe: true, relayed: true, serverFirst: true, parse: parseCRAM},
	{name: "SCRAM-SHA-1", safe: true, relayed: true, parse: parseSCRAM},
	{name: "SCRAM-SHA-256", safe: true, relayed: true, parse: parseSCRAM},
}

// Mechanisms returns the names of all SASL mechanisms, and of the relayed ones
// among them, which are offered only while an Exchanger offers them.
func Mechanisms() (all, relayed []string) {
	for _, m := range mechanisms {
		all = append(all, m.name)
		if m.relayed {
			relayed = append(relayed, m.name)
		}
	}
	return all, relayed
}

// findMechanism returns the mechanism with that name, which is in upper case, or
// nil.
func findMechanism(name string) *mechanism {
	for i := range mechanisms {
		if mechanisms[i].name == name {
			return &mechanisms[i]
		}
	}
	return nil
}

// ErrCancelled is a SASL exchange that the client has cancelled by sending "*"
// (RFC 5034 §4).
var ErrCancelled = &Error{Text: "authentication cancelled", Err: errBadCommand}

// Errors of AUTH. Invalid messages are bad commands, not failed logins.
var (
	errMechanism   = &Error{Text: "unknown authentication mechanism"}
	errBase64      = &Error{Text: "invalid base64", Err: errBadCommand}
	errSASLMessage = &Error{Text: "invalid authentication message", Err: errBadCommand}
	errInitial     = &Error{Text: "mechanism takes no initial response", Err: errBadCommand}
)

// auth answers AUTH: RFC 5034 §4.
func (s *session) auth(args []string) error {
	s.user = pendingUser{} // the name from USER is not that of this login
	if len(args) == 0 {
		return s.authList()
	}
	name := strings.ToUpper(args[0])
	m := findMechanism(name)
	switch initial := args[1:]; {
	case m == nil || !s.offers(m):
		return errMechanism
	case !m.safe && !s.plaintextAllowed():
		return s.refusePlaintext()
	case m.serverFirst && len(initial) > 0:
		return errInitial
	case m.parse != nil:
		return s.exchange(m, initial)
	default:
		cred, err := m.credential(s, initial)
		if err != nil {
			return err
		}
		return s.logInWith(m.name, cred, checkCredential(cred))
	}
}

// authList answers AUTH without argument, as servers did before RFC 2449.
// Departure: it is a syntax error by RFC 5034 §4.
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

// initialResponse returns the client's first message in a mechanism in which the
// client begins. initial is the argument of AUTH that has it, if any.
func (s *session) initialResponse(initial []string) (string, error) {
	switch {
	case len(initial) == 0:
		return s.challenge("", "")
	case initial[0] == "=": // an empty response
		return "", nil
	}
	return decodeSASL(initial[0])
}

// askPlain is the PLAIN mechanism.
func (s *session) askPlain(initial []string) (Credential, error) {
	message, err := s.initialResponse(initial)
	if err != nil {
		return Credential{}, err
	}
	return parsePlain(message)
}

// askLogin is the LOGIN mechanism (draft-murchison-sasl-login). Departure: some
// clients send the name with AUTH, although the server begins.
func (s *session) askLogin(initial []string) (cred Credential, err error) {
	if len(initial) > 0 {
		cred.Username, err = s.initialResponse(initial)
	} else {
		cred.Username, err = s.challenge("Username:", "")
	}
	if err != nil {
		return cred, err
	}
	cred.Password, err = s.challenge("Password:", cred.Username)
	return cred, err
}

// challenge sends a challenge and returns the client's response, decoded. While
// it waits, the Backend may connect; username is as in prepare.
func (s *session) challenge(data, username string) (string, error) {
	s.w.challenge(data)
	s.prepare(username)
	return s.response(s.srv.opts.Autologout)
}

// response reads the client's response to a challenge, within d.
func (s *session) response(d time.Duration) (string, error) {
	line, err := s.readLineWithin(d, saslLine)
	switch {
	case err != nil:
		return "", err
	case line == "*":
		return "", ErrCancelled
	}
	return decodeSASL(line)
}

// decodeSASL decodes base64. A line contains no CR or LF, which the decoder
// would ignore.
func decodeSASL(line string) (string, error) {
	data, err := base64.StdEncoding.DecodeString(line)
	if err != nil {
		return "", errBase64 // without the cause, which quotes the line
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

// checkCredential returns ErrAuth for a name that RFC 5034 §4 does not allow,
// and for a NUL anywhere.
func checkCredential(cred Credential) error {
	if strings.ContainsRune(cred.Password, 0) {
		return ErrAuth
	}
	return checkNames(cred.Authzid, cred.Username)
}

// checkNames is checkCredential for the names alone.
func checkNames(authzid, username string) error {
	names := authzid + username
	if username == "" || !utf8.ValidString(username) || !utf8.ValidString(authzid) || strings.ContainsRune(names, 0) {
		return ErrAuth
	}
	return nil
}
