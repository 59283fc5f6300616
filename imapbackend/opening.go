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
	status, err := l.u.SelectAfterLogin(ctx, o.searchCmd, o.fetchCmd)
	if err != nil || !status.OK() {
		return nil, l.u.Failed(upstream.AtSelect, "SELECT", status, err)
	}
	return l.maildrop(ctx, o, status)
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
	b         *Backend
	user      string // canonical
	key       store.Key
	searchCmd string
	fetchCmd  string
	cached    store.Listing
	warm      bool            // there is a cached listing, to be used if UIDVALIDITY is the same
	order     []proxy.Message // see maildrop
}

func (l *login) newOpening() *opening {
	o := &opening{
		Conn:      l.u,
		b:         l.b,
		user:      l.id.User,
		key:       store.Key{Upstream: l.id.Upstream, User: l.user, Mailbox: l.id.Mailbox, UTF8: l.u.UTF8()},
		searchCmd: searchDeleted,
		fetchCmd:  fetchAll,
	}
	if l.u.Wire.Has("ESEARCH") || l.u.Wire.Has("IMAP4REV2") {
		o.searchCmd = esearchDeleted
	}
	if o.cached, o.warm = l.b.store.Listing(o.key); o.warm {
		// A number above 32 bits may be refused; n:* brings the last message anyway.
		o.fetchCmd = fmt.Sprintf("UID FETCH %d:* (UID RFC822.SIZE)", min(o.cached.UIDNext, math.MaxUint32))
	}
	return o
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
	status, err := l.u.Select(ctx, o.searchCmd, o.fetchCmd)
	if err != nil || !status.OK() {
		proxy.Logger(ctx).DebugContext(ctx, "kept upstream connection cannot be used", "upstream", l.id.Upstream)
		return status, false
	}
	// Without UIDVALIDITY the server may have answered out of order, so
	// that what it said of this mailbox was taken to be about the previous
	// one.
	mb := l.u.Wire.Mailbox()
	if mb.UIDValidity == 0 || mb.MailboxID != "" && l.id.MailboxID != "" && mb.MailboxID != l.id.MailboxID {
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
	fresh, err := l.b.verify(ctx, cred)
	if err != nil {
		return err
	}
	l.u, l.ticket, l.source = fresh.u, fresh.ticket, fresh.source
	if fresh.id.Key() != l.id.Key() {
		// The session holds the lock of another maildrop.
		return upstream.TempError(errors.New("imap: the mailbox is not the one of the last login"))
	}
	return nil
}
