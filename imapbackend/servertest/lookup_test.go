//go:build integration

package servertest_test

import (
	"testing"
	"time"

	"popgate/imapbackend"
	"popgate/imapbackend/directory"
	"popgate/imapbackend/servertest"
	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// P-PASS-5, O-LOOKUP-1: the script that nginx's mail proxy asks serves the gateway too, with the
// same users and passwords.
func TestLookupAsNginx(t *testing.T) {
	s := servertest.Start(t, "nginx")
	pattern, err := directory.ParseAddressPattern(s.Upstream)
	if err != nil {
		t.Fatal(err)
	}
	open := func(address string) (directory.ClosableBackend, error) {
		opts := imapbackend.Defaults()
		opts.Address, opts.TLS = address, proxy.TLSNone
		return imapbackend.New(opts)
	}
	d := directory.New(nil, open, directory.NewLookup(directory.LookupOptions{
		URL: s.AuthURL, SendPassword: true, Allowed: []directory.AddressPattern{pattern},
		Timeout: 5 * time.Second, Cache: time.Minute, CacheNegative: time.Minute}))
	t.Cleanup(func() { d.Close() })
	log := new(proxytest.Log)
	lookup := proxytest.Serve(t, proxytest.Loopback(t), proxy.Options{Backend: d, Logger: log.Logger()}, proxytest.Insecure)
	nginx := serve(t, s, nil)
	for range 3 {
		user := seeded(s, 1)
		for name, g := range map[string]*proxytest.Gateway{"by nginx": nginx.Gateway, "by the lookup": lookup} {
			c := g.Dial()
			c.Greeting()
			c.OK("USER " + user)
			c.Do("PASS wrong", "-ERR [AUTH] ")
			c.OK("USER "+user, "PASS "+s.Password)
			if got := c.Fetch("TOP 1 0"); len(got) == 0 {
				t.Errorf("%s: nothing of %s's message", name, user)
			}
			c.OK("QUIT")
		}
	}
	if t.Failed() {
		t.Log(log)
	}
}
