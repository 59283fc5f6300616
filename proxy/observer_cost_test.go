package proxy

import (
	"context"
	"io"
	"log/slog"
	"testing"
)

// noop is a Backend without users, and an Observer that does nothing.
type noop struct{}

func (noop) Login(context.Context, Credential) (Login, error) { return nil, ErrAuth }

func (noop) SessionStarted(*Record)             {}
func (noop) StateEntered(*Record)               {}
func (noop) LoginDone(*Record, LoginRecord)     {}
func (noop) CommandDone(*Record, CommandRecord) {}
func (noop) SessionEnded(*Record)               {}
func (noop) ConnectionRefused(Refusal)          {}
func (noop) UpstreamChanged(UpstreamEvent)      {}

// silentSession is a session in TRANSACTION whose replies nobody reads.
func silentSession(tb testing.TB, o Observer) *session {
	srv, err := NewServer(Options{Backend: noop{}, Logger: slog.New(slog.DiscardHandler), Observer: o})
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
}{{"none", nil}, {"observer", noop{}}}

// TestObserverAllocates shows that an Observer costs no allocation, whether or
// not there is one.
func TestObserverAllocates(t *testing.T) {
	for _, tt := range observers {
		s := silentSession(t, tt.observer)
		n := testing.AllocsPerRun(1000, func() {
			if err := s.execute("NOOP", nil); err != nil {
				t.Fatal(err)
			}
			s.enter(StateTransaction)
			s.loginDone(0, nil)
		})
		if n > 0 {
			t.Errorf("%s: %v allocations for each command", tt.name, n)
		}
	}
}

// BenchmarkCommand is the least that a command costs.
func BenchmarkCommand(b *testing.B) {
	for _, tt := range observers {
		b.Run(tt.name, func(b *testing.B) {
			s := silentSession(b, tt.observer)
			b.ReportAllocs()
			for b.Loop() {
				if err := s.execute("NOOP", nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
