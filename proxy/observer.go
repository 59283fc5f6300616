package proxy

import (
	"net/netip"
	"time"
)

// Observer receives events of a Server and its sessions, and of the upstream
// connections of a Backend, for metrics for example. The goroutine in which an
// event happens makes the call and waits for it, sometimes with a lock held: the
// methods must return at once, must not call the Server or the Backend, and must
// not panic. They must be safe for concurrent use.
//
// A *Record belongs to the session. It is valid during the call only and must
// not be changed.
type Observer interface {
	// SessionStarted is called when a connection has been accepted, before
	// the greeting. Of r only Client and Began are set. Behind a proxy r.Addr
	// is still that of the proxy.
	SessionStarted(r *Record)

	// StateEntered is called when the session has entered r.State.
	StateEntered(r *Record)

	// LoginDone is called for each login, before it is answered.
	LoginDone(r *Record, l LoginRecord)

	// CommandDone is called for each command line of a client, when its reply
	// is in the buffer but perhaps not sent yet.
	CommandDone(r *Record, c CommandRecord)

	// SessionEnded is called once for each SessionStarted, with r complete.
	SessionEnded(r *Record)

	// ConnectionRefused is called for each connection that is refused or
	// closed because of a limit, or because it is not from a trusted proxy.
	// If it has a session, SessionEnded follows.
	ConnectionRefused(r Refusal)

	// UpstreamChanged is called for each event of an upstream connection.
	UpstreamChanged(e UpstreamEvent)
}

// LoginRecord is one login of a session.
type LoginRecord struct {
	// Mechanism is that of SASL, in upper case, or "PASS".
	Mechanism string

	// Err is nil after success. The client is sent AsError(Err).Code, unless
	// the session ends without a reply.
	Err error

	Elapsed   time.Duration // from the credential to the verdict, including all waits
	Throttled time.Duration // part of Elapsed: the delay by the Throttler
	LockWait  time.Duration // part of Elapsed: the wait for the lock

	// Source is where the upstream connection came from; "" after a failure,
	// or if the Maildrop is no Sourced.
	Source Source
}

// CommandRecord is one command line of a client.
type CommandRecord struct {
	Verb    string // of the command table, or "unknown"
	Status  string // "+OK" or "-ERR"; "none" if there was no reply
	Octets  int    // of the line, without its end
	Elapsed time.Duration
}

// Refusal is a connection that was refused, or closed to make room for another.
type Refusal struct {
	// Reason is the limit's name in the configuration, or
	// "proxy_protocol_from".
	Reason string

	Listener string
	Client   netip.Addr
}

// UpstreamEvent is an event of an upstream connection.
type UpstreamEvent struct {
	Kind     UpstreamEventKind
	Upstream string        // configured name
	Err      error         // see Kind
	Elapsed  time.Duration // of UpstreamOpened and UpstreamReplaced only
}

// UpstreamEventKind is the kind of an UpstreamEvent.
type UpstreamEventKind uint8

// The events of upstream connections.
const (
	// UpstreamOpened is an attempt to connect, up to the greeting. Err is nil
	// if it succeeded. An attempt that ends because the client has left failed.
	UpstreamOpened UpstreamEventKind = iota + 1

	// UpstreamClosed is the end of a connection that had been opened. Err is
	// why it was lost, nil if the gateway ended it, for whatever reason: the
	// session was over, or a time limit of its own.
	UpstreamClosed

	// UpstreamReplaced is an attempt to replace the lost connection of a
	// session by a new one. Err is nil if it succeeded.
	UpstreamReplaced

	// UpstreamKept is a connection that stays open after its session.
	UpstreamKept

	// UpstreamReused is a kept connection that a new session uses.
	UpstreamReused
)

// enter changes the state and reports it.
func (s *session) enter(state State) {
	s.record.State = state
	if o := s.srv.opts.Observer; o != nil {
		o.StateEntered(s.progress())
	}
}

// loginDone reports a login to the Observer.
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
