package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"

	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// Phase is the part of a session in which the upstream fails. It decides what
// the failure means to the client (requirement M-1).
type Phase int

// The phases of a session, in their order.
const (
	AtConnect Phase = iota // greeting, STARTTLS, CAPABILITY, ID, ENABLE, COMPRESS
	AtLogin                // LOGIN and AUTHENTICATE, with an ID in the same flight
	AtSelect               // STATUS and SELECT
	AtList                 // taking the snapshot
	AtRead                 // RETR and TOP
	AtUpdate               // QUIT with messages marked
)

// The public texts. The upstream's own text goes to the log only.
const (
	TextTemp  = "mail server is not available, try again later"
	TextPerm  = "mail server cannot serve this maildrop, contact the operator"
	TextQuota = "mail server reports a full quota"
)

// TempError returns the error for a temporary fault: [SYS/TEMP]. err is logged.
func TempError(err error) *proxy.Error {
	return &proxy.Error{Code: proxy.CodeSysTemp, Text: TextTemp, Err: err}
}

// SetupError returns the error for a fault that an operator must fix:
// [SYS/PERM]. err is logged.
func SetupError(err error) *proxy.Error {
	return &proxy.Error{Code: proxy.CodeSysPerm, Text: TextPerm, Err: err}
}

// WithCause returns a copy of e with a cause, which is logged and not sent.
func WithCause(e *proxy.Error, err error) *proxy.Error {
	return &proxy.Error{Code: e.Code, Text: e.Text, Err: err}
}

// statusError returns the error for a status that is not OK, with the response
// code and text for the client; cause is logged. A text that names a temporary
// fault decides, except against the codes that judge excepts.
func statusError(ph Phase, s wire.Status, cause error) *proxy.Error {
	judged := judge(s)
	switch {
	case s.Code == "REFERRAL":
		return SetupError(fmt.Errorf("%w (referral to %q)", cause, referralHost(s)))
	case s.Code == "INUSE" && ph == AtSelect:
		return WithCause(proxy.ErrInUse, cause)
	case s.Code == "OVERQUOTA" && ph == AtUpdate && judged != throttled:
		return &proxy.Error{Code: proxy.CodeSysPerm, Text: TextQuota, Err: cause}
	case judged != lasting:
		return TempError(cause)
	}
	switch s.Code {
	case "AUTHENTICATIONFAILED", "EXPIRED", "AUTHORIZATIONFAILED":
		if ph == AtLogin || ph == AtSelect || ph == AtList {
			return WithCause(proxy.ErrAuth, cause)
		}
		return TempError(cause)
	case "INUSE", // before SELECT it does not prove that the credentials are right (M-2)
		"UNAVAILABLE", "LIMIT", "TEMPFAIL", // the last is Yahoo's
		"OVERQUOTA": // of a rate: reading takes no room
		return TempError(cause)
	case "CONTACTADMIN", "PRIVACYREQUIRED", "NONEXISTENT",
		"CORRUPTION", "SERVERBUG", "CLIENTBUG", "CANNOT":
		return SetupError(cause)
	case "NOPERM":
		if ph != AtLogin {
			return SetupError(cause)
		}
	}
	switch {
	case s.Type == "BAD":
		return SetupError(cause)
	case s.Type == "BYE":
		return TempError(cause)
	case ph == AtLogin:
		return WithCause(proxy.ErrAuth, cause)
	case ph == AtConnect || ph == AtSelect:
		return SetupError(cause)
	}
	return TempError(cause)
}

// lossError is statusError for the cause of a lost connection.
func lossError(ph Phase, err error) *proxy.Error {
	if bye, ok := errors.AsType[*wire.ByeError](err); ok {
		return statusError(ph, bye.Status, err)
	}
	if e, ok := errors.AsType[*wire.ProtocolError](err); ok && !e.Flood {
		return SetupError(err)
	}
	return TempError(err)
}

// Floods reports whether a connection was lost because the upstream has sent more than
// was asked for. It gets the credential once only (requirement I-CONN-8).
func (c *Conn) Floods() bool {
	e, ok := errors.AsType[*wire.ProtocolError](c.Wire.Err())
	return ok && e.Flood
}

// greetingError is lossError for the greeting. What is no greeting is temporary
// too: it comes from something that answers in place of the upstream.
func greetingError(err error) *proxy.Error {
	if _, ok := errors.AsType[*wire.ProtocolError](err); ok {
		return TempError(err)
	}
	return lossError(AtConnect, err)
}

// dialError is statusError for a connection that could not be established.
func dialError(err error) *proxy.Error {
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return SetupError(err)
	}
	return TempError(err)
}

// tlsError is statusError for a failed handshake: a fault of the network is
// temporary, one of client or server is not.
func tlsError(err error) *proxy.Error {
	err = fmt.Errorf("imap: TLS: %w", err)
	var netErr net.Error
	var errno syscall.Errno
	switch {
	case errors.As(err, &netErr) && netErr.Timeout(), errors.As(err, &errno),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return TempError(err)
	}
	return SetupError(err)
}

// isLost reports whether err of a handshake is that the peer has ended the connection.
func isLost(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// Lost returns the error for a lost connection; err is its cause, which is
// logged without secrets.
func (c *Conn) Lost(ph Phase, err error) *proxy.Error {
	return lossError(ph, c.CleanError(err))
}

// Failed returns the error for a command that did not end in OK: err is the
// cause of a loss, or nil where s is the status. op names the command, without
// secrets.
func (c *Conn) Failed(ph Phase, op string, s wire.Status, err error) *proxy.Error {
	if err != nil {
		return c.Lost(ph, fmt.Errorf("imap: %s: %w", op, err))
	}
	return statusError(ph, s, fmt.Errorf("imap: %s: %s", op, c.Clean(s.String())))
}
