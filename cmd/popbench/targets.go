package main

import (
	"fmt"
	"math"
	"time"
)

// basis is what a target is measured against.
type basis string

const (
	timesDirect basis = "direct"
	timesPeer   basis = "peer"
	timesCopy   basis = "copy"
	timesOwn    basis = "own at 0 ms" // the same scenario without delay
	roundTrips  basis = "R"           // an upper bound in round trips to the upstream
	absolute    basis = ""            // an upper bound in the figure's unit
)

// target is the bound that popgate should meet in one figure of one scenario.
type target struct {
	scenario string
	figure   string
	rtt      time.Duration // between gateway and upstream
	variant  string        // as report.Variant
	bound    float64
	basis    basis
}

const (
	near = 20 * time.Millisecond
	far  = 80 * time.Millisecond
)

// targets holds each combination of scenario, delay, variant and figure at most
// once. Bounds with a half round trip leave that half for work at both ends:
// below 1.5 R means that there is one round trip, since two would take 2 R.
var targets = []target{
	{"list.10k", figFirst, 0, "", 1, timesDirect},
	{"list.100k", figFirst, 0, "", 1, timesDirect},
	{"list.10k", figRepeat, 0, "", 2, timesDirect},
	{"list.100k", figRepeat, 0, "", 2, timesDirect},
	{"list.1k", figFirst, near, "", 7, roundTrips},
	{"list.1k", figFirst, far, "", 7, roundTrips},

	{"retr.small10k", figMessages, 0, "", 1, timesDirect},
	{"retr.small10k.pipe", figMessages, 0, "", 0.8, timesDirect},
	{"retr.mix2k", figMessages, 0, "", 1.5, timesDirect},
	{"retr.mix2k.pipe", figMessages, 0, "", 1.5, timesDirect},
	{"retr.small10k", figMessages, near, "", 20, timesPeer},
	{"retr.small10k", figMessages, far, "", 20, timesPeer},
	{"retr.small10k.pipe", figMessages, near, "", 20, timesPeer},
	{"retr.small10k.pipe", figMessages, far, "", 20, timesPeer},
	{"retr.mix2k", figMessages, near, "", 20, timesPeer},
	{"retr.mix2k", figMessages, far, "", 20, timesPeer},
	{"retr.mix2k.pipe", figMessages, near, "", 20, timesPeer},
	{"retr.mix2k.pipe", figMessages, far, "", 20, timesPeer},
	{"retr.mix2k", figBytes, near, "", 0.5, timesOwn},
	{"retr.mix2k", figBytes, far, "", 0.5, timesOwn},
	{"retr.mix2k.pipe", figBytes, near, "", 0.5, timesOwn},
	{"retr.mix2k.pipe", figBytes, far, "", 0.5, timesOwn},

	{"top", figMessages, 0, "", 0.8, timesDirect},
	{"top.pipe", figMessages, 0, "", 0.5, timesDirect},
	{"top", figMessages, near, "", 50, timesPeer},
	{"top.pipe", figMessages, near, "", 50, timesPeer},

	{"huge", figBytes, 0, "", 0.8, timesCopy},
	{"huge", figPeakPSS, 0, "", 32, absolute},
	{"huge", figFirstOctet, near, "", 1.5, roundTrips},
	{"huge", figFirstOctet, far, "", 1.5, roundTrips},

	{"login.c8", figSessions, 0, "", 0.8, timesDirect},
	{"login.c64", figSessions, 0, "", 0.8, timesDirect},
	{"login.c8", figSessions, 0, kept, 2, timesDirect},
	{"login.c64", figSessions, 0, kept, 2, timesDirect},
	{"login.c8", figSessionCPU, 0, "", 2, timesPeer},
	{"login.c64", figSessionCPU, 0, "", 2, timesPeer},
	{"poll.c16", figSessions, 0, "", 0.8, timesDirect},
	{"poll.c16", figSessions, 0, kept, 2, timesDirect},
	{"login.c1", figPass, far, "", 5.5, roundTrips},
	{"login.c1", figPass, far, tlsBoth, 6.5, roundTrips},
	{"login.c1", figPass, far, kept, 1.5, roundTrips},

	{"idle.5000", figSessionPSS, 0, "", 32, absolute},
	{"idle.5000", figSessionPSS, 0, tlsBoth, 64, absolute},

	{"dele", figDeleQuit, 0, "", 1, timesDirect},
	{"dele", figQuit, 0, "", 0.4, timesDirect},
	{"dele", figDeleQuit, far, "", 6, roundTrips},

	{"slow", figQuit, near, "", 15, absolute},
}

// findTarget returns the target of a figure, if it has one.
func findTarget(scenario, figure string, rtt time.Duration, variant string) (target, bool) {
	for _, t := range targets {
		if t.scenario == scenario && t.figure == figure && t.rtt == rtt && t.variant == variant {
			return t, true
		}
	}
	return target{}, false
}

// String returns the bound as the table shows it.
func (t target) String() string {
	switch t.basis {
	case roundTrips:
		return fmt.Sprintf("< %v R", t.bound)
	case absolute:
		return fmt.Sprintf("< %v", t.bound)
	}
	return fmt.Sprintf("≥ %v × %s", t.bound, t.basis)
}

// verdict compares v with the target; base is the value that t.basis names, if
// it names one. What could not be measured is NaN.
func (t target) verdict(v, base float64) string {
	if math.IsNaN(v) {
		return "**failed**"
	}
	var met bool
	switch t.basis {
	case roundTrips:
		met = seconds(t.figure, v) < t.bound*t.rtt.Seconds()
	case absolute:
		met = v < t.bound
	default:
		if math.IsNaN(base) {
			return "not measured"
		}
		const rounding = 1e-9
		met = timesBetter(t.figure, v, base) >= t.bound-rounding
	}
	if met {
		return "met"
	}
	return "**missed**"
}
