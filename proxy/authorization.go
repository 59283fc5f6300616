package proxy

import (
	"slices"
	"strings"
	"time"
)

// Refusals in AUTHORIZATION. None has a response code: no credential is wrong.
var (
	errUseSTLS   = &Error{Text: "use STLS first"}
	errNeedsTLS  = &Error{Text: "login needs TLS"}
	errUserFirst = &Error{Text: "send USER first"}
	errNoSTLS    = &Error{Text: "STLS is not available"}
	errTLSActive = &Error{Text: "TLS is already active"}
)

// capabilities are those that CAPA may list, in its order: RFC 2449 §6, RFC 2595
// §4, RFC 3206 §5, RFC 5034 §3, RFC 6856 §2.
var capabilities = []struct {
	tag string

	// offered returns the parameters, "" for none, and whether a session has the
	// capability. nil: each has it, without parameters.
	offered func(*session) (params string, ok bool)
}{
	{"TOP", nil},
	{"UIDL", nil},
	{"RESP-CODES", nil},
	{"AUTH-RESP-CODE", nil},
	{"PIPELINING", nil},
	{"USER", func(s *session) (string, bool) { return "", s.plaintextAllowed() }},
	{"SASL", func(s *session) (string, bool) {
		mechs := s.mechanisms()
		return " " + strings.Join(mechs, " "), len(mechs) > 0
	}},
	{"STLS", func(s *session) (string, bool) {
		return "", s.record.State == StateAuthorization && s.canSTLS()
	}},
	{"UTF8", func(s *session) (string, bool) { return s.utf8Argument(), s.srv.opts.UTF8 }},
}

// Capabilities returns the tags of the capabilities that CAPA may list, which
// are those that Options.HiddenCapabilities may name.
func Capabilities() []string {
	var tags []string
	for _, c := range capabilities {
		tags = append(tags, c.tag)
	}
	return tags
}

// capa answers CAPA: RFC 2449 §5. What is valid in AUTHORIZATION is listed in
// TRANSACTION too, except STLS.
func (s *session) capa([]string) error {
	s.w.ok("capability list follows")
	for _, c := range capabilities {
		params, ok := "", true
		if c.offered != nil {
			params, ok = c.offered(s)
		}
		if ok && !s.srv.hidden(c.tag) {
			s.w.line(c.tag + params)
		}
	}
	s.w.end()
	return nil
}

// plaintextAllowed reports whether passwords may be sent on this connection.
func (s *session) plaintextAllowed() bool { return s.secure() || s.insecureLogin }

// secure reports whether the client uses TLS, to the gateway or to the proxy in
// front of it.
func (s *session) secure() bool { return s.tls != nil || s.record.ProxyTLS != nil }

// canSTLS reports whether STLS would be accepted in AUTHORIZATION.
// UTF8 mode rules it out (RFC 6856 §2.1).
func (s *session) canSTLS() bool {
	return !s.secure() && !s.utf8 && s.lis.opts.Mode == TLSStartTLS
}

// refusePlaintext is the error of a login that plaintextAllowed forbids.
func (s *session) refusePlaintext() error {
	if s.canSTLS() {
		return errUseSTLS
	}
	return errNeedsTLS
}

// stls answers STLS: RFC 2595 §4. The session begins anew under TLS; USER has
// been forgotten when this command came.
func (s *session) stls([]string) error {
	switch {
	case s.secure():
		return errTLSActive
	case !s.canSTLS():
		return errNoSTLS
	}
	s.w.ok("begin TLS")
	if err := s.flush(); err != nil {
		return err
	}
	return s.startTLS()
}

// userName answers USER, the same for every name (RFC 1939 §7).
func (s *session) userName(args []string) error {
	switch {
	case !s.plaintextAllowed():
		return s.refusePlaintext()
	case args[0] == "", s.refusesOctets(args[0]):
		return errSyntax
	}
	s.user = pendingUser{args[0], true}
	s.w.ok("send PASS")
	s.prepare(args[0])
	return nil
}

// prepare has the backend connect while the client sends its password. username
// is "" as long as it is not known.
func (s *session) prepare(username string) {
	if p, ok := s.srv.opts.Backend.(Preparer); ok && s.prepared == nil {
		s.prepared = p.Prepare(s.ctx, s.caller(username))
	}
}

// caller returns what is known of a client that may log in as username.
func (s *session) caller(username string) Caller {
	return Caller{Client: s.record.Client, Username: username, TLS: s.secure()}
}

// verify has the backend log in, by the prepared connection where there is one.
func (s *session) verify(cred Credential) (Login, error) {
	if p := s.prepared; p != nil {
		s.prepared = nil
		return p.Login(s.ctx, cred)
	}
	return s.srv.opts.Backend.Login(s.ctx, cred)
}

// pass answers PASS, which takes the whole rest of the line as password.
func (s *session) pass(args []string) error {
	switch {
	case !s.plaintextAllowed():
		return s.refusePlaintext()
	case !s.user.given:
		return errUserFirst
	}
	if s.refusesOctets(args[0]) {
		return errSyntax
	}
	return s.logInWith(s.cmd.verb, Credential{Username: s.user.name, Password: args[0]}, nil)
}

// logInWith logs in with a name and a password.
func (s *session) logInWith(mechanism string, cred Credential, refusal error) error {
	cred.UTF8 = s.utf8
	if refusal == nil && cred.Password == "" {
		refusal = ErrAuth
	}
	return s.logIn(mechanism, func() string { return cred.Username }, refusal,
		func() (Login, error) { return s.verify(cred) })
}

// logIn opens the maildrop of the user whom verify has checked, and enters
// TRANSACTION. The verdict comes before the lock, so that [IN-USE] says nothing
// to those without the password (RFC 2449 §8.1.2). refusal, where not nil, is a
// verdict that does not need the upstream; it is given at the same pace. user
// is asked again after verify, as in some exchanges the name comes late.
func (s *session) logIn(mechanism string, user func() string, refusal error, verify func() (Login, error)) error {
	s.record.User = loggedName(user())
	// The replies to what was pipelined before, USER above all, do not wait
	// for the upstream.
	if err := s.flush(); err != nil {
		return err
	}
	s.attempt = LoginRecord{Mechanism: mechanism}
	began := time.Now()
	err := s.throttled(user, func() error {
		if refusal != nil {
			return refusal
		}
		err := s.openMaildrop(verify)
		if err != nil {
			s.logOut()
		}
		return err
	})
	s.loginDone(time.Since(began), err)
	if err != nil {
		return err
	}
	if !s.srv.loggedIn(s) {
		return &endError{reason: endLimit}
	}
	s.snap = newSnapshot(s.maildrop.Messages())
	s.enter(StateTransaction)
	s.maildropOK()
	return nil
}

// openMaildrop does the steps of a login. What it has gained when one fails
// is given back by logOut.
func (s *session) openMaildrop(verify func() (Login, error)) error {
	var err error
	if s.login, err = verify(); err != nil {
		s.login = nil
		return err
	}
	identity := s.login.Identity()
	if err = s.acquire(identity.Key()); err != nil {
		return err
	}
	if s.maildrop, err = s.login.Open(s.ctx); err != nil {
		s.maildrop = nil
		return err
	}
	s.record.User, s.record.Upstream = identity.User, identity.Upstream
	return nil
}

// mechanisms returns the names of the SASL mechanisms that AUTH accepts now.
func (s *session) mechanisms() []string {
	var names []string
	for _, name := range s.srv.opts.Mechanisms {
		if m := findMechanism(name); s.offers(m) && (m.safe || s.plaintextAllowed()) {
			names = append(names, name)
		}
	}
	return names
}

// offers reports whether the mechanism is offered, under TLS at least.
func (s *session) offers(m *mechanism) bool {
	if !slices.Contains(s.srv.opts.Mechanisms, m.name) {
		return false
	}
	return !m.relayed || s.srv.opts.Backend.(Exchanger).Offers(m.name, s.caller(s.user.name))
}
