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
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"popgate/cmd/popgate/certificates"
	"popgate/cmd/popgate/config"
	"popgate/cmd/popgate/reload"
	"popgate/imapbackend"
	"popgate/imapbackend/directory"
	"popgate/imapbackend/store"
	"popgate/proxy"
	"popgate/proxy/endpoint"
)

func serveCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve --config FILE",
		Short: "Run the gateway until SIGTERM",
		Long: "Run the gateway. SIGTERM or SIGINT stops it: sessions that wait for a command end at\n" +
			"once, commands in progress may finish within session.shutdown_grace. A second signal\n" +
			"stops it at once. SIGHUP reads the certificates and match files again, which also happens\n" +
			"when they change.",
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
	// From here on a signal drains, even one that arrives during the start.
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)

	defer runtime.KeepAlive(tuneMemory())
	log := newLogger(stderr, c.Log)
	st, err := openStore(c.Store, log)
	if err != nil {
		return &failure{code: exitFailure, err: err, hint: storeHint(err)}
	}
	defer closeStore(st, log)
	backends, closeBackends, err := newBackends(c, st)
	if err != nil {
		return err
	}
	defer closeBackends()
	opts := c.ProxyOptions()
	opts.Logger = log
	d, err := newDirectory(c, backends, st)
	if err != nil {
		return &failure{code: exitUsage, err: err}
	}
	defer d.Close()
	opts.Backend = d
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
	log.Info("popgate starts", "version", version(), "upstream", strings.Join(c.UpstreamNames(), ","))
	warn(log, c)
	for i, backend := range backends {
		defer learn(backend, c.Upstreams[i].Relayed(), log)()
	}
	reloader := newReloader(c, log)
	defer reloader.Start()()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go certificates.WarnDaily(ctx, c.Certificates(), log)
	return runServer(srv, bound, c.Session.ShutdownGrace, signals, log, reloader.Reload)
}

// storeHint says what to do about a store that cannot be opened.
func storeHint(err error) string {
	if errors.Is(err, store.ErrNotStore) {
		return "name another file in [store]: popgate replaces no file that is not its own"
	}
	return "check path in [store]: its directory must exist, and only one process may use the file"
}

// newBackends returns the backend of each upstream of c, in their order. The caller
// calls closeAll.
func newBackends(c *config.Config, st *store.Store) (backends []*imapbackend.Backend, closeAll func(), err error) {
	closeAll = func() {
		for _, b := range backends {
			b.Close()
		}
	}
	for i := range c.Upstreams {
		b, err := newBackend(&c.Upstreams[i], st)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		if backends = append(backends, b); i > 0 {
			b.ShareReadAhead(backends[0])
		}
	}
	return backends, closeAll, nil
}

// newDirectory returns what finds the upstream of each login, of which backends has
// those of c.
func newDirectory(c *config.Config, backends []*imapbackend.Backend, st *store.Store) (*directory.Directory, error) {
	var upstreams []directory.Upstream
	for i, b := range backends {
		u := &c.Upstreams[i]
		upstreams = append(upstreams, directory.Upstream{Name: u.Options.Name, Backend: b, Mechanisms: u.Auth})
	}
	var resolvers []directory.Resolver
	if len(c.Routes) > 0 {
		routes, err := directory.NewRoutes(c.Rules())
		if err != nil {
			return nil, err
		}
		resolvers = append(resolvers, routes)
	}
	for i := range c.Lookups {
		resolvers = append(resolvers, directory.NewLookup(c.Lookups[i].Options))
	}
	open := func(address string) (directory.ClosableBackend, error) {
		b, err := newBackend(otherUpstream(c, address), st)
		if err == nil {
			b.ShareReadAhead(backends[0])
		}
		return b, err
	}
	return directory.New(upstreams, open, resolvers...), nil
}

// otherUpstream returns an upstream with default options for an address that a lookup
// may choose. TLS is as its port says; on this machine there may be none.
func otherUpstream(c *config.Config, address string) *config.Upstream {
	u := &config.Upstream{Options: imapbackend.Defaults()}
	u.Options.Name, u.Options.Address = address, address
	u.Options.ReadAheadTotal = c.Limits.ReadAheadTotal
	host, port, _ := endpoint.Split(address, 1) // the lookup has checked it
	switch {
	case port == 993:
	case endpoint.IsLoopback(host):
		u.Options.TLS = imapbackend.TLSNone
	default:
		u.Options.TLS = imapbackend.TLSStartTLS
	}
	return u
}

// newBackend returns the backend of u, with st as its store. nil: a store of its
// own, in memory.
func newBackend(u *config.Upstream, st *store.Store) (*imapbackend.Backend, error) {
	opts := u.Options
	opts.Store, opts.Version = st, version()
	backend, err := imapbackend.New(opts)
	if err != nil {
		return nil, &failure{code: exitUsage, err: fmt.Errorf("upstream %q: %w", opts.Name, err)}
	}
	return backend, nil
}

// throttler returns what delays failed logins, nil if nothing does.
func throttler(opts proxy.ThrottleOptions) (proxy.Throttler, error) {
	if opts.Delay == 0 {
		return nil, nil
	}
	return proxy.NewThrottle(opts)
}

// newReloader returns the reloader of the files that c names.
func newReloader(c *config.Config, log *slog.Logger) *reload.Reloader {
	var sources []reload.Source
	for _, p := range c.Certificates() {
		sources = append(sources, p)
	}
	for _, r := range c.Rules() {
		if r.Names != nil {
			sources = append(sources, r.Names)
		}
	}
	return reload.New(sources, log)
}

// openStore opens the store of what is remembered between sessions.
func openStore(c config.Store, log *slog.Logger) (*store.Store, error) {
	if c.Path == "" {
		return store.NewMemory(store.DefaultMemory), nil
	}
	return store.Open(c.Path, store.Options{MaxSize: c.MaxSize, Log: log})
}

func closeStore(s *store.Store, log *slog.Logger) {
	if err := s.Close(); err != nil {
		log.Error("closing the store failed", "error", err)
	}
}

// learn keeps the backend informed, in the background, of which mechanisms the
// upstream offers, until the returned function is called. Without mechanisms
// the upstream is not contacted before a client needs it.
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

// gcPercent trades processor time, of which waiting sessions need little, for
// memory, of which thousands of them need much. A process with few sessions
// would collect garbage all the time. To prevent that, a reserve of gcReserve
// octets counts as memory in use; it is never touched, so the system provides no
// memory for it.
const (
	gcPercent = 50
	gcReserve = 8 << 20
)

// tuneMemory sets the garbage collector and returns the reserve, which the
// caller keeps alive. If the operator sets GOGC, nothing is changed.
func tuneMemory() (reserve []byte) {
	if os.Getenv("GOGC") != "" {
		return nil
	}
	debug.SetGCPercent(gcPercent)
	return make([]byte, gcReserve)
}

// boundListener is a listener that is bound but does not accept yet.
type boundListener struct {
	net.Listener
	options proxy.ListenerOptions
}

// listenConfig leaves keep-alive to the server, which sets its own.
var listenConfig = net.ListenConfig{KeepAlive: -1}

// bind binds all listeners, or none of them.
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

// bindHint says what to do about an address that cannot be bound.
func bindHint(err error) string {
	switch {
	case addressInUse(err):
		return "another program uses this address: stop it, or change the listener's address"
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return "this machine does not have that address: write one that it has, or only the port, as in \":110\""
	case errors.Is(err, fs.ErrPermission):
		return "ports below 1024 need root, CAP_NET_BIND_SERVICE or a socket redirect"
	}
	return ""
}

// addressInUse reports whether err says that another socket uses the address.
func addressInUse(err error) bool {
	const wsaEADDRINUSE = syscall.Errno(10048) // the error number on Windows
	return errors.Is(err, syscall.EADDRINUSE) || errors.Is(err, wsaEADDRINUSE)
}

// warn logs what an operator should know about a valid configuration and about
// the process.
func warn(log *slog.Logger, c *config.Config) {
	for _, w := range c.Warnings(time.Now()) {
		log.LogAttrs(context.Background(), slog.LevelWarn, w.Text, w.Attrs...)
	}
	for i := range c.Upstreams {
		if o := &c.Upstreams[i].Options; o.KeepOpen > 0 {
			log.Info("repeated logins may be accepted without asking the upstream", "upstream", o.Name, "keep_open", o.KeepOpen)
		}
	}
	connections := cmp.Or(c.Limits.Options.Connections, config.DefaultConnections)
	// Two descriptors per session, and some for everything else.
	want := uint64(2*connections + 100)
	if limit, ok := openFilesLimit(); ok && limit < want {
		log.Warn("the limit on open files is low", "limit", limit, "recommended", want)
	}
	// O-LOCK-4: no warning, as this version has nothing else to offer.
	log.Info("maildrop locks hold within this process only: run only one gateway per maildrop")
}

// runServer accepts on all listeners and returns once the server has ended. It
// returns nil after a signal, even if sessions were cut off at the end of the
// grace time. On SIGHUP it calls reload.
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
				log.Info("reading certificates and match files again; other configuration changes need a restart", "signal", sig.String())
				reload()
				continue
			}
			log.Info("shutting down", "signal", sig.String(), "grace", grace)
			drain(srv, grace, signals, log)
			return nil
		}
	}
}

// drain ends the server: sessions that wait for a command at once, the others
// within grace, and all at once after a second signal (P-SESS-9).
func drain(srv *proxy.Server, grace time.Duration, signals <-chan os.Signal, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- srv.Shutdown(ctx) }()
	for {
		select {
		case err := <-done:
			if err != nil {
				log.Warn("grace time is over, closing the remaining sessions", "error", err)
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
