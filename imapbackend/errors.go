package imapbackend

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"

	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// phase is the part of a session in which the upstream failed; it decides what
// the failure means to the client (requirement M-1).
type phase int

const (
	atConnect phase = iota // greeting, STARTTLS, CAPABILITY, ID, ENABLE
	atLogin                // LOGIN and AUTHENTICATE
	atSelect               // STATUS and SELECT
	atList                 // taking the snapshot
	atRead
	atUpdate
)

// The public texts. They are ours: the upstream's text goes to the log.
const (
	textTemp    = "mail server is not available, try again later"
	textPerm    = "mail server cannot serve this maildrop, contact the operator"
	textRebuilt = "mailbox was rebuilt, reconnect"
	textQuota   = "mail server reports a full quota"
	textNoPlus  = "mail server cannot remove single messages, nothing was removed"
	textNoTrash = "mail server has no trash mailbox, nothing was removed"
)

func tempError(err error) *proxy.Error {
	return &proxy.Error{Code: proxy.CodeSysTemp, Text: textTemp, Err: err}
}

// setupError is a fault that stays until an operator mends it.
func setupError(err error) *proxy.Error {
	return &proxy.Error{Code: proxy.CodeSysPerm, Text: textPerm, Err: err}
}

// withCause returns e with its private cause.
func withCause(e *proxy.Error, err error) *proxy.Error {
	return &proxy.Error{Code: e.Code, Text: e.Text, Err: err}
}

// mapStatus turns a status that is not OK into what the client is told; cause
// goes to the log.
func mapStatus(ph phase, s wire.Status, cause error) *proxy.Error {
	switch s.Code {
	case "AUTHENTICATIONFAILED", "EXPIRED", "AUTHORIZATIONFAILED":
		if ph == atLogin || ph == atSelect || ph == atList {
			return withCause(proxy.ErrAuth, cause)
		}
		return tempError(cause)
	case "UNAVAILABLE", "LIMIT":
		return tempError(cause)
	case "INUSE":
		// To LOGIN it does not say that the credentials were right (M-2).
		if ph == atSelect {
			return withCause(proxy.ErrInUse, cause)
		}
		return tempError(cause)
	case "CONTACTADMIN", "PRIVACYREQUIRED", "NONEXISTENT",
		"CORRUPTION", "SERVERBUG", "CLIENTBUG", "CANNOT":
		return setupError(cause)
	case "NOPERM":
		if ph != atLogin {
			return setupError(cause)
		}
	case "OVERQUOTA":
		return &proxy.Error{Code: proxy.CodeSysPerm, Text: textQuota, Err: cause}
	}
	switch {
	case s.Type == "BAD":
		return setupError(cause)
	case s.Type == "BYE" || soundsTemporary(s.Text):
		return tempError(cause)
	case ph == atLogin:
		return withCause(proxy.ErrAuth, cause)
	case ph == atConnect || ph == atSelect:
		return setupError(cause)
	}
	return tempError(cause)
}

// soundsTemporary reads the text of a NO without response code, where servers
// from before RFC 5530 say what is wrong (requirement Q6).
func soundsTemporary(text string) bool {
	text = strings.ToLower(text)
	for _, p := range []string{"try again", "temporar", "unavailable", "too many", "timeout"} {
		if strings.Contains(text, p) {
			return true
		}
	}
	return false
}

// mapLoss turns the cause of a lost connection into what the client is told.
func mapLoss(ph phase, err error) *proxy.Error {
	if bye, ok := errors.AsType[*wire.ByeError](err); ok {
		return mapStatus(ph, bye.Status, err)
	}
	if _, ok := errors.AsType[*wire.ProtocolError](err); ok {
		return setupError(err)
	}
	return tempError(err)
}

// mapDial does the same for a connection that did not come about.
func mapDial(err error) *proxy.Error {
	if dns, ok := errors.AsType[*net.DNSError](err); ok && dns.IsNotFound {
		return setupError(err)
	}
	return tempError(err)
}

// mapTLS does the same for a failed handshake: what the network did may pass,
// what the two sides made of it will not.
func mapTLS(err error) *proxy.Error {
	err = fmt.Errorf("imap: TLS: %w", err)
	var netErr net.Error
	var errno syscall.Errno
	switch {
	case errors.As(err, &netErr) && netErr.Timeout(), errors.As(err, &errno),
		errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, net.ErrClosed):
		return tempError(err)
	}
	return setupError(err)
}

// lost is mapLoss with a cause that is fit for the log.
func (u *upstream) lost(ph phase, err error) *proxy.Error {
	return mapLoss(ph, u.cleanError(err))
}

// failed returns what the client is told after a command that did not end in
// OK: err is the cause of a loss, or nil and the status tells. op names the
// command, without secrets.
func (u *upstream) failed(ph phase, op string, s wire.Status, err error) *proxy.Error {
	if err != nil {
		return u.lost(ph, fmt.Errorf("imap: %s: %w", op, err))
	}
	return mapStatus(ph, s, fmt.Errorf("imap: %s: %s", op, u.clean(s.String())))
}

// clean makes upstream text fit for the log: without what the client logged in
// with, raw or in base64 (requirement P-RESP-8).
func (u *upstream) clean(s string) string {
	for _, secret := range u.secrets {
		s = strings.ReplaceAll(s, secret, "***")
	}
	if len(s) > 512 {
		s = s[:512] + "..."
	}
	return s
}

// cleanedError is an error whose text has been made fit for the log.
type cleanedError struct {
	text string
	err  error
}

func (e *cleanedError) Error() string { return e.text }
func (e *cleanedError) Unwrap() error { return e.err }

// cleanError is clean for an error that may quote the upstream.
func (u *upstream) cleanError(err error) error {
	text := err.Error()
	if cleaned := u.clean(text); cleaned != text {
		return &cleanedError{cleaned, err}
	}
	return err
}

// secretsOf returns the forms in which an upstream might repeat a credential.
func secretsOf(cred proxy.Credential) []string {
	if cred.Password == "" {
		return nil
	}
	plain := cred.Authzid + "\x00" + cred.Username + "\x00" + cred.Password
	return []string{
		strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(plain)), "="),
		strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(cred.Password)), "="),
		cred.Password,
		strings.Trim(wire.Quote(cred.Password), `"`),
	}
}
