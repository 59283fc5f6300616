package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/emersion/go-imap/client"

	"popgate/imapbackend/dialect"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

var noLog = log.New(io.Discard, "", 0)

// How long the upstream may take (requirement I-KEEP-2).
const (
	ConnectTimeout  = 10 * time.Second
	TLSTimeout      = 10 * time.Second
	GreetingTimeout = 20 * time.Second
	ProgressTimeout = 60 * time.Second  // until the next octet of an answer
	SelectTimeout   = 300 * time.Second // the same, for SELECT
	LogoutTimeout   = 2 * time.Second
)

// Conn is one connection to the upstream, from the greeting on. It is used by
// one goroutine at a time. Its fields are read-only for callers.
type Conn struct {
	// Wire sends the commands and reads the answers that have no method
	// here.
	Wire *wire.Conn

	TLS      *tls.ConnectionState // nil without TLS
	Greeting string               // as a status line

	// Challenged reports that the client has been sent a challenge of this
	// connection, whose answer is valid on no other.
	Challenged bool

	opts       *Options
	server     *Server
	link       Link // below TLS, if there is any
	dialect    dialect.Dialect
	learned    *learned       // of the server
	attempt    *Attempt       // the login that uses the connection, or has used it
	daring     dialect.Form   // forms in use that have never succeeded
	lostAt     *Search        // whose answer was waited for when the connection was lost
	greeted    bool           // by OK
	identified bool           // ID has been sent
	judging    bool           // a credential has been sent and not been judged
	final      bool           // it has been refused what would be refused again
	stale      bool           // it has waited for the login, and may be closed by now
	flight     bool           // SELECT and the trailing commands share a flight
	client     *client.Client // go-imap's, nil while it has nothing to do
	user       string         // by which it is counted
	secrets    secrets
	account    waitFor     // of the login
	accepted   bool        // the upstream has accepted its credential
	utf8       bool        // UTF8=ACCEPT is enabled
	clientUTF8 bool        // the client accepts headers beyond ASCII
	accountID  string      // of the mailbox; "": not given
	uidZero    bool        // a message with UID 0 has been logged
	abandoned  atomic.Bool // a context given to Watch has ended it
}

// Dialect returns what the upstream is known to take.
func (c *Conn) Dialect() dialect.Dialect { return c.dialect }

// UTF8 reports whether UTF8=ACCEPT is enabled, so that mailbox names are in
// UTF-8 (RFC 6855 §3).
func (c *Conn) UTF8() bool { return c.utf8 }

// RawHeaders reports whether the upstream may deliver headers beyond ASCII to a
// client that does not accept them.
func (c *Conn) RawHeaders() bool { return c.utf8 && !c.clientUTF8 }

// run sends one command and reads its answer.
func (c *Conn) run(ctx context.Context, cmd string) (wire.Status, error) {
	status, err := c.Wire.Run(cmd)
	c.Trace(ctx, cmd, status, err)
	return status, err
}

// Answers reads until no command that Wire.Start has sent is in flight. It
// logs and returns the results of the last of them, ops, in their order, and
// calls each with the other events. The error is the loss of the connection.
func (c *Conn) Answers(ctx context.Context, ops []string, each func(wire.Event)) ([]wire.Status, error) {
	for c.Wire.Pending() {
		ev, err := c.Wire.Next()
		if err != nil {
			c.Trace(ctx, ops[len(ops)-1], wire.Status{}, err)
			return nil, err
		}
		if ev.Kind != wire.Done && each != nil {
			each(ev)
		}
	}
	results := make([]wire.Status, len(ops))
	for i, op := range ops {
		results[i] = c.Wire.ResultOf(c.Wire.Started() - len(ops) + 1 + i)
		c.Trace(ctx, op, results[i], nil)
	}
	return results, nil
}

// library returns go-imap's client, and creates it if needed: it costs a
// goroutine and buffers, which a waiting session should not hold.
func (c *Conn) library() (*client.Client, error) {
	if c.client == nil {
		c.Wire.Attach()
		cl, err := client.New(c.Wire)
		if err != nil {
			return nil, c.Wire.Fail(err)
		}
		cl.ErrorLog = noLog // the cause of a loss is in Wire.Err
		c.client = cl
	}
	return c.client, nil
}

// Retire ends go-imap's client and its goroutine. The connection stays open.
func (c *Conn) Retire() {
	if c.client != nil {
		c.Wire.Detach()
		<-c.client.LoggedOut()
		c.client = nil
	}
}

// execute runs one command of go-imap's. f returns the library's error, which
// is replaced by the status or the cause of the loss. The trailing commands
// are sent with it; Answers reads their results.
func (c *Conn) execute(ctx context.Context, cmd string, f func(*client.Client) error, trailing ...string) (wire.Status, error) {
	if err := c.Wire.Err(); err != nil {
		return wire.Status{}, err
	}
	ended := false
	defer func() {
		if !ended { // by a panic: go-imap's goroutine still reads
			c.Wire.Fail(errors.New("imap: panic"))
		}
	}()
	status, err := c.executeByLibrary(ctx, cmd, f, trailing...)
	ended = true
	return status, err
}

func (c *Conn) executeByLibrary(ctx context.Context, cmd string, f func(*client.Client) error, trailing ...string) (wire.Status, error) {
	cl, err := c.library()
	if err != nil {
		return wire.Status{}, err
	}
	c.Wire.Begin(trailing...)
	err = f(cl)
	var status wire.Status
	if cause := c.Wire.Err(); cause != nil {
		// go-imap's goroutine may still be reading: do not read its
		// result.
		c.Trace(ctx, cmd, status, cause)
		return status, cause
	}
	status = c.Wire.Result()
	switch status.Type {
	case "":
		// The library gave up before the upstream answered: that answer
		// would be taken for the next command's.
		if err == nil {
			err = errors.New("imap: no status")
		}
		err = c.Wire.Fail(err)
	default:
		err = nil
	}
	c.Trace(ctx, cmd, status, err)
	return status, err
}

// Trace logs one upstream command with its result. cmd holds no secret.
func (c *Conn) Trace(ctx context.Context, cmd string, status wire.Status, err error) {
	c.heedWait(ctx, status, err)
	l := proxy.Logger(ctx)
	if err != nil {
		if p, ok := errors.AsType[*wire.PanicError](err); ok {
			l.ErrorContext(ctx, "panic in session", "panic", p.Value, "stack", p.Stack)
		}
		l.DebugContext(ctx, "upstream", "command", cmd, "error", c.CleanError(err))
		return
	}
	if l.Enabled(ctx, slog.LevelDebug) {
		l.DebugContext(ctx, "upstream", "command", cmd, "result", c.Clean(status.String()))
	}
	if !c.uidZero && c.Wire.Mailbox().UIDZero {
		c.uidZero = true
		l.WarnContext(ctx, "message with UID 0 is skipped", "upstream", c.opts.Name, "command", cmd)
	}
	for _, alert := range c.Wire.TakeAlerts() {
		l.WarnContext(ctx, "upstream alert", "upstream", c.opts.Name, "command", cmd, "alert", c.Clean(alert.String()))
	}
}

// Logout sends LOGOUT, waits for the answer at most LogoutTimeout, and closes.
func (c *Conn) Logout(ctx context.Context) {
	loss := c.loss()
	if c.Wire.Err() == nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), LogoutTimeout)
		defer cancel()
		defer c.Watch(ctx)()
		c.run(ctx, "LOGOUT")
	}
	c.end(loss)
}

// Dismiss sends LOGOUT, does not wait for the answer, and closes.
func (c *Conn) Dismiss() {
	loss := c.loss()
	if c.Wire.Err() == nil && c.Wire.Start("LOGOUT") == nil {
		c.Wire.Flush() // the upstream notices the end in any case
	}
	c.end(loss)
}

// Rest prepares the connection to be kept for a next login: it ends go-imap's
// client and forgets the credential.
func (c *Conn) Rest() {
	c.Retire()
	c.secrets = nil
}

// Reuse is for the next login, at, after Rest; cred is the credential with which
// the connection was opened.
func (c *Conn) Reuse(cred proxy.Credential, at *Attempt) {
	c.secrets, c.attempt = secretsOf(cred), at
	at.made++
}

// HasWaited reports that the connection has waited for the login: if it is lost,
// the upstream may have closed it before.
func (c *Conn) HasWaited() { c.stale = true }

// Watch ends the connection if ctx ends before stop is called, as go-imap has
// no contexts. stop is that of context.AfterFunc.
func (c *Conn) Watch(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { c.Abandon(context.Cause(ctx)) })
}

// Abandon ends the connection because of cause, unless it has been lost before.
// That does not count as a loss, except at the limit of a login. It is safe for concurrent use.
func (c *Conn) Abandon(cause error) {
	if c.Wire.Err() == nil && !errors.Is(cause, errLate) {
		c.abandoned.Store(true)
	}
	c.Wire.Fail(cause)
}

// loss returns why the connection has been lost; nil if it has not, or if a
// context has ended it.
func (c *Conn) loss() error {
	if err := c.Wire.Err(); err != nil && !c.abandoned.Load() {
		return c.CleanError(err)
	}
	return nil
}

// Close ends the connection and go-imap's goroutine.
func (c *Conn) Close() { c.end(c.loss()) }

// end is Close with the loss given.
func (c *Conn) end(loss error) {
	c.Wire.Close()
	c.server.users.remove(c)
	if c.client != nil {
		<-c.client.LoggedOut()
	}
	c.Report(proxy.UpstreamClosed, loss, 0)
}

// Report informs the Observer of an event of the connection.
func (c *Conn) Report(kind proxy.UpstreamEventKind, err error, elapsed time.Duration) {
	c.server.report(kind, err, elapsed)
}
