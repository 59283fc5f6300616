package proxy

import (
	"encoding/base64"
	"strings"
	"unicode/utf8"
)

// The SASL mechanisms that are there unasked.
const (
	mechPlain = "PLAIN"
	mechLogin = "LOGIN"
)

// mechanism is a row of the table of SASL mechanisms. One of credential and
// begin is set.
type mechanism struct {
	name        string
	safe        bool // reveals no password or token, so it needs no TLS
	relayed     bool // offered only while the Backend says that it would work
	serverFirst bool

	// credential has the client send a name and a password.
	credential func(s *session, initial []string) (Credential, error)

	// parse takes from the client's first message what ex is to tell of it.
	parse func(ex *Exchange, message string) error
}

// mechanisms is every SASL mechanism there is: RFC 4616, RFC 7628, RFC 2195,
// RFC 5802, RFC 7677, and LOGIN and XOAUTH2, which have none.
var mechanisms = [...]mechanism{
	{name: mechPlain, credential: (*session).askPlain},
	{name: mechLogin, serverFirst: true, credential: (*session).askLogin},
	{name: "XOAUTH2", parse: parseXOAuth2},
	{name: "OAUTHBEARER", parse: parseOAuthBearer},
	{name: "CRAM-MD5", safe: true, relayed: true, serverFirst: true, parse: parseCRAM},
	{name: "SCRAM-SHA-1", safe: true, relayed: true, parse: parseSCRAM},
	{name: "SCRAM-SHA-256", safe: true, relayed: true, parse: parseSCRAM},
}

// Mechanisms returns the names of the SASL mechanisms there are, and those of
// them that are offered only while the Exchanger offers them.
func Mechanisms() (all, relayed []string) {
	for _, m := range mechanisms {
		all = append(all, m.name)
		if m.relayed {
			relayed = append(relayed, m.name)
		}
	}
	return all, relayed
}

// findMechanism returns the mechanism of that name, in upper case, or nil.
func findMechanism(name string) *mechanism {
	for i := range mechanisms {
		if mechanisms[i].name == name {
			return &mechanisms[i]
		}
	}
	return nil
}

// ErrCancelled is a SASL exchange that the client has given up by "*"
// (RFC 5034 §4).
var ErrCancelled = &Error{Text: "authentication cancelled", Err: errBadCommand}

// Errors of AUTH. Those of the exchange are bad commands, not failed logins.
var (
	errMechanism   = &Error{Text: "unknown authentication mechanism"}
	errBase64      = &Error{Text: "invalid base64", Err: errBadCommand}
	errSASLMessage = &Error{Text: "invalid authentication message", Err: errBadCommand}
	errInitial     = &Error{Text: "mechanism takes no initial response", Err: errBadCommand}
)

// auth answers AUTH: RFC 5034 §4.
func (s *session) auth(args []string) error {
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

// initialResponse returns the client's first message in a mechanism that it
// begins. initial holds what came with the command, if anything did.
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

// askLogin is the LOGIN mechanism (draft-murchison-sasl-login).
func (s *session) askLogin([]string) (cred Credential, err error) {
	if cred.Username, err = s.challenge("Username:", ""); err != nil {
		return cred, err
	}
	cred.Password, err = s.challenge("Password:", cred.Username)
	return cred, err
}

// challenge sends a challenge and returns the client's response, decoded. The
// backend connects meanwhile; username is as in prepare.
func (s *session) challenge(data, username string) (string, error) {
	s.w.challenge(data)
	s.prepare(username)
	return s.response()
}

// response reads the client's response to a challenge.
func (s *session) response() (string, error) {
	line, err := s.readLine(saslLine)
	switch {
	case err != nil:
		return "", err
	case line == "*":
		return "", ErrCancelled
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

// checkCredential refuses what RFC 5034 §4 does not allow in a name, and a NUL
// anywhere, without asking the upstream.
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
