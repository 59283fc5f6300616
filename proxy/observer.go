package proxy

import (
	"net/netip"
	"time"
)

// Observer is informed of what a Server and its sessions do, and a Backend of
// what happens to its upstream connections, so that it can be counted and shown.
// Its methods are called by the goroutines concerned, which wait for them: they
// return at once, and are safe for concurrent use.
//
// A *Record is the session's own: it is valid during the call only, and must
// not be changed.
type Observer interface {
	// SessionStarted is called when a connection has been accepted, before
	// the greeting. Of r only Client and Began are known; behind a proxy
	// r.Addr is then that of the proxy.
	SessionStarted(r *Record)

	// StateEntered is called when the session has entered r.State.
	StateEntered(r *Record)

	// LoginDone is called for each login, before it is answered.
	LoginDone(r *Record, l LoginRecord)

	// CommandDone is called for each line of a client, when its reply has
	// been written to the buffer.
	CommandDone(r *Record, c CommandRecord)

	// SessionEnded is called once for each SessionStarted, with all of r.
	SessionEnded(r *Record)

	// ConnectionRefused is called for each connection that a limit, or the
	// lack of a trusted proxy in front of it, keeps out or closes. It may
	// have a session, which ends by itself then.
	ConnectionRefused(r Refusal)

	// UpstreamChanged is called for each event of an upstream connection.
	UpstreamChanged(e UpstreamEvent)
}

// LoginRecord is one login of a session.
type LoginRecord struct {
	// Mechanism is that of SASL, in upper case, or "PASS".
	Mechanism string

	// Err is nil after success. AsError(Err).Code is what the client is sent,
	// if the session does not end.
	Err error

	Elapsed   time.Duration // from the credential to the verdict, all waits included
	Throttled time.Duration // of that, what the Throttler made it wait
	LockWait  time.Duration // of that, the wait for the lock

	// Source is where the upstream connection came from; "" after failure,
	// and where the Maildrop is no Sourced.
	Source Source
}

// CommandRecord is one line of a client.
type CommandRecord struct {
	Verb    string // of the command table, or "unknown"
	Status  string // "+OK" or "-ERR"; "none" if there was no reply
	Octets  int    // of the line, without its end
	Elapsed time.Duration
}

// Refusal is a connection that was kept out, or closed to make room.
type Refusal struct {
	// Reason is the limit, as it is called in the configuration, or
	// "proxy_protocol_from".
	Reason string

	Listener string
	Client   netip.Addr
}

// UpstreamEvent is something that has happened to an upstream connection.
type UpstreamEvent struct {
	Kind     UpstreamEventKind
	Upstream string        // configured name
	Err      error         // see Kind
	Elapsed  time.Duration // of UpstreamOpened and UpstreamReplaced
}

// UpstreamEventKind says what has happened to an upstream connection.
type UpstreamEventKind uint8

// The events of upstream connections.
const (
	// UpstreamOpened is an attempt to connect, up to the greeting. Err is why
	// it failed.
	UpstreamOpened UpstreamEventKind = iota + 1

	// UpstreamClosed is the end of a connection that had been opened. Err is
	// why it was lost, nil if it was closed in order.
	UpstreamClosed

	// UpstreamReplaced is an attempt to replace the lost connection of a
	// session by a new one. Err is why it failed.
	UpstreamReplaced

	// UpstreamKept is a connection that remains open after its session.
	UpstreamKept

	// UpstreamReused is a kept connection that a new session takes over.
	UpstreamReused
)

// enter takes the session to a state.
func (s *session) enter(state State) {
	s.record.State = state
	if o := s.srv.opts.Observer; o != nil {
		o.StateEntered(s.progress())
	}
}

// loginDone reports a login.
func (s *session) loginDone(elapsed time.Duration, err error) {
	o := s.srv.opts.Observer
	if o == nil {
		return
	}
	s.attempt.Elapsed, s.attempt.Err = elapsed, err
	if d, ok := s.maildrop.(Sourced); ok && err == nil {
		s.attempt.Source = d.Source()
	}
	o.LoginDone(s.progress(), s.attempt)
}
