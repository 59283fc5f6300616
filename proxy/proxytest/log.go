package proxytest

import (
	"log/slog"
	"strings"
	"sync"
)

// Log records what is written to it: the records of a logger, or the output of a
// process. The zero value is empty and ready to use. It is safe for concurrent
// use.
type Log struct {
	mu   sync.Mutex
	text strings.Builder
}

// Logger returns a logger that writes records of all levels to l, each as a line
// of slog.TextHandler.
func (l *Log) Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Write implements io.Writer.
func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// String returns all that has been written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Lines returns the lines that contain all of parts, without their line ends.
func (l *Log) Lines(parts ...string) (found []string) {
	for line := range strings.Lines(l.String()) {
		has := true
		for _, part := range parts {
			has = has && strings.Contains(line, part)
		}
		if has {
			found = append(found, strings.TrimSpace(line))
		}
	}
	return found
}
