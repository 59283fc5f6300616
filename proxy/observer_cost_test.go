package proxy

import (
	"context"
	"io"
	"log/slog"
	"testing"
)

// nobody is a Backend without users, and an Observer that does nothing.
type nobody struct{}

func (nobody) Login(context.Context, Credential) (Login, error) { return nil, ErrAuth }

func (nobody) SessionStarted(*Record)             {}
func (nobody) StateEntered(*Record)               {}
func (nobody) LoginDone(*Record, LoginRecord)     {}
func (nobody) CommandDone(*Record, CommandRecord) {}
func (nobody) SessionEnded(*Record)               {}
func (nobody) ConnectionRefused(Refusal)          {}
func (nobody) UpstreamChanged(UpstreamEvent)      {}

// silentSession is a session in TRANSACTION whose replies nobody reads.
func silentSession(tb testing.TB, o Observer) *session {
	srv, err := NewServer(Options{Backend: nobody{}, Logger: slog.New(slog.DiscardHandler), Observer: o})
	if err != nil {
		tb.Fatal(err)
	}
	s := &session{srv: srv, ctx: tb.Context(), log: srv.opts.Logger, record: Record{State: StateTransaction}}
	s.w.setDst(io.Discard, plainBuffers)
	return s
}

var observers = []struct {
	name     string
	observer Observer
}{{"none", nil}, {"observer", nobody{}}}

// TestObserverAllocates shows that an Observer costs no allocation, whether or
// not there is one.
func TestObserverAllocates(t *testing.T) {
	for _, c := range observers {
		s := silentSession(t, c.observer)
		n := testing.AllocsPerRun(1000, func() {
			if err := s.execute("NOOP", nil); err != nil {
				t.Fatal(err)
			}
			s.enter(StateTransaction)
			s.loginDone(0, nil)
		})
		if n > 0 {
			t.Errorf("%s: %v allocations for each command", c.name, n)
		}
	}
}

// BenchmarkCommand is the least that a command costs.
func BenchmarkCommand(b *testing.B) {
	for _, c := range observers {
		b.Run(c.name, func(b *testing.B) {
			s := silentSession(b, c.observer)
			b.ReportAllocs()
			for b.Loop() {
				if err := s.execute("NOOP", nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
