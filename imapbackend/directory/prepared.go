package directory

import (
	"context"
	"time"

	"popgate/imapbackend/upstream"
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

// Prepare implements proxy.Preparer. It connects once the upstream is known, as far as
// that is in memory.
func (d *Directory) Prepare(ctx context.Context, c proxy.Caller) proxy.Prepared {
	u := d.fixed
	if u == nil {
		t, ok := d.locally(ctx, c.Username)
		if !ok || c.Username == "" {
			return nil
		}
		u, c.Username = d.upstreams[t.Upstream], t.User
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
	ctx = upstream.Begun(ctx, time.Now())
	u, cred, judge, err := p.d.route(ctx, cred)
	if err != nil {
		p.Close()
		return nil, err
	}
	if u != p.u {
		p.Close()
		return judge(u.Backend.Login(ctx, cred))
	}
	return judge(p.Prepared.Login(ctx, cred))
}

// Exchange implements proxy.PreparedExchanger.
func (p *prepared) Exchange(ctx context.Context, ex *proxy.Exchange) (proxy.Login, error) {
	u, ex, err := p.d.routeExchange(ctx, ex)
	if err != nil {
		p.Close()
		return nil, err
	}
	judge := p.d.judge(u, false)
	if exchanger, ok := p.Prepared.(proxy.PreparedExchanger); ok && u == p.u {
		return judge(exchanger.Exchange(ctx, ex))
	}
	p.Close()
	return judge(u.Backend.Exchange(ctx, ex))
}
