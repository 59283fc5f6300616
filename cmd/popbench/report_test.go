package main

import (
	"bytes"
	"io"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// measured returns a report in which each endpoint has one figure of a scenario,
// with one round for each value.
func measured(rtt time.Duration, variant, scenario, figure string, values map[string][]float64) *report {
	rep := &report{RTT: rtt, Variant: variant, Rounds: 1}
	for _, name := range []string{direct, "warm", "cold", ours, copied} {
		for i, v := range values[name] {
			if i == 0 && name != copied {
				rep.Endpoints = append(rep.Endpoints, endpoint{Name: name})
			}
			rep.Results = append(rep.Results, result{Scenario: scenario, Endpoint: name, Round: i + 1, Metrics: []metric{{figure, v}}})
		}
	}
	return rep
}

// TestComparison checks medians, the better peer, ratios and verdicts.
func TestComparison(t *testing.T) {
	c := comparison{
		measured(0, "", "login.c8", figSessions, map[string][]float64{direct: {1000}, "warm": {300}, "cold": {400}, ours: {790, 900, 100}}),
		measured(0, "", "list.10k", figRepeat, map[string][]float64{direct: {0.04}, "warm": {0.05}, "cold": {1.2}, ours: {0.02}}),
		measured(0, "", "retr.mix2k", figBytes, map[string][]float64{direct: {100}, "warm": {50}, ours: {200}}),
		measured(near, "", "retr.mix2k", figBytes, map[string][]float64{"warm": {1}, ours: {101}}),
		measured(near, "", "list.1k", figFirst, map[string][]float64{"warm": {22}, ours: {0.13}}),
		measured(far, tlsBoth, "login.c1", figPass, map[string][]float64{ours: {528}}),
		measured(0, "", "huge", figBytes, map[string][]float64{direct: {180}, ours: {700}, copied: {1000}}),
		measured(0, "", "dele", figQuit, map[string][]float64{direct: {0.04}, ours: {0.1}}),
		measured(0, tlsBoth, "idle.5000", figSessionPSS, map[string][]float64{direct: {500}, ours: {63.5}}),
		measured(0, "", "top", figMessages, map[string][]float64{ours: {5}}),
		measured(0, "", "poll.c16", figSessions, map[string][]float64{direct: {5}}),
	}
	var got bytes.Buffer
	if err := c.write(&got); err != nil {
		t.Fatal(err)
	}
	var rows []string
	for line := range strings.Lines(got.String()) {
		if strings.HasPrefix(line, "| ") {
			rows = append(rows, strings.Join(strings.Fields(line), " "))
		}
	}
	want := []string{
		"| scenario | figure | direct | peer | popgate | × direct | × peer | target | result |",
		"| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
		"| login.c8 | sessions/s | 1000 | 400 cold | 790 | 0.79 | 1.98 | ≥ 0.8 × direct | **missed** |",
		"| list.10k | repeat s | 0.04 | 0.05 warm | 0.02 | 2.00 | 2.50 | ≥ 2 × direct | met |",
		"| retr.mix2k | MB/s | 100 | 50.0 warm | 200 | 2.00 | 4.00 | | |",
		"| retr.mix2k, 20ms | MB/s | - | 1.00 warm | 101 | - | 101 | ≥ 0.5 × own at 0 ms (200) | met |",
		"| list.1k, 20ms | first s | - | 22.0 warm | 0.13 | - | 169 | < 7 R, is 6.50 R | met |",
		"| login.c1, 80ms, tls | PASS p50 ms | - | - | 528 | - | - | < 6.5 R, is 6.60 R | **missed** |",
		"| huge | MB/s | 180 | - | 700 | 3.89 | - | ≥ 0.8 × copy (1000) | **missed** |",
		"| dele | quit s | 0.04 | - | 0.1 | 0.4 | - | ≥ 0.4 × direct | met |",
		"| idle.5000, tls | KiB/session | 500 | - | 63.5 | 7.87 | - | < 64 | met |",
		"| top | msgs/s | - | - | 5.00 | - | - | ≥ 0.8 × direct | not measured |",
		"| poll.c16 | sessions/s | 5.00 | - | - | - | - | ≥ 0.8 × direct | **failed** |",
	}
	if d := cmp.Diff(want, rows); d != "" {
		t.Errorf("table (-want +got):\n%s", d)
	}
	if s := "5 targets met, 3 missed."; !strings.Contains(got.String(), s) {
		t.Errorf("no %q in\n%s", s, got.String())
	}
}

// TestComparisonFaults checks the list of faults under the table.
func TestComparisonFaults(t *testing.T) {
	rep := measured(0, "", "huge", figBytes, map[string][]float64{ours: {700}})
	rep.Results[0].Failed, rep.Results[0].Errors = 2, []string{"octets are missing"}
	rep.Results = append(rep.Results, result{Scenario: "dele", Endpoint: ours, Round: 1, Fatal: "connection reset"})
	var got bytes.Buffer
	if err := (comparison{rep}).write(&got); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"- huge on popgate, round 1: 2 wrong answers: octets are missing\n",
		"- dele on popgate, round 1: failed: connection reset\n",
	} {
		if !strings.Contains(got.String(), want) {
			t.Errorf("no %q in\n%s", want, got.String())
		}
	}
}

// TestTargets checks that each target is for an existing scenario and figure,
// and none is listed twice.
func TestTargets(t *testing.T) {
	seen := map[target]bool{}
	for _, tt := range targets {
		if !slices.ContainsFunc(scenarios(standard), func(s scenario) bool { return s.name == tt.scenario }) {
			t.Errorf("no scenario %s", tt.scenario)
		}
		if _, ok := compared[tt.figure]; !ok {
			t.Errorf("%s: figure %q is not compared", tt.scenario, tt.figure)
		}
		if tt.basis == roundTrips && tt.rtt == 0 {
			t.Errorf("%s: bound in round trips, without a delay", tt.scenario)
		}
		key := target{scenario: tt.scenario, figure: tt.figure, rtt: tt.rtt, variant: tt.variant}
		if seen[key] {
			t.Errorf("%s, %s: two targets", tt.scenario, tt.figure)
		}
		seen[key] = true
	}
}

// TestMeasure checks that endpoints alternate, that a broken one is given up,
// and that a report survives writing and reading.
func TestMeasure(t *testing.T) {
	var order []string
	fake := scenario{
		name: "fake",
		run: func(e *env) error {
			order = append(order, e.ep.Name)
			if e.ep.Name == "b" {
				return io.ErrUnexpectedEOF
			}
			e.put(figSessions, float64(len(order)))
			e.put("nothing", math.NaN())
			return nil
		},
		reference: func(*env) error { order = append(order, copied); return nil },
	}
	rep := &report{Rounds: 2, RTT: near, Variant: kept, Settings: settings{CopyFrom: "x"},
		Endpoints: []endpoint{{Name: "a"}, {Name: "b"}, {Name: "c", TLS: true}}}
	rep.measure([]scenario{fake}, progress{io.Discard})
	if want := []string{copied, "a", "b", "c", copied, "c", "a"}; !slices.Equal(order, want) {
		t.Errorf("order %q, want %q", order, want)
	}
	if v := rep.value("fake", "a", figSessions); v != 4.5 {
		t.Errorf("median of a is %v, want 4.5", v)
	}
	if f := rep.faults(); len(f) != 1 {
		t.Errorf("faults: %q", f)
	}
	path := filepath.Join(t.TempDir(), "r.json")
	if err := rep.writeJSON(path); err != nil {
		t.Fatal(err)
	}
	again, err := readReport(path)
	if err != nil {
		t.Fatal(err)
	}
	rep.Settings.CopyFrom = "" // not written
	if d := cmp.Diff(rep, again); d != "" {
		t.Errorf("read back (-written +read):\n%s", d)
	}
}

// TestReportTable checks the ratios to the first endpoint.
func TestReportTable(t *testing.T) {
	rep := measured(0, "", "huge", figBytes, map[string][]float64{direct: {200}, ours: {700}, copied: {1000}})
	rep.Settings.CopyFrom = "x"
	var got bytes.Buffer
	if err := rep.writeTable(&got); err != nil {
		t.Fatal(err)
	}
	want := "| scenario | figure | direct | popgate    | copy        |\n" +
		"| ---      | ---    | ---    | ---        | ---         |\n" +
		"| huge     | MB/s   | 200    | 700 (x3.50) | 1000 (x5.00) |\n"
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	if squeeze(got.String()) != squeeze(want) {
		t.Errorf("got\n%swant\n%s", got.String(), want)
	}
}
