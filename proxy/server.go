package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// ErrServerClosed is returned by Serve after Shutdown or Close.
var ErrServerClosed = errors.New("proxy: server closed")

// Limits of the wait before accepting again after a temporary failure, such as
// a lack of descriptors. Each wait is twice as long as the previous one.
const (
	minAcceptDelay = 5 * time.Millisecond
	maxAcceptDelay = time.Second
)

// Server is a POP3 server on any number of listeners. It is safe for
// concurrent use.
type Server struct {
	opts     Options
	noCapa   map[string]bool // hidden capabilities, in upper case
	ctx      context.Context // parent of all sessions', cancelled by Close
	cancel   context.CancelFunc
	draining atomic.Bool
	stopping context.Context // ended when draining begins
	stop     context.CancelFunc

	mu        sync.Mutex
	listeners map[*listener]struct{}
	admission admission     // has all sessions
	empty     chan struct{} // closed when draining and no session is left

	delays   loginDelays
	refusals struct{ connections, perAddress, evictions, proxies, throttled, silent logLimiter }
}

// listener is one listener of a Server.
type listener struct {
	net.Listener
	opts ListenerOptions
	tls  *tls.Config // nil without TLS
	addr string
}

// NewServer returns a Server, or an error if opts are invalid. It does not
// listen; see Serve.
func NewServer(opts Options) (*Server, error) {
	opts, err := opts.resolve()
	if err != nil {
		return nil, err
	}
	srv := &Server{
		opts:      opts,
		noCapa:    make(map[string]bool),
		listeners: make(map[*listener]struct{}),
		admission: newAdmission(opts.Limits),
		empty:     make(chan struct{}),
		delays:    newLoginDelays(opts.LoginDelay),
	}
	for _, tag := range opts.HiddenCapabilities {
		srv.noCapa[strings.ToUpper(tag)] = true
	}
	srv.ctx, srv.cancel = context.WithCancel(context.Background())
	srv.stopping, srv.stop = context.WithCancel(context.Background())
	return srv, nil
}

// Serve accepts connections on l until Shutdown or Close, and then returns
// ErrServerClosed. Any other error means that opts are invalid or that l can no
// longer accept; sessions continue. Serve always closes l. It may be called for
// several listeners at once.
func (srv *Server) Serve(l net.Listener, opts ListenerOptions) error {
	defer l.Close()
	lis, err := newListener(l, opts)
	if err != nil {
		return err
	}
	if !srv.addListener(lis) {
		return ErrServerClosed
	}
	defer srv.removeListener(lis)
	if len(opts.InsecureLoginFrom) > 0 && opts.Mode != TLSImplicit {
		srv.opts.Logger.Warn("listener accepts logins without TLS", "listener", lis.addr, "networks", opts.InsecureLoginFrom)
	}
	delay := time.Duration(0)
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			delay = 0
			srv.start(lis, conn)
		case srv.draining.Load():
			return ErrServerClosed
		case !temporary(err):
			return fmt.Errorf("proxy: accept on %s: %w", lis.addr, err)
		default:
			delay = min(max(2*delay, minAcceptDelay), maxAcceptDelay)
			srv.opts.Logger.Warn("accept failed", "listener", lis.addr, "error", err, "retry", delay)
			if !srv.pause(delay) {
				return ErrServerClosed
			}
		}
	}
}

func newListener(l net.Listener, opts ListenerOptions) (*listener, error) {
	lis := &listener{Listener: l, opts: opts, addr: l.Addr().String()}
	switch opts.Mode {
	case TLSNone:
		return lis, nil
	case TLSStartTLS, TLSImplicit:
	default:
		return nil, fmt.Errorf("proxy: unknown TLS mode %q", opts.Mode)
	}
	if opts.TLS == nil {
		return nil, fmt.Errorf("proxy: TLS mode %q without a TLS configuration", opts.Mode)
	}
	lis.tls = opts.TLS.Clone()
	lis.tls.DynamicRecordSizingDisabled = true // one record for each write
	return lis, nil
}

// behindProxy reports whether each connection begins with a PROXY header.
func (l *listener) behindProxy() bool { return len(l.opts.ProxyProtocolFrom) > 0 }

// temporary reports whether accepting may succeed later.
func temporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

// pause waits d. It returns false, early, if the server stops.
func (srv *Server) pause(d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-srv.stopping.Done():
		return false
	}
}

// start starts a session on conn, unless it is refused.
func (srv *Server) start(lis *listener, conn net.Conn) {
	peer := clientAddr(conn.RemoteAddr())
	if lis.behindProxy() && !contains(lis.opts.ProxyProtocolFrom, peer.Addr()) {
		srv.refuse(&srv.refusals.proxies, Refusal{"proxy_protocol_from", lis.addr, peer.Addr()},
			"connection closed, not from proxy_protocol_from",
			"listener", lis.addr, "client", conn.RemoteAddr().String())
		_ = conn.Close()
		return
	}
	setKeepAlive(conn)
	s := &session{
		srv: srv,
		lis: lis,
		raw: &clientConn{Conn: conn, stall: writeStall},
		record: Record{
			Client: Client{
				Local:    clientAddr(conn.LocalAddr()),
				Session:  fmt.Sprintf("%016x", rand.Uint64()),
				Listener: lis.addr,
			},
			Began: time.Now(),
		},
	}
	s.r.src = s.raw
	s.r.release()
	s.w.setDst(s.raw, plainBuffers)
	s.base, s.cancel = context.WithCancelCause(srv.ctx)
	s.setClient(peer)
	if !srv.addSession(s) {
		s.cancel(nil)
		_ = conn.Close()
		return
	}
	go s.serve()
}

// setClient sets the address of the session's client and what depends on it.
func (s *session) setClient(client netip.AddrPort) {
	s.record.Addr = client
	s.insecureLogin = contains(s.lis.opts.InsecureLoginFrom, client.Addr())
	s.log = s.srv.opts.Logger.With(slog.String("session", s.record.Session), slog.String("client", s.clientName()))
	s.ctx = WithLogger(WithClient(s.base, s.record.Client), s.log)
}

// clientName returns the address of the client for the log.
func (s *session) clientName() string {
	if s.record.Addr.IsValid() {
		return s.record.Addr.String()
	}
	return s.raw.RemoteAddr().String()
}

// contains reports whether addr is in one of the networks.
func contains(networks []netip.Prefix, addr netip.Addr) bool {
	addr = addr.WithZone("")
	for _, n := range networks {
		if n.Addr().Is4In6() && n.Bits() >= 96 {
			n = netip.PrefixFrom(n.Addr().Unmap(), n.Bits()-96)
		}
		if n.Contains(addr) {
			return true
		}
	}
	return false
}

// Shutdown stops accepting, ends the sessions that wait for a command, and
// lets the others finish their command, including UPDATE. If ctx ends first, it
// does what Close does and returns ctx's error. Messages are removed by QUIT
// only, as always.
func (srv *Server) Shutdown(ctx context.Context) error {
	srv.drain()
	select {
	case <-srv.empty:
		srv.cancel()
		return nil
	case <-ctx.Done():
		_ = srv.Close()
		return ctx.Err()
	}
}

// Close closes all listeners and sessions at once and waits for the sessions to
// end. Calls of a Backend have their context cancelled.
func (srv *Server) Close() error {
	srv.drain()
	srv.cancel()
	srv.mu.Lock()
	for s := range srv.admission.sessions {
		_ = s.raw.Close()
	}
	srv.mu.Unlock()
	<-srv.empty
	return nil
}

// drain stops accepting and wakes the sessions that wait for input.
func (srv *Server) drain() {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.draining.Swap(true) {
		return
	}
	srv.stop()
	for l := range srv.listeners {
		_ = l.Close()
	}
	for s := range srv.admission.sessions {
		_ = s.raw.SetReadDeadline(past)
	}
	if len(srv.admission.sessions) == 0 {
		close(srv.empty)
	}
}

func (srv *Server) addListener(l *listener) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	if srv.draining.Load() {
		return false
	}
	srv.listeners[l] = struct{}{}
	return true
}

func (srv *Server) removeListener(l *listener) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	delete(srv.listeners, l)
}

// addSession adds a session, unless the server drains or a limit keeps it out.
func (srv *Server) addSession(s *session) bool {
	srv.mu.Lock()
	if srv.draining.Load() {
		srv.mu.Unlock()
		return false
	}
	victim, limit := srv.admission.admit(s, s.record.Addr.Addr(), !s.lis.behindProxy())
	var from netip.Addr
	if victim != nil {
		from = srv.admission.sessions[victim].addr
		victim.interrupt(errLimit)
	}
	srv.mu.Unlock()
	if victim != nil {
		srv.refuse(&srv.refusals.evictions, Refusal{limitUnauthenticated, victim.lis.addr, from},
			"limit reached, oldest connection without login closed",
			"limit", limitUnauthenticated, "max", srv.opts.Limits.Unauthenticated, "client", from.String())
	}
	srv.logLimit(s, limit)
	return limit == ""
}

// setAddress gives s the address that its PROXY header names, unless a limit
// keeps it out.
func (srv *Server) setAddress(s *session) bool {
	srv.mu.Lock()
	limit := srv.admission.setAddress(s, s.record.Addr.Addr())
	srv.mu.Unlock()
	srv.logLimit(s, limit)
	return limit == ""
}

// setBusy records whether a login of s is in progress.
func (srv *Server) setBusy(s *session, busy bool) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.admission.setBusy(s, busy)
}

// loggedIn records that s has logged in. It returns false if s has been evicted
// before.
func (srv *Server) loggedIn(s *session) bool {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	return srv.admission.loggedIn(s)
}

func (srv *Server) removeSession(s *session) {
	srv.mu.Lock()
	defer srv.mu.Unlock()
	srv.admission.remove(s)
	if srv.draining.Load() && len(srv.admission.sessions) == 0 {
		close(srv.empty)
	}
}

// logLimit logs and reports the limit that keeps s out, if it is not "".
func (srv *Server) logLimit(s *session, limit string) {
	var r *logLimiter
	var most int
	switch limit {
	case limitConnections:
		r, most = &srv.refusals.connections, srv.opts.Limits.Connections
	case limitPerAddress:
		r, most = &srv.refusals.perAddress, srv.opts.Limits.PerAddress
	default:
		return
	}
	srv.refuse(r, Refusal{limit, s.lis.addr, s.record.Addr.Addr()}, "limit reached, connection closed",
		"limit", limit, "max", most, "client", s.record.Addr.String())
}

// logThrottled logs a login that the Throttler has not let through.
func (srv *Server) logThrottled(s *session, name string) {
	if withheld, ok := srv.refusals.throttled.allow(time.Now()); ok {
		s.log.Warn("limit reached, login not tried", "user", loggedName(name), "limit", limitThrottle, "more", withheld)
	}
}

// refuse reports a connection that has been closed, and logs it as often as r
// allows.
func (srv *Server) refuse(r *logLimiter, refusal Refusal, message string, attrs ...any) {
	if o := srv.opts.Observer; o != nil {
		o.ConnectionRefused(refusal)
	}
	if withheld, ok := r.allow(time.Now()); ok {
		srv.opts.Logger.Warn(message, append(attrs, "more", withheld)...)
	}
}

// hidden reports whether the operator hides a capability.
func (srv *Server) hidden(tag string) bool { return srv.noCapa[tag] }
