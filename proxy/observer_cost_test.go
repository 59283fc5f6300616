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

// discardSession returns a session in TRANSACTION whose replies are discarded.
func discardSession(tb testing.TB, o Observer) *session {
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

// TestObserverAllocations shows that a command allocates nothing, with or without
// an Observer.
func TestObserverAllocations(t *testing.T) {
	for _, tt := range observers {
		s := discardSession(t, tt.observer)
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

// BenchmarkCommand measures the minimal cost of a command.
func BenchmarkCommand(b *testing.B) {
	for _, tt := range observers {
		b.Run(tt.name, func(b *testing.B) {
			s := discardSession(b, tt.observer)
			b.ReportAllocs()
			for b.Loop() {
				if err := s.execute("NOOP", nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
