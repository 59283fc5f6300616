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

// Open implements proxy.Login. It opens the mailbox on as many connections as the
// login may have.
func (l *login) Open(ctx context.Context) (proxy.Maildrop, error) {
	bound, unbound := l.at.Bound(ctx)
	defer unbound()
	defer l.at.Stop()
	var failure error
	for {
		d, usable, err := l.open(ctx, bound)
		if usable {
			if err == nil {
				l.leaveGate()
				return d, nil
			}
			if failure = worse(failure, err); !l.at.Again() || l.again.logIn == nil {
				return nil, failure
			}
		}
		if err := l.replace(bound); err != nil {
			return nil, worse(failure, err)
		}
	}
}

// open opens the mailbox. bound is ctx within the limits of the login; the maildrop
// ends with ctx. usable is false if the connection was kept and cannot be used.
func (l *login) open(ctx, bound context.Context) (d proxy.Maildrop, usable bool, err error) {
	u := l.u
	defer u.Watch(bound)()
	o := l.newOpening()
	if l.resumed {
		status, ok := l.selectKept(bound, o)
		switch {
		case !ok && u.Floods():
			l.at.Judge(bound, u)
			return nil, true, u.Lost(upstream.AtSelect, u.Wire.Err())
		case !ok:
			return nil, false, nil
		}
		d, err = l.maildrop(ctx, bound, o, status)
		return d, true, err
	}
	status, err := u.SelectAfterLogin(bound, o.search.Command(), o.fetchCmd)
	if err != nil || !status.OK() {
		err = u.Failed(upstream.AtSelect, "SELECT", status, err)
		l.at.Judge(bound, u)
		return nil, true, err
	}
	d, err = l.maildrop(ctx, bound, o, status)
	return d, true, err
}

// maildrop takes the snapshot of the selected mailbox.
func (l *login) maildrop(ctx, bound context.Context, o *opening, status wire.Status) (proxy.Maildrop, error) {
	snap, err := o.takeSnapshot(bound)
	if err != nil {
		l.at.Judge(bound, l.u)
		return nil, err
	}
	l.u.Opened(bound)
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
	at       *upstream.Attempt
}

func (l *login) newOpening() *opening {
	o := &opening{
		Conn:     l.u,
		b:        l.b,
		at:       l.at,
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
	return int(min(mb.Exists, 1<<17)) // the upstream may send fewer than it announces
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
	l.resumed = false
	return status, true
}

// replace replaces the connection, which is lost or was kept, by another one, on
// which the user is logged in again.
func (l *login) replace(ctx context.Context) error {
	if l.resumed {
		l.resumed = false
		l.u.Dismiss()
		l.u = nil
	}
	fresh, err := l.b.connect(ctx, l.at, nil, l.again)
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
