package imapbackend

import (
	"strings"
	"testing"
	"time"

	"popgate/imapbackend/upstream"
)

const noop = "C: <k> NOOP\nS: <k> OK x\n"

// I-KEEP-1, I-KEEP-2: the upstream gets NOOP after each four idle minutes.
func TestKeepAlive(t *testing.T) {
	play(t, "I-KEEP-1 twice", opened+noop+noop+bye, Options{}, func(s *session) {
		s.open()
		s.after(keepAlive - time.Second)
		if n := strings.Count(strings.Join(s.up.Commands(), "\n"), "NOOP"); n != 0 {
			s.Errorf("%d NOOP too early", n)
		}
		s.after(time.Second)
		s.after(keepAlive)
		if n := strings.Count(strings.Join(s.up.Commands(), "\n"), "NOOP"); n != 2 {
			s.Errorf("%d NOOP, want 2", n)
		}
	})
	play(t, "I-KEEP-1 a command restarts the time", opened+retr+"S: * 1 FETCH (UID 7 BODY[] \"a\")\nS: <r> OK x\n"+noop+bye, Options{}, func(s *session) {
		d := s.open()
		s.after(keepAlive - time.Second)
		s.text(d.Read(s.ctx, 7))
		s.after(keepAlive - time.Second)
		if n := strings.Count(strings.Join(s.up.Commands(), "\n"), "NOOP"); n != 0 {
			s.Errorf("%d NOOP too early", n)
		}
		s.after(time.Second)
	})
	play(t, "I-KEEP-1 not during a body", opened+retr+"S: * 1 FETCH (UID 7 BODY[] {200000}\nS*: 200000 x\nS: )\nS: <r> OK x\n"+noop+bye, Options{}, func(s *session) {
		d := s.open()
		body, err := d.Read(s.ctx, 7)
		if err != nil {
			s.Fatal(err)
		}
		s.after(3 * keepAlive) // the client is slow
		if n, err := body.WriteTo(&slowWriter{}); n != 200000 || err != nil {
			s.Errorf("%d octets, %v", n, err)
		}
		body.Close()
		s.after(keepAlive)
	})
	play(t, "I-KEEP-1 continues after NO, not after BAD", opened+strings.Replace(noop, "OK", "NO", 1)+strings.Replace(noop, "OK", "BAD", 1)+bye, Options{}, func(s *session) {
		s.open()
		s.after(10 * keepAlive)
	})
	play(t, "I-KEEP-1 lost at the NOOP, reported later", opened+"C: <k> NOOP\nS: * BYE [CONTACTADMIN] zebra\nX:\n", Options{}, func(s *session) {
		d := s.open()
		s.after(2 * keepAlive)
		_, err := d.Read(s.ctx, 7)
		s.fails(err, perm)
		if len(d.Messages()) != 1 {
			s.Error("the snapshot has changed")
		}
	})
	play(t, "I-KEEP-2 NOOP without answer", "D: 1h\n"+opened+"C: <k> NOOP\nW:\n", Options{}, func(s *session) {
		d, began := s.open(), time.Now()
		s.after(keepAlive)
		_, err := d.Read(s.ctx, 7) // waits for the NOOP
		s.fails(err, temp)
		if d := time.Since(began) - keepAlive - probeTimeout; d < 0 || d > reconnectJitter {
			s.Errorf("%v late", d)
		}
	})
	play(t, "a command waits for the NOOP", opened+"C: <k> NOOP\nT: 10s\nS: <k> OK x\n"+retr+"S: * 1 FETCH (UID 7 BODY[] \"a\")\nS: <r> OK x\n"+bye, Options{}, func(s *session) {
		d := s.open()
		s.after(keepAlive)
		if got := s.text(d.Read(s.ctx, 7)); got != "a" {
			s.Errorf("message %q", got)
		}
	})
	play(t, "no NOOP after Close", opened+bye, Options{}, func(s *session) {
		s.open().Close()
		s.after(3 * keepAlive)
	})
}

// The end of a session waits at most two seconds for the upstream.
func TestNoLogoutHang(t *testing.T) {
	for _, tt := range []struct {
		name, script string
		idle         time.Duration
		took         time.Duration
	}{
		{"LOGOUT answered", opened + bye, 0, 0},
		{"LOGOUT answered by BYE, then closed", opened + "C: <z> LOGOUT\nS: * BYE x\nX:\n", 0, 0},
		{"LOGOUT closes", opened + "C: <z> LOGOUT\nX:\n", 0, 0},
		{"LOGOUT without answer", opened + "C: <z> LOGOUT\nW:\n", 0, upstream.LogoutTimeout},
		{"LOGOUT with BYE only", opened + "C: <z> LOGOUT\nS: * BYE x\nW:\n", 0, upstream.LogoutTimeout},
		{"LOGOUT among other responses", opened + "C: <z> LOGOUT\nS: * 5 EXISTS\nT: 1s\nS: * 1 EXPUNGE\nT: 2s\nW:\n", 0, upstream.LogoutTimeout},
		{"Close while NOOP runs", opened + "C: <k> NOOP\nT: 1s\nS: <k> OK x\n" + bye, keepAlive, time.Second},
		{"Close while NOOP hangs", opened + "C: <k> NOOP\nW:\n", keepAlive, upstream.LogoutTimeout},
	} {
		play(t, tt.name, tt.script, Options{}, func(s *session) {
			d := s.open()
			if tt.idle > 0 {
				s.after(tt.idle)
			}
			began := time.Now()
			if err := d.Close(); err != nil {
				s.Errorf("Close: %v", err)
			}
			if took := time.Since(began); took != tt.took {
				s.Errorf("took %v, want %v", took, tt.took)
			}
			if err := d.Close(); err != nil { // it may be called again
				s.Errorf("Close again: %v", err)
			}
		})
	}
	play(t, "after a refused login", greeted+"C: <l> AUTHENTICATE PLAIN "+ir+"\nS: <l> NO zebra\nC: <z> LOGOUT\nW:\n", Options{}, func(s *session) {
		began := time.Now()
		s.fails(s.openFails(), auth)
		if took := time.Since(began); took != upstream.LogoutTimeout {
			s.Errorf("took %v", took)
		}
	})
}
