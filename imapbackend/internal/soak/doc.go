// Package soak contains the endurance test: clients that read and delete messages
// through a gateway that loses its connections to the upstream, a real Dovecot,
// all the time. "make soak" runs it for ten minutes. The test is built under the
// tag "integration" only.
package soak
