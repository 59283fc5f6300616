// Package budget bounds what sessions hold together, and leaves each of them a
// little that the others cannot take.
package budget

import "sync"

// Budget is a number of octets that sessions share. It is safe for concurrent use.
type Budget struct {
	mu   sync.Mutex
	left int64 // negative while sessions hold more than they had reserved
}

// New returns a budget of the given number of octets.
func New(octets int64) *Budget { return &Budget{left: octets} }

// Left returns how many octets nobody holds, at least 0.
func (b *Budget) Left() int64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return max(b.left, 0)
}

// take takes n octets, or returns false if fewer are left. No octets can always be
// taken.
func (b *Budget) take(n int64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n > max(b.left, 0) {
		return false
	}
	b.left -= n
	return true
}

// give returns n octets; a negative n takes octets even if none are left.
func (b *Budget) give(n int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left += n
}

// Account is what one session holds: its own share first, which is no part of the
// budget, and beyond that octets of the budget. It is not safe for concurrent use.
type Account struct {
	budget *Budget
	own    int64 // octets of the share
	held   int64
}

// Account returns an account with a share of own octets.
func (b *Budget) Account(own int64) *Account { return &Account{budget: b, own: own} }

// Left returns how many octets more the session can reserve, as long as others
// reserve none.
func (a *Account) Left() int64 { return max(a.own-a.held, 0) + a.budget.Left() }

// Reserve adds n octets to those that the session holds, or returns false if fewer
// are left.
func (a *Account) Reserve(n int64) bool {
	if !a.budget.take(a.shared(a.held+n) - a.shared(a.held)) {
		return false
	}
	a.held += n
	return true
}

// Set makes n the number of octets that the session holds, even if fewer were left.
func (a *Account) Set(n int64) {
	a.budget.give(a.shared(a.held) - a.shared(n))
	a.held = n
}

// shared returns how many of the held octets are taken from the budget.
func (a *Account) shared(held int64) int64 { return max(held-a.own, 0) }
