package proxy_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// aheadJudge is a judge that also makes connections in advance, and counts those that
// are open.
type aheadJudge struct {
	judge
	names  []string // that a connection was made for
	opened int
}

func (j *aheadJudge) Prepare(_ context.Context, c proxy.Caller) proxy.Prepared {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.names = append(j.names, c.Username)
	j.opened++
	return &aheadConn{j, sync.OnceFunc(func() {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.opened--
	})}
}

func (j *aheadJudge) open() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.opened
}

type aheadConn struct {
	j     *aheadJudge
	close func()
}

func (c *aheadConn) Login(ctx context.Context, cred proxy.Credential) (proxy.Login, error) {
	defer c.close()
	return c.j.Login(ctx, cred)
}

func (c *aheadConn) Close() { c.close() }

// TestThrottledPrepared shows P-PASS-6: a login that has to wait gives up its
// connection first, and none is made for one that would have to wait.
func TestThrottledPrepared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &aheadJudge{judge: judge{began: time.Now(), asked: map[time.Duration]int{}}}
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: j, Throttler: newThrottle(t), Mechanisms: []string{"PLAIN"}}, proxytest.Insecure)
		var all []*proxytest.Client
		for i := range 100 {
			p := g.DialFrom(fmt.Sprintf("192.0.2.%d:1", i))
			p.Greeting()
			p.OK("USER alice")
			all = append(all, p)
		}
		if n := j.open(); n != 100 {
			t.Errorf("%d connections before PASS", n)
		}
		for i, p := range all {
			p.Write(fmt.Sprintf("PASS guess%d\r\n", i))
		}
		synctest.Wait()
		if n := j.open(); n != 5 {
			t.Errorf("%d connections, those that wait included", n)
		}
		<-time.After(500 * time.Millisecond)
		late := g.DialFrom("192.0.2.200:1")
		late.Greeting()
		late.OK("USER Alice ")
		if n := j.open(); n != 0 || len(j.names) != 100 {
			t.Errorf("%d connections, made for %q", n, j.names[100:])
		}
		late.OK("USER bob")
		if n := j.open(); n != 1 {
			t.Errorf("%d connections after a name that nobody guesses", n)
		}
		late.Do("PASS ", "-ERR [AUTH]") // decided without it
		if n := j.open(); n != 0 {
			t.Errorf("%d connections while a refusal is delayed", n)
		}
		late.Do("AUTH PLAIN", "+ ")
		if n := j.open(); n != 0 {
			t.Errorf("%d connections for an address with failures", n)
		}
	})
}

// named is a judge whose users have one account with and without their domain.
type named struct{ judge }

func (n *named) AccountName(authzid, username string) string {
	name, _, _ := strings.Cut(username, "@")
	return "north\x00" + name
}

// TestAccountName shows P-PASS-6: the names of one account count as one, also with an
// authorization identity. The log has them as given.
func TestAccountName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := new(proxytest.Log)
		j := &named{judge{began: time.Now(), asked: map[time.Duration]int{}}}
		g := proxytest.Serve(t, proxytest.Listen(), proxy.Options{Backend: j, Throttler: newThrottle(t), Logger: log.Logger(), Mechanisms: []string{"PLAIN"}}, proxytest.Insecure)
		login := []string{
			"USER joe\r\nPASS x\r\n",
			"USER joe@north.example\r\nPASS x\r\n",
			"AUTH PLAIN YW5uAGpvZUBub3J0aC5leGFtcGxlAHg=\r\n", // as ann
		}
		for i := range 60 {
			p := g.DialFrom(fmt.Sprintf("192.0.2.%d:1", i))
			p.Greeting()
			p.Write(login[i%3])
		}
		<-time.After(20 * time.Second)
		asked := 0
		for second, n := range j.asked {
			if asked += n; n > 5 {
				t.Errorf("%d verdicts in second %v", n, second)
			}
		}
		if asked != 60 || len(log.Lines(`msg="login failed" `)) != 60 || len(log.Lines("user=joe ")) != 20 || len(log.Lines("user=joe@north.example ")) != 40 {
			t.Errorf("%d asked; log:\n%s", asked, log.String())
		}
	})
}
