package proxy

import (
	"context"
	"errors"
	"strings"
	"time"
)

// exchangeTimeout is how long the client may take for each response of an exchange
// that holds an upstream connection.
const exchangeTimeout = 60 * time.Second

// errExchangeTimeout is an exchange that has ended because of it.
var errExchangeTimeout = &Error{Text: "authentication timed out", Err: errBadCommand}

// exchange relays a SASL exchange between the client and the Backend.
func (s *session) exchange(m *mechanism, initial []string) error {
	ex := &Exchange{Mechanism: m.name, UTF8: s.utf8}
	parsed := !m.serverFirst
	var refusal error
	if parsed {
		message, err := s.initialResponse(initial)
		if err != nil {
			return err
		}
		ex.Initial = message
		if refusal = m.parse(ex, message); isBad(refusal) {
			return refusal
		}
	}
	ex.Challenge = func(_ context.Context, data string) (string, error) {
		response, err := s.ask(data)
		if err != nil || parsed {
			return response, err
		}
		parsed = true
		if err = m.parse(ex, response); isBad(err) {
			return "", s.abandoned(err)
		}
		s.record.User = loggedName(ex.Username)
		if err == nil {
			err = s.beginLogin(loginNames{ex.Authzid, ex.Username})
		}
		return response, err
	}
	names := func() loginNames { return loginNames{ex.Authzid, ex.Username} }
	return s.logIn(m.name, names, refusal, func() (Login, error) { return s.verifyExchange(ex) })
}

// ask sends a challenge of the Backend to the client, and returns its response. A
// client without one has abandoned the exchange.
func (s *session) ask(data string) (response string, err error) {
	s.unwatchClient()
	defer s.watchClient()
	s.srv.setBusy(s, false)
	defer s.srv.setBusy(s, true)
	s.w.challenge(data)
	// Even if the response is buffered already, what follows takes long.
	if err := s.flush(); err != nil {
		return "", err
	}
	response, err = s.response(exchangeTimeout)
	s.credited = time.Now()
	if err == nil {
		return response, nil
	}
	if end, ok := errors.AsType[*endError](err); ok && end.reason == endIdle && s.ctx.Err() == nil {
		err = errExchangeTimeout
	}
	return "", s.abandoned(err)
}

// verifyExchange runs ex at the Backend, over the prepared connection if there
// is one and it can.
func (s *session) verifyExchange(ex *Exchange) (Login, error) {
	p := s.prepared
	s.prepared = nil
	if exchanger, ok := p.(PreparedExchanger); ok {
		return exchanger.Exchange(s.ctx, ex)
	}
	if p != nil {
		p.Close()
	}
	return s.srv.opts.Backend.(Exchanger).Exchange(s.ctx, ex)
}

// kvSep ends each key-value pair in XOAUTH2 and OAUTHBEARER.
const kvSep = "\x01"

// parseXOAuth2 parses the message of XOAUTH2, which has no RFC: user=NAME ^A
// auth=VALUE ^A ^A.
func parseXOAuth2(ex *Exchange, message string) error {
	parts := strings.Split(message, kvSep)
	if len(parts) != 4 || parts[2] != "" || parts[3] != "" {
		return errSASLMessage
	}
	user, okUser := strings.CutPrefix(parts[0], "user=")
	auth, okAuth := strings.CutPrefix(parts[1], "auth=")
	if !okUser || !okAuth {
		return errSASLMessage
	}
	return ex.bearer(user, auth)
}

// parseOAuthBearer parses the message of OAUTHBEARER (RFC 7628 §3.1). Host, port
// and unknown keys are ignored. The name, which RFC 7628 leaves to the profile,
// is required, because the maildrop is locked by it.
func parseOAuthBearer(ex *Exchange, message string) error {
	user, rest, ok := cutGS2Header(message)
	rest, framed := strings.CutPrefix(rest, kvSep)
	rest, ended := strings.CutSuffix(rest, kvSep)
	if !ok || !framed || !ended {
		return errSASLMessage
	}
	auth, found := "", false
	for pair := range strings.SplitAfterSeq(rest, kvSep) {
		if pair == "" {
			continue // after the last separator
		}
		key, value, ok := strings.Cut(strings.TrimSuffix(pair, kvSep), "=")
		if !ok || !strings.HasSuffix(pair, kvSep) || !isKey(key) || !isValue(value) || key == "auth" && found {
			return errSASLMessage
		}
		if key == "auth" {
			auth, found = value, true
		}
	}
	if !found {
		return errSASLMessage
	}
	return ex.bearer(user, auth)
}

// bearer sets a name and the value of "auth". The token is opaque; an empty or
// missing one is refused, like an empty password.
func (ex *Exchange) bearer(user, auth string) error {
	ex.Username, ex.Authorization = user, auth
	scheme, token, _ := strings.Cut(auth, " ")
	if auth != "" && !strings.EqualFold(scheme, "Bearer") {
		return errSASLMessage
	}
	if strings.IndexFunc(token, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0 {
		return errSASLMessage
	}
	if token == "" {
		return ErrAuth
	}
	return checkNames("", user)
}

// parseSCRAM parses the names in the client's first message (RFC 5802 §7).
// Channel binding needs a -PLUS mechanism, which cannot be relayed.
func parseSCRAM(ex *Exchange, message string) error {
	authzid, bare, ok := cutGS2Header(message)
	name, rest, _ := strings.Cut(bare, ",")
	name, okName := strings.CutPrefix(name, "n=")
	name, okEscapes := unescapeName(name)
	nonce, okNonce := strings.CutPrefix(rest, "r=")
	if !ok || !okName || !okEscapes || !okNonce || nonce == "" {
		return errSASLMessage
	}
	ex.Authzid, ex.Username = authzid, name
	return checkNames(authzid, name)
}

// parseCRAM parses the name in the client's response, which is a name and a
// digest (RFC 2195 §2).
func parseCRAM(ex *Exchange, message string) error {
	i := strings.LastIndexByte(message, ' ')
	if i < 0 || !isDigest(message[i+1:]) {
		return errSASLMessage
	}
	ex.Username = message[:i]
	return checkNames("", ex.Username)
}

// cutGS2Header splits a message after its gs2-header (RFC 5801 §4), which must
// not use channel binding, and returns the authorization identity in it.
func cutGS2Header(message string) (authzid, rest string, ok bool) {
	flag, rest, okFlag := strings.Cut(message, ",")
	authzid, rest, okName := strings.Cut(rest, ",")
	if !okFlag || !okName || flag != "n" && flag != "y" {
		return "", "", false
	}
	if authzid == "" {
		return "", rest, true
	}
	authzid, ok = strings.CutPrefix(authzid, "a=")
	if !ok || authzid == "" {
		return "", "", false
	}
	authzid, ok = unescapeName(authzid)
	return authzid, rest, ok
}

var nameEscapes = strings.NewReplacer("=2C", ",", "=3D", "=")

// unescapeName decodes a saslname (RFC 5802 §5.1).
func unescapeName(s string) (name string, ok bool) {
	if strings.Count(s, "=") != strings.Count(s, "=2C")+strings.Count(s, "=3D") {
		return "", false
	}
	return nameEscapes.Replace(s), true
}

func isKey(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return (r|0x20) < 'a' || (r|0x20) > 'z' }) < 0
}

func isValue(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool {
		return (r < ' ' || r > '~') && r != '\t' && r != '\r' && r != '\n'
	}) < 0
}

func isDigest(s string) bool {
	return len(s) == 32 && strings.Trim(s, "0123456789abcdefABCDEF") == ""
}
