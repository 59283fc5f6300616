package proxy_test

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"

	"popgate/proxy/proxytest"
)

// memory returns a Backend with the account alice, password "secret", and her
// messages.
func memory(messages ...proxytest.Stored) *proxytest.Backend {
	b := proxytest.NewBackend()
	b.AddAccount("alice", "secret", false)
	b.Add("alice", messages...)
	return b
}

// generated returns n messages whose text has that many octets.
func generated(n, octets int) []proxytest.Stored {
	messages := make([]proxytest.Stored, n)
	for i := range messages {
		messages[i].Body = fmt.Appendf(nil, "Subject: %d\r\n\r\n%s\r\n", i, strings.Repeat("x", octets))
	}
	return messages
}

// serverTLS is the configuration of a server with a certificate for
// pop.example.
func serverTLS(t testing.TB) *tls.Config {
	t.Helper()
	return proxytest.NewCertificate(t, proxytest.CertificateOptions{Names: []string{"pop.example"}}).Server()
}
