package main

import (
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"
)

// defaultUsers is the size of each fleet of accounts.
const defaultUsers = 500

// startTimeout is how long a server may take to come up.
const startTimeout = 10 * time.Second

func runCommand() *cobra.Command {
	rep := &report{Settings: settings{
		Seed: 1, Users: defaultUsers, Duration: 5 * time.Second, Cap: 30 * time.Second, Timeout: 120 * time.Second,
		Window: 64, Hold: 3 * time.Second, Repeat: 3,
	}}
	var names, output string
	cmd := &cobra.Command{
		Use:   "run ENDPOINT...",
		Short: "Measure POP3 servers, one after the other in each round, and write a table of medians",
		Long: "Measure POP3 servers. An endpoint is NAME=HOST:PORT[,pid=PID][,tls]; PID is the root of the\n" +
			"process tree that is charged for processor time and memory.",
		Example: "  popbench run --imap 127.0.0.1:1143 --scenarios login,list.1k popgate=127.0.0.1:1110,pid=4711",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			log := progress{cmd.ErrOrStderr()}
			chosen, err := rep.prepare(names, args)
			if err != nil {
				return err
			}
			rep.measure(chosen, log)
			if output != "" {
				if err := rep.writeJSON(output); err != nil {
					return err
				}
			}
			if err := rep.writeTable(cmd.OutOrStdout()); err != nil {
				return err
			}
			if faults := rep.faults(); len(faults) > 0 {
				return fmt.Errorf("%d of %d runs went wrong, the first: %s", len(faults), len(rep.Results), faults[0])
			}
			return nil
		},
	}
	f, s := cmd.Flags(), &rep.Settings
	f.StringVar(&names, "scenarios", "all", "`LIST` of names, or of beginnings such as login,list.1k,retr*")
	f.StringVar(&output, "json", "", "write the results to this `FILE`, for popbench table")
	f.IntVar(&rep.Rounds, "rounds", 1, "rounds; medians over them are reported")
	f.DurationVar(&rep.RTT, "rtt", 0, "round trip to the upstream, as set up; recorded in the report")
	f.StringVar(&rep.Variant, "variant", "", "tls or kept, as set up; recorded in the report")
	f.StringVar(&s.IMAP, "imap", "", "upstream IMAP `ADDR`ess, without TLS or delay")
	f.StringVar(&s.CopyFrom, "copy-from", "", "upstream IMAP `ADDR`ess as the gateways reach it, to measure the reference of huge")
	f.IntVar(&s.UpstreamPID, "upstream-pid", 0, "root of the upstream's process tree")
	f.Uint64Var(&s.Seed, "seed", s.Seed, "seed of the content")
	f.IntVar(&s.Users, "users", s.Users, "accounts in each fleet")
	f.DurationVar(&s.Duration, "duration", s.Duration, "length of a login or poll run")
	f.DurationVar(&s.Cap, "cap", s.Cap, "maximum length of a retr or top run")
	f.DurationVar(&s.Timeout, "timeout", s.Timeout, "longest wait for a server")
	f.IntVar(&s.Window, "window", s.Window, "commands in flight when pipelining")
	f.DurationVar(&s.Hold, "hold", s.Hold, "pause before idle sessions are measured")
	f.IntVar(&s.Repeat, "repeat", s.Repeat, "number of repeated listings")
	return cmd
}

// prepare checks the settings, waits for the endpoints and returns the scenarios
// chosen.
func (rep *report) prepare(names string, endpoints []string) ([]scenario, error) {
	s := rep.Settings
	if s.Repeat < 1 || s.Window < 1 || s.Users < 1 || rep.Rounds < 1 {
		return nil, usage("rounds, repeat, window and users must be positive")
	}
	if !slices.Contains([]string{"", tlsBoth, kept}, rep.Variant) {
		return nil, usage("unknown variant %q", rep.Variant)
	}
	chosen := slices.DeleteFunc(scenarios(standard), func(s scenario) bool { return !selected(names, s.name) })
	if len(chosen) == 0 {
		return nil, usage("no scenario is called %q; see popbench list", names)
	}
	for _, sc := range chosen {
		if sc.name == "dele" && s.IMAP == "" {
			return nil, usage("dele fills a mailbox and needs --imap")
		}
	}
	for _, arg := range endpoints {
		ep, err := parseEndpoint(arg)
		if err != nil {
			return nil, err
		}
		if err := ep.await(startTimeout); err != nil {
			return nil, err
		}
		rep.Endpoints = append(rep.Endpoints, ep)
	}
	return chosen, nil
}
