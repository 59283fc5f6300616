//go:build integration

package servertest

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"popgate/imapbackend/dovecottest"
)

// authServer answers nginx, by its auth_http protocol, which users may log in
// and that upstream is where they are; it returns its own address.
func authServer(t testing.TB, upstream string) string {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Auth-Pass") != dovecottest.Password {
			w.Header().Set("Auth-Status", "Invalid login or password")
			w.Header().Set("Auth-Wait", "1") // seconds until the answer, after which the client may try again
			return
		}
		w.Header().Set("Auth-Status", "OK")
		w.Header().Set("Auth-Server", "127.0.0.1")
		w.Header().Set("Auth-Port", port(upstream))
	}))
	t.Cleanup(server.Close)
	return server.Listener.Addr().String()
}
