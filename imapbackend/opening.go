package imapbackend

import (
	"context"
	"errors"
	"fmt"
	"math"

	"popgate/imapbackend/store"
	"popgate/imapbackend/upstream"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// Open implements proxy.Login.
func (l *login) Open(ctx context.Context) (proxy.Maildrop, error) {
	defer l.u.Watch(ctx)()
	if l.resumed != nil {
		o := l.newOpening()
		if status, ok := l.selectKept(ctx, o); ok {
			return l.maildrop(ctx, o, status)
		}
		if err := l.replaceKept(ctx); err != nil {
			return nil, err
		}
		defer l.u.Watch(ctx)()
	}
	o := l.newOpening()
	d, err := l.open(ctx, o)
	if err == nil || !o.lostAtSearch || ctx.Err() != nil {
		return d, err
	}
	return l.openByFetch(ctx, err)
}

// open selects the mailbox on a connection that has not been kept.
func (l *login) open(ctx context.Context, o *opening) (proxy.Maildrop, error) {
	status, err := l.u.SelectAfterLogin(ctx, o.search.Command(), o.fetchCmd)
	if err != nil || !status.OK() {
		return nil, l.u.Failed(upstream.AtSelect, "SELECT", status, err)
	}
	return l.maildrop(ctx, o, status)
}

// openByFetch opens the maildrop once more, on another connection and without
// SEARCH: the upstream has closed the connection when it got that, or otherwise
// with the error cause, which is returned where this fails too.
func (l *login) openByFetch(ctx context.Context, cause error) (proxy.Maildrop, error) {
	if l.relogin == nil || l.replace(ctx, l.relogin) != nil {
		return nil, cause
	}
	defer l.u.Watch(ctx)()
	o := l.newOpening()
	o.search = l.u.NewFetchSearch("", upstream.Deleted)
	u := l.u
	d, err := l.open(ctx, o)
	if err != nil {
		return nil, cause
	}
	u.DistrustSearch(ctx, cause)
	return d, nil
}

// maildrop takes the snapshot of the selected mailbox.
func (l *login) maildrop(ctx context.Context, o *opening, status wire.Status) (proxy.Maildrop, error) {
	snap, err := o.takeSnapshot(ctx)
	if err != nil {
		return nil, err
	}
	m := &maildrop{
		snapshot: snap,
		b:        l.b,
		key:      o.key,
		opts:     &l.b.opts,
		source:   l.source,
		order:    o.order,
		readOnly: status.Code == "READ-ONLY" || l.u.Wire.Mailbox().SessionDeleted && l.b.opts.plan(l.u.Can).flags,
	}
	m.readAhead = newReadAhead(m, l.b.budget)
	m.startLink(ctx, l)
	return m, nil
}

// opening is a mailbox being opened: its connection, what is remembered of it,
// and the commands that are sent in one flight with SELECT. These ask for a
// listing of everything, or of what is newer than the remembered listing
// (requirement I-SNAP-7).
type opening struct {
	*upstream.Conn
	b        *Backend
	user     string // canonical
	key      store.Key
	search   *upstream.Search // for messages flagged \Deleted
	fetchCmd string
	cached   store.Listing
	warm     bool            // there is a cached listing, to be used if UIDVALIDITY is the same
	known    uint64          // see snapshot
	order    []proxy.Message // see maildrop

	lostAtSearch bool // the upstream may have closed the connection because of it
}

func (l *login) newOpening() *opening {
	o := &opening{
		Conn:     l.u,
		b:        l.b,
		user:     l.id.User,
		key:      store.Key{Upstream: l.id.Upstream, User: l.user, Mailbox: l.id.Mailbox, UTF8: l.u.UTF8()},
		search:   l.u.NewSearch("", upstream.Deleted),
		fetchCmd: fetchAll,
	}
	if o.cached, o.warm = l.b.store.Listing(o.key); o.warm {
		o.fetchCmd = fmt.Sprintf("UID FETCH %d:* (UID RFC822.SIZE)", o.cachedNext())
	}
	return o
}

// cachedNext returns the UID from which on a remembered listing is to be continued:
// its UIDNEXT, or less where that has more than 32 bits and no UID has. Only an
// upstream that has sent such UIDs is known to take them.
func (o *opening) cachedNext() uint64 {
	last := uint64(0)
	if n := len(o.cached.Messages); n > 0 {
		last = o.cached.Messages[n-1].UID
	}
	if o.cached.UIDNext > math.MaxUint32 && last <= math.MaxUint32 {
		return min(last+1, math.MaxUint32)
	}
	return o.cached.UIDNext
}

// expect guesses how many messages the listing has.
func (o *opening) expect(mb wire.Mailbox) int {
	if o.warm {
		return 16
	}
	return int(min(mb.Exists, 1<<20))
}

// selectKept is Select on a kept connection; ok is false if the connection is
// dead or the mailbox is no longer the same.
func (l *login) selectKept(ctx context.Context, o *opening) (status wire.Status, ok bool) {
	l.u.Wire.Probe(keptTimeout)
	status, err := l.u.Select(ctx, o.search.Command(), o.fetchCmd)
	if err != nil || !status.OK() {
		proxy.Logger(ctx).DebugContext(ctx, "kept upstream connection cannot be used", "upstream", l.id.Upstream)
		return status, false
	}
	// Without UIDVALIDITY the server may have answered out of order, so
	// that what it said of this mailbox was taken to be about the previous
	// one.
	mb := l.u.Wire.Mailbox()
	if mb.UIDValidity == 0 || differ(mb.MailboxID, l.id.MailboxID) {
		return status, false
	}
	l.resumed = nil
	return status, true
}

// replaceKept replaces a kept connection by a new one, on which the upstream
// verifies the credential.
func (l *login) replaceKept(ctx context.Context) error {
	cred := *l.resumed
	l.resumed = nil
	if ctx.Err() != nil {
		return upstream.TempError(context.Cause(ctx))
	}
	l.u.Dismiss()
	l.u = nil
	return l.replace(ctx, l.b.repeat(cred))
}

// replace replaces the connection, which may be nil or lost, by one that again
// makes.
func (l *login) replace(ctx context.Context, again relogin) error {
	fresh, err := again(ctx)
	if err != nil {
		return err
	}
	if l.u != nil {
		l.u.Close()
	}
	l.u, l.ticket, l.source = fresh.u, fresh.ticket, fresh.source
	if differ(fresh.id.MailboxID, l.id.MailboxID) || differ(fresh.id.AccountID, l.id.AccountID) {
		// The session holds the lock of another maildrop.
		return upstream.TempError(errors.New("imap: the mailbox is not the one of the last login"))
	}
	return nil
}

// differ reports whether two ids are both known and not the same.
func differ(a, b string) bool { return a != "" && b != "" && a != b }
