package directory

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"popgate/proxy"
)

// Login is what is known of a login before anything has been verified.
type Login struct {
	// Name is the login name as the client gave it, valid UTF-8. It is never "".
	Name string
}

// Target is where a login goes to.
type Target struct {
	Upstream string // the Name of an Upstream
	User     string // the login name there
}

// Resolver is one source of Targets. It is safe for concurrent use.
type Resolver interface {
	// Resolve returns the Target of l, or ErrUnknown if this source does not
	// know the name, so that the next one is asked. Any other error ends the
	// login; one that is no *proxy.Error is treated as [SYS/TEMP]. It answers
	// from memory.
	Resolve(ctx context.Context, l Login) (Target, error)
}

// ErrUnknown is a login name that a Resolver does not know.
var ErrUnknown = errors.New("directory: unknown login name")

// errNoUser is a login name that gives an empty name at the upstream.
var errNoUser = &proxy.Error{Code: proxy.CodeAuth, Text: proxy.ErrAuth.Text,
	Err: errors.New("directory: nothing is left of the login name for the upstream")}

// errMechanism is a SASL mechanism that the upstream of the login does not list.
var errMechanism = errors.New("directory: the mechanism is not among those of the upstream")

// Backend logs users in on one upstream.
type Backend interface {
	proxy.Backend
	proxy.Exchanger
	proxy.Preparer
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
// use, and never changes.
type Directory struct {
	upstreams map[string]*Upstream
	resolvers []Resolver
	fixed     *Upstream // the only one there is, if nothing else resolves
}

var (
	_ proxy.Backend   = (*Directory)(nil)
	_ proxy.Exchanger = (*Directory)(nil)
	_ proxy.Preparer  = (*Directory)(nil)
)

// New returns the Directory of upstreams. It asks resolvers in their order and then,
// if there is only one upstream, takes that, with the login name unchanged.
func New(upstreams []Upstream, resolvers ...Resolver) *Directory {
	d := &Directory{upstreams: make(map[string]*Upstream), resolvers: resolvers}
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

// only is the Resolver of the only upstream.
type only string

// Resolve implements Resolver.
func (o only) Resolve(_ context.Context, l Login) (Target, error) {
	return Target{Upstream: string(o), User: l.Name}, nil
}

// resolve returns where a login goes to. An unknown name looks like a wrong
// password, and no upstream is asked (requirement P-PASS-5).
func (d *Directory) resolve(ctx context.Context, l Login) (*Upstream, string, error) {
	for _, r := range d.resolvers {
		t, err := r.Resolve(ctx, l)
		if errors.Is(err, ErrUnknown) {
			continue
		}
		if err != nil {
			return nil, "", err
		}
		return d.upstreams[t.Upstream], t.User, nil
	}
	return nil, "", &proxy.Error{Code: proxy.CodeAuth, Text: proxy.ErrAuth.Text, Err: ErrUnknown}
}

// Resolve returns where a login with this name goes to, for an operator who wants
// to know. The error is that of the login.
func (d *Directory) Resolve(ctx context.Context, name string) (Target, error) {
	u, user, err := d.resolve(ctx, Login{Name: name})
	if err != nil {
		return Target{}, err
	}
	return Target{Upstream: u.Name, User: user}, nil
}

// target returns where a login goes to whose authorization identity is authzid, or
// username if that is "", and both names there. The authorization identity names the
// mailbox, so it is the one that is resolved; the name of an administrator who logs
// in for a user is not changed (RFC 4616 §2).
func (d *Directory) target(ctx context.Context, authzid, username string) (u *Upstream, authz, user string, err error) {
	if authzid == "" {
		u, user, err = d.resolve(ctx, Login{Name: username})
		return u, "", user, err
	}
	u, authz, err = d.resolve(ctx, Login{Name: authzid})
	return u, authz, username, err
}

// Login implements proxy.Backend.
func (d *Directory) Login(ctx context.Context, cred proxy.Credential) (proxy.Login, error) {
	u, cred, err := d.route(ctx, cred)
	if err != nil {
		return nil, err
	}
	return d.named(u)(u.Backend.Login(ctx, cred))
}

// route returns the upstream of cred, and cred with the names there.
func (d *Directory) route(ctx context.Context, cred proxy.Credential) (u *Upstream, _ proxy.Credential, err error) {
	u, cred.Authzid, cred.Username, err = d.target(ctx, cred.Authzid, cred.Username)
	return u, cred, err
}

// named adds the name of u to the cause of a failed login, unless u is the only
// upstream.
func (d *Directory) named(u *Upstream) func(proxy.Login, error) (proxy.Login, error) {
	return func(l proxy.Login, err error) (proxy.Login, error) {
		e, ok := errors.AsType[*proxy.Error](err)
		if err == nil || len(d.upstreams) == 1 || !ok || errors.Is(err, proxy.ErrCancelled) {
			return l, err
		}
		cause := e.Err
		if cause == nil {
			cause = errors.New("refused")
		}
		return nil, &proxy.Error{Code: e.Code, Text: e.Text, Err: fmt.Errorf("upstream %s: %w", u.Name, cause)}
	}
}

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
	return d.named(u)(u.Backend.Exchange(ctx, ex))
}

// routeExchange is route for an exchange. One whose name comes late has an upstream
// that is fixed.
func (d *Directory) routeExchange(ctx context.Context, ex *proxy.Exchange) (*Upstream, *proxy.Exchange, error) {
	if d.fixed != nil {
		return d.fixed, ex, nil
	}
	u, authz, user, err := d.target(ctx, ex.Authzid, ex.Username)
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
