package imapbackend

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	mathrand "math/rand/v2"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"popgate/imapbackend/wire"
	"popgate/proxy"
)

const (
	// maxKeepOpen bounds Options.KeepOpen: an upstream may log off after 30
	// minutes (RFC 9051 §5.4), and nothing is said on a kept connection.
	maxKeepOpen = 10 * time.Minute

	// maxKept bounds the connections that are kept.
	maxKept = 256

	// keptPatience is how long a kept connection may take to show that it
	// lives, until another takes its place.
	keptPatience = 5 * time.Second

	// settleLimit bounds the octets on their way at QUIT that are worth
	// waiting for.
	settleLimit = 64 << 10
)

// keeper keeps the connections of sessions that have ended by QUIT for the
// next login of the same user, who then costs the upstream neither a
// connection nor an authentication. It is safe for concurrent use.
//
// A connection is kept by itself only while no session uses it, so that it is
// never used by two, and there is one for an account at the most. Who may have
// it is told by a digest of the credential that the upstream has accepted: the
// key is random and of this process alone, and the credential itself is not
// held.
type keeper struct {
	keepOpen time.Duration // 0: nothing is kept
	limit    int           // connections
	key      [sha256.Size]byte
	found    atomic.Bool // the last login found its connection

	mu      sync.Mutex
	kept    map[account]*keptConn
	closed  bool
	leaving sync.WaitGroup // connections taken out to be ended
}

// account is a login name as the client spelt it; upstream and mailbox are
// those of the Backend.
type account struct{ authzid, username string }

func accountOf(cred proxy.Credential) account { return account{cred.Authzid, cred.Username} }

// ticket is what admits a later login to a connection.
type ticket struct {
	account account
	digest  [sha256.Size]byte
	id      proxy.Identity
	until   time.Time // counted from the upstream's verdict
}

// keptConn is a connection that waits for its next session.
type keptConn struct {
	*upstream
	expiry *time.Timer
}

func newKeeper(keepOpen time.Duration) *keeper {
	k := &keeper{keepOpen: keepOpen, limit: maxKept, kept: make(map[account]*keptConn)}
	rand.Read(k.key[:]) // never fails
	return k
}

// digest is a keyed digest of all of a credential, its fields marked off by
// their lengths.
func (k *keeper) digest(cred proxy.Credential) (sum [sha256.Size]byte) {
	mac := hmac.New(sha256.New, k.key[:])
	for _, field := range []string{cred.Authzid, cred.Username, cred.Password, strconv.FormatBool(cred.UTF8)} {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(field)))
		mac.Write(length[:])
		mac.Write([]byte(field))
	}
	mac.Sum(sum[:0])
	return sum
}

// admit takes note that the upstream has accepted cred. A connection that is
// kept for that account is ended: had it been of this credential it would have
// been used, and what it was opened with may be valid no longer.
func (k *keeper) admit(cred proxy.Credential, id proxy.Identity) *ticket {
	if k.keepOpen <= 0 {
		return nil
	}
	t := &ticket{account: accountOf(cred), digest: k.digest(cred), id: id, until: time.Now().Add(k.keepOpen)}
	k.mu.Lock()
	old := k.kept[t.account]
	if k.closed {
		old = nil // Close ends it
	}
	k.remove(old)
	k.mu.Unlock()
	k.end(old)
	return t
}

// take returns the connection that is kept for cred, or nil. It becomes the
// caller's. A wrong password leaves it where it is.
func (k *keeper) take(cred proxy.Credential) *upstream {
	if k.keepOpen <= 0 {
		return nil
	}
	digest := k.digest(cred)
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.kept[accountOf(cred)]
	if p == nil || !hmac.Equal(p.ticket.digest[:], digest[:]) || !time.Now().Before(p.ticket.until) {
		k.found.Store(false)
		return nil
	}
	k.found.Store(true)
	p.expiry.Stop()
	delete(k.kept, p.ticket.account)
	return p.upstream
}

// park keeps u for the next login and leaves its mailbox, or reports that it
// does not and u is still the caller's. Where there is no UNSELECT the next
// SELECT leaves the mailbox, and never CLOSE, which expunges.
func (k *keeper) park(u *upstream) bool {
	if u.ticket == nil || !u.conn.Settled() {
		return false
	}
	left := time.Until(u.ticket.until)
	if left <= 0 {
		return false
	}
	if u.conn.Has("UNSELECT") || u.conn.Has("IMAP4REV2") {
		if u.conn.Leave() != nil {
			return false
		}
	}
	u.retire()
	u.secrets = nil
	p := &keptConn{upstream: u}
	k.mu.Lock()
	if k.closed {
		k.mu.Unlock()
		return false
	}
	old := k.kept[u.ticket.account]
	if old == nil && len(k.kept) >= k.limit {
		old = k.any()
	}
	k.remove(old)
	k.kept[u.ticket.account] = p
	p.expiry = time.AfterFunc(left, func() { k.expire(p) })
	k.mu.Unlock()
	k.end(old)
	return true
}

// any returns the connection that gives way, by chance: the oldest would always
// be the one wanted next where more users come in turn than there is room for,
// and the newest would never be kept where others have left for good.
func (k *keeper) any() *keptConn {
	n := mathrand.IntN(len(k.kept))
	for _, p := range k.kept {
		if n == 0 {
			return p
		}
		n--
	}
	return nil
}

func (k *keeper) expire(p *keptConn) {
	k.mu.Lock()
	if k.kept[p.ticket.account] != p {
		k.mu.Unlock()
		return // taken or removed meanwhile
	}
	k.remove(p)
	k.mu.Unlock()
	k.end(p)
}

// remove takes p out for end, with mu held; nil is nothing to remove.
func (k *keeper) remove(p *keptConn) {
	if p != nil {
		p.expiry.Stop()
		delete(k.kept, p.ticket.account)
		k.leaving.Add(1)
	}
}

// end ends a connection that remove has taken out, without mu held.
func (k *keeper) end(p *keptConn) {
	if p != nil {
		p.dismiss()
		k.leaving.Done()
	}
}

// close ends all connections that are kept; from then on none is.
func (k *keeper) close() {
	k.mu.Lock()
	k.closed = true
	var all []*keptConn
	for _, p := range k.kept {
		k.remove(p)
		all = append(all, p)
	}
	k.mu.Unlock()
	for _, p := range all {
		k.end(p)
	}
	k.leaving.Wait()
}

// dismiss says good-bye without waiting for an answer, and closes.
func (u *upstream) dismiss() {
	if u.conn.Err() == nil && u.conn.Start("LOGOUT") == nil {
		u.conn.Flush() // the upstream notices the end in any case
	}
	u.close()
}

// settle reads what is on its way, as long as that is little, so that the
// connection can be kept. Whatever is then left shows in wire.Conn.Settled.
func (m *maildrop) settle() {
	if m.u.conn.Err() != nil || !m.u.conn.Pending() || m.ahead.coming > settleLimit || m.u.conn.BodyLeft() > settleLimit {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), logoutTimeout)
	defer cancel()
	defer m.u.watch(ctx)()
	m.u.conn.Drain() // an error is in conn.Err
}

// resume returns the login of cred on the connection that is kept for it, or
// nil. The upstream is not asked: Open is what shows whether it is still there.
func (b *Backend) resume(ctx context.Context, cred proxy.Credential) *login {
	u := b.keeper.take(cred)
	if u == nil {
		return nil
	}
	proxy.Logger(ctx).DebugContext(ctx, "upstream connection kept from the last session", "upstream", b.opts.Name)
	u.secrets = secretsOf(cred)
	return &login{u: u, id: u.ticket.id, again: b.repeat(cred), resumed: &cred}
}

// selectKept is selectMailbox on a kept connection; ok is false if that is
// dead, or does not serve the mailbox any more.
func (l *login) selectKept(ctx context.Context, f flight) (status wire.Status, ok bool) {
	l.u.conn.Probe(keptPatience)
	status, err := l.u.selectMailbox(ctx, f.search, f.fetch)
	if err != nil || !status.OK() {
		proxy.Logger(ctx).DebugContext(ctx, "kept upstream connection is of no use", "upstream", l.id.Upstream)
		return status, false
	}
	// Without UIDVALIDITY the server may have answered out of order, so that
	// what it told of the mailbox was taken for that of the last one.
	mb := l.u.conn.Mailbox()
	if mb.UIDValidity == 0 || mb.MailboxID != "" && l.id.MailboxID != "" && mb.MailboxID != l.id.MailboxID {
		return status, false
	}
	l.resumed = nil
	return status, true
}

// replace puts a new connection in the place of a kept one, on which the
// upstream gives its verdict on the credential.
func (l *login) replace(ctx context.Context) error {
	cred := *l.resumed
	l.resumed = nil
	if ctx.Err() != nil {
		return tempError(context.Cause(ctx))
	}
	l.u.dismiss()
	fresh, err := l.u.backend.verify(ctx, cred)
	if err != nil {
		return err
	}
	l.u = fresh.u
	if fresh.id.Key() != l.id.Key() {
		// The lock that is held is that of another maildrop.
		return tempError(errors.New("imap: the mailbox is another one than at the last login"))
	}
	return nil
}
