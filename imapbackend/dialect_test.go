package imapbackend

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"popgate/proxy"
)

// I-LOGIN-6: an upstream that discards what follows a login in the same flight
// gets nothing there, and each of several logins succeeds in as many round trips
// as that takes.
func TestCareful(t *testing.T) {
	for _, caps := range []string{"", " OBJECTID", " LITERAL+ OBJECTID"} {
		for _, mechanism := range []string{" AUTH=PLAIN SASL-IR", " AUTH=PLAIN", ""} {
			synctest.Test(t, func(t *testing.T) {
				m := newModel()
				m.Unknown, m.RTT = true, rtt
				m.Caps = "IMAP4rev1 UIDPLUS ID" + mechanism + caps
				m.add(mail(1, 100))
				b := m.backend(t, Options{})
				for i := range 3 {
					start := time.Now()
					d := openMaildrop(t, b)
					// Greeting, ID, AUTHENTICATE and its "+",
					// STATUS, SELECT.
					if n := trips(start); n > 6.51 {
						t.Errorf("%s: login %d: %.2f round trips", m.Caps, i, n)
					}
					if n := len(d.Messages()); n != 1 {
						t.Errorf("%s: login %d: %d messages", m.Caps, i, n)
					}
					d.Close()
				}
			})
		}
	}
}

// I-LOGIN-6: with a connection that has greeted, the careful form of ID costs
// the login nothing.
func TestCarefulPrepared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel()
		m.Unknown, m.RTT = true, rtt
		b := m.backend(t, Options{})
		p := b.Prepare(t.Context(), proxy.Caller{})
		<-time.After(4 * rtt)
		start := time.Now()
		l, err := p.Login(t.Context(), joe)
		if err != nil {
			t.Fatal(err)
		}
		d, err := l.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n := trips(start); n > 2.01 {
			t.Errorf("%.2f round trips", n)
		}
		d.Close()
	})
}

// I-LOGIN-6, O-ID-1: an upstream that is not known gets ID by itself, before
// AUTHENTICATE; Dovecot gets both at once.
func TestIDFlight(t *testing.T) {
	const login = "AUTHENTICATE PLAIN " + ir + "\n"
	script := func(greeting string, answered bool) string {
		id := "S: <i> OK x\n"
		s := "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR ID] " + greeting + "\nC: <i> ID (\"name\" \"popgate\")\n"
		if answered {
			s += id + "C: <l> " + login
		} else {
			s += "C: <l> " + login + id
		}
		return s + strings.TrimPrefix(selected, greeted+"C: <l> "+login) +
			"S: * SEARCH\nS: <d> OK x\nS: * 1 FETCH (UID 7 RFC822.SIZE 100)\nS: <f> OK x\n" + bye
	}
	play(t, "unknown", script("ready", true), Options{}, func(s *session) { s.open() })
	play(t, "Dovecot", script("Dovecot ready.", false), Options{}, func(s *session) { s.open() })
}
