package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"os"
	"runtime/debug"
	"time"
)

const (
	// handshakeTimeout limits a TLS handshake, silence of the client included.
	handshakeTimeout = 10 * time.Second

	// maxBadCommands is the number of invalid lines after which a connection
	// is closed.
	maxBadCommands = 20
)

// State is a state of a session (RFC 1939 §3). The values are bits, so that a
// command can name those in which it is valid.
type State uint8

// The states of a session.
const (
	StateAuthorization State = 1 << iota
	StateTransaction
	StateUpdate
)

// String returns the name of the state.
func (st State) String() string {
	switch st {
	case StateAuthorization:
		return "AUTHORIZATION"
	case StateTransaction:
		return "TRANSACTION"
	case StateUpdate:
		return "UPDATE"
	}
	return "none"
}

// session is one connection of a client. Only its goroutine uses it, with three
// exceptions: any goroutine may call interrupt, the Server sets read deadlines on
// raw and may close it, and the goroutines of watchClient and of the lookout read while
// a login, RETR or TOP runs.
type session struct {
	srv *Server
	lis *listener
	raw *clientConn
	tls *tls.Conn // nil until TLS is active
	r   lineReader
	w   replyWriter
	dot dotWriter

	base   context.Context // ctx without client and logger
	ctx    context.Context
	cancel context.CancelCauseFunc
	log    *slog.Logger
	record Record
	closed bool

	insecureLogin bool // the client may log in without TLS

	cmd       *command    // the current or last one
	attempt   LoginRecord // the current or last login
	begun     begun       // the same
	credited  time.Time   // when the client sent the last of its credential
	user      pendingUser
	utf8      bool // UTF8 mode (RFC 6856 §2.1)
	afterAuth bool // after a failed AUTH, when invalid lines may be secrets
	bad       int  // number of invalid lines

	prepared Prepared // a connection that waits for the password, or nil

	lookout lookout
	watched chan struct{} // closed when the goroutine of watchClient has ended, or nil

	// Held from login on, and released in this order.
	locks    []*heldLock
	login    Login
	maildrop Maildrop

	snap     snapshot
	expected struct{ announced, left int } // messages of the last Expect, and how many are still to come
	sent     []Message                     // retrieved messages, with octets as sent, that are not flushed yet
}

// pendingUser is the name from USER, for a PASS that follows at once.
type pendingUser struct {
	name  string
	given bool
}

// endError ends the session without a reply.
type endError struct {
	reason string // for the Record
	err    error
}

func (e *endError) Error() string {
	if e.err == nil {
		return e.reason
	}
	return e.reason + ": " + e.err.Error()
}

func (e *endError) Unwrap() error { return e.err }

// Values of Record.Reason.
const (
	endQuit      = "quit"
	endDropped   = "dropped"
	endStalled   = "stalled"
	endIdle      = "autologout"
	endShutdown  = "shutdown"
	endHandshake = "handshake"
	endProxy     = "PROXY header"
	endLimit     = "limit"
	endLock      = "lock lost"
	endUpstream  = "upstream"
	endLogins    = "failed logins"
	endBad       = "bad commands"
	endHTTP      = "HTTP request"
	endLine      = "endless line"
	endPanic     = "panic"
)

// serve runs the session and cleans up after it.
func (s *session) serve() {
	defer s.teardown()
	defer func() {
		if p := recover(); p != nil {
			s.record.Reason = endPanic
			s.log.Error("panic in session", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	if o := s.srv.opts.Observer; o != nil {
		o.SessionStarted(s.progress())
	}
	err := s.run()
	s.record.Reason = "error"
	if end, ok := errors.AsType[*endError](err); ok {
		s.record.Reason, s.record.Cause = end.reason, beginCause(end)
	}
	switch context.Cause(s.ctx) {
	case errLimit:
		s.record.Reason = endLimit
	case errLockLost:
		s.record.Reason = endLock
	case errLeft:
		s.record.Reason = endDropped
	}
	if s.record.Reason == endLock {
		s.log.Warn("lock of the maildrop lost", "upstream", s.record.Upstream)
	}
	s.log.Debug("session ends", "error", err)
}

// run answers commands in order. Its error is why the session ended.
func (s *session) run() error {
	if s.lis.behindProxy() {
		if err := s.readClient(); err != nil {
			return err
		}
	}
	if s.lis.opts.Mode == TLSImplicit {
		if err := s.startTLS(); err != nil {
			return err
		}
	}
	s.enter(StateAuthorization)
	s.w.ok("POP3 server ready")
	for {
		line, err := s.readLine(commandLine)
		if isEnd(err) {
			return err
		}
		if err := s.execute(line, err); err != nil {
			return err
		}
	}
}

// readClient reads the header of a proxy, which names the client.
func (s *session) readClient() error {
	h, err := s.readProxyHeader()
	switch {
	case isEnd(err):
		return err
	case err != nil && s.srv.draining.Load():
		return &endError{endShutdown, err}
	case err != nil:
		return &endError{endProxy, err}
	}
	s.raw.spoken = len(s.raw.unread) > 0
	if h.client.IsValid() {
		s.setClient(h.client)
	}
	s.record.ProxyTLS = h.tls
	if !s.srv.setAddress(s) {
		return &endError{reason: endLimit}
	}
	return nil
}

// readLine returns the client's next line, for which it waits until the
// autologout. It flushes replies before it waits. An error for which isEnd holds
// ends the session; any other concerns this line only.
func (s *session) readLine(kind lineKind) (string, error) {
	return s.readLineWithin(s.srv.opts.Autologout, kind)
}

// readLineWithin is readLine with the wait limited to d. Input may go on after the
// error for its end, which is an endIdle.
func (s *session) readLineWithin(d time.Duration, kind lineKind) (string, error) {
	if s.srv.draining.Load() || !s.r.pending() {
		if err := s.flush(); err != nil {
			return "", err
		}
		if err := s.setReadTimeout(d); err != nil {
			return "", err
		}
	}
	line, err := s.r.next(kind)
	switch {
	case err == nil:
		return string(line), nil
	case isBad(err):
		return "", err
	case errors.Is(err, errEndlessLine):
		return "", &endError{endLine, err}
	case s.srv.draining.Load():
		return "", &endError{endShutdown, err}
	case errors.Is(err, os.ErrDeadlineExceeded): // silently: RFC 1939 §3
		return "", &endError{endIdle, err}
	default:
		return "", &endError{endDropped, err}
	}
}

// setReadTimeout limits the next wait for input to d. Shutdown and interrupt set
// their flag first and then their own deadline, so checking the flags after
// setting this deadline misses nothing.
func (s *session) setReadTimeout(d time.Duration) error {
	if err := s.raw.SetReadDeadline(time.Now().Add(d)); err != nil {
		return &endError{endDropped, err}
	}
	if s.srv.draining.Load() || s.raw.interrupted.Load() {
		return &endError{reason: endShutdown}
	}
	return nil
}

// interrupt ends the session at once, for the given cause. Any goroutine may
// call it.
func (s *session) interrupt(cause error) {
	s.cancel(cause)
	s.raw.interrupt()
}

// flush sends the replies so far, and reports to the maildrop the messages that
// the client has received with them.
func (s *session) flush() error {
	if err := s.w.flush(); err != nil {
		return s.writeError(err)
	}
	for _, m := range s.sent {
		s.maildrop.Retrieved(s.ctx, m.UID, m.Octets)
	}
	s.sent = nil
	return nil
}

// writeError returns why the session ends after a failed write to the client.
func (s *session) writeError(err error) error {
	switch {
	case s.ctx.Err() != nil:
		return &endError{endShutdown, err}
	case errors.Is(err, os.ErrDeadlineExceeded):
		return &endError{endStalled, err}
	default:
		return &endError{endDropped, err}
	}
}

// startTLS does the handshake. Input already read belongs to it (P-STLS-3).
func (s *session) startTLS() error {
	s.raw.unread = append(s.r.takeBuffered(), s.raw.unread...) // unread: what followed a PROXY header
	if err := s.setReadTimeout(handshakeTimeout); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.ctx, handshakeTimeout)
	defer cancel()
	conn := tls.Server(s.raw, s.lis.tls)
	s.raw.last = make([]byte, 0, alertRecord)
	err := conn.HandshakeContext(ctx)
	last := s.raw.last
	s.raw.last = nil
	if err != nil {
		if s.srv.draining.Load() {
			return &endError{endShutdown, err}
		}
		return &endError{endHandshake, plainAlert(err, last)}
	}
	s.tls = conn
	s.r.src = conn
	s.w.setDst(conn, tlsBuffers)
	state := conn.ConnectionState()
	s.record.TLS = &state
	return nil
}

// teardown ends every session. It does not change the maildrop. A panic in one
// step does not prevent the others.
func (s *session) teardown() {
	s.contain(s.closeConn)
	s.contain(s.r.release)
	s.logOut()
	s.dropPrepared()
	s.contain(s.closeRecord)
	s.cancel(nil)
	s.srv.removeSession(s)
}

// contain runs f and logs a panic in it.
func (s *session) contain(f func()) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic in session", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	f()
}

// closeConn sends what is left of the replies and closes the connection, with
// close_notify where there is TLS (RFC 8314 §3.4).
func (s *session) closeConn() {
	if s.closed {
		return
	}
	s.closed = true
	s.raw.closing, s.raw.stall = true, closeTimeout
	_ = s.w.flush() // fails if the client has gone
	if s.tls != nil {
		_ = s.tls.Close()
	}
	_ = s.raw.Close()
}

// logOut releases the lock, and closes the maildrop or the login. It may be
// called at any time, and repeatedly.
func (s *session) logOut() {
	s.unlock()
	if d := s.maildrop; d != nil {
		s.maildrop, s.login = nil, nil
		s.contain(func() { s.logClose(d.Close()) })
	}
	if l := s.login; l != nil {
		s.login = nil
		s.contain(func() { s.logClose(l.Close()) })
	}
}

func (s *session) logClose(err error) {
	if err != nil {
		s.log.Debug("closing the maildrop failed", "error", err)
	}
}

func isEnd(err error) bool {
	_, ok := errors.AsType[*endError](err)
	return ok
}
