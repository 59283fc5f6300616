package directory

import (
	"context"

	"popgate/proxy"
)

// prepared is a connection made in advance to the upstream of the name that was
// known then.
type prepared struct {
	proxy.Prepared
	d *Directory
	u *Upstream
}

var _ proxy.PreparedExchanger = (*prepared)(nil)

// Prepare implements proxy.Preparer. It connects once the upstream is known.
func (d *Directory) Prepare(ctx context.Context, c proxy.Caller) proxy.Prepared {
	u := d.fixed
	if u == nil {
		if c.Username == "" {
			return nil
		}
		var err error
		if u, c.Username, err = d.resolve(ctx, Login{Name: c.Username}); err != nil {
			return nil
		}
	}
	p := u.Backend.Prepare(ctx, c)
	if p == nil {
		return nil
	}
	return &prepared{p, d, u}
}

// Login implements proxy.Prepared. A user of another upstream than was expected
// needs another connection.
func (p *prepared) Login(ctx context.Context, cred proxy.Credential) (proxy.Login, error) {
	u, cred, err := p.d.route(ctx, cred)
	if err != nil {
		p.Close()
		return nil, err
	}
	if u != p.u {
		p.Close()
		return p.d.named(u)(u.Backend.Login(ctx, cred))
	}
	return p.d.named(u)(p.Prepared.Login(ctx, cred))
}

// Exchange implements proxy.PreparedExchanger.
func (p *prepared) Exchange(ctx context.Context, ex *proxy.Exchange) (proxy.Login, error) {
	u, ex, err := p.d.routeExchange(ctx, ex)
	if err != nil {
		p.Close()
		return nil, err
	}
	if exchanger, ok := p.Prepared.(proxy.PreparedExchanger); ok && u == p.u {
		return p.d.named(u)(exchanger.Exchange(ctx, ex))
	}
	p.Close()
	return p.d.named(u)(u.Backend.Exchange(ctx, ex))
}
