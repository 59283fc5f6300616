package upstream

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// maxWaits bounds how many waits are remembered. The one that ends first is
// forgotten first.
const maxWaits = 4096

// waits are the times until which the upstream wants no login of an account
// (requirement M-4). The zero value is ready to use. It is safe for concurrent
// use.
type waits struct {
	mu    sync.Mutex
	key   [sha256.Size]byte // of digests; random
	until map[waitFor]time.Time
}

// waitFor is whose logins wait: those of a user with one credential or, where
// secret is zero, with any. The zero value is nobody's. A wait that came before the
// upstream had accepted the credential is for that credential only, so that
// those who do not have it cannot make others wait.
type waitFor struct {
	user   string            // authorization identity and name, as the client spelled them
	secret [sha256.Size]byte // a keyed digest
}

// account returns whose login it is: of a user with a password or token. username
// is "" while it is not known, and secret in exchanges that reveal none.
func (w *waits) account(authzid, username, secret string) waitFor {
	if username == "" {
		return waitFor{}
	}
	a := waitFor{user: authzid + "\x00" + username}
	if secret == "" {
		return a
	}
	w.mu.Lock()
	w.init()
	mac := hmac.New(sha256.New, w.key[:])
	w.mu.Unlock()
	mac.Write([]byte(secret))
	mac.Sum(a.secret[:0])
	return a
}

func (w *waits) init() {
	if w.until == nil {
		w.until = make(map[waitFor]time.Time)
		rand.Read(w.key[:]) // never fails
	}
}

// anySecret returns a for all credentials of the user.
func (a waitFor) anySecret() waitFor {
	a.secret = [sha256.Size]byte{}
	return a
}

// none reports whether no account waits, as a rule: a digest costs something.
func (w *waits) none() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.until) == 0
}

// left returns how long logins of a still have to wait.
func (w *waits) left(a waitFor) time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	return time.Until(later(w.until[a], w.until[a.anySecret()]))
}

// add records a wait that begins now. first is false if there is one already.
func (w *waits) add(a waitFor, d time.Duration) (first bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.init()
	now := time.Now()
	old, found := w.until[a]
	if !found && len(w.until) >= maxWaits {
		w.makeRoom(now)
	}
	w.until[a] = later(old, now.Add(d))
	return !old.After(now)
}

// makeRoom forgets the waits that are over, or else the one that ends first.
func (w *waits) makeRoom(now time.Time) {
	var next waitFor
	end := now.Add(2 * maxWait)
	for a, until := range w.until {
		if !until.After(now) {
			delete(w.until, a)
		} else if until.Before(end) {
			next, end = a, until
		}
	}
	if len(w.until) >= maxWaits {
		delete(w.until, next)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// Waits returns the error for a login that the upstream does not want yet, or
// nil. secret is the password, or the value of "auth" of a token mechanism; "" in
// other exchanges.
func (s *Server) Waits(authzid, username, secret string) error {
	if s.waits.none() {
		return nil
	}
	left := s.waits.left(s.waits.account(authzid, username, secret))
	if left <= 0 {
		return nil
	}
	return TempError(fmt.Errorf("imap: the upstream asks to wait; another %v", left.Round(time.Second)))
}

// heedWait records the wait that the answer to a command asks for: status, or
// the BYE that is the cause of a loss.
func (c *Conn) heedWait(ctx context.Context, status wire.Status, loss error) {
	if bye, ok := errors.AsType[*wire.ByeError](loss); ok {
		status = bye.Status
	}
	d := suggestedWait(status)
	a := c.account
	if c.accepted {
		a = a.anySecret()
	}
	if d <= 0 || a.user == "" || !c.accepted && a == a.anySecret() {
		return
	}
	if c.server.waits.add(a, d) {
		proxy.Logger(ctx).WarnContext(ctx, "upstream asks to wait", "upstream", c.opts.Name, "wait", d,
			"answer", c.Clean(status.String()))
	}
}
