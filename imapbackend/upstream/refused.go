package upstream

import (
	"container/list"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"popgate/proxy"
)

const (
	// refusedFor is how long after the upstream's verdict a wrong password is
	// refused from memory.
	refusedFor = 60 * time.Second

	// maxRefused bounds the users of whom refusals are remembered, and
	// maxRefusedOf the passwords of each. The oldest are forgotten first.
	maxRefused   = 1 << 13
	maxRefusedOf = 8
)

// refusals are the wrong passwords that the upstream has refused within refusedFor
// (requirement I-LOGIN-10): clients that repeat one do not make it slow down all
// logins from the gateway's address. It has keyed digests, not the passwords. The
// zero value is ready to use. It is safe for concurrent use.
type refusals struct {
	mu    sync.Mutex
	key   [sha256.Size]byte // of digests; random
	users map[digest]*list.Element
	order list.List // of *refusedUser, the longest without a refusal first
}

// refusedUser is the refusals of one user.
type refusedUser struct {
	name digest // of the canonical name
	last []refused
}

// refused is one refusal.
type refused struct {
	credential digest
	at         time.Time
}

type digest [sha256.Size]byte

// user returns the digest of a canonical name.
func (r *refusals) user(name string) digest { return r.digest(name) }

// credential returns the digest of a credential.
func (r *refusals) credential(cred proxy.Credential) digest {
	return r.digest(cred.Authzid, cred.Username, cred.Password)
}

// digest returns the digest of fields, each after its length.
func (r *refusals) digest(fields ...string) (sum digest) {
	mac := hmac.New(sha256.New, r.key[:])
	for _, field := range fields {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(field)))
		mac.Write(length[:])
		mac.Write([]byte(field))
	}
	mac.Sum(sum[:0])
	return sum
}

// age returns how long ago a credential was refused; ok is false if it was not, or
// the user has logged in since.
func (r *refusals) age(cred proxy.Credential) (age time.Duration, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.users) == 0 {
		return 0, false // as a rule: a digest costs something
	}
	e := r.users[r.user(CanonicalUser(cred.Authzid, cred.Username))]
	if e == nil {
		return 0, false
	}
	credential := r.credential(cred)
	for _, last := range e.Value.(*refusedUser).last {
		if hmac.Equal(last.credential[:], credential[:]) && time.Since(last.at) < refusedFor {
			return time.Since(last.at), true
		}
	}
	return 0, false
}

// add records that the upstream has just refused a credential.
func (r *refusals) add(cred proxy.Credential) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.users == nil {
		r.users = make(map[digest]*list.Element)
		rand.Read(r.key[:]) // never fails
	}
	name := r.user(CanonicalUser(cred.Authzid, cred.Username))
	e := r.users[name]
	if e == nil {
		e = r.order.PushBack(&refusedUser{name: name})
		r.users[name] = e
	}
	u := e.Value.(*refusedUser)
	if len(u.last) == maxRefusedOf {
		u.last = append(u.last[:0], u.last[1:]...)
	}
	u.last = append(u.last, refused{r.credential(cred), time.Now()})
	r.order.MoveToBack(e)
	for e := r.order.Front(); e != nil; e = r.order.Front() {
		u := e.Value.(*refusedUser)
		if r.order.Len() <= maxRefused && time.Since(u.last[len(u.last)-1].at) < refusedFor {
			break
		}
		r.forget(e)
	}
}

// accepted forgets the refusals of a user who has logged in.
func (r *refusals) accepted(user string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.users) == 0 {
		return
	}
	if e := r.users[r.user(user)]; e != nil {
		r.forget(e)
	}
}

func (r *refusals) forget(e *list.Element) {
	r.order.Remove(e)
	delete(r.users, e.Value.(*refusedUser).name)
}

// Refused returns the error for a name and password that the upstream has refused a
// short time ago, or nil. It is the error of that login.
func (s *Server) Refused(cred proxy.Credential) error {
	age, ok := s.refusals.age(cred)
	if !ok {
		return nil
	}
	return WithCause(proxy.ErrAuth, fmt.Errorf("imap: the upstream has refused the same password %v ago", age.Round(time.Second)))
}

// judgedLogin records the verdict on a login by name and password: err is its error.
// Only the upstream's own verdict that blames them is one.
func (c *Conn) judgedLogin(ctx context.Context, cred proxy.Credential, err error) {
	if err == nil {
		c.server.refusals.accepted(CanonicalUser(cred.Authzid, cred.Username))
		return
	}
	if errors.Is(err, proxy.ErrAuth) && ctx.Err() == nil {
		c.server.refusals.add(cred)
	}
}
