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

	// maxBadCommands is how many lines that are no valid command a connection
	// may send.
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

// session is one connection of a client. Its goroutine alone uses it, except
// for interrupt, and for raw, on which the Server sets read deadlines and which
// it may close.
type session struct {
	srv *Server
	lis *listener
	raw *clientConn
	tls *tls.Conn // nil until TLS is active
	r   lineReader
	w   replyWriter
	dot dotWriter

	base   context.Context // of ctx, without the logger
	ctx    context.Context
	cancel context.CancelCauseFunc
	log    *slog.Logger
	record Record
	closed bool

	insecureLogin bool // the client may log in without TLS

	cmd       *command    // the current one, or the last
	attempt   LoginRecord // the current login, or the last
	user      pendingUser
	utf8      bool // UTF8 mode (RFC 6856 §2.1)
	afterAuth bool // an AUTH has failed: what follows may be its secrets
	bad       int  // lines that were no valid command

	prepared Prepared // a connection that waits for the password, or nil

	// Held from login on, and given back in this order.
	lock     *heldLock
	login    Login
	maildrop Maildrop

	snap     snapshot
	expected struct{ announced, left int } // messages asked for after the current command
	sent     []Message                     // retrieved messages, as sent, whose end has not been flushed yet
}

// pendingUser is the name of a USER that the next command, PASS, may use.
type pendingUser struct {
	name  string
	given bool
}

// endError ends the session without a reply.
type endError struct {
	reason string // for the session's record
	err    error
}

func (e *endError) Error() string {
	if e.err == nil {
		return e.reason
	}
	return e.reason + ": " + e.err.Error()
}

func (e *endError) Unwrap() error { return e.err }

// Reasons for which sessions end.
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
		s.record.Reason = end.reason
	}
	switch context.Cause(s.ctx) {
	case errLimit:
		s.record.Reason = endLimit
	case errLockLost:
		s.record.Reason = endLock
	}
	if s.record.Reason == endLock {
		s.log.Warn("lock of the maildrop lost while the session had it", "upstream", s.record.Upstream)
	}
	s.log.Debug("session ends", "error", err)
}

// run answers commands in the order in which they come. Its error tells why
// the session ended.
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

// readClient reads the header of a proxy, which says who the client is.
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
	if h.client.IsValid() {
		s.setClient(h.client)
	}
	s.record.ProxyTLS = h.tls
	if !s.srv.setAddress(s) {
		return &endError{reason: endLimit}
	}
	return nil
}

// readLine returns the client's next line. Replies are flushed before it waits
// for one. An error that isEnd ends the session, any other is the fault of
// this line.
func (s *session) readLine(kind lineKind) (string, error) {
	if s.srv.draining.Load() || !s.r.pending() {
		if err := s.flush(); err != nil {
			return "", err
		}
		if err := s.setReadTimeout(s.srv.opts.Autologout); err != nil {
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

// setReadTimeout prepares for waiting d at most for input. The server first starts to
// drain, or cuts the session, and then moves the deadline, so looking after
// setting ours misses nothing.
func (s *session) setReadTimeout(d time.Duration) error {
	if err := s.raw.SetReadDeadline(time.Now().Add(d)); err != nil {
		return &endError{endDropped, err}
	}
	if s.srv.draining.Load() || s.raw.interrupted.Load() {
		return &endError{reason: endShutdown}
	}
	return nil
}

// interrupt ends the session at once, because of cause. Any goroutine may call
// it.
func (s *session) interrupt(cause error) {
	s.cancel(cause)
	s.raw.interrupt()
}

// flush sends the replies so far, and tells the maildrop which messages the
// client has thereby got.
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

// writeError says what it means that the client cannot be written to.
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

// startTLS does the handshake, to which input already read belongs (P-STLS-3).
func (s *session) startTLS() error {
	s.raw.unread = append(s.r.takeBuffered(), s.raw.unread...) // that behind a PROXY header
	if err := s.setReadTimeout(handshakeTimeout); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(s.ctx, handshakeTimeout)
	defer cancel()
	conn := tls.Server(s.raw, s.lis.tls)
	if err := conn.HandshakeContext(ctx); err != nil {
		if s.srv.draining.Load() {
			return &endError{endShutdown, err}
		}
		return &endError{endHandshake, err}
	}
	s.tls = conn
	s.r.src = conn
	s.w.setDst(conn, tlsBuffers)
	state := conn.ConnectionState()
	s.record.TLS = &state
	return nil
}

// teardown is the one end of every session. Nothing in it changes the
// maildrop.
func (s *session) teardown() {
	s.closeConn()
	s.r.release()
	s.logOut()
	if s.prepared != nil {
		s.prepared.Close()
	}
	s.closeRecord()
	s.cancel(nil)
	s.srv.removeSession(s)
}

// closeConn sends what is left of the replies and closes the connection, with
// close_notify where there is TLS (RFC 8314 §3.4).
func (s *session) closeConn() {
	if s.closed {
		return
	}
	s.closed = true
	s.raw.closing, s.raw.stall = true, closeTimeout
	_ = s.w.flush() // the client is gone, or it has got its replies
	if s.tls != nil {
		_ = s.tls.Close()
	}
	_ = s.raw.Close()
}

// logOut gives back what login has gained, the last first. It may be called at
// any time, and again.
func (s *session) logOut() {
	s.unlock()
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("panic when closing the maildrop", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	if d := s.maildrop; d != nil {
		s.maildrop, s.login = nil, nil
		s.logClose(d.Close())
	}
	if l := s.login; l != nil {
		s.login = nil
		s.logClose(l.Close())
	}
}

func (s *session) logClose(err error) {
	if err != nil {
		s.log.Debug("closing the maildrop", "error", err)
	}
}

func isEnd(err error) bool {
	_, ok := errors.AsType[*endError](err)
	return ok
}
