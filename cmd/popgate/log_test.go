package main

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"popgate/cmd/popgate/config"
)

// O-LOG-2: durations have a unit, in both formats.
func TestLogDurations(t *testing.T) {
	for format, want := range map[bool]string{false: "took=1.5s wait=2m0s\n", true: `"took":"1.5s","wait":"2m0s"}` + "\n"} {
		var b bytes.Buffer
		newLogger(&b, config.Log{JSON: format}).With("took", 1500*time.Millisecond).Info("x", slog.Duration("wait", 2*time.Minute))
		if !strings.HasSuffix(b.String(), want) {
			t.Errorf("got %s, want %s", b.String(), want)
		}
	}
}
