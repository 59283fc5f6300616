// Popmutate breaks the code on purpose, one line at a time, and reports which
// changes no test notices.
//
// A change is called a mutant: a condition is negated, a bound is moved by one, a
// statement is left out, a constant is another. Each is compiled into the tests
// of its package by an overlay, so that the work tree is not touched. A mutant
// that makes a test fail, or run for much longer, is noticed; the others survive.
// A survivor shows a test that is missing, or a change that makes no difference.
package main

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime"
	"time"

	"github.com/spf13/cobra"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run executes the command line and returns the exit code: 0 whether or not there
// are survivors, 1 if that could not be found out, 2 for a wrong command line.
func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	code := 2
	var s settings
	var count int
	var seed uint64
	var list bool
	cmd := &cobra.Command{
		Use:   "popmutate [flags] FILE.go...",
		Short: "Break the code and report which changes no test notices",
		Example: `  popmutate --count 50 imapbackend/update.go imapbackend/remove.go
  popmutate --also ./imapbackend imapbackend/store/*.go`,
		Args:          cobra.MinimumNArgs(1),
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, files []string) error {
			code = 1
			all, err := find(files)
			if err != nil {
				return err
			}
			if !cmd.Flags().Changed("seed") {
				seed = rand.Uint64()
			}
			chosen := sample(all, count, seed)
			if list {
				for _, m := range chosen {
					fmt.Fprintln(out, m)
				}
				return nil
			}
			fmt.Fprintf(errOut, "%d of %d mutants, --seed %d\n", len(chosen), len(all), seed)
			s.out, s.progress = out, errOut
			return s.runAll(cmd.Context(), chosen)
		},
	}
	cmd.Flags().IntVar(&count, "count", 0, "test a random `NUMBER` of the mutants; 0: all")
	cmd.Flags().Uint64Var(&seed, "seed", 0, "the sample of another run")
	cmd.Flags().BoolVar(&list, "list", false, "only list the mutants")
	cmd.Flags().StringSliceVar(&s.also, "also", nil, "`PACKAGES` whose tests are run too, where those of the file's own package notice nothing")
	cmd.Flags().StringVar(&s.skip, "skip", "", "tests to leave out, as in go test -skip")
	cmd.Flags().DurationVar(&s.slack, "slack", 10*time.Second, "what tests may take beyond three times their usual time")
	cmd.Flags().IntVar(&s.jobs, "jobs", max(runtime.NumCPU()/2, 1), "mutants tested at a time")
	cmd.SetArgs(args)
	cmd.SetOut(out)
	cmd.SetErr(errOut)
	if err := cmd.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(errOut, "error:", err)
		return code
	}
	return 0
}

// sample returns count of all mutants in their order, or all if count is 0.
func sample(all []mutant, count int, seed uint64) []mutant {
	if count <= 0 || count >= len(all) {
		return all
	}
	chosen := make(map[int]bool, count)
	for _, i := range rand.New(rand.NewPCG(seed, 0)).Perm(len(all))[:count] {
		chosen[i] = true
	}
	var some []mutant
	for i, m := range all {
		if chosen[i] {
			some = append(some, m)
		}
	}
	return some
}
