package main

import (
	"fmt"
	"math"
	"strings"
)

// Names of the figures that the comparison shows. The last word of a name is its
// unit.
const (
	figSessions   = "sessions/s"
	figPass       = "PASS p50 ms"       // from connect to the answer of PASS
	figSession    = "session p50 ms"    // from connect to the answer of QUIT
	figSessionCPU = "cpu s/1k sessions" // processor seconds of the server under test
	figFirst      = "first s"
	figRepeat     = "repeat s"
	figMessages   = "msgs/s"
	figBytes      = "MB/s" // millions of octets on the wire
	figByteCPU    = "cpu s/GB"
	figFirstOctet = "first octet s" // from RETR
	figPeakPSS    = "peak PSS MiB"
	figQuit       = "quit s"
	figDeleQuit   = "dele+quit s"
	figSessionPSS = "KiB/session" // growth of PSS
)

// compared says of each figure in the comparison whether more is better.
var compared = map[string]bool{
	figSessions:   true,
	figPass:       false,
	figSession:    false,
	figSessionCPU: false,
	figFirst:      false,
	figRepeat:     false,
	figMessages:   true,
	figBytes:      true,
	figByteCPU:    false,
	figFirstOctet: false,
	figPeakPSS:    false,
	figQuit:       false,
	figDeleQuit:   false,
	figSessionPSS: false,
}

// timesBetter returns how many times as good as base v is.
func timesBetter(figure string, v, base float64) float64 {
	if compared[figure] {
		return v / base
	}
	return base / v
}

// seconds converts a figure that is a time.
func seconds(figure string, v float64) float64 {
	if strings.HasSuffix(figure, " ms") {
		return v / 1000
	}
	return v
}

// short formats v with three digits, or with all those before its point.
func short(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "-"
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 1 || a == 0:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.2g", v)
}
