package budget

import (
	"sync"
	"testing"
)

// What one session takes leaves the share of another; what was given back can be
// taken again.
func TestShares(t *testing.T) {
	b := New(100)
	greedy, other := b.Account(10), b.Account(10)
	for _, step := range []struct {
		what        string
		account     *Account
		reserve     int64 // 0: set
		set         int64
		want        bool
		held        int64
		left        int64 // of the budget
		greedy, our int64 // left to each
	}{
		{"the share", greedy, 10, 0, true, 10, 100, 100, 110},
		{"all but one octet", greedy, 99, 0, true, 109, 1, 1, 11},
		{"too much", greedy, 2, 0, false, 109, 1, 1, 11},
		{"the last octet", greedy, 1, 0, true, 110, 0, 0, 10},
		{"more than is left", greedy, 1, 0, false, 110, 0, 0, 10},
		{"within the other's share", other, 10, 0, true, 10, 0, 0, 0},
		{"beyond the other's share", other, 1, 0, false, 10, 0, 0, 0},
		{"larger than announced", greedy, 0, 130, true, 130, 0, 0, 0},
		{"within the share again", other, 0, 4, true, 4, 0, 0, 6},
		{"while the budget is overdrawn", other, 6, 0, true, 10, 0, 0, 0},
		{"half of it back", greedy, 0, 60, true, 60, 50, 50, 50},
		{"across share and budget", greedy, 0, 5, true, 5, 100, 105, 100},
		{"across share and budget again", greedy, 20, 0, true, 25, 85, 85, 85},
		{"the end", greedy, 0, 0, true, 0, 100, 110, 100},
		{"the other end", other, 0, 0, true, 0, 100, 110, 110},
	} {
		got := true
		if step.reserve > 0 {
			got = step.account.Reserve(step.reserve)
		} else {
			step.account.Set(step.set)
		}
		if got != step.want || step.account.held != step.held || b.Left() != step.left || greedy.Left() != step.greedy || other.Left() != step.our {
			t.Errorf("%s: %v; %d held, %d left, %d and %d left to each; want %v, %d, %d, %d and %d", step.what,
				got, step.account.held, b.Left(), greedy.Left(), other.Left(), step.want, step.held, step.left, step.greedy, step.our)
		}
	}
}

// Sessions at the same time hold no more together than there is.
func TestConcurrent(t *testing.T) {
	b := New(1000)
	var wg sync.WaitGroup
	accounts := make([]*Account, 50)
	for i := range accounts {
		accounts[i] = b.Account(3)
		wg.Go(func() {
			for accounts[i].Reserve(7) {
				accounts[i].Set(accounts[i].held - 1)
			}
		})
	}
	wg.Wait()
	var held int64
	for _, a := range accounts {
		held += max(a.held-3, 0)
	}
	if held+b.Left() != 1000 || b.Left() >= 7 {
		t.Errorf("%d octets held, %d left", held, b.Left())
	}
	for _, a := range accounts {
		a.Set(0)
	}
	if b.Left() != 1000 {
		t.Errorf("%d octets left in the end", b.Left())
	}
}
