package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
)

// table is a Markdown table.
type table struct {
	head []string
	rows [][]string
}

// write aligns the columns. In the first one it leaves out what repeats the row
// above.
func (t table) write(w io.Writer) error {
	tw := tabwriter.NewWriter(w, 0, 0, 1, ' ', 0)
	line := func(cells []string) { fmt.Fprintf(tw, "| %s\t|\n", strings.Join(cells, "\t| ")) }
	line(t.head)
	line(strings.Split(strings.Repeat("--- ", len(t.head)-1)+"---", " "))
	last := ""
	for _, row := range t.rows {
		cells := append([]string(nil), row...)
		if cells[0] == last {
			cells[0] = ""
		}
		last = row[0]
		line(cells)
	}
	return tw.Flush()
}

// Names of the endpoints that the comparison knows. For each figure, the peer is
// the better of its two variants.
const (
	direct = "direct"
	ours   = "popgate"
)

var peers = []string{"warm", "cold"}

func tableCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "table FILE...",
		Short: "Compare direct, warm, cold and popgate in files written by run, and with the targets",
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var c comparison
			for _, path := range args {
				rep, err := readReport(path)
				if err != nil {
					return err
				}
				c = append(c, rep)
			}
			return c.write(cmd.OutOrStdout())
		},
	}
}

// comparison is a set of reports that belong together.
type comparison []*report

// write writes one table for all reports, and below it what went wrong.
func (c comparison) write(w io.Writer) error {
	t := table{head: []string{"scenario", "figure", "direct", "peer", "popgate", "× direct", "× peer", "target", "result"}}
	var faults []string
	met, missed := 0, 0
	for _, rep := range c {
		for _, s := range rep.scenarios() {
			for _, row := range c.rows(rep, s) {
				switch row[len(row)-1] {
				case "met":
					met++
				case "**missed**":
					missed++
				}
				t.rows = append(t.rows, row)
			}
		}
		faults = append(faults, rep.faults()...)
	}
	if err := t.write(w); err != nil {
		return err
	}
	fmt.Fprintf(w, "\n%d targets met, %d missed. × says how many times as good popgate is; R is one round trip to the upstream.\n", met, missed)
	if len(faults) > 0 {
		fmt.Fprintf(w, "\nWrong:\n\n- %s\n", strings.Join(faults, "\n- "))
	}
	return nil
}

// rows returns one row for each compared figure of a scenario.
func (c comparison) rows(rep *report, scenario string) [][]string {
	name := scenario
	if rep.RTT > 0 {
		name += fmt.Sprintf(", %v", rep.RTT)
	}
	if rep.Variant != "" {
		name += ", " + rep.Variant
	}
	var rows [][]string
	for _, figure := range rep.figures(scenario) {
		if _, ok := compared[figure]; !ok {
			continue
		}
		d := rep.value(scenario, direct, figure)
		p, cell := rep.peer(scenario, figure)
		v := rep.value(scenario, ours, figure)
		row := []string{name, figure, short(d), cell, short(v),
			short(timesBetter(figure, v, d)), short(timesBetter(figure, v, p)), "", ""}
		if t, ok := findTarget(scenario, figure, rep.RTT, rep.Variant); ok {
			base := c.base(rep, t, d, p)
			row[7], row[8] = t.String(), t.verdict(v, base)
			switch t.basis {
			case timesCopy, timesOwn:
				row[7] += fmt.Sprintf(" (%s)", short(base))
			case roundTrips:
				row[7] += fmt.Sprintf(", is %s R", short(seconds(figure, v)/rep.RTT.Seconds()))
			}
		}
		rows = append(rows, row)
	}
	return rows
}

// figures returns the names of all figures of a scenario, at any endpoint.
func (rep *report) figures(scenario string) []string {
	var all []string
	for _, name := range append([]string{ours, direct}, peers...) {
		figures, _ := rep.medians(scenario, name)
		for _, f := range figures {
			if !slices.Contains(all, f) {
				all = append(all, f)
			}
		}
	}
	return all
}

// base returns the value that the bound of a target multiplies, NaN if there is
// none.
func (c comparison) base(rep *report, t target, direct, peer float64) float64 {
	switch t.basis {
	case timesDirect:
		return direct
	case timesPeer:
		return peer
	case timesCopy:
		return rep.value(t.scenario, copied, t.figure)
	case timesOwn:
		for _, other := range c {
			if v := other.value(t.scenario, ours, t.figure); other.RTT == 0 && other.Variant == t.variant && !math.IsNaN(v) {
				return v
			}
		}
	}
	return math.NaN()
}

// value returns the median of one figure, NaN if it was not measured.
func (rep *report) value(scenario, endpoint, figure string) float64 {
	_, values := rep.medians(scenario, endpoint)
	if v, ok := values[figure]; ok {
		return v
	}
	return math.NaN()
}

// peer returns the better of the peer's variants and its cell in the table.
func (rep *report) peer(scenario, figure string) (best float64, cell string) {
	best, cell = math.NaN(), short(math.NaN())
	for _, name := range peers {
		v := rep.value(scenario, name, figure)
		if math.IsNaN(v) || timesBetter(figure, v, best) <= 1 {
			continue
		}
		best, cell = v, short(v)+" "+name
	}
	return best, cell
}
