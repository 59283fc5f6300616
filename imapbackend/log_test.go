package imapbackend

import (
	"strings"
	"testing"
)

// O-LOG-1, O-LOG-2, M-1: the log has each upstream command with its result,
// alerts at level warn, and nothing of the credential, though the upstream
// echoes it everywhere.
func TestLog(t *testing.T) {
	const echo = "zebra secret c2VjcmV0 AGpvZQBzZWNyZXQ="
	script := "S: * OK [CAPABILITY IMAP4rev1 AUTH=PLAIN SASL-IR ID] x\nC: <i> ID ...\nS: * ID (\"x\" \"secret\")\nS: <i> OK x\n" +
		"C: <l> AUTHENTICATE PLAIN " + ir + "\nS: * OK [ALERT] mind " + echo + "\nS: <l> OK [CAPABILITY IMAP4rev1 UIDPLUS] " + echo + "\n" +
		"C: <s> SELECT INBOX\n" + lists + "S: * 1 EXISTS\nS: * OK [UIDVALIDITY 9] " + echo + "\nS: <s> OK [CONTACTADMIN] " + echo + "\n" +
		"S: * NO [ALERT] low on space, " + echo + "\nS: * SEARCH\nS: <d> OK " + echo + "\nS: * 1 FETCH (UID 7 RFC822.SIZE 9)\nS: <f> OK x\n" +
		"C: <r> UID FETCH 7 (UID BODY.PEEK[])\nS: <r> NO " + echo + "\n" +
		"C: <n> NOOP\nS: <n> OK " + echo + "\nC: <q> UID FETCH 7 (UID)\nS: <q> NO " + echo + "\n" +
		allUIDs + "S: <w> NO " + echo + "\n" +
		"C: <u> UID STORE 7 +FLAGS.SILENT (\\Deleted)\nS: * BYE " + echo + "\nX:\n"
	play(t, "session", script, Options{}, func(s *session) {
		d := s.open()
		if _, err := d.Read(s.ctx, 7); err == nil {
			s.Error("Read succeeded")
		}
		if err := d.Update(s.ctx, []uint64{7}); err == nil {
			s.Error("Update succeeded")
		}
		log := s.log.String()
		for _, secret := range []string{"secret", "AGpvZQBzZWNyZXQ", "c2VjcmV0"} {
			if strings.Contains(log, secret) {
				s.Errorf("%q is in the log", secret)
			}
		}
		for _, want := range []string{
			`command="AUTHENTICATE PLAIN" result="OK [CAPABILITY`, `command="SELECT INBOX" result=`, `command="UID FETCH 1:* (UID RFC822.SIZE)" result="OK`,
			`command="UID FETCH 7 (UID BODY.PEEK[])" result="NO zebra`, `command="UID STORE 7 +FLAGS.SILENT (\\Deleted)" error=`,
			`alert="OK [ALERT] mind`, `alert="OK [CONTACTADMIN]`, `alert="NO [ALERT] low on space`,
		} {
			if strings.Count(log, want) != 1 {
				s.Errorf("%q is not in the log once", want)
			}
		}
		if s.Failed() {
			s.Log(log)
		}
	})
	login := "S: * OK [CAPABILITY IMAP4rev1] x\nC: <l> LOGIN \"joe\" \"secret\"\nS: <l> NO " + echo + "\n" + bye
	play(t, "LOGIN", login, Options{}, func(s *session) {
		s.fails(s.openFails(), auth)
		if log := s.log.String(); strings.Contains(log, "secret") || !strings.Contains(log, "command=LOGIN result=") {
			s.Error(log)
		}
	})
}
