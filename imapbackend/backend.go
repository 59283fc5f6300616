package imapbackend

import (
	"context"
	"fmt"
	"net"
	"runtime/debug"

	"popgate/imapbackend/dialect"
	"popgate/imapbackend/internal/budget"
	"popgate/imapbackend/internal/eyeballs"
	"popgate/imapbackend/internal/logins"
	"popgate/imapbackend/internal/srv"
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
	budget  *budget.Budget
	pool    *pool
	gate    *logins.Gate                            // of logins with a connection
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
		budget:  budget.New(opts.ReadAheadTotal),
		pool:    newPool(opts.KeepOpen),
		gate:    logins.New(opts.MaxLogins),
		waiting: make(chan struct{}, maxPrepared),
	}
	link := srv.New(opts.SRV).Connect
	if opts.SRV == "" {
		host, port, err := endpoint.Split(opts.Address, 1)
		if err != nil {
			return nil, err
		}
		b.opts.Dialect.Host, opts.Dialect.Host = host, host
		b.dial = func(ctx context.Context) (net.Conn, error) { return eyeballs.New().Connect(ctx, host, port) }
		link = func(ctx context.Context) (upstream.Link, error) {
			conn, err := b.dial(ctx)
			return upstream.Link{Conn: conn, TLS: opts.TLS, ServerName: opts.ServerName}, err
		}
	}
	b.server = upstream.NewServer(upstream.Options{
		Name:         opts.Name,
		Dial:         link,
		RootCAs:      opts.RootCAs,
		Mailbox:      opts.Mailbox,
		Compress:     opts.Compress,
		SendClientID: opts.SendClientID,
		Version:      opts.Version,
		Observer:     opts.Observer,
		Spare:        b.pool.spare,
		Tap:          opts.Tap,
		Dialect:      opts.Dialect,
		Memory:       &factMemory{opts.Store, opts.Name},
	})
	return b, nil
}

// ShareReadAhead makes b read ahead within the ReadAheadTotal of other instead of its
// own. It is called before the first login of b.
func (b *Backend) ShareReadAhead(other *Backend) { b.budget = other.budget }

// factMemory keeps what is learned of the servers of an upstream in the store.
type factMemory struct {
	store    *store.Store
	upstream string
}

var _ upstream.Memory = (*factMemory)(nil)

// Load implements upstream.Memory. What cannot be read is learned again.
func (m *factMemory) Load(fingerprint string) (known dialect.Facts) {
	if known.UnmarshalText([]byte(m.store.Fact(m.upstream, fingerprint))) != nil {
		return dialect.Facts{}
	}
	return known
}

// Save implements upstream.Memory.
func (m *factMemory) Save(fingerprint string, learned dialect.Facts) {
	text, _ := learned.MarshalText() // never fails
	m.store.PutFact(m.upstream, store.Fact{Fingerprint: fingerprint, Text: string(text)})
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
	if l := b.resume(ctx, cred, upstream.NewAttempt); l != nil {
		return l, nil
	}
	return asLogin(b.inTurn(ctx, b.authenticate(cred)))
}

// Exchange implements proxy.Exchanger.
func (b *Backend) Exchange(ctx context.Context, ex *proxy.Exchange) (proxy.Login, error) {
	return asLogin(b.inTurn(ctx, b.exchange(ex)))
}

// asLogin returns a nil interface instead of one that holds a nil *login.
func asLogin(l *login, err error) (proxy.Login, error) {
	if err != nil {
		return nil, err
	}
	return l, nil
}

// waits returns the error for a login that the upstream has asked to wait with, or
// has refused a short time ago. It does so for a kept connection too, whose next
// command would be refused.
func (b *Backend) waits(cred proxy.Credential) error {
	if err := b.waitsAgain(cred); err != nil {
		return err
	}
	return b.server.Refused(cred)
}

// waitsAgain is waits for a credential that the upstream has accepted before, in the
// same session.
func (b *Backend) waitsAgain(cred proxy.Credential) error {
	return b.server.Waits(cred.Authzid, cred.Username, cred.Password)
}

func (b *Backend) waitsFor(ex *proxy.Exchange) error {
	return b.server.Waits(ex.Authzid, ex.Username, ex.Authorization)
}

// inTurn logs in by verify, without a connection opened ahead, when not too many
// other logins for the maildrop hold a connection.
func (b *Backend) inTurn(ctx context.Context, verify verifier) (*login, error) {
	at := upstream.NewAttempt()
	at.Start(ctx)
	leave, err := b.enterMaildrop(ctx, at, verify)
	if err != nil {
		at.Stop()
		return nil, err
	}
	return b.logInAs(ctx, leave, at, nil, verify)
}

// enterMaildrop waits for the turn of a login among those for its maildrop, if it is
// known which that is.
func (b *Backend) enterMaildrop(ctx context.Context, at *upstream.Attempt, verify verifier) (leave func(), err error) {
	if verify.user == "" {
		return func() {}, nil
	}
	ctx, unbound := at.Bound(ctx)
	defer unbound()
	if leave, err = b.gate.EnterMaildrop(ctx, who(ctx, verify.user)); err != nil {
		return nil, upstream.TempError(err)
	}
	return leave, nil
}

// logInAs is logIn for a login that is counted for its maildrop until leave is called.
func (b *Backend) logInAs(ctx context.Context, leave func(), at *upstream.Attempt, ahead *claimed, verify verifier) (l *login, err error) {
	defer func() {
		if l == nil {
			leave()
		}
	}()
	if l, err = b.logIn(ctx, at, ahead, verify); err != nil {
		return nil, err
	}
	if verify.user != "" {
		keys := l.id.Keys()
		b.gate.Identified(who(ctx, verify.user), keys[len(keys)-1])
		l.leave = leave
	}
	return l, nil
}

// who returns who logs in as user, as verifier has it, from the client of ctx.
func who(ctx context.Context, user string) logins.Who {
	c, _ := proxy.ClientOf(ctx)
	return logins.Who{Client: c.Network(), User: user}
}

// claimed is a connection opened ahead that a login has claimed.
type claimed struct {
	u     *upstream.Conn // nil if it could not be opened
	leave func()         // of the gate
}

// logIn starts at and logs in by verify.
func (b *Backend) logIn(ctx context.Context, at *upstream.Attempt, ahead *claimed, verify verifier) (*login, error) {
	at.Start(ctx)
	l, err := b.connect(ctx, at, ahead, verify)
	if err != nil {
		at.Stop()
	}
	return l, err
}

// connect logs in by logInOn when the gate lets it. A login whose maildrop is not
// known stays in until it is open; any other until the upstream's verdict.
func (b *Backend) connect(ctx context.Context, at *upstream.Attempt, ahead *claimed, verify verifier) (l *login, err error) {
	ctx, unbound := at.Bound(ctx)
	defer unbound()
	if ahead == nil {
		if err = verify.waits(); err != nil {
			return nil, err
		}
		leave, err := b.gate.Enter(ctx, who(ctx, verify.user), verify.asks)
		if err != nil {
			return nil, upstream.TempError(err)
		}
		ahead = &claimed{leave: leave}
	}
	defer func() {
		if l != nil && verify.user == "" {
			l.leave = ahead.leave
		} else {
			ahead.leave()
		}
	}()
	return b.logInOn(ctx, at, ahead.u, verify)
}

// logInOn logs in on as many connections as at allows, the first of which is u,
// unless that is nil.
func (b *Backend) logInOn(ctx context.Context, at *upstream.Attempt, u *upstream.Conn, verify verifier) (*login, error) {
	source := proxy.SourcePrepared
	var failure error
	for {
		var err error
		if u == nil {
			if err = verify.waits(); err != nil {
				return nil, worse(failure, err)
			}
			u, err = b.server.Connect(ctx, at)
			source = proxy.SourceDialed
		}
		if err == nil {
			var l *login
			if l, err = verify.logIn(ctx, u); err == nil {
				l.at, l.source = at, source
				return l, nil
			}
			at.Judge(ctx, u)
			u.Logout(ctx)
		}
		if failure = worse(failure, err); !at.Again() {
			return nil, failure
		}
		u = nil
	}
}

// worse returns which of two failures of a login, in their order, to report. first
// may be nil.
func worse(first, second error) error {
	if first != nil && proxy.AsError(second).Text == upstream.TextTemp {
		return first // the second says no more
	}
	return second
}

// verifier has the upstream verify a user.
type verifier struct {
	// user is the key of the maildrop as far as the name shows it; "" if the name is
	// not known. asks is that of an exchange in which the client is asked.
	user string
	asks bool

	// waits returns an error while the upstream wants no login of the user.
	waits func() error

	// logIn logs in on a connection that has greeted. On error the caller closes
	// it. nil: what the client has sent is valid for one login.
	logIn func(context.Context, *upstream.Conn) (*login, error)
}

// authenticate returns the verifier of a credential.
func (b *Backend) authenticate(cred proxy.Credential) verifier {
	return verifier{b.userKey(cred.Authzid, cred.Username), false, func() error { return b.waits(cred) }, func(ctx context.Context, u *upstream.Conn) (*login, error) {
		defer closeOnPanic(u)
		id, err := u.Login(ctx, cred)
		if err != nil {
			return nil, err
		}
		return &login{b: b, u: u, id: id, user: spelling(cred.Authzid, cred.Username),
			again: b.authenticateAgain(cred), ticket: b.pool.admit(cred, id)}, nil
	}}
}

// authenticateAgain is authenticate for a credential that the upstream has accepted
// before, in the same session: an upstream that refuses it may do so for a moment.
func (b *Backend) authenticateAgain(cred proxy.Credential) verifier {
	again := b.authenticate(cred)
	again.waits = func() error { return b.waitsAgain(cred) }
	return again
}

// exchange is authenticate for a SASL exchange. A token can be sent again on
// another connection without asking the client; the other mechanisms answer a
// challenge, which is valid once.
func (b *Backend) exchange(ex *proxy.Exchange) verifier {
	return verifier{b.userKey(ex.Authzid, ex.Username), true, func() error { return b.waitsFor(ex) }, func(ctx context.Context, u *upstream.Conn) (*login, error) {
		defer closeOnPanic(u)
		id, err := u.Exchange(ctx, ex)
		if err != nil {
			return nil, err
		}
		l := &login{b: b, u: u, id: id, user: spelling(ex.Authzid, ex.Username)}
		if upstream.IsToken(ex.Mechanism) {
			repeated := *ex
			repeated.Challenge = func(context.Context, string) (string, error) { return "", proxy.ErrCancelled }
			l.again = b.exchange(&repeated)
			l.again.asks = false
		}
		return l, nil
	}}
}

// userKey returns the key of verifier.
func (b *Backend) userKey(authzid, username string) string {
	if username == "" {
		return ""
	}
	id := proxy.Identity{Upstream: b.opts.Name, User: upstream.CanonicalUser(authzid, username), Mailbox: b.opts.Mailbox}
	return id.Keys()[0]
}

// closeOnPanic, deferred, ends u if the function that is left by a panic is the
// only one that could.
func closeOnPanic(u *upstream.Conn) {
	if p := recover(); p != nil {
		u.Close()
		panic(p)
	}
}

// logPanic logs a panic on a goroutine that no session waits for, and returns it
// as an error.
func logPanic(ctx context.Context, p any) error {
	proxy.Logger(ctx).ErrorContext(ctx, "panic in session", "panic", p, "stack", string(debug.Stack()))
	return fmt.Errorf("panic: %v", p)
}

// login is a verified user on a connection without a selected mailbox.
type login struct {
	b       *Backend
	u       *upstream.Conn // nil once a Maildrop owns it
	at      *upstream.Attempt
	id      proxy.Identity
	user    string   // as the client spelled it
	again   verifier // on another connection
	ticket  *ticket  // nil: the connection is not to be kept
	leave   func()   // of the gate; nil where it does not count there
	source  proxy.Source
	resumed bool // u is a kept connection that is not yet known to be alive
}

// spelling is the user as the client spelled it: names that differ only in case
// may be two users to the upstream.
func spelling(authzid, username string) string { return authzid + "\x00" + username }

// Identity implements proxy.Login.
func (l *login) Identity() proxy.Identity { return l.id }

// Close implements proxy.Login.
func (l *login) Close() error {
	defer l.leaveGate()
	if l.u != nil {
		l.at.Stop()
		l.u.Logout(context.Background())
		l.u = nil
	}
	return nil
}

// leaveGate no longer counts the login: its maildrop is open, or its connection
// closed.
func (l *login) leaveGate() {
	if l.leave != nil {
		l.leave()
		l.leave = nil
	}
}
