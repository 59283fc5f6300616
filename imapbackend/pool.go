package imapbackend

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	mathrand "math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"popgate/imapbackend/upstream"
	"popgate/proxy"
)

const (
	// maxKept bounds the connections that are kept.
	maxKept = 256

	// keptTimeout is how long a kept connection may take to answer before
	// it is replaced by a new one.
	keptTimeout = 5 * time.Second

	// settleLimit bounds the octets on their way that are read at QUIT so
	// that the connection can be kept.
	settleLimit = 64 << 10
)

// pool keeps the connections of sessions that have ended by QUIT for the next
// login of the same user, which then costs the upstream neither a connection
// nor an authentication. It is safe for concurrent use.
//
// A connection is in the pool only while no session uses it, and there is at
// most one for an account. A login gets it if its credential has the digest of
// the credential that the upstream has accepted. The key of the digest is
// random, and the pool does not hold the credential itself.
type pool struct {
	keepOpen time.Duration // 0: nothing is kept
	limit    int           // connections
	key      [sha256.Size]byte
	found    atomic.Bool // the last login found a connection

	mu      sync.Mutex
	kept    map[account]*keptConn
	closed  bool
	leaving sync.WaitGroup // removed connections that have not been ended
}

// account is a login name as the client spelled it. A pool is for one upstream
// and mailbox.
type account struct{ authzid, username string }

func accountOf(cred proxy.Credential) account { return account{cred.Authzid, cred.Username} }

// ticket says which later login may have a connection.
type ticket struct {
	account account
	digest  [sha256.Size]byte
	id      proxy.Identity
	until   time.Time // KeepOpen after the upstream verified the user
}

// keptConn is a connection that waits for its next session.
type keptConn struct {
	u      *upstream.Conn
	ticket *ticket
	expiry *time.Timer
}

func newPool(keepOpen time.Duration) *pool {
	p := &pool{keepOpen: keepOpen, limit: maxKept, kept: make(map[account]*keptConn)}
	rand.Read(p.key[:]) // never fails
	return p
}

// digest returns a keyed digest of a credential: each field, after its length.
func (p *pool) digest(cred proxy.Credential) (sum [sha256.Size]byte) {
	mac := hmac.New(sha256.New, p.key[:])
	for _, field := range []string{cred.Authzid, cred.Username, cred.Password, strconv.FormatBool(cred.UTF8)} {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(field)))
		mac.Write(length[:])
		mac.Write([]byte(field))
	}
	mac.Sum(sum[:0])
	return sum
}

// admit records that the upstream has accepted cred. A connection kept for the
// account is ended: it was opened with another credential, which may no longer
// be valid.
func (p *pool) admit(cred proxy.Credential, id proxy.Identity) *ticket {
	if p.keepOpen <= 0 {
		return nil
	}
	t := &ticket{account: accountOf(cred), digest: p.digest(cred), id: id, until: time.Now().Add(p.keepOpen)}
	p.mu.Lock()
	old := p.kept[t.account]
	if p.closed {
		old = nil // Close ends it
	}
	p.remove(old)
	p.mu.Unlock()
	p.end(old)
	return t
}

// take removes the connection that is kept for cred from the pool and returns
// it, or nil. A wrong password leaves it in the pool.
func (p *pool) take(cred proxy.Credential) *keptConn {
	if p.keepOpen <= 0 {
		return nil
	}
	digest := p.digest(cred)
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.kept[accountOf(cred)]
	if c == nil || !hmac.Equal(c.ticket.digest[:], digest[:]) || !time.Now().Before(c.ticket.until) {
		p.found.Store(false)
		return nil
	}
	p.found.Store(true)
	c.expiry.Stop()
	delete(p.kept, c.ticket.account)
	return c
}

// put unselects the mailbox and keeps u for the next login that t admits. It
// returns false if u remains the caller's. Without UNSELECT the mailbox stays
// selected until the next SELECT; CLOSE would expunge.
func (p *pool) put(u *upstream.Conn, t *ticket) bool {
	if t == nil || !u.Wire.Settled() {
		return false
	}
	left := time.Until(t.until)
	if left <= 0 {
		return false
	}
	if u.Wire.Has("UNSELECT") || u.Wire.Has("IMAP4REV2") {
		if u.Wire.Leave() != nil {
			return false
		}
	}
	u.Rest()
	c := &keptConn{u: u, ticket: t}
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return false
	}
	old := p.kept[t.account]
	if old == nil && len(p.kept) >= p.limit {
		old = p.random()
	}
	p.remove(old)
	p.kept[t.account] = c
	u.Report(proxy.UpstreamKept, nil, 0)
	c.expiry = time.AfterFunc(left, func() { p.expire(c) })
	p.mu.Unlock()
	p.end(old)
	return true
}

// random returns a connection to be replaced by another. It is chosen at
// random: where more users log in one after the other than there is room for,
// the oldest would always be the one needed next, and if the newest were
// dropped, connections of users who never return would take up the pool.
func (p *pool) random() *keptConn {
	n := mathrand.IntN(len(p.kept))
	for _, c := range p.kept {
		if n == 0 {
			return c
		}
		n--
	}
	return nil
}

// spare ends a connection that is kept for the user, and reports whether there was
// one.
func (p *pool) spare(user string) bool {
	p.mu.Lock()
	var found *keptConn
	for _, c := range p.kept {
		if c.ticket.id.User == user {
			found = c
			break
		}
	}
	p.remove(found)
	p.mu.Unlock()
	p.end(found)
	return found != nil
}

func (p *pool) expire(c *keptConn) {
	p.mu.Lock()
	if p.kept[c.ticket.account] != c {
		p.mu.Unlock()
		return // taken or removed by now
	}
	p.remove(c)
	p.mu.Unlock()
	p.end(c)
}

// remove takes c out of the pool, with mu held; the caller then calls end. c
// may be nil.
func (p *pool) remove(c *keptConn) {
	if c != nil {
		c.expiry.Stop()
		delete(p.kept, c.ticket.account)
		p.leaving.Add(1)
	}
}

// end ends a connection that remove has taken out, without mu held. c may be
// nil.
func (p *pool) end(c *keptConn) {
	if c != nil {
		c.u.Dismiss()
		p.leaving.Done()
	}
}

// close ends all kept connections; from then on none is kept.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	var all []*keptConn
	for _, c := range p.kept {
		p.remove(c)
		all = append(all, c)
	}
	p.mu.Unlock()
	for _, c := range all {
		p.end(c)
	}
	p.leaving.Wait()
}

// resume returns the login of cred on the connection that is kept for it, or
// nil, as part of the attempt that begin returns. It does not ask the upstream:
// Open shows whether the connection is alive.
func (b *Backend) resume(ctx context.Context, cred proxy.Credential, begin func() *upstream.Attempt) *login {
	kept := b.pool.take(cred)
	if kept == nil {
		return nil
	}
	proxy.Logger(ctx).DebugContext(ctx, "upstream connection kept from the last session", "upstream", b.opts.Name)
	kept.u.Report(proxy.UpstreamReused, nil, 0)
	at := begin()
	at.Start(ctx)
	kept.u.Reuse(cred, at)
	return &login{b: b, u: kept.u, at: at, id: kept.ticket.id, user: spelling(cred.Authzid, cred.Username),
		again: b.authenticateAgain(cred), ticket: kept.ticket, resumed: true, source: proxy.SourceKept}
}
