package upstream

import (
	"encoding/base64"
	"strings"

	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// secrets are texts that are never logged.
type secrets []string

// secretsOf returns the forms in which an upstream might echo a credential.
func secretsOf(cred proxy.Credential) secrets {
	if cred.Password == "" {
		return nil
	}
	plain := cred.Authzid + "\x00" + cred.Username + "\x00" + cred.Password
	return secrets{
		strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(plain)), "="),
		strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(cred.Password)), "="),
		cred.Password,
		strings.Trim(wire.Quote(cred.Password), `"`),
	}
}

// add adds a message of an exchange, raw and in base64.
func (s *secrets) add(message string) {
	if message != "" {
		*s = append(*s, message, strings.TrimRight(base64.StdEncoding.EncodeToString([]byte(message)), "="))
	}
}

// Clean returns upstream text for the log: without the credential, raw or in
// base64 (requirement P-RESP-8), and of at most 515 octets.
func (c *Conn) Clean(s string) string {
	for _, secret := range c.secrets {
		s = strings.ReplaceAll(s, secret, "***")
	}
	if len(s) > 512 {
		s = s[:512] + "..."
	}
	return s
}

// cleanedError is an error whose text has been cleaned.
type cleanedError struct {
	text string
	err  error
}

func (e *cleanedError) Error() string { return e.text }
func (e *cleanedError) Unwrap() error { return e.err }

// CleanError is Clean for an error that may quote the upstream.
func (c *Conn) CleanError(err error) error {
	text := err.Error()
	if cleaned := c.Clean(text); cleaned != text {
		return &cleanedError{cleaned, err}
	}
	return err
}
