package directory

import (
	"errors"
	"sync"

	lru "github.com/hashicorp/golang-lru/v2"

	"popgate/proxy"
)

// maxOthers bounds the upstreams that are known by an address alone.
const maxOthers = 1000

// others are upstreams that have no options of their own. It is safe for concurrent
// use.
type others struct {
	open func(address string) (ClosableBackend, error)

	mu    sync.Mutex
	known *lru.Cache[string, *Upstream]
}

func newOthers(open func(address string) (ClosableBackend, error)) *others {
	o := &others{open: open}
	o.known, _ = lru.NewWithEvict(maxOthers, func(_ string, u *Upstream) { // fails only without size
		_ = u.Backend.(ClosableBackend).Close() // its sessions continue
	})
	return o
}

// get returns the upstream at address.
func (o *others) get(address string) (*Upstream, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if u, ok := o.known.Get(address); ok {
		return u, nil
	}
	if o.open == nil {
		return nil, &proxy.Error{Code: proxy.CodeSysPerm, Text: "login is not possible, ask the operator",
			Err: errors.New("directory: no upstream at " + address)}
	}
	b, err := o.open(address)
	if err != nil {
		return nil, &proxy.Error{Code: proxy.CodeSysPerm, Text: "login is not possible, ask the operator", Err: err}
	}
	u := &Upstream{Name: address, Backend: b}
	o.known.Add(address, u)
	return u, nil
}

// close closes all of them.
func (o *others) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.known.Purge()
	return nil
}
