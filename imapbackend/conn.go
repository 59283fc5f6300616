package imapbackend

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"log/slog"

	"github.com/emersion/go-imap/client"

	"popgate/imapbackend/wire"
	"popgate/proxy"
)

var noLog = log.New(io.Discard, "", 0)

// upstream is one connection to the upstream, from the greeting on. It belongs
// to one goroutine.
type upstream struct {
	opts     *Options
	server   *server
	conn     *wire.Conn
	client   *client.Client
	tls      *tls.ConnectionState // nil without TLS
	greeting string
	secrets  []string // never to be logged

	challenged bool // the client has been sent a challenge of this connection
	utf8       bool // UTF8=ACCEPT is enabled
	clientUTF8 bool // the client takes headers beyond ASCII
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
// it to do: it costs a goroutine and buffers, which a waiting session need not
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

// retire ends go-imap's client and its goroutine. The connection stays open.
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

// dismiss says good-bye without waiting for an answer, and closes.
func (u *upstream) dismiss() {
	if u.conn.Err() == nil && u.conn.Start("LOGOUT") == nil {
		u.conn.Flush() // the upstream notices the end in any case
	}
	u.close()
}

// rest prepares the connection to wait for its next login: go-imap's client
// ends, and the credential is forgotten.
func (u *upstream) rest() {
	u.retire()
	u.secrets = nil
}

// reuse ends that wait; cred is the credential that the connection was opened
// with.
func (u *upstream) reuse(cred proxy.Credential) { u.secrets = secretsOf(cred) }

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
