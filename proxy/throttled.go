package proxy

import (
	"context"
	"errors"
	"net/netip"
	"time"
)

// noThrottler is the Throttler of a Server without one.
type noThrottler struct{}

// Begin implements Throttler.
func (noThrottler) Begin(context.Context, netip.Addr, string, func()) (time.Duration, func(Verdict), error) {
	return 0, func(Verdict) {}, nil
}

// Waits implements Throttler.
func (noThrottler) Waits(netip.Addr, string) bool { return false }

// begun is what the Throttler has returned for the current login.
type begun struct {
	failure time.Duration
	done    func(Verdict)
}

// throttled runs login, which calls the Backend, when the Throttler lets it, and
// counts, logs and delays a failure. Only [AUTH] and an abandoned exchange are one
// (M-3). A client that leaves, and a shutdown, end each wait and the session. If
// the username is still "" before login, login itself calls beginLogin when it knows
// the name.
func (s *session) throttled(who func() loginNames, login func() error) error {
	s.srv.setBusy(s, true)
	defer s.srv.setBusy(s, false)
	s.watchClient()
	defer s.unwatchClient()
	s.begun = begun{}
	if err := s.beginLogin(who()); err != nil {
		return err
	}
	asked := time.Now()
	err := login()
	if err == nil {
		s.begun.done(VerdictAccepted)
		return nil
	}
	if !isAuthFailure(err) && !isAbandoned(err) {
		s.begun.done(VerdictNone)
		return err
	}
	s.dropPrepared()
	s.record.FailedLogins++
	s.logFailure(who().username, err)
	s.begun.done(VerdictRefused)
	if isEnd(err) {
		return err
	}
	if err := s.sleep(s.begun.failure - time.Since(asked)); err != nil {
		return err
	}
	return err
}

// beginLogin waits until the Throttler lets a login of these names begin; one that
// has begun without a name is over then. A login that has to wait holds no upstream
// connection opened ahead.
func (s *session) beginLogin(names loginNames) error {
	if s.begun.done != nil {
		s.begun.done(VerdictNone)
		s.begun.done = func(Verdict) {}
	}
	ctx, cancel := s.untilStopped()
	defer cancel()
	began := time.Now()
	failure, done, err := s.srv.opts.Throttler.Begin(ctx, s.record.Addr.Addr(), s.account(names), s.dropPrepared)
	s.attempt.Throttled += time.Since(began)
	switch {
	case err == nil:
		s.begun = begun{failure, done}
	case ctx.Err() != nil:
		err = &endError{endShutdown, err}
	case errors.Is(err, errThrottled):
		s.srv.logThrottled(s, names.username)
	}
	return err
}

// account returns the name by which a login counts at the Throttler.
func (s *session) account(names loginNames) string {
	if namer, ok := s.srv.opts.Backend.(Namer); ok && names.username != "" {
		return namer.AccountName(names.authzid, names.username)
	}
	return names.username
}

// sleep waits d and adds the wait to the login's record.
func (s *session) sleep(d time.Duration) error {
	ctx, cancel := s.untilStopped()
	defer cancel()
	began := time.Now()
	err := wait(ctx, d)
	s.attempt.Throttled += time.Since(began)
	if err != nil {
		return &endError{endShutdown, err}
	}
	return nil
}

// untilStopped returns a context that ends with that of the session, and when the
// Server begins to shut down.
func (s *session) untilStopped() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(s.ctx)
	unlink := context.AfterFunc(s.srv.stopping, cancel)
	return ctx, func() {
		unlink()
		cancel()
	}
}

// abandonedError is an exchange that the client has ended after a challenge, which
// it got for nothing: in SCRAM it may show whether a user exists. It is a failed
// login and no bad command, so it does not unwrap to one.
type abandonedError struct{}

func (abandonedError) Error() string { return "exchange abandoned after a challenge" }

// abandoned returns the error of an exchange in which reading the response to a
// challenge has failed with err: marked as abandoned, unless the gateway itself
// ends the session.
func (s *session) abandoned(err error) error {
	if s.ctx.Err() != nil || s.srv.draining.Load() {
		return err
	}
	if end, ok := errors.AsType[*endError](err); ok {
		return &endError{end.reason, abandonedError{}}
	}
	e := AsError(err)
	return &Error{Code: e.Code, Text: e.Text, Err: abandonedError{}}
}

func isAbandoned(err error) bool {
	_, ok := errors.AsType[abandonedError](err)
	return ok
}

// logFailure logs a failed login before it is answered. Programs such as
// fail2ban read this record.
func (s *session) logFailure(name string, err error) {
	log := s.log.With("user", loggedName(name))
	if isAbandoned(err) {
		log = log.With("cause", "abandoned")
	}
	log.Info("login failed", "error", err)
}

// isAuthFailure reports whether a login failed because of its credentials.
func isAuthFailure(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Code == CodeAuth
}
