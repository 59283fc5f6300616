package upstream

import (
	"encoding/base64"
	"strings"

	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// Clean makes upstream text fit for the log: without what the client logged in
// with, raw or in base64 (requirement P-RESP-8).
func (u *Conn) Clean(s string) string {
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

// CleanError is clean for an error that may quote the upstream.
func (u *Conn) CleanError(err error) error {
	text := err.Error()
	if cleaned := u.Clean(text); cleaned != text {
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

// keepSecret keeps a message of an exchange out of the log.
func (u *Conn) keepSecret(message string) {
	if message != "" {
		u.secrets = append(u.secrets, message,
			strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(message)), "="))
	}
}
