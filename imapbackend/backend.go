package imapbackend

import (
	"context"
	"net"

	"popgate/imapbackend/internal/eyeballs"
	"popgate/imapbackend/store"
	"popgate/imapbackend/uniqueid"
	"popgate/imapbackend/upstream"
	"popgate/proxy"
	"popgate/proxy/endpoint"
)

// Backend logs users in on one upstream. New makes one. It is safe for
// concurrent use.
type Backend struct {
	opts    Options
	form    *uniqueid.Template // of unique-ids
	source  uniqueid.Kind      // of identities, used instead of form; NoKind: form
	store   *store.Store
	server  *upstream.Server
	budget  *readAheadBudget
	pool    *pool
	waiting chan struct{}                           // one element for each prepared connection
	dial    func(context.Context) (net.Conn, error) // replaced by tests
}

var (
	_ proxy.Backend   = (*Backend)(nil)
	_ proxy.Exchanger = (*Backend)(nil)
)

// New returns a Backend and does not contact the upstream. The error is
// OptionErrors where opts are wrong.
func New(opts Options) (*Backend, error) {
	opts, wrong := opts.Resolve()
	if len(wrong) > 0 {
		return nil, wrong
	}
	host, port, err := endpoint.Split(opts.Address, 1)
	if err != nil {
		return nil, err
	}
	form, err := uniqueid.ForMailbox(opts.UIDL, opts.Mailbox)
	if err != nil {
		return nil, err
	}
	if opts.Store == nil {
		opts.Store = store.NewMemory(store.DefaultMemory)
	}
	b := &Backend{
		opts:    opts,
		form:    form,
		source:  uniqueid.ParseSource(opts.UIDL),
		store:   opts.Store,
		budget:  &readAheadBudget{left: opts.ReadAheadTotal},
		pool:    newPool(opts.KeepOpen),
		waiting: make(chan struct{}, maxPrepared),
	}
	b.dial = func(ctx context.Context) (net.Conn, error) {
		return eyeballs.New().Connect(ctx, host, port)
	}
	b.server = upstream.NewServer(upstream.Options{
		Name:         opts.Name,
		Dial:         func(ctx context.Context) (net.Conn, error) { return b.dial(ctx) },
		TLS:          opts.TLS,
		ServerName:   opts.ServerName,
		RootCAs:      opts.RootCAs,
		Mailbox:      opts.Mailbox,
		Compress:     opts.Compress,
		SendClientID: opts.SendClientID,
		Version:      opts.Version,
		Observer:     opts.Observer,
	})
	return b, nil
}

// Close ends the connections that are kept for a next login. Sessions continue,
// and log out when they end.
func (b *Backend) Close() error {
	b.pool.close()
	return nil
}

// Login implements proxy.Backend: it connects, verifies the user, and
// identifies the maildrop. Where a connection is kept for the credential, it
// asks nothing.
func (b *Backend) Login(ctx context.Context, cred proxy.Credential) (proxy.Login, error) {
	if err := b.waits(cred); err != nil {
		return nil, err
	}
	if l := b.resume(ctx, cred); l != nil {
		return l, nil
	}
	return asLogin(b.verify(ctx, cred))
}

// Exchange implements proxy.Exchanger.
func (b *Backend) Exchange(ctx context.Context, ex *proxy.Exchange) (proxy.Login, error) {
	return asLogin(b.relay(ctx, ex))
}

// asLogin returns a nil interface instead of one that holds a nil *login.
func asLogin(l *login, err error) (proxy.Login, error) {
	if err != nil {
		return nil, err
	}
	return l, nil
}

// verify connects and logs in.
func (b *Backend) verify(ctx context.Context, cred proxy.Credential) (*login, error) {
	if err := b.waits(cred); err != nil {
		return nil, err
	}
	return b.onNewConnection(ctx, func(u *upstream.Conn) (*login, error) { return b.authenticate(ctx, u, cred) })
}

// relay connects and logs in by a SASL exchange with the client.
func (b *Backend) relay(ctx context.Context, ex *proxy.Exchange) (*login, error) {
	if err := b.waitsFor(ex); err != nil {
		return nil, err
	}
	return b.onNewConnection(ctx, func(u *upstream.Conn) (*login, error) { return b.exchange(ctx, u, ex) })
}

// waits returns the error for a login that the upstream has asked to wait with.
// It does so for a kept connection too, whose next command would be refused.
func (b *Backend) waits(cred proxy.Credential) error {
	return b.server.Waits(cred.Authzid, cred.Username, cred.Password)
}

func (b *Backend) waitsFor(ex *proxy.Exchange) error {
	return b.server.Waits(ex.Authzid, ex.Username, ex.Authorization)
}

func (b *Backend) onNewConnection(ctx context.Context, logIn func(*upstream.Conn) (*login, error)) (*login, error) {
	u, err := b.server.Connect(ctx)
	if err != nil {
		return nil, err
	}
	l, err := logIn(u)
	if err != nil {
		u.Logout(ctx)
		return nil, err
	}
	return l, nil
}

// authenticate logs in on a connection that has greeted. On error the caller
// closes it.
func (b *Backend) authenticate(ctx context.Context, u *upstream.Conn, cred proxy.Credential) (*login, error) {
	id, err := u.Login(ctx, cred)
	if err != nil {
		return nil, err
	}
	return &login{b: b, u: u, id: id, user: spelling(cred.Authzid, cred.Username),
		relogin: b.repeat(cred), ticket: b.pool.admit(cred, id), source: proxy.SourceDialed}, nil
}

// exchange is authenticate for a SASL exchange. A token can be sent again on
// another connection without asking the client; the other mechanisms answer a
// challenge, which is valid once.
func (b *Backend) exchange(ctx context.Context, u *upstream.Conn, ex *proxy.Exchange) (*login, error) {
	id, err := u.Exchange(ctx, ex)
	if err != nil {
		return nil, err
	}
	l := &login{b: b, u: u, id: id, user: spelling(ex.Authzid, ex.Username), source: proxy.SourceDialed}
	if upstream.IsToken(ex.Mechanism) {
		l.relogin = b.repeatToken(*ex)
	}
	return l, nil
}

// login is a verified user on a connection without a selected mailbox.
type login struct {
	b       *Backend
	u       *upstream.Conn // nil once a Maildrop owns it
	id      proxy.Identity
	user    string  // as the client spelled it
	relogin relogin // nil: what the client has sent is valid for one login
	ticket  *ticket // nil: the connection is not to be kept
	source  proxy.Source
	resumed *proxy.Credential // of a kept connection not yet known to be alive
}

// spelling is the user as the client spelled it: names that differ only in case
// may be two users to the upstream.
func spelling(authzid, username string) string { return authzid + "\x00" + username }

// relogin logs the same user in on a new connection. It holds the credential,
// in memory only, until the session ends.
type relogin func(context.Context) (*login, error)

func (b *Backend) repeat(cred proxy.Credential) relogin {
	return func(ctx context.Context) (*login, error) { return b.verify(ctx, cred) }
}

func (b *Backend) repeatToken(ex proxy.Exchange) relogin {
	ex.Challenge = func(context.Context, string) (string, error) { return "", proxy.ErrCancelled }
	return func(ctx context.Context) (*login, error) {
		again := ex
		return b.relay(ctx, &again)
	}
}

// Identity implements proxy.Login.
func (l *login) Identity() proxy.Identity { return l.id }

// Close implements proxy.Login.
func (l *login) Close() error {
	if l.u != nil {
		l.u.Logout(context.Background())
		l.u = nil
	}
	return nil
}
