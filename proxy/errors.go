package proxy

import "errors"

// Code is a POP3 response code without its brackets (RFC 2449 §8, RFC 3206).
type Code string

// The response codes that popgate sends, all on -ERR only.
const (
	CodeNone       Code = ""
	CodeAuth       Code = "AUTH"        // the credentials are at fault (RFC 3206 §5)
	CodeLoginDelay Code = "LOGIN-DELAY" // too soon after the last login (RFC 2449 §8.1.1)
	CodeInUse      Code = "IN-USE"      // the maildrop is locked (RFC 2449 §8.1.2)
	CodeSysTemp    Code = "SYS/TEMP"    // system fault that may pass (RFC 3206 §4)
	CodeSysPerm    Code = "SYS/PERM"    // system fault that needs an operator (RFC 3206 §4)
	CodeUTF8       Code = "UTF8"        // the message needs UTF8 mode (RFC 6856 §5)
)

// Error is a failure as the client may see it.
type Error struct {
	Code Code
	Text string // public: popgate's own printable ASCII, never the upstream's text
	Err  error  // private cause, for the log; may be nil
}

// Error returns the code, the public text and the cause. It is for the log.
func (e *Error) Error() string {
	s := e.Text
	if e.Code != CodeNone {
		s = "[" + string(e.Code) + "] " + s
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is reports whether target is an *Error that looks the same to the client.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && t.Text == e.Text
}

// Errors of a Backend that have one fixed reply each.
var (
	// ErrAuth is every login failure caused by the credentials. It has one
	// text, so that a wrong password and an unknown user look the same.
	ErrAuth = &Error{Code: CodeAuth, Text: "authentication failed"}

	// errLoginDelay is a login sooner after the last one than Options.LoginDelay.
	errLoginDelay = &Error{Code: CodeLoginDelay, Text: "too soon after the last login, try again later"}

	// ErrInUse is a maildrop that another session holds.
	ErrInUse = &Error{Code: CodeInUse, Text: "maildrop is in use by another session"}

	// ErrGone is a message of the snapshot that another client has removed.
	ErrGone = &Error{Text: "message removed by another client"}

	// ErrReadOnly is the answer to DELE in a read-only maildrop.
	ErrReadOnly = &Error{Code: CodeSysPerm, Text: "maildrop is read-only"}

	// ErrNotRemoved is an UPDATE after which some marked messages remain.
	ErrNotRemoved = &Error{Code: CodeSysTemp, Text: "some deleted messages not removed"}
)

// AsError returns the *Error in err's chain, or a [SYS/TEMP] error that wraps
// err: an unclassified error is popgate's own fault and may be temporary.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return &Error{Code: CodeSysTemp, Text: "internal error, try again later", Err: err}
}
