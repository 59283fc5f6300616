// Package soak holds the endurance test: clients that walk and delete through a
// gateway whose upstream, a real Dovecot behind a proxy, loses connections all
// the time. "make soak" runs it for ten minutes. The test is built under the tag
// "integration" only.
package soak
