package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Variants of the set-up that a report can be about.
const (
	tlsBoth = "tls"  // TLS between client and gateway, and gateway and upstream
	kept    = "kept" // the gateway keeps upstream connections between sessions
)

// copied is the name of the endpoint in results of a scenario's reference.
const copied = "copy"

// result is one run of one scenario.
type result struct {
	Scenario string   `json:"scenario"`
	Endpoint string   `json:"endpoint"`
	Round    int      `json:"round"`
	Metrics  []metric `json:"metrics"`
	Failed   int      `json:"failed"`           // number of wrong answers that did not end it
	Errors   []string `json:"errors,omitempty"` // the first of them
	Fatal    string   `json:"fatal,omitempty"`  // what ended it
}

// report is what one run of popbench has measured.
type report struct {
	Started   time.Time     `json:"started"`
	CPUs      int           `json:"cpus"`
	Go        string        `json:"go"`
	RTT       time.Duration `json:"rtt_ns"`            // between gateways and upstream
	Variant   string        `json:"variant,omitempty"` // "", tls or kept
	Settings  settings      `json:"settings"`
	Rounds    int           `json:"rounds"`
	Endpoints []endpoint    `json:"endpoints"`
	Results   []result      `json:"results"`
}

// once runs a scenario, or its reference, and logs the result.
func once(name string, run func(*env) error, ep endpoint, s settings, g *generator, round int, log progress) result {
	e := &env{settings: s, ep: ep, gen: g, tag: fmt.Sprintf("t%x", time.Now().UnixNano()), log: log}
	start := time.Now()
	r := result{Scenario: name, Endpoint: ep.Name, Round: round}
	if err := run(e); err != nil {
		r.Fatal = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	r.Metrics, r.Failed, r.Errors = e.metrics, e.failed, e.errs
	var figures strings.Builder
	for _, m := range r.Metrics {
		if _, ok := compared[m.Name]; ok {
			fmt.Fprintf(&figures, "  %s %s", m.Name, short(m.Value))
		}
	}
	log.printf("%-18s %-8s round %d %5.1f s%s", name, ep.Name, round, time.Since(start).Seconds(), figures.String())
	if r.Failed > 0 {
		log.printf("  %d wrong answers: %s", r.Failed, strings.Join(r.Errors, " | "))
	}
	if r.Fatal != "" {
		log.printf("  FAILED: %s", r.Fatal)
	}
	return r
}

// measure runs all scenarios for rep.Rounds rounds. Each round starts with
// another endpoint.
func (rep *report) measure(all []scenario, log progress) {
	rep.Started = time.Now().UTC().Truncate(time.Second)
	rep.CPUs, rep.Go = runtime.NumCPU(), runtime.Version()
	g := newGenerator(rep.Settings.Seed)
	for i, s := range all {
		log.printf("scenario %d/%d: %s", i+1, len(all), s.name)
		broken := map[string]bool{} // not tried again
		for round := 1; round <= rep.Rounds; round++ {
			if s.reference != nil && rep.Settings.CopyFrom != "" {
				ep := endpoint{Name: copied}
				rep.Results = append(rep.Results, once(s.name, s.reference, ep, rep.Settings, g, round, log))
			}
			for i := range rep.Endpoints {
				ep := rep.Endpoints[(i+round-1)%len(rep.Endpoints)]
				if broken[ep.Name] {
					continue
				}
				r := once(s.name, s.run, ep, rep.Settings, g, round, log)
				broken[ep.Name] = r.Fatal != ""
				rep.Results = append(rep.Results, r)
			}
		}
	}
}

// medians returns the median over all rounds for each figure of a scenario at an
// endpoint, and the names of the figures in order.
func (rep *report) medians(scenario, name string) (figures []string, values map[string]float64) {
	all := map[string][]float64{}
	for _, r := range rep.Results {
		if r.Scenario != scenario || r.Endpoint != name || r.Fatal != "" {
			continue
		}
		for _, m := range r.Metrics {
			if all[m.Name] == nil {
				figures = append(figures, m.Name)
			}
			all[m.Name] = append(all[m.Name], m.Value)
		}
	}
	values = map[string]float64{}
	for figure, v := range all {
		values[figure] = median(v)
	}
	return figures, values
}

// scenarios returns the names of the measured scenarios, in order.
func (rep *report) scenarios() []string {
	var names []string
	for _, r := range rep.Results {
		if !slices.Contains(names, r.Scenario) {
			names = append(names, r.Scenario)
		}
	}
	return names
}

// median returns the median of v, which must not be empty: the mean of the
// middle two for an even number of values.
func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

// faults describes the runs that went wrong.
func (rep *report) faults() []string {
	var faults []string
	for _, r := range rep.Results {
		what := fmt.Sprintf("%s on %s, round %d", r.Scenario, r.Endpoint, r.Round)
		if r.Fatal != "" {
			faults = append(faults, fmt.Sprintf("%s: failed: %s", what, r.Fatal))
		} else if r.Failed > 0 {
			faults = append(faults, fmt.Sprintf("%s: %d wrong answers: %s", what, r.Failed, r.Errors[0]))
		}
	}
	return faults
}

// writeTable writes every figure as a Markdown table, with the ratio to the
// first endpoint.
func (rep *report) writeTable(w io.Writer) error {
	t := table{head: []string{"scenario", "figure"}}
	names := make([]string, 0, len(rep.Endpoints)+1)
	for _, ep := range rep.Endpoints {
		names = append(names, ep.Name)
	}
	if rep.Settings.CopyFrom != "" {
		names = append(names, copied)
	}
	t.head = append(t.head, names...)
	for _, s := range rep.scenarios() {
		medians := make([]map[string]float64, len(names))
		var figures []string
		for i, name := range names {
			var more []string
			more, medians[i] = rep.medians(s, name)
			for _, f := range more {
				if !slices.Contains(figures, f) {
					figures = append(figures, f)
				}
			}
		}
		for _, figure := range figures {
			row := []string{s, figure}
			for i := range names {
				row = append(row, ratioCell(medians[i], medians[0], figure, i > 0))
			}
			t.rows = append(t.rows, row)
		}
	}
	return t.write(w)
}

func ratioCell(values, base map[string]float64, figure string, ratio bool) string {
	v, ok := values[figure]
	if !ok {
		return short(math.NaN())
	}
	cell := short(v)
	if b := base[figure]; ratio && b != 0 {
		cell += fmt.Sprintf(" (x%s)", short(v/b))
	}
	return cell
}

// writeJSON stores the report.
func (rep *report) writeJSON(path string) error {
	b, err := json.MarshalIndent(rep, "", " ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// readReport reads what writeJSON has stored.
func readReport(path string) (*report, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	rep := new(report)
	if err := json.Unmarshal(b, rep); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return rep, nil
}
