package directory

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"popgate/imapbackend/upstream"
	"popgate/proxy"
)

// slow is a Resolver that takes a while, and an upstream that never answers.
type slow struct {
	*fake
	resolve time.Duration
}

func (s slow) Local() bool { return false }

func (s slow) Resolve(ctx context.Context, _ Login) (Target, error) {
	if err := sleep(ctx, s.resolve); err != nil {
		return Target{}, err
	}
	return Target{Upstream: "slow", User: "ann"}, nil
}

func (s slow) Login(ctx context.Context, _ proxy.Credential) (proxy.Login, error) {
	at := upstream.NewAttempt()
	defer at.Stop()
	at.Start(ctx)
	bound, unbound := at.Bound(ctx)
	defer unbound()
	<-bound.Done()
	return nil, context.Cause(bound)
}

func (s slow) Prepare(context.Context, proxy.Caller) proxy.Prepared { return slowPrepared{s} }

type slowPrepared struct{ slow }

func (slowPrepared) Close() {}

// I-LOGIN-8: the minute for an answer is that of a lookup and of its upstream
// together.
func TestLoginLimit(t *testing.T) {
	for resolve, want := range map[time.Duration]time.Duration{
		0: upstream.LoginLimit, 20 * time.Second: upstream.LoginLimit, resolveLimit - 1: upstream.LoginLimit - 1,
		time.Hour: resolveLimit,
	} {
		synctest.Test(t, func(t *testing.T) {
			s := slow{newFake(), resolve}
			d := New([]Upstream{{"slow", s, nil}}, nil, s)
			for _, login := range []func(context.Context, proxy.Credential) (proxy.Login, error){
				d.Login, (&prepared{s.Prepare(t.Context(), proxy.Caller{}), d, d.upstreams["slow"]}).Login,
			} {
				began := time.Now()
				_, err := login(t.Context(), proxy.Credential{Username: "ann", Password: "x"})
				if took := time.Since(began); err == nil || took.Round(time.Second) != want.Round(time.Second) {
					t.Errorf("a lookup of %v: answered after %v, want %v (%v)", resolve, took, want, err)
				}
			}
		})
	}
}
