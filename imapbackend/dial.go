package imapbackend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"time"

	"github.com/emersion/go-imap/client"

	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// Longest waits towards the upstream (requirement I-KEEP-2).
const (
	connectTimeout  = 10 * time.Second
	tlsTimeout      = 10 * time.Second
	greetingTimeout = 20 * time.Second
	progressTimeout = 60 * time.Second  // for the next octet of an answer
	selectTimeout   = 300 * time.Second // the same for SELECT
	logoutTimeout   = 2 * time.Second
)

var noLog = log.New(io.Discard, "", 0)

// upstream is one connection to the upstream, from the greeting on. It belongs
// to one goroutine.
type upstream struct {
	opts     *Options
	backend  *Backend
	conn     *wire.Conn
	client   *client.Client
	tls      *tls.ConnectionState // nil without TLS
	greeting string
	user     string   // who has logged in: authzid, NUL, name, as the client spelt them
	secrets  []string // never to be logged
	ticket   *ticket  // to be kept after QUIT with; nil: not to be kept

	challenged bool // the client has been sent a challenge of this connection
	utf8       bool // UTF8=ACCEPT is enabled
	clientUTF8 bool // the client takes headers beyond ASCII
}

// connect dials, makes TLS, and reads greeting and capabilities. Errors are
// *proxy.Error.
func (b *Backend) connect(ctx context.Context) (*upstream, error) {
	dialCtx, cancel := context.WithTimeout(ctx, connectTimeout)
	raw, err := b.dial(dialCtx)
	cancel()
	if err != nil {
		return nil, mapDial(err)
	}
	u := &upstream{opts: &b.opts, backend: b}
	conn := raw
	if b.opts.TLS == TLSImplicit {
		if conn, err = u.handshake(ctx, raw); err != nil {
			raw.Close()
			return nil, u.tlsFailed(ctx, err)
		}
	}
	u.conn = wire.New(conn, progressTimeout)
	defer u.watch(ctx)()
	if err := u.greet(ctx); err != nil {
		u.conn.Close()
		return nil, err
	}
	return u, nil
}

func (u *upstream) handshake(ctx context.Context, conn net.Conn) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, tlsTimeout)
	defer cancel()
	t := tls.Client(conn, u.backend.tls)
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	state := t.ConnectionState()
	u.tls = &state
	return t, nil
}

// tlsFailed logs a failed handshake as what it may be: somebody in between.
func (u *upstream) tlsFailed(ctx context.Context, err error) *proxy.Error {
	e := mapTLS(err)
	if e.Code == proxy.CodeSysPerm {
		proxy.Logger(ctx).WarnContext(ctx, "security: upstream TLS failed",
			"upstream", u.opts.Name, "error", err)
	}
	return e
}

// tlsConfig returns the TLS client configuration (requirements O-TLS-2, 3, 7).
// All connections share the sessions it remembers, which saves most of the work
// of a handshake.
func (o *Options) tlsConfig() *tls.Config {
	return &tls.Config{
		ServerName: o.ServerName,
		RootCAs:    o.RootCAs,
		MinVersion: tls.VersionTLS12,
		CipherSuites: []uint16{ // of TLS 1.2
			tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
			tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
			tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
			tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
		},
		NextProtos:         []string{"imap"},
		ClientSessionCache: tls.NewLRUClientSessionCache(0),
	}
}

// greet reads the greeting, makes STARTTLS where that is configured, learns
// the capabilities, and puts go-imap's client on the connection.
func (u *upstream) greet(ctx context.Context) error {
	u.conn.SetProgress(greetingTimeout)
	greeting, err := u.conn.Greeting()
	if err != nil {
		return u.lost(atConnect, err)
	}
	u.conn.SetProgress(progressTimeout)
	u.greeting = greeting.String()
	switch greeting.Type {
	case "BYE":
		return u.failed(atConnect, "greeting", greeting, nil)
	case "PREAUTH":
		// The upstream has not checked the user, and on a plain connection
		// it may be an attacker's way around STARTTLS (I-CONN-1).
		return setupError(errors.New("imap: greeting PREAUTH: the upstream does not check the user"))
	}
	if u.opts.TLS == TLSStartTLS {
		if err := u.startTLS(ctx); err != nil {
			return err
		}
	}
	if u.conn.Capabilities() == nil {
		if err := u.askCapabilities(ctx); err != nil {
			return err
		}
	}
	if !u.conn.Has("IMAP4REV1") && !u.conn.Has("IMAP4REV2") {
		return setupError(errors.New("imap: the upstream speaks neither IMAP4rev1 nor IMAP4rev2"))
	}
	told := u.conn.Capabilities()
	u.backend.told.Store(&told)
	return nil
}

// startTLS is strict: whatever stands in its way ends the attempt before a
// credential is sent (O-TLS-7).
func (u *upstream) startTLS(ctx context.Context) error {
	if caps := u.conn.Capabilities(); caps != nil && !u.conn.Has("STARTTLS") {
		return setupError(errors.New("imap: the upstream does not offer STARTTLS"))
	}
	status, err := u.run(ctx, "STARTTLS")
	if err != nil {
		return u.lost(atConnect, err)
	}
	if !status.OK() {
		return setupError(fmt.Errorf("imap: STARTTLS: %s", status))
	}
	err = u.conn.Upgrade(func(conn net.Conn) (net.Conn, error) { return u.handshake(ctx, conn) })
	if err != nil {
		return u.tlsFailed(ctx, err)
	}
	return nil
}

func (u *upstream) askCapabilities(ctx context.Context) error {
	status, err := u.run(ctx, "CAPABILITY")
	if err != nil {
		return u.lost(atConnect, err)
	}
	if !status.OK() {
		return u.failed(atConnect, "CAPABILITY", status, nil)
	}
	return nil
}

// run sends one command of ours and reads its answer.
func (u *upstream) run(ctx context.Context, cmd string) (wire.Status, error) {
	status, err := u.conn.Run(cmd)
	u.trace(ctx, cmd, status, err)
	return status, err
}

// answers reads until no command of ours is in flight. ops are the last ones,
// in their order, whose results it logs and returns; each gets what they bring
// besides.
func (u *upstream) answers(ctx context.Context, ops []string, each func(wire.Event)) ([]wire.Status, error) {
	for u.conn.Pending() {
		ev, err := u.conn.Next()
		if err != nil {
			u.trace(ctx, ops[len(ops)-1], wire.Status{}, err)
			return nil, err
		}
		if ev.Kind != wire.Done && each != nil {
			each(ev)
		}
	}
	results := make([]wire.Status, len(ops))
	for i, op := range ops {
		results[i] = u.conn.ResultOf(u.conn.Started() - len(ops) + 1 + i)
		u.trace(ctx, op, results[i], nil)
	}
	return results, nil
}

// library returns go-imap's client, which is made when there is something for
// it to do: it costs a goroutine and buffers, that sessions which wait need not
// have.
func (u *upstream) library() (*client.Client, error) {
	if u.client == nil {
		u.conn.Attach()
		cl, err := client.New(u.conn)
		if err != nil {
			return nil, u.conn.Fail(err)
		}
		cl.ErrorLog = noLog // the cause of a loss is in conn.Err
		u.client = cl
	}
	return u.client, nil
}

// retire ends go-imap's client and its goroutine. The connection stands.
func (u *upstream) retire() {
	if u.client != nil {
		u.conn.Detach()
		<-u.client.LoggedOut()
		u.client = nil
	}
}

// execute runs one command of go-imap's. f is to return the library's error,
// which is replaced by the status or the cause of the loss.
// The commands of ours in behind go with it; their answers remain to be read.
func (u *upstream) execute(ctx context.Context, cmd string, f func(*client.Client) error, behind ...string) (wire.Status, error) {
	if err := u.conn.Err(); err != nil {
		return wire.Status{}, err
	}
	cl, err := u.library()
	if err != nil {
		return wire.Status{}, err
	}
	u.conn.Begin(behind...)
	err = f(cl)
	var status wire.Status
	if cause := u.conn.Err(); cause != nil {
		// go-imap's goroutine may be reading still: no result is looked at.
		u.trace(ctx, cmd, status, cause)
		return status, cause
	}
	status = u.conn.Result()
	switch status.Type {
	case "":
		// The library gave up before the upstream answered: the two no
		// longer agree where they are.
		if err == nil {
			err = errors.New("imap: no status")
		}
		err = u.conn.Fail(err)
	default:
		err = nil
	}
	u.trace(ctx, cmd, status, err)
	return status, err
}

// trace logs one upstream command with its result. cmd holds no secret.
func (u *upstream) trace(ctx context.Context, cmd string, status wire.Status, err error) {
	l := proxy.Logger(ctx)
	if err != nil {
		l.DebugContext(ctx, "upstream", "command", cmd, "error", u.cleanError(err))
		return
	}
	if l.Enabled(ctx, slog.LevelDebug) {
		l.DebugContext(ctx, "upstream", "command", cmd, "result", u.clean(status.String()))
	}
	for _, alert := range u.conn.TakeAlerts() {
		l.WarnContext(ctx, "upstream alert", "upstream", u.opts.Name, "command", cmd, "alert", u.clean(alert.String()))
	}
}

// logout says good-bye, waiting a short time at most, and closes.
func (u *upstream) logout(ctx context.Context) {
	if u.conn.Err() == nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), logoutTimeout)
		defer cancel()
		defer u.watch(ctx)()
		u.run(ctx, "LOGOUT")
	}
	u.close()
}

// watch ends the connection when ctx ends before the returned function is
// called: go-imap knows no contexts.
func (u *upstream) watch(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { u.conn.Fail(context.Cause(ctx)) })
}

// close ends the connection and go-imap's goroutine.
func (u *upstream) close() {
	u.conn.Close()
	if u.client != nil {
		<-u.client.LoggedOut()
	}
}
