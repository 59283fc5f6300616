package proxy_test

import (
	"testing"
	"testing/synctest"
	"time"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// P-EXT-2 (RFC 2449 §8.1.1): a login within the delay of the last one is refused
// once its password has been verified, and delays nothing itself; other maildrops and
// wrong passwords are as ever.
func TestLoginDelay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := proxytest.NewBackend()
		b.AddAccount("alice", "secret", false)
		b.AddAccount("bob", "secret", false)
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: b, LoginDelay: 5 * time.Minute}, proxytest.Insecure)
		login := func(user, password, want string) {
			t.Helper()
			c := g.Dial()
			c.Greeting()
			c.OK("USER " + user)
			c.Do("PASS "+password, want)
			c.OK("QUIT")
			c.Closed()
			synctest.Wait()
		}
		login("alice", "secret", "+OK")
		login("alice", "secret", "-ERR [LOGIN-DELAY] ")
		login("alice", "wrong", "-ERR [AUTH] ")
		login("bob", "secret", "+OK")
		<-time.After(4*time.Minute + 59*time.Second)
		login("alice", "secret", "-ERR [LOGIN-DELAY] ")
		<-time.After(time.Second)
		login("alice", "secret", "+OK")
		if n := b.Open(); n != 0 {
			t.Errorf("%d upstream connections are open", n)
		}
	})
}

// Values that cannot be announced are refused.
func TestPolicyOptions(t *testing.T) {
	for _, opts := range []proxy.Options{
		{Expire: "soon"}, {Expire: "-1"}, {Expire: "never"},
		{LoginDelay: -time.Second}, {LoginDelay: 1500 * time.Millisecond},
		{Implementation: "two words"}, {Implementation: "é"},
	} {
		opts.Backend = proxytest.NewBackend()
		if _, err := proxy.NewServer(opts); err == nil {
			t.Errorf("%+v is accepted", opts)
		}
	}
}
