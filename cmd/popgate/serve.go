package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"popgate/cmd/popgate/certificates"
	"popgate/cmd/popgate/config"
	"popgate/imapbackend"
	"popgate/imapbackend/store"
	"popgate/proxy"
)

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run the gateway until SIGTERM",
		Long: "Run the gateway. SIGTERM and SIGINT end it: waiting sessions at once, commands in\n" +
			"progress within session.shutdown_grace; a second one stops it at once. SIGHUP reads\n" +
			"the certificates again, which also happens when their files change.",
		Example: "  popgate serve --config /etc/popgate/config.toml",
		Args:    noArgs,
	}
	load := configFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := load()
		if err != nil {
			return err
		}
		return serve(c, cmd.ErrOrStderr())
	}
	return cmd
}

// serve runs the gateway that c describes until a signal ends it.
func serve(c *config.Config, stderr io.Writer) error {
	// From here on a signal drains, also one that comes during the start.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	defer runtime.KeepAlive(tuneMemory())
	log := newLogger(stderr, c.Log)
	kept, err := openStore(c.Store, log)
	if err != nil {
		return &failure{code: exitFailure, err: err, hint: storeHint}
	}
	defer closeStore(kept, log)
	upstream := &c.Upstreams[0]
	backend, err := newBackend(upstream, kept)
	if err != nil {
		return err
	}
	defer backend.Close()
	opts := c.ProxyOptions()
	opts.Backend, opts.Logger = backend, log
	if opts.Throttler, err = throttler(c.Throttle); err != nil {
		return &failure{code: exitUsage, err: err}
	}
	srv, err := proxy.NewServer(opts)
	if err != nil {
		return &failure{code: exitUsage, err: err}
	}
	bound, err := bind(c.Listeners)
	if err != nil {
		return err
	}
	log.Info("popgate starts", "version", version(), "upstream", upstream.Options.Name)
	warn(log, c)
	defer learn(backend, upstream.Relayed(), log)()
	reloader := newReloader(c.Listeners, log)
	defer reloader.Start()()
	return runServer(srv, bound, c.Session.ShutdownGrace, signals, log, reloader.Reload)
}

const storeHint = "look at [store] path: its directory must be there, and the file belongs to one process"

// newBackend returns the backend of u, which remembers in kept; nil for memory
// of its own.
func newBackend(u *config.Upstream, kept *store.Store) (*imapbackend.Backend, error) {
	opts := u.Options
	opts.Store, opts.Version = kept, version()
	backend, err := imapbackend.New(opts)
	if err != nil {
		return nil, &failure{code: exitUsage, err: fmt.Errorf("upstream %q: %w", opts.Name, err)}
	}
	return backend, nil
}

// throttler returns what slows down failed logins, nil if nothing does.
func throttler(opts proxy.ThrottleOptions) (proxy.Throttler, error) {
	if opts.Delay == 0 {
		return nil, nil
	}
	return proxy.NewThrottle(opts)
}

// newReloader returns the reloader of the certificates of listeners.
func newReloader(listeners []config.Listener, log *slog.Logger) *certificates.Reloader {
	var pairs []*certificates.Pair
	for _, l := range listeners {
		if l.Certificates != nil {
			pairs = append(pairs, l.Certificates.Pairs...)
		}
	}
	return certificates.NewReloader(pairs, log)
}

// openStore opens what is remembered between sessions.
func openStore(c config.Store, log *slog.Logger) (*store.Store, error) {
	if c.Path == "" {
		return store.NewMemory(store.DefaultMemory), nil
	}
	return store.Open(c.Path, store.Options{MaxSize: c.MaxSize, Log: log})
}

func closeStore(s *store.Store, log *slog.Logger) {
	if err := s.Close(); err != nil {
		log.Error("closing the store", "error", err)
	}
}

// learn keeps the backend informed, in the background, of which of mechanisms
// the upstream takes, until the returned function is called. Without any the
// upstream is not contacted before a client needs it.
func learn(backend *imapbackend.Backend, mechanisms []string, log *slog.Logger) (stop func()) {
	if len(mechanisms) == 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(proxy.WithLogger(context.Background(), log))
	done := make(chan struct{})
	go func() {
		defer close(done)
		backend.Learn(ctx, mechanisms...)
	}()
	return func() {
		cancel()
		<-done
	}
}

// gcPercent trades processor time, of which sessions that mostly wait need
// little, for memory, of which thousands of them need much. A process of few
// sessions would collect its garbage all the time: a reserve of gcReserve
// octets counts as memory in use, but is never touched, so that the system does
// not back it.
const (
	gcPercent = 50
	gcReserve = 8 << 20
)

// tuneMemory sets the garbage collector, and returns the reserve, which is to
// be kept. An operator's GOGC wins.
func tuneMemory() (reserve []byte) {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	debug.SetGCPercent(gcPercent)
	return make([]byte, gcReserve)
}

// newLogger returns the logger that c asks for.
func newLogger(w io.Writer, c config.Log) *slog.Logger {
	opts := &slog.HandlerOptions{Level: c.Level}
	if c.JSON {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// boundListener is a listener whose address is taken but which does not accept
// yet.
type boundListener struct {
	net.Listener
	options proxy.ListenerOptions
}

// listenConfig leaves keep-alive to the server, which sets its own.
var listenConfig = net.ListenConfig{KeepAlive: -1}

// bind takes the address of every listener, or none of them.
func bind(listeners []config.Listener) ([]boundListener, error) {
	var bound []boundListener
	for _, l := range listeners {
		nl, err := listenConfig.Listen(context.Background(), "tcp", l.Address)
		if err != nil {
			for _, b := range bound {
				b.Close()
			}
			return nil, &failure{code: exitFailure, err: err, hint: bindHint(err)}
		}
		bound = append(bound, boundListener{nl, l.Options})
	}
	return bound, nil
}

// bindHint says what to do about an address that cannot be taken.
func bindHint(err error) string {
	switch {
	case addressInUse(err):
		return "another program has this address: stop it, or change the listener's address"
	case errors.Is(err, fs.ErrPermission):
		return "ports below 1024 need root, CAP_NET_BIND_SERVICE or a socket redirect"
	}
	return ""
}

// addressInUse reports whether err says that another socket has the address.
func addressInUse(err error) bool {
	const wsaEADDRINUSE = syscall.Errno(10048) // Windows has a number of its own
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, wsaEADDRINUSE)
}

// warn logs what an operator should know about a configuration that is valid
// and about the process.
func warn(log *slog.Logger, c *config.Config) {
	for _, w := range c.Warnings(time.Now()) {
		log.LogAttrs(context.Background(), slog.LevelWarn, w.Text, w.Attrs...)
	}
	for i := range c.Upstreams {
		if o := &c.Upstreams[i].Options; o.KeepOpen > 0 {
			log.Info("logins may go without the upstream's verdict for a while after one", "upstream", o.Name, "keep_open", o.KeepOpen)
		}
	}
	connections := cmp.Or(c.Limits.Options.Connections, config.DefaultConnections)
	// Two descriptors a session, and some for all else.
	want := uint64(2*connections + 100)
	if limit, ok := openFilesLimit(); ok && limit < want {
		log.Warn("the limit on open files is low", "limit", limit, "sensible", want)
	}
	// O-LOCK-4.
	log.Warn("maildrop locks hold within this process only: run one gateway for each maildrop")
}

// runServer accepts on all listeners and returns once the server has ended:
// with nil after a signal, also when the grace time cut sessions. SIGHUP has it
// call reload.
func runServer(srv *proxy.Server, bound []boundListener, grace time.Duration, signals <-chan os.Signal,
	log *slog.Logger, reload func()) error {
	served := make(chan error, len(bound))
	for _, b := range bound {
		log.Info("listening", "address", b.Addr().String(), "tls", string(b.options.Mode))
		go func() { served <- srv.Serve(b.Listener, b.options) }()
	}
	for {
		select {
		case err := <-served:
			srv.Close()
			return &failure{code: exitFailure, err: err}
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				log.Info("reading certificates again; other changes of the configuration need a restart", "signal", sig.String())
				reload()
				continue
			}
			log.Info("shutting down", "signal", sig.String(), "grace", grace)
			drain(srv, grace, signals, log)
			return nil
		}
	}
}

// drain ends the server: at once for sessions that wait for a command, within
// grace for the others, without delay after a second signal (P-SESS-9).
func drain(srv *proxy.Server, grace time.Duration, signals <-chan os.Signal, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- srv.Shutdown(ctx) }()
	for {
		select {
		case err := <-done:
			if err != nil {
				log.Warn("grace time is over, closing the rest", "error", err)
				srv.Close()
			}
			log.Info("popgate has stopped")
			return
		case sig := <-signals:
			if sig == syscall.SIGHUP {
				continue
			}
			log.Warn("second signal, stopping at once", "signal", sig.String())
			srv.Close()
			return
		}
	}
}
