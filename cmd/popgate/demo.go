package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"popgate/cmd/popgate/config"
	"popgate/imapbackend"
	"popgate/imapbackend/demo"
	"popgate/proxy"
	"popgate/proxy/endpoint"
)

// demoUser is both name and password of the demo's only user.
const demoUser = "demo"

func demoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo [--listen ADDR] [--mbox FILE]",
		Short: "Try popgate without any setup, with sample mail or your own",
		Long: "Run an IMAP server in memory with sample mail, and the gateway in front of it, both on\n" +
			"loopback only. User and password are \"demo\". Deleting changes no file.",
		Example: "  popgate demo\n  popgate demo --listen 127.0.0.1:2110 --mbox ~/mail/inbox.mbox",
		Args:    noArgs,
	}
	listen := cmd.Flags().String("listen", "127.0.0.1:1110", "the loopback `ADDR` to serve POP3 on, port 0 for a free one")
	mbox := cmd.Flags().String("mbox", "", "serve the messages of this mbox `FILE` instead of the samples")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := loopbackOnly(*listen); err != nil {
			return err
		}
		messages := demo.Samples()
		if cmd.Flags().Changed("mbox") {
			var err error
			if messages, err = readMbox(*mbox); err != nil {
				return err
			}
		}
		return runDemo(*listen, messages, cmd.OutOrStdout(), cmd.ErrOrStderr())
	}
	return cmd
}

// loopbackOnly rejects an address that others could reach: everyone knows the
// demo's password.
func loopbackOnly(address string) error {
	const hint = "write an address such as 127.0.0.1:2110"
	host, _, err := endpoint.Split(address, 0)
	switch {
	case err == nil && endpoint.IsLoopback(host):
		return nil
	case err == nil:
		return usage(hint, "--listen %q is not a loopback address", address)
	}
	if _, ok := errors.AsType[*endpoint.PortError](err); ok {
		return usage(hint, "the port of --listen %q is not a number from 0 to 65535", address)
	}
	return usage(hint, "--listen %q is not host:port", address)
}

func readMbox(file string) ([][]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, &failure{code: exitFailure, err: err}
	}
	defer f.Close()
	messages, err := demo.ReadMbox(f)
	if err != nil {
		return nil, &failure{code: exitFailure, err: fmt.Errorf("%s: %w", file, err)}
	}
	if len(messages) == 0 {
		return nil, &failure{code: exitFailure, err: fmt.Errorf("%s: contains no messages", file), hint: "each message of an mbox follows a line that begins with \"From \""}
	}
	return messages, nil
}

// runDemo serves messages on the POP3 address listen until a signal ends it.
func runDemo(listen string, messages [][]byte, stdout, stderr io.Writer) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)

	front, err := net.Listen("tcp", listen)
	if err != nil {
		f := &failure{code: exitFailure, err: err}
		if addressInUse(err) {
			f.hint = "another program uses this address: choose a free one, as in popgate demo --listen 127.0.0.1:2110"
		}
		return f
	}
	defer front.Close()
	mail, upstream, err := startMail(messages)
	if err != nil {
		return &failure{code: exitFailure, err: err}
	}
	defer mail.Close()

	// Errors only: passwords without TLS, which would be warned of, are intended.
	log := newLogger(stderr, config.Log{Level: slog.LevelError})
	opts := imapbackend.Defaults()
	opts.Name, opts.Address, opts.TLS, opts.Version = "demo", upstream, imapbackend.TLSNone, version()
	backend, err := imapbackend.New(opts)
	if err != nil {
		return &failure{code: exitFailure, err: err}
	}
	defer backend.Close()
	srv, err := proxy.NewServer(proxy.Options{Backend: backend, Logger: log})
	if err != nil {
		return &failure{code: exitFailure, err: err}
	}
	if err := printWelcome(stdout, front.Addr()); err != nil {
		return errors.Join(err, srv.Close())
	}
	bound := []boundListener{{front, proxy.ListenerOptions{
		Mode:              proxy.TLSNone,
		InsecureLoginFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
	}}}
	return runServer(srv, bound, time.Second, signals, log, func() {}) // signals has no SIGHUP
}

// startMail runs an IMAP server with messages on a free loopback port. It
// returns the server, which the caller closes, and its address.
func startMail(messages [][]byte) (*demo.Server, string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, "", err
	}
	mail := demo.New()
	mail.AddUser(demoUser, demoUser)
	for _, m := range messages {
		if _, err := mail.Append(demoUser, m); err != nil {
			return nil, "", errors.Join(err, l.Close())
		}
	}
	go func() { _ = mail.Serve(l) }() // until Close
	return mail, l.Addr().String(), nil
}

// printWelcome prints three lines: what to type next.
func printWelcome(w io.Writer, addr net.Addr) error {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, `In another terminal, list the messages:  curl -u %[1]s:%[1]s pop3://%[2]s/
Show the first one:                      curl -u %[1]s:%[1]s pop3://%[2]s/1
Or speak POP3 by hand:                   telnet %[3]s %[4]s   (or a mail client; user and password %[1]s; Ctrl-C here ends it)
`, demoUser, addr, host, port)
	return err
}
