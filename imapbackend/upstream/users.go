package upstream

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// userWait is how long a login waits for one of the user's other connections to end,
// where the server accepts no more.
const userWait = 5 * time.Second

// users are the connections by user.
type users struct {
	mu    sync.Mutex
	conns map[string]map[*Conn]waitFor // whose credential was sent
	freed chan struct{}                // closed when a connection has ended; nil: nobody waits
}

// admit counts c as a connection of user before its credential is sent, if that is
// known then. Where the dialect limits the connections of a user and there are as
// many, it ends one that is kept, or waits for one to end. The error is temporary.
func (s *Server) admit(ctx context.Context, c *Conn, user string) error {
	limit := c.dialect.UserConnections
	if limit == 0 {
		return nil
	}
	var deadline <-chan time.Time
	for {
		freed := s.users.add(c, user, limit)
		switch {
		case freed == nil:
			return nil
		case s.opts.Spare != nil && s.opts.Spare(user):
			continue
		}
		if deadline == nil {
			deadline = time.After(userWait)
		}
		select {
		case <-freed:
		case <-deadline:
			return TempError(fmt.Errorf("imap: the user has %d connections, as many as the server accepts", limit))
		case <-ctx.Done():
			return TempError(context.Cause(ctx))
		}
	}
}

// add counts c, and returns nil, or what is closed when there may be room for it.
// Lost connections do not count, nor do those whose credential is another one and has
// not been accepted: who does not have the password must not keep the user out.
func (u *users) add(c *Conn, user string, limit int) (freed <-chan struct{}) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.conns == nil {
		u.conns = make(map[string]map[*Conn]waitFor)
	}
	live := 0 // others
	for other, sent := range u.conns[user] {
		same := sent == c.account && sent != sent.anySecret()
		if other != c && other.Wire.Err() == nil && (other.accepted || same) {
			live++
		}
	}
	if live >= limit {
		if u.freed == nil {
			u.freed = make(chan struct{})
		}
		return u.freed
	}
	if u.conns[user] == nil {
		u.conns[user] = make(map[*Conn]waitFor)
	}
	u.conns[user][c], c.user = c.account, user
	return nil
}

// accept records that the upstream has accepted the credential of c.
func (u *users) accept(c *Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	c.accepted = true
}

// remove no longer counts c, which may not have been counted.
func (u *users) remove(c *Conn) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if delete(u.conns[c.user], c); len(u.conns[c.user]) == 0 {
		delete(u.conns, c.user)
	}
	if u.freed != nil {
		close(u.freed)
		u.freed = nil
	}
}
