// Command popgate is a POP3-to-IMAP gateway. See README.md.
//
// The rules of its output:
//
//   - Standard output has only what was asked for: help, completions, the
//     version, the findings of check, the lines of uidl, the first steps of demo.
//   - Standard error has everything else: the log of serve, the progress of
//     uidl, prompts, and errors.
//   - A command that fails ends with one "error: " line per mistake, in lower
//     case and without a full stop. A mistake in a configuration file reads
//     "error: FILE:LINE: KEY: what is wrong; what to do about it". Other errors
//     may be followed by one line "hint: " that says what to do.
//   - Usage is never printed for an error; the hint names the help to read.
//   - Text from servers is printed without control characters.
//   - Exit codes are those below.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"popgate/cmd/popgate/config"
	"popgate/cmd/popgate/words"
)

// Exit codes.
const (
	exitOK      = 0 // success, also after a signal has stopped serve or demo
	exitFailure = 1 // the command failed, or check found a problem
	exitUsage   = 2 // the command line, the configuration or the input is wrong
)

func main() {
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run executes one command line and returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	if len(args) > 0 && strings.HasPrefix(args[0], "__complete") {
		unquoteFlags(root)
	}
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.Execute()
	if err == nil {
		return exitOK
	}
	report(stderr, err)
	if _, ok := errors.AsType[*config.Problems](err); ok {
		return exitUsage
	}
	if f, ok := errors.AsType[*failure](err); ok {
		return f.code
	}
	return exitUsage // cobra reports mistakes on the command line only
}

// failure is an error with an exit code and, where it helps, a hint.
type failure struct {
	code int
	err  error
	hint string // what to do about it, or ""
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// usage returns a failure of the command line.
func usage(hint, format string, args ...any) error {
	return &failure{code: exitUsage, err: fmt.Errorf(format, args...), hint: hint}
}

// report writes err, or each error that it joins, as "error:" and "hint:" lines.
func report(w io.Writer, err error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, one := range joined.Unwrap() {
			report(w, one)
		}
		return
	}
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" {
			fmt.Fprintf(w, "error: %s\n", line)
		}
	}
	if f, ok := errors.AsType[*failure](err); ok && f.hint != "" {
		fmt.Fprintf(w, "hint: %s\n", f.hint)
	}
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "popgate",
		Short: "A POP3-to-IMAP gateway",
		Long: "popgate serves POP3 and turns each session into operations on an IMAP server,\n" +
			"for clients that speak only POP3.",
		Example:       "  popgate demo\n  popgate serve --config /etc/popgate/config.toml",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          knownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usage(seeHelp(cmd), "%v", err)
	})
	root.SetHelpTemplate(helpTemplate)
	root.Version = version()
	root.SetVersionTemplate(strings.ReplaceAll(versionLine(), "{{", ""))
	root.Flags().BoolP("version", "V", false, "print the version, as the command version does")
	for _, c := range []*cobra.Command{serveCommand(), demoCommand(), checkCommand(), uidlCommand(), versionCommand()} {
		c.DisableFlagsInUseLine = true // Use lists them
		root.AddCommand(c)
	}
	return root
}

// unquoteFlags removes the backquotes that mark, for help, the name of a flag's
// value: shells would show them.
func unquoteFlags(root *cobra.Command) {
	for _, cmd := range append(root.Commands(), root) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Usage = strings.ReplaceAll(f.Usage, "`", "") })
	}
}

// helpTemplate is cobra's with the examples at the end, where readers look.
const helpTemplate = `{{with (or .Long .Short)}}{{. | trimTrailingWhitespaces}}
{{end}}
Usage:
  {{if .HasAvailableSubCommands}}{{.CommandPath}} COMMAND{{else}}{{.UseLine}}{{end}}
{{if .HasAvailableSubCommands}}
Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}
{{end}}{{if .HasAvailableLocalFlags}}
Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}
{{end}}{{if .HasExample}}
Example:
{{.Example}}
{{end}}`

// knownCommand rejects arguments of the root command: they are unknown
// subcommands.
func knownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	if near := words.Nearest(args[0], names); near != "" {
		return usage(fmt.Sprintf("did you mean %q?", near), "unknown command %q", args[0])
	}
	return usage(seeHelp(cmd), "unknown command %q", args[0])
}

// noArgs rejects arguments that are not flags.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(seeHelp(cmd), "%s: unexpected argument %q", cmd.CommandPath(), args[0])
	}
	return nil
}

func seeHelp(cmd *cobra.Command) string {
	return fmt.Sprintf("see %s --help", cmd.CommandPath())
}

// configFlag adds the flag --config to cmd and returns a function that loads the
// file it names.
func configFlag(cmd *cobra.Command) func() (*config.Config, error) {
	file := cmd.Flags().String("config", "", "the configuration `FILE` (required)")
	_ = cmd.MarkFlagFilename("config", "toml") // fails only for unknown flags
	return func() (*config.Config, error) {
		if *file == "" {
			return nil, usage(fmt.Sprintf("%s --config config.toml", cmd.CommandPath()),
				"%s: --config is required", cmd.CommandPath())
		}
		c, err := config.Load(*file)
		if _, ok := errors.AsType[*config.Problems](err); err != nil && !ok {
			return nil, &failure{code: exitUsage, err: err, hint: fileHint(err, "the configuration file")}
		}
		return c, err
	}
}
