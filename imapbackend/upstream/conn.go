package upstream

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"log/slog"
	"time"

	"github.com/emersion/go-imap/client"

	"popgate/imapbackend/wire"
	"popgate/proxy"
)

var noLog = log.New(io.Discard, "", 0)

// Longest waits towards the upstream (requirement I-KEEP-2).
const (
	ConnectTimeout  = 10 * time.Second
	TLSTimeout      = 10 * time.Second
	GreetingTimeout = 20 * time.Second
	ProgressTimeout = 60 * time.Second  // for the next octet of an answer
	SelectTimeout   = 300 * time.Second // the same for SELECT
	LogoutTimeout   = 2 * time.Second
)

// Conn is one connection to the upstream, from the greeting on. It belongs
// to one goroutine.
type Conn struct {
	opts     *Options
	server   *Server
	Wire     *wire.Conn
	client   *client.Client
	tls      *tls.ConnectionState // nil without TLS
	greeting string
	secrets  []string // never to be logged

	challenged bool // the client has been sent a challenge of this connection
	utf8       bool // UTF8=ACCEPT is enabled
	clientUTF8 bool // the client takes headers beyond ASCII
}

// TLS returns the state of TLS, nil without.
func (u *Conn) TLS() *tls.ConnectionState { return u.tls }

// Greeting returns the greeting, for an operator.
func (u *Conn) Greeting() string { return u.greeting }

// Challenged reports whether the client has been sent a challenge of this
// connection, which it can answer on no other.
func (u *Conn) Challenged() bool { return u.challenged }

// UTF8 reports whether UTF8=ACCEPT is enabled, so that mailbox names are in
// UTF-8 (RFC 6855 §3).
func (u *Conn) UTF8() bool { return u.utf8 }

// RawHeaders reports whether the upstream may deliver headers beyond ASCII that
// the client does not take.
func (u *Conn) RawHeaders() bool { return u.utf8 && !u.clientUTF8 }

// run sends one command of ours and reads its answer.
func (u *Conn) run(ctx context.Context, cmd string) (wire.Status, error) {
	status, err := u.Wire.Run(cmd)
	u.Trace(ctx, cmd, status, err)
	return status, err
}

// Answers reads until no command of ours is in flight. ops are the last ones,
// in their order, whose results it logs and returns; each gets what they bring
// besides.
func (u *Conn) Answers(ctx context.Context, ops []string, each func(wire.Event)) ([]wire.Status, error) {
	for u.Wire.Pending() {
		ev, err := u.Wire.Next()
		if err != nil {
			u.Trace(ctx, ops[len(ops)-1], wire.Status{}, err)
			return nil, err
		}
		if ev.Kind != wire.Done && each != nil {
			each(ev)
		}
	}
	results := make([]wire.Status, len(ops))
	for i, op := range ops {
		results[i] = u.Wire.ResultOf(u.Wire.Started() - len(ops) + 1 + i)
		u.Trace(ctx, op, results[i], nil)
	}
	return results, nil
}

// library returns go-imap's client, which is made when there is something for
// it to do: it costs a goroutine and buffers, which a waiting session need not
// have.
func (u *Conn) library() (*client.Client, error) {
	if u.client == nil {
		u.Wire.Attach()
		cl, err := client.New(u.Wire)
		if err != nil {
			return nil, u.Wire.Fail(err)
		}
		cl.ErrorLog = noLog // the cause of a loss is in conn.Err
		u.client = cl
	}
	return u.client, nil
}

// Retire ends go-imap's client and its goroutine. The connection stays open.
func (u *Conn) Retire() {
	if u.client != nil {
		u.Wire.Detach()
		<-u.client.LoggedOut()
		u.client = nil
	}
}

// execute runs one command of go-imap's. f is to return the library's error,
// which is replaced by the status or the cause of the loss.
// The commands of ours in behind go with it; their answers remain to be read.
func (u *Conn) execute(ctx context.Context, cmd string, f func(*client.Client) error, behind ...string) (wire.Status, error) {
	if err := u.Wire.Err(); err != nil {
		return wire.Status{}, err
	}
	cl, err := u.library()
	if err != nil {
		return wire.Status{}, err
	}
	u.Wire.Begin(behind...)
	err = f(cl)
	var status wire.Status
	if cause := u.Wire.Err(); cause != nil {
		// go-imap's goroutine may be reading still: no result is looked at.
		u.Trace(ctx, cmd, status, cause)
		return status, cause
	}
	status = u.Wire.Result()
	switch status.Type {
	case "":
		// The library gave up before the upstream answered: the two no
		// longer agree where they are.
		if err == nil {
			err = errors.New("imap: no status")
		}
		err = u.Wire.Fail(err)
	default:
		err = nil
	}
	u.Trace(ctx, cmd, status, err)
	return status, err
}

// Trace logs one upstream command with its result. cmd holds no secret.
func (u *Conn) Trace(ctx context.Context, cmd string, status wire.Status, err error) {
	l := proxy.Logger(ctx)
	if err != nil {
		l.DebugContext(ctx, "upstream", "command", cmd, "error", u.CleanError(err))
		return
	}
	if l.Enabled(ctx, slog.LevelDebug) {
		l.DebugContext(ctx, "upstream", "command", cmd, "result", u.Clean(status.String()))
	}
	for _, alert := range u.Wire.TakeAlerts() {
		l.WarnContext(ctx, "upstream alert", "upstream", u.opts.Name, "command", cmd, "alert", u.Clean(alert.String()))
	}
}

// Logout says good-bye, waiting a short time at most, and closes.
func (u *Conn) Logout(ctx context.Context) {
	if u.Wire.Err() == nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), LogoutTimeout)
		defer cancel()
		defer u.Watch(ctx)()
		u.run(ctx, "LOGOUT")
	}
	u.Close()
}

// Dismiss says good-bye without waiting for an answer, and closes.
func (u *Conn) Dismiss() {
	if u.Wire.Err() == nil && u.Wire.Start("LOGOUT") == nil {
		u.Wire.Flush() // the upstream notices the end in any case
	}
	u.Close()
}

// Rest prepares the connection to wait for its next login: go-imap's client
// ends, and the credential is forgotten.
func (u *Conn) Rest() {
	u.Retire()
	u.secrets = nil
}

// Reuse ends that wait; cred is the credential that the connection was opened
// with.
func (u *Conn) Reuse(cred proxy.Credential) { u.secrets = secretsOf(cred) }

// Watch ends the connection when ctx ends before the returned function is
// called: go-imap knows no contexts.
func (u *Conn) Watch(ctx context.Context) (stop func() bool) {
	return context.AfterFunc(ctx, func() { u.Wire.Fail(context.Cause(ctx)) })
}

// Close ends the connection and go-imap's goroutine.
func (u *Conn) Close() {
	u.Wire.Close()
	if u.client != nil {
		<-u.client.LoggedOut()
	}
}
