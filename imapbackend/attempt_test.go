package imapbackend

import (
	"encoding/base64"
	"strings"
	"testing"
	"testing/synctest"
)

// dove is the greeting of a server that takes all of a login in one flight, and
// withIDs and withoutIDs are what it answers to a user who has mailbox-ids, or none.
const (
	dove       = "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] Dovecot ready.\n"
	doveLogin  = dove + "C: <l> AUTHENTICATE PLAIN " + ir + "\n"
	withIDs    = "S: <l> OK [CAPABILITY IMAP4rev1 OBJECTID] x\n"
	withoutIDs = "S: <l> OK [CAPABILITY IMAP4rev1] x\n"
	askID      = "C: <m> STATUS INBOX (MAILBOXID)\n"
	gotID      = "S: * STATUS INBOX (MAILBOXID (F0123456789abcdef))\nS: <m> OK x\n"
)

// I-LOGIN-7: a credential that was refused is not sent again if the connection is
// lost before the answer to what came with it, and the client learns of the refusal.
func TestRefusedThenLost(t *testing.T) {
	known := doveLogin + withIDs + askID + gotID + bye + "-- connection 2 --\n" +
		doveLogin + askID + withIDs + gotID + bye + "-- connection 3 --\n"
	for name, lost := range map[string]string{"closed": "X:\n", "BYE": "S: * BYE zebra\nX:\n", "silent": "W: stall\n"} {
		play(t, "I-LOGIN-7 "+name, known+doveLogin+askID+"S: <l> NO [AUTHENTICATIONFAILED] zebra\n"+lost, Options{}, func(s *session) {
			s.login().Close()
			s.login().Close()
			dials := s.countDials()
			s.fails(s.openFails(), auth)
			if *dials != 1 {
				s.Errorf("%d connections", *dials)
			}
		})
	}
}

// I-LOGIN-7: LOGIN is not sent again after a BAD that has judged the credential.
func TestLoginRefusedByBAD(t *testing.T) {
	const cyrus = "S: * OK [CAPABILITY IMAP4rev1 ID] mx Cyrus IMAP ready\n"
	const flight = "C: <i> ID (\"name\" \"popgate\")\nC: <l> LOGIN \"joe\" \"secret\"\nS: <i> OK x\n"
	play(t, "I-LOGIN-7", cyrus+flight+"S: <l> BAD [AUTHENTICATIONFAILED] zebra\n"+bye, Options{}, func(s *session) {
		s.fails(s.openFails(), auth)
	})
	play(t, "M-4", cyrus+flight+"S: <l> BAD Too many login failures, try again later\n"+bye, Options{}, func(s *session) {
		s.fails(s.openFails(), temp)
	})
}

// I-LOGIN-7: what Exchange says of a wrong password names the command, and is not
// taken for a refusal of that.
func TestExchangeRefusesOnce(t *testing.T) {
	play(t, "I-LOGIN-7", "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] The Microsoft Exchange IMAP4 service is ready.\n"+
		"C: <l> AUTHENTICATE PLAIN "+ir+"\nS: <l> NO AUTHENTICATE failed.\n"+bye, Options{}, func(s *session) {
		s.fails(s.openFails(), auth)
	})
}

// I-LOGIN-7: where servers of two kinds take turns, what one is suspected of is not
// learned of the other.
func TestSuspicionOfAnother(t *testing.T) {
	const other = "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR] lion ready\n"
	play(t, "I-LOGIN-7", greeted+"C: <l> AUTHENTICATE PLAIN "+ir+"\nW: stall\n"+
		"-- connection 2 --\n"+strings.Replace(loggedInCarefully, greeted, other, 1)+bye+
		"-- connection 3 --\n"+strings.Replace(loggedIn, greeted, other, 1)+bye, Options{}, func(s *session) {
		s.login().Close()
		s.login().Close()
		if n := len(s.log.Lines("upstream does not take")); n != 0 {
			s.Errorf("log:\n%s", s.log.String())
		}
	})
}

// I-LOGIN-7: a user without mailbox-ids, whose STATUS is refused therefore, does not
// cost the other users their flight.
func TestUserWithoutMailboxIDs(t *testing.T) {
	play(t, "I-LOGIN-7", doveLogin+withIDs+askID+gotID+bye+
		"-- connection 2 --\n"+doveLogin+askID+withoutIDs+"S: <m> BAD x\n"+bye+
		"-- connection 3 --\n"+doveLogin+withIDs+askID+gotID+bye+
		"-- connection 4 --\n"+doveLogin+askID+withIDs+gotID+bye, Options{}, func(s *session) {
		for range 4 {
			s.login().Close()
		}
	})
}

// I-LOGIN-7: ID after the login is not learned from a SELECT that was refused for
// another reason.
func TestSelectRefusedForAWhile(t *testing.T) {
	const id = "C: <i> ID (\"name\" \"popgate\")\nS: * ID NIL\nS: <i> OK x\n"
	const in = "C: <l> AUTHENTICATE PLAIN " + ir + "\nS: <l> OK [CAPABILITY IMAP4rev1 ID] x\n"
	const rest = "C: <s> SELECT INBOX\n" + lists + "S: * 0 EXISTS\nS: * OK [UIDVALIDITY 9] x\nS: <s> OK x\nS: * SEARCH\nS: <d> OK x\nS: <f> BAD x\n" + bye
	for _, refusal := range []string{"[INUSE] zebra", "[UNAVAILABLE] zebra", "[SERVERBUG] zebra", "system busy, try again"} {
		refused := "C: <s> SELECT INBOX\n" + lists + "S: <s> NO " + refusal + "\nS: <d> BAD x\nS: <f> BAD x\n"
		play(t, "I-LOGIN-7 "+refusal, greeted+in+refused+id+rest+"-- connection 2 --\n"+greeted+in+rest, Options{}, func(s *session) {
			s.open().Close()
			s.open().Close()
		})
	}
}

// I-PROF-2: those who do not have the user's password do not take up the user's
// connections.
func TestUserConnectionsOfOthers(t *testing.T) {
	wrong := joe
	wrong.Password = "wrong"
	ir := base64.StdEncoding.EncodeToString([]byte("\x00joe\x00wrong"))
	play(t, "I-PROF-2", greeted+"C: <l> AUTHENTICATE PLAIN "+ir+"\nT: 3s\nS: <l> NO [AUTHENTICATIONFAILED] x\n"+bye+
		"-- connection 2 --\n"+loggedIn+bye, Options{Dialect: upTo(1)}, func(s *session) {
		failed := make(chan error)
		go func() {
			_, err := s.b.Login(s.ctx, wrong)
			failed <- err
		}()
		synctest.Wait()
		s.took(0, func() { s.login().Close() })
		s.fails(<-failed, auth)
	})
}

// I-LOGIN-8, O-TLS-7: a connection that is lost in the handshake is replaced once,
// one whose certificate is wrong is not.
func TestHandshakeLost(t *testing.T) {
	for name, script := range map[TLSMode]string{TLSImplicit: "X:\n", TLSStartTLS: startTLSOnce + "X:\n"} {
		play(t, "I-LOGIN-8 "+string(name), script+"-- connection 2 --\n"+script, Options{TLS: name}, func(s *session) {
			dials := s.countDials()
			s.fails(s.openFails(), temp)
			if *dials != 2 {
				s.Errorf("%d connections", *dials)
			}
		})
	}
	play(t, "O-TLS-7", startTLSOnce+"T: 1s\nS: zebra\nW: stall\n", Options{TLS: TLSStartTLS}, func(s *session) {
		dials := s.countDials()
		s.fails(s.openFails(), perm)
		if *dials != 1 {
			s.Errorf("%d connections", *dials)
		}
	})
}

const startTLSOnce = "S: * OK [CAPABILITY IMAP4rev1 STARTTLS AUTH=PLAIN SASL-IR] x\nC: <t> STARTTLS\nS: <t> OK x\n"
