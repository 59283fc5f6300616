//go:build integration

package dovecottest

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Token returns an OAuth 2.0 access token (RFC 9068) of user: a JWT that the
// server verifies with a key of its own, without another service. It expires at
// the given time. The server needs WithMechanisms.
func (s *Server) Token(user string, expiry time.Time) string {
	s.t.Helper()
	key, err := os.ReadFile(s.path(tokenKey))
	if err == nil {
		key, err = base64.StdEncoding.DecodeString(string(key))
	}
	if err != nil {
		s.t.Fatalf("dovecottest: %v", err)
	}
	b64 := base64.RawURLEncoding.EncodeToString
	token := b64([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." +
		b64(fmt.Appendf(nil, `{"sub":%q,"iat":%d,"exp":%d}`, user, expiry.Add(-time.Hour).Unix(), expiry.Unix()))
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(token))
	return token + "." + b64(mac.Sum(nil))
}

// tokenKey is the file in which Dovecot looks for the key of a token that names
// none: authorized party, algorithm, key.
const tokenKey = "keys/default/HS256/default"

// writeTokenKey writes a new key, and the settings that name it.
func (s *Server) writeTokenKey() error {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	file := s.path(tokenKey)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	// Readable by others: dovecot's auth process runs as another user.
	if err := os.WriteFile(file, []byte(base64.StdEncoding.EncodeToString(key)), 0o644); err != nil {
		return err
	}
	settings := "introspection_mode = local\nusername_attribute = sub\n" +
		"local_validation_key_dict = fs:posix:prefix=" + s.path("keys") + "/\n"
	return os.WriteFile(s.path("oauth2.conf"), []byte(settings), 0o644)
}

// tokenPassdb returns the passdb for tokens, "" if there are none. The next
// passdb serves the mechanisms with passwords.
func (s *Server) tokenPassdb() string {
	if !s.options.tokens {
		return ""
	}
	return "passdb {\n  driver = oauth2\n  mechanisms = xoauth2 oauthbearer\n  args = " + s.path("oauth2.conf") + "\n}"
}
