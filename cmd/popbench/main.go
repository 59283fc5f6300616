// Command popbench fills an IMAP server with messages and measures POP3
// servers in front of it. docs/performance.md says how; scripts/bench.sh runs
// it against popgate and Dovecot side by side.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1 // a server could not be measured, or answered wrongly
	exitUsage   = 2 // the command line is wrong
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit code.
func run(args []string, stdout, stderr io.Writer) int {
	root := &cobra.Command{
		Use:           "popbench",
		Short:         "Load driver for POP3 servers in front of an IMAP server",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	code := exitUsage // until a command has begun its work
	for _, c := range []*cobra.Command{seedCommand(), runCommand(), tableCommand(), listCommand(), delayCommand(), portsCommand()} {
		work := c.RunE
		c.RunE = func(cmd *cobra.Command, args []string) error {
			code = exitFailure
			return work(cmd, args)
		}
		root.AddCommand(c)
	}
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	if err == nil {
		return exitOK
	}
	fmt.Fprintf(stderr, "popbench: %v\n", err)
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return code
}

// usageError is a mistake in the command line that cobra does not see.
type usageError string

func (e usageError) Error() string { return string(e) }

func usage(format string, args ...any) error { return usageError(fmt.Sprintf(format, args...)) }

// progress writes lines with the time of day, for the person who waits.
type progress struct{ w io.Writer }

func (p progress) printf(format string, args ...any) {
	fmt.Fprintf(p.w, time.Now().Format("15:04:05 ")+format+"\n", args...)
}

func listCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the scenarios",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, s := range scenarios(standard) {
				fmt.Fprintf(cmd.OutOrStdout(), "%-20s %s\n", s.name, s.help)
			}
			return nil
		},
	}
}

func portsCommand() *cobra.Command {
	count := 1
	cmd := &cobra.Command{
		Use:   "ports",
		Short: "Print the first of some consecutive free ports on 127.0.0.1",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			first, err := freePorts(count)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), first)
			return err
		},
	}
	cmd.Flags().IntVar(&count, "count", count, "number of ports")
	return cmd
}
