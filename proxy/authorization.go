package proxy

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Errors in AUTHORIZATION. None has a response code: no credential is wrong.
var (
	errUseSTLS   = &Error{Text: "use STLS first"}
	errNeedsTLS  = &Error{Text: "login needs TLS"}
	errUserFirst = &Error{Text: "send USER first"}
	errNoSTLS    = &Error{Text: "STLS is not available"}
	errTLSActive = &Error{Text: "TLS is already active"}
)

// capabilities are those that CAPA can list, in order: RFC 2449 §6, RFC 2595 §4,
// RFC 3206 §5, RFC 5034 §3, RFC 6856 §2.
var capabilities = []struct {
	tag string

	// offered returns the parameters, and whether a session has the
	// capability. nil: always, without parameters.
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
	{"LOGIN-DELAY", func(s *session) (string, bool) {
		return " " + strconv.Itoa(int(s.srv.opts.LoginDelay/time.Second)), s.srv.opts.LoginDelay > 0
	}},
	{"EXPIRE", func(s *session) (string, bool) { return " " + s.srv.opts.Expire, s.srv.opts.Expire != "" }},
	{"IMPLEMENTATION", func(s *session) (string, bool) {
		return " " + s.srv.opts.Implementation, s.srv.opts.Implementation != "" && s.record.State == StateTransaction
	}},
	{"UTF8", func(s *session) (string, bool) { return s.utf8Argument(), s.srv.opts.UTF8 }},
}

// Capabilities returns the tags of all capabilities that CAPA can list, which
// Options.HiddenCapabilities can name.
func Capabilities() []string {
	var tags []string
	for _, c := range capabilities {
		tags = append(tags, c.tag)
	}
	return tags
}

// capa answers CAPA: RFC 2449 §5. TRANSACTION lists the same capabilities as
// AUTHORIZATION, except STLS and IMPLEMENTATION.
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

// canSTLS reports whether STLS would be accepted in AUTHORIZATION. It is not
// allowed in UTF8 mode (RFC 6856 §2.1).
func (s *session) canSTLS() bool {
	return !s.secure() && !s.utf8 && s.lis.opts.Mode == TLSStartTLS
}

// refusePlaintext returns the error for a login that plaintextAllowed forbids.
func (s *session) refusePlaintext() error {
	if s.canSTLS() {
		return errUseSTLS
	}
	return errNeedsTLS
}

// stls answers STLS: RFC 2595 §4. Nothing from before it remains valid; dispatch
// forgets USER.
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

// userName answers USER, in the same way for every name (RFC 1939 §7).
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

// prepare makes the Backend connect while the client sends its password, unless the
// login would have to wait first. username is "" if it is not known yet.
func (s *session) prepare(username string) {
	p, ok := s.srv.opts.Backend.(Preparer)
	if !ok || s.prepared != nil || s.srv.opts.Throttler.Waits(s.record.Addr.Addr(), s.account(loginNames{username: username})) {
		return
	}
	s.prepared = p.Prepare(s.ctx, s.caller(username))
}

// dropPrepared closes the connection that is not used, if there is one.
func (s *session) dropPrepared() {
	if p := s.prepared; p != nil {
		s.prepared = nil
		s.contain(p.Close)
	}
}

// loginNames are the names in a login, as the client gave them.
type loginNames struct {
	authzid  string // authorization identity; "" means username's
	username string // "" if it is not known yet
}

// caller returns what is known of a client that may log in as username.
func (s *session) caller(username string) Caller {
	return Caller{Client: s.record.Client, Username: username, TLS: s.secure()}
}

// verify logs in at the Backend, over the prepared connection if there is one.
func (s *session) verify(cred Credential) (Login, error) {
	if p := s.prepared; p != nil {
		s.prepared = nil
		return p.Login(s.ctx, cred)
	}
	return s.srv.opts.Backend.Login(s.ctx, cred)
}

// pass answers PASS. The rest of the line, spaces included, is the password.
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

// logInWith logs in with a name and a password. refusal is as in logIn.
func (s *session) logInWith(mechanism string, cred Credential, refusal error) error {
	cred.UTF8, cred.Attempt = s.utf8, s.record.FailedLogins+1
	if refusal == nil && cred.Password == "" {
		refusal = ErrAuth
	}
	return s.logIn(mechanism, func() loginNames { return loginNames{cred.Authzid, cred.Username} }, refusal,
		func() (Login, error) { return s.verify(cred) })
}

// logIn verifies a user, opens the maildrop and enters TRANSACTION. The user is
// verified before the lock is acquired, so that [IN-USE] reveals nothing to
// those without the password (RFC 2449 §8.1.2). refusal, if not nil, is an error
// found without the upstream; it is delayed like one from the upstream. who is
// called again after verify, because in some exchanges the name comes late.
func (s *session) logIn(mechanism string, who func() loginNames, refusal error, verify func() (Login, error)) error {
	s.record.User = loggedName(who().username)
	// Replies to commands pipelined before, such as USER, do not wait for the
	// upstream.
	if err := s.flush(); err != nil {
		return err
	}
	s.attempt = LoginRecord{Mechanism: mechanism}
	began := time.Now()
	err := s.throttled(who, func() error {
		if refusal != nil {
			return refusal
		}
		s.credited = time.Now()
		err := s.openMaildrop(verify)
		if err != nil {
			s.logOut()
		}
		return err
	})
	if err == nil && s.ctx.Err() != nil && context.Cause(s.ctx) == errLeft {
		err = &endError{endDropped, errLeft}
	}
	s.loginDone(time.Since(began), err)
	if err != nil {
		return err
	}
	if !s.srv.loggedIn(s) {
		return &endError{reason: endLimit}
	}
	s.snap = newSnapshot(s.maildrop.Messages())
	s.enter(StateTransaction)
	s.logLogin()
	s.maildropOK()
	return nil
}

// openMaildrop does the steps of a login. If one fails, the caller undoes the
// others by logOut.
func (s *session) openMaildrop(verify func() (Login, error)) error {
	var err error
	if s.login, err = verify(); err != nil {
		s.login = nil
		return err
	}
	identity := s.login.Identity()
	if err = s.srv.delays.admit(identity); err != nil {
		return err
	}
	if err = s.acquire(identity.Keys()); err != nil {
		return err
	}
	if s.maildrop, err = s.login.Open(s.ctx); err != nil {
		s.maildrop = nil
		return err
	}
	s.record.User, s.record.Upstream = identity.User, identity.Upstream
	s.srv.delays.loggedIn(identity)
	return nil
}

// mechanisms returns the names of the SASL mechanisms that AUTH now accepts.
func (s *session) mechanisms() []string {
	var names []string
	for _, name := range s.srv.opts.Mechanisms {
		if m := findMechanism(name); s.offers(m) && (m.safe || s.plaintextAllowed()) {
			names = append(names, name)
		}
	}
	return names
}

// offers reports whether the mechanism is offered, if only under TLS.
func (s *session) offers(m *mechanism) bool {
	if !slices.Contains(s.srv.opts.Mechanisms, m.name) {
		return false
	}
	return !m.relayed || s.srv.opts.Backend.(Exchanger).Offers(m.name, s.caller(s.user.name))
}
