package directory

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"popgate/imapbackend/upstream"
	"popgate/proxy"
)

// Login is what is known of a login before anything has been verified.
type Login struct {
	// Name is the login name as the client gave it, valid UTF-8. It is never "".
	Name string

	// Password is "" where the client sends none, as with a token.
	Password string

	// Attempt counts the logins of a session, from 1.
	Attempt int
}

// Target is where a login goes to.
type Target struct {
	Upstream string // the Name of an Upstream; "": Address
	Address  string // host:port of an upstream that has no options of its own
	User     string // the login name there

	// Password is sent instead of the client's, which the Resolver has verified.
	// "": the client's.
	Password string
}

// Resolver is one source of Targets. It is safe for concurrent use.
type Resolver interface {
	// Resolve returns the Target of l, or ErrUnknown if this source does not
	// know the name, so that the next one is asked. Any other error ends the
	// login; one that is no *proxy.Error is treated as [SYS/TEMP].
	Resolve(ctx context.Context, l Login) (Target, error)

	// Local reports that Resolve answers from memory, by the name alone.
	Local() bool
}

// ErrUnknown is a login name that a Resolver does not know.
var ErrUnknown = errors.New("directory: unknown login name")

// errNoUser is a login name that gives an empty name at the upstream.
var errNoUser = &proxy.Error{Code: proxy.CodeAuth, Text: proxy.ErrAuth.Text,
	Err: errors.New("directory: nothing is left of the login name for the upstream")}

// errOtherName is a login for somebody else, with a password that is not the client's.
var errOtherName = &proxy.Error{Code: proxy.CodeAuth, Text: proxy.ErrAuth.Text,
	Err: errors.New("directory: the password of the lookup is for the authorization identity, not for the name that authenticates")}

// errMechanism is a SASL mechanism that the upstream of the login does not list.
var errMechanism = errors.New("directory: the mechanism is not among those of the upstream")

// resolveLimit is how long all Resolvers together may take. The upstream of a login has
// what is left of upstream.LoginLimit.
const resolveLimit = upstream.LoginLimit - 2*upstream.Silence

// Backend logs users in on one upstream.
type Backend interface {
	proxy.Backend
	proxy.Exchanger
	proxy.Preparer
}

// ClosableBackend is a Backend that holds connections of its own.
type ClosableBackend interface {
	Backend
	io.Closer
}

// Upstream is one upstream of a Directory.
type Upstream struct {
	// Name is that of the Backend's identities, and unique.
	Name string

	Backend Backend

	// Mechanisms are the SASL mechanisms, in upper case, by which its users may
	// log in, apart from those that reveal the password.
	Mechanisms []string
}

// Directory is a proxy.Backend over several upstreams. It is safe for concurrent
// use.
type Directory struct {
	upstreams map[string]*Upstream
	resolvers []Resolver
	fixed     *Upstream // the only one there is, if nothing else resolves
	others    *others   // without options of their own
}

var (
	_ proxy.Backend   = (*Directory)(nil)
	_ proxy.Exchanger = (*Directory)(nil)
	_ proxy.Preparer  = (*Directory)(nil)
	_ proxy.Namer     = (*Directory)(nil)
)

// New returns the Directory of upstreams. It asks resolvers in their order and then,
// if there is only one upstream, takes that, with the login name unchanged. open
// makes the Backend of an address that no upstream has; it may be nil if no Resolver
// returns one.
func New(upstreams []Upstream, open func(address string) (ClosableBackend, error), resolvers ...Resolver) *Directory {
	d := &Directory{upstreams: make(map[string]*Upstream), resolvers: resolvers, others: newOthers(open)}
	for i := range upstreams {
		d.upstreams[upstreams[i].Name] = &upstreams[i]
	}
	if len(upstreams) == 1 {
		d.resolvers = append(slices.Clip(resolvers), only(upstreams[0].Name))
		if len(resolvers) == 0 {
			d.fixed = &upstreams[0]
		}
	}
	return d
}

// Close closes the Backends that were made for addresses. Sessions continue.
func (d *Directory) Close() error { return d.others.close() }

// only is the Resolver of the only upstream.
type only string

// Local implements Resolver.
func (o only) Local() bool { return true }

// Resolve implements Resolver.
func (o only) Resolve(_ context.Context, l Login) (Target, error) {
	return Target{Upstream: string(o), User: l.Name}, nil
}

// Resolve returns where a login goes to. An unknown name looks like a wrong
// password, and no upstream is asked (requirement P-PASS-5).
func (d *Directory) Resolve(ctx context.Context, l Login) (Target, error) {
	ctx, cancel := context.WithTimeout(ctx, resolveLimit)
	defer cancel()
	for _, r := range d.resolvers {
		if t, err := r.Resolve(ctx, l); !errors.Is(err, ErrUnknown) {
			return t, err
		}
	}
	return Target{}, &proxy.Error{Code: proxy.CodeAuth, Text: proxy.ErrAuth.Text, Err: ErrUnknown}
}

// locally is Resolve for a login that has not been sent yet; ok is false if it is
// not known from memory where it goes to.
func (d *Directory) locally(ctx context.Context, name string) (t Target, ok bool) {
	for _, r := range d.resolvers {
		if !r.Local() {
			return Target{}, false
		}
		if t, err := r.Resolve(ctx, Login{Name: name}); !errors.Is(err, ErrUnknown) {
			return t, err == nil
		}
	}
	return Target{}, false
}

// AccountName implements proxy.Namer: the upstream and the name there, as far as that
// is in memory. With an authorization identity the upstream is that of its name, and
// username is not changed.
func (d *Directory) AccountName(authzid, username string) string {
	t, ok := d.locally(context.Background(), cmp.Or(authzid, username))
	if !ok {
		return proxy.FoldName(username)
	}
	if authzid == "" {
		username = t.User
	}
	return cmp.Or(t.Upstream, t.Address) + "\x00" + proxy.FoldName(username)
}

// upstream returns the upstream of t.
func (d *Directory) upstream(t Target) (*Upstream, error) {
	if t.Upstream == "" {
		return d.others.get(t.Address)
	}
	return d.upstreams[t.Upstream], nil
}

// target returns the upstream of a login whose authorization identity is authzid, or
// l.Name if that is "", and both names there. The authorization identity names the
// mailbox, so it is the one that is resolved; the name of an administrator who logs
// in for a user is not changed (RFC 4616 §2). A password of a Resolver is for the name
// that it has resolved, and never sent with an administrator's, which nobody verifies.
func (d *Directory) target(ctx context.Context, authzid string, l Login) (u *Upstream, t Target, authz, user string, err error) {
	user = l.Name
	if authzid != "" {
		l.Name = authzid
	}
	if t, err = d.Resolve(ctx, l); err != nil {
		return nil, t, "", "", err
	}
	if u, err = d.upstream(t); err != nil {
		return nil, t, "", "", err
	}
	switch authzid {
	case "":
		return u, t, "", t.User, nil
	case user:
		return u, t, t.User, t.User, nil
	}
	if t.Password != "" {
		return nil, t, "", "", errOtherName
	}
	return u, t, t.User, user, nil
}

// Login implements proxy.Backend.
func (d *Directory) Login(ctx context.Context, cred proxy.Credential) (proxy.Login, error) {
	ctx = upstream.Begun(ctx, time.Now())
	u, cred, judge, err := d.route(ctx, cred)
	if err != nil {
		return nil, err
	}
	return judge(u.Backend.Login(ctx, cred))
}

// judged is a function on the result of a login.
type judged func(proxy.Login, error) (proxy.Login, error)

// route returns the upstream of cred, cred as it is sent there, and what makes of the
// result what the client sees.
func (d *Directory) route(ctx context.Context, cred proxy.Credential) (*Upstream, proxy.Credential, judged, error) {
	u, t, authz, user, err := d.target(ctx, cred.Authzid, Login{cred.Username, cred.Password, cred.Attempt})
	if err != nil {
		return nil, cred, nil, err
	}
	cred.Authzid, cred.Username = authz, user
	if t.Password != "" {
		cred.Password = t.Password
	}
	return u, cred, d.judge(u, t.Password != ""), nil
}

// judge adds the name of u to the cause of a failed login, unless u is the only
// upstream. If the password was not the client's, a refusal is no verdict on it.
func (d *Directory) judge(u *Upstream, ours bool) judged {
	return func(l proxy.Login, err error) (proxy.Login, error) {
		e, ok := errors.AsType[*proxy.Error](err)
		if err == nil || !ok || errors.Is(err, proxy.ErrCancelled) {
			return l, err
		}
		failed := *e
		if ours && e.Code == proxy.CodeAuth {
			failed.Code, failed.Text = proxy.CodeSysPerm, "the gateway cannot log in upstream, ask the operator"
		}
		if len(d.upstreams) > 1 || u.Name != "" && d.upstreams[u.Name] != u {
			failed.Err = fmt.Errorf("upstream %s: %w", u.Name, cmp.Or(e.Err, errRefused))
		}
		return nil, &failed
	}
}

var errRefused = errors.New("refused")

// Offers implements proxy.Exchanger. A mechanism that is relayed needs an upstream
// that is known before the user is (requirement P-SASL-5).
func (d *Directory) Offers(mechanism string, c proxy.Caller) bool {
	if d.fixed != nil {
		return d.fixed.Backend.Offers(mechanism, c)
	}
	return false
}

// Exchange implements proxy.Exchanger.
func (d *Directory) Exchange(ctx context.Context, ex *proxy.Exchange) (proxy.Login, error) {
	u, ex, err := d.routeExchange(ctx, ex)
	if err != nil {
		return nil, err
	}
	return d.judge(u, false)(u.Backend.Exchange(ctx, ex))
}

// routeExchange is route for an exchange. One whose name comes late has an upstream
// that is fixed.
func (d *Directory) routeExchange(ctx context.Context, ex *proxy.Exchange) (*Upstream, *proxy.Exchange, error) {
	if d.fixed != nil {
		return d.fixed, ex, nil
	}
	u, _, authz, user, err := d.target(ctx, ex.Authzid, Login{Name: ex.Username})
	if err != nil {
		return nil, nil, err
	}
	if !slices.Contains(u.Mechanisms, ex.Mechanism) {
		return nil, nil, &proxy.Error{Code: proxy.CodeAuth, Text: proxy.ErrAuth.Text, Err: fmt.Errorf("upstream %s: %w", u.Name, errMechanism)}
	}
	there := *ex
	there.Authzid, there.Username = authz, user
	return u, &there, nil
}
