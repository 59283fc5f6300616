package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
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

// demoIMAP is the address of the demo's IMAP server, unless it is taken. README's
// first configuration has it.
const demoIMAP = "127.0.0.1:1143"

// demoUser is both name and password of the demo's only user.
const demoUser = "demo"

func demoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "demo [--listen ADDR] [--mbox FILE]",
		Short: "Try popgate without any setup, with sample mail or your own",
		Long: "Run an IMAP server with sample mail, and the gateway in front of it, both on loopback\n" +
			"only. User and password are \"demo\". The IMAP server is on " + demoIMAP + ", or on a free\n" +
			"port if that one is taken; it is there for a gateway that you configure yourself.\n" +
			"--mbox serves your own mail, which is read where it is. Deleting changes no file.",
		Example: "  popgate demo\n  popgate demo --listen 127.0.0.1:2110 --mbox ~/mail/inbox.mbox",
		Args:    noArgs,
	}
	listen := cmd.Flags().String("listen", "127.0.0.1:1110", "the loopback `ADDR` to serve POP3 on, port 0 for a free one")
	mbox := cmd.Flags().String("mbox", "", "serve the messages of this mbox `FILE`, or maildir, instead of the samples")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := loopbackOnly(*listen); err != nil {
			return err
		}
		var mail *demo.Mail
		if cmd.Flags().Changed("mbox") {
			var err error
			if mail, err = openMail(*mbox); err != nil {
				return err
			}
			defer mail.Close()
		}
		return runDemo(*listen, mail, cmd.OutOrStdout(), cmd.ErrOrStderr())
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

// openMail opens an mbox or a maildir that has at least one message.
func openMail(name string) (*demo.Mail, error) {
	const hint = "name an mbox, in which a line \"From \", a sender and a date is in front of each message, or a maildir"
	mail, err := demo.OpenMail(name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
		return nil, &failure{code: exitFailure, err: err, hint: "name a file that exists and that you may read"}
	}
	if err != nil {
		return nil, &failure{code: exitFailure, err: err, hint: hint}
	}
	if mail.Len() == 0 {
		return nil, &failure{code: exitFailure, err: errors.Join(fmt.Errorf("%s: contains no messages", name), mail.Close()), hint: hint}
	}
	return mail, nil
}

// runDemo serves mail, or the samples if it is nil, on the POP3 address listen until
// a signal ends it.
func runDemo(listen string, own *demo.Mail, stdout, stderr io.Writer) error {
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
	mail, upstream, err := startMail(own)
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
	if err := printWelcome(stdout, front.Addr(), upstream); err != nil {
		return errors.Join(err, srv.Close())
	}
	bound := []boundListener{{front, proxy.ListenerOptions{
		Mode:              proxy.TLSNone,
		InsecureLoginFrom: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")},
	}}}
	return runServer(srv, bound, time.Second, signals, log, func() {}) // signals has no SIGHUP
}

// startMail runs an IMAP server with own mail, or the samples if it is nil. It
// returns the server, which the caller closes, and its address.
func startMail(own *demo.Mail) (*demo.Server, string, error) {
	l, err := net.Listen("tcp", demoIMAP)
	if err != nil && addressInUse(err) {
		l, err = net.Listen("tcp", "127.0.0.1:0")
	}
	if err != nil {
		return nil, "", err
	}
	mail := demo.New()
	mail.AddUser(demoUser, demoUser)
	if own != nil {
		err = mail.AppendMail(demoUser, own)
	} else {
		for _, m := range demo.Samples() {
			_, appended := mail.Append(demoUser, m)
			err = errors.Join(err, appended)
		}
	}
	if err != nil {
		return nil, "", errors.Join(err, l.Close())
	}
	go func() { _ = mail.Serve(l) }() // until Close
	return mail, l.Addr().String(), nil
}

// printWelcome prints what to type next, and where the IMAP server is.
func printWelcome(w io.Writer, addr net.Addr, imap string) error {
	host, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return err
	}
	instead := ""
	if imap != demoIMAP {
		instead = ", as " + demoIMAP + " is taken"
	}
	_, err = fmt.Fprintf(w, `In another terminal, list the messages:  curl -u %[1]s:%[1]s pop3://%[2]s/
Show the first one:                      curl -u %[1]s:%[1]s pop3://%[2]s/1
Or speak POP3 by hand:                   telnet %[3]s %[4]s   (or a mail client; user and password %[1]s; Ctrl-C here ends it)
An upstream for your own configuration:  %[5]s%[6]s   (IMAP without TLS, the same user and password)
`, demoUser, addr, host, port, imap, instead)
	return err
}
