package imapbackend

import (
	"strings"
	"testing"
	"time"

	"popgate/proxy"
)

// I-LOGIN-10, M-3: a wrong password that is repeated within a minute is refused like
// the first time, without asking the upstream; not another one, nor after a success of
// that name, and not one whose refusal blamed something else.
func TestRepeatedPassword(t *testing.T) {
	const no = "S: <l> NO [AUTHENTICATIONFAILED] zebra\n" + bye
	wrong := proxy.Credential{Username: "joe", Password: "wrong"}
	asked := func(n int, answer string) string {
		script := greeted + "C: <l> AUTHENTICATE PLAIN AGpvZQB3cm9uZw==\n" + answer
		if n == 1 {
			return script
		}
		return next(n, script)
	}
	right := func(n int) string {
		return next(n, greeted+"C: <l> AUTHENTICATE PLAIN "+ir+"\nS: <l> OK [CAPABILITY IMAP4rev1] x\n"+bye)
	}
	try := func(s *session, cred proxy.Credential, want proxy.Code) {
		s.Helper()
		l, err := s.b.Login(s.ctx, cred)
		if err == nil {
			l.Close()
		}
		if got := proxy.Code(""); err != nil {
			if got = proxy.AsError(err).Code; got != want || want == auth && proxy.AsError(err).Text != proxy.ErrAuth.Text {
				s.Errorf("%v, want %s", err, want)
			}
		} else if want != got {
			s.Errorf("logged in, want %s", want)
		}
	}
	play(t, "repeated", asked(1, no), Options{}, func(s *session) {
		for range 10 {
			try(s, wrong, auth)
		}
		if _, err := s.b.Login(s.ctx, wrong); !strings.Contains(err.Error(), "has refused the same password 0s ago") {
			s.Errorf("cause: %v", err)
		}
	})
	play(t, "for a minute", asked(1, no)+asked(2, no), Options{}, func(s *session) {
		try(s, wrong, auth)
		<-time.After(time.Minute)
		try(s, wrong, auth)
	})
	play(t, "after a success", asked(1, no)+right(2)+asked(3, no), Options{}, func(s *session) {
		try(s, wrong, auth)
		try(s, joe, "")
		try(s, wrong, auth)
	})
	for _, answer := range []string{"NO [UNAVAILABLE] zebra", "NO too many connections"} {
		play(t, answer, asked(1, "S: <l> "+answer+"\n"+bye)+asked(2, no), Options{}, func(s *session) {
			if _, err := s.b.Login(s.ctx, wrong); err == nil || proxy.AsError(err).Code == auth {
				s.Error(err)
			}
			try(s, wrong, auth)
		})
	}
}
