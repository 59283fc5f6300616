package imapbackend

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// The Observer is informed once of each connection that is opened, kept,
// reused, replaced or closed, with the cause if it was lost.
func TestObserver(t *testing.T) {
	lost := opened + "C: <x> UID FETCH 7 (UID BODY.PEEK[])\nX:\n"
	cut := opened + "C: <x> UID FETCH 7 (UID BODY.PEEK[])\nW:\n"
	for _, tt := range []struct {
		name, script string
		opts         Options
		drive        func(s *session)
		want         string
	}{
		{"a session", opened + bye, Options{}, func(s *session) { s.open().Close() },
			"opened: ok, closed: ok"},
		{"a refused login", greeted + "C: <l> AUTHENTICATE PLAIN " + ir + "\nS: <l> NO [AUTHENTICATIONFAILED] x\n" + bye, Options{}, func(s *session) {
			s.openFails()
		}, "opened: ok, closed: ok"},
		{"a refused connection", "S: * BYE x\n", Options{}, func(s *session) { s.openFails() },
			"opened: SYS/TEMP"},
		{"no connection", "S: * BYE x\n", Options{}, func(s *session) {
			s.b.dial = func(context.Context) (net.Conn, error) { return nil, errors.New("no route") }
			s.openFails()
			s.b.dial = s.up.Dial
			s.openFails()
		}, "opened: SYS/TEMP, opened: SYS/TEMP"},
		{"lost and replaced", lost + another + reselected + retr + hello + bye, Options{}, func(s *session) {
			d := s.open()
			s.text(d.Read(s.ctx, 7))
			d.Close()
		}, "opened: ok, opened: ok, closed: SYS/TEMP, replaced: ok, closed: ok"},
		{"lost and not replaced", lost + another + "S: * BYE x\n", Options{}, func(s *session) {
			d := s.open()
			if _, err := d.Read(s.ctx, 7); err == nil {
				s.Error("no error")
			}
			d.Close()
		}, "opened: ok, opened: SYS/TEMP, replaced: SYS/TEMP, closed: SYS/TEMP"},
		{"cut by the gateway", cut, Options{}, func(s *session) {
			d := s.open()
			ctx, cancel := context.WithTimeout(s.ctx, time.Second)
			defer cancel()
			if _, err := d.Read(ctx, 7); err == nil {
				s.Error("no error")
			}
			d.Close()
		}, "opened: ok, closed: ok"},
		{"kept", reopened("S: <u> OK x\n") + bye, keeping, func(s *session) {
			quit(s.T, s.open())
			s.after(time.Second)
			s.open().Close()
		}, "opened: ok, kept: ok, reused: ok, closed: ok"},
		{"kept but dead, and refused", openedKeep + leaving + "X:\n" + newDial + greeted +
			"C: <l> AUTHENTICATE PLAIN " + ir + "\nS: <l> NO [AUTHENTICATIONFAILED] x\n" + bye, keeping, func(s *session) {
			quit(s.T, s.open())
			s.after(time.Second)
			s.openFails()
		}, "opened: ok, kept: ok, reused: ok, closed: SYS/TEMP, opened: ok, closed: ok"},
		{"kept and not reused", openedKeep + leaving + dismissed, keeping, func(s *session) {
			quit(s.T, s.open())
			s.after(2 * keepOpen)
		}, "opened: ok, kept: ok, closed: ok"},
	} {
		o := new(proxytest.Observer)
		tt.opts.Observer = o
		play(t, tt.name, tt.script, tt.opts, func(s *session) {
			tt.drive(s)
			var got []string
			for _, e := range o.Events() {
				got = append(got, strings.TrimPrefix(e, "zebra.example.net "))
			}
			if want := strings.Split(tt.want, ", "); !slices.Equal(got, want) {
				s.Errorf("%s: %q, want %q", tt.name, got, want)
			}
		})
	}
}

// A maildrop reports whether its connection was dialled, prepared or kept.
func TestSource(t *testing.T) {
	source := func(s *session, d proxy.Maildrop, want proxy.Source) {
		if got := d.(proxy.Sourced).Source(); got != want {
			s.Errorf("source %q, want %q", got, want)
		}
	}
	play(t, "dialled, then kept", reopened("S: <u> OK x\n")+bye, keeping, func(s *session) {
		d := s.open()
		source(s, d, proxy.SourceDialed)
		quit(s.T, d)
		s.after(time.Second)
		d = s.open()
		source(s, d, proxy.SourceKept)
		d.Close()
	})
	play(t, "prepared", opened+bye, Options{}, func(s *session) {
		l, err := s.b.Prepare(s.ctx, proxy.Caller{}).Login(s.ctx, joe)
		if err != nil {
			s.Fatal(err)
		}
		d, err := l.Open(s.ctx)
		if err != nil {
			s.Fatal(err)
		}
		source(s, d, proxy.SourcePrepared)
		d.Close()
	})
	play(t, "kept but dead", openedKeep+leaving+"X:\n"+newDial+greetedKeep+strings.TrimPrefix(again, "C: <n> NOOP\n")+openedWarm+bye, keeping, func(s *session) {
		quit(s.T, s.open())
		s.after(time.Second)
		d := s.open()
		source(s, d, proxy.SourceDialed)
		d.Close()
	})
}

// connectTimes records how long the attempts to connect took.
type connectTimes struct {
	proxytest.Observer
	elapsed []time.Duration
}

func (o *connectTimes) UpstreamChanged(e proxy.UpstreamEvent) {
	if e.Kind == proxy.UpstreamOpened {
		o.elapsed = append(o.elapsed, e.Elapsed)
	}
}

// TestObserverElapsed: the time that an event gives for a new connection is that
// until its greeting.
func TestObserverElapsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newModel()
		m.RTT = rtt
		o := new(connectTimes)
		b := m.backend(t, Options{Observer: o})
		openMaildrop(t, b).Close()
		// TCP, and half a trip until the greeting.
		if want := []time.Duration{rtt + rtt/2}; !slices.Equal(o.elapsed, want) {
			t.Errorf("elapsed %v, want %v", o.elapsed, want)
		}
	})
}
