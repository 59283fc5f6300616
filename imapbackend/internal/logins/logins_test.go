package logins

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func client(i int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, 0, byte(i)}), 32)
}

// TestGate shows that at most the limit are in, and of exchanges half as many,
// whoever leaves or gives up, and that no place is lost.
func TestGate(t *testing.T) {
	for _, tt := range []struct {
		limit      int
		asks       bool
		want, left int
	}{{5, false, 5, 5}, {5, true, 3, 5}, {1, true, 1, 1}, {0, false, 300, 100}} {
		synctest.Test(t, func(t *testing.T) {
			g := New(tt.limit)
			rnd := rand.New(rand.NewPCG(1, 2))
			var in, most atomic.Int32
			gone := errors.New("gone")
			var all sync.WaitGroup
			for i := range 300 {
				stay, patience := time.Duration(10+rnd.IntN(5)), time.Duration(1+rnd.IntN(500))
				all.Go(func() {
					ctx, cancel := context.WithTimeoutCause(t.Context(), patience, gone)
					defer cancel()
					leave, err := g.Enter(ctx, client(i%7), tt.asks)
					if err != nil {
						if !errors.Is(err, gone) {
							t.Error(err)
						}
						return
					}
					most.Store(max(most.Load(), in.Add(1)))
					<-time.After(stay)
					in.Add(-1)
					leave()
					leave() // does nothing
				})
			}
			all.Wait()
			if most.Load() != int32(tt.want) || g.all.waiting.Len()+g.asking.waiting.Len() != 0 {
				t.Errorf("%+v: %d at a time", tt, most.Load())
			}
			for range tt.left {
				if !g.all.tryEnter() {
					t.Errorf("%+v: a place is lost", tt)
				}
			}
			if tt.limit > 0 && g.all.tryEnter() {
				t.Errorf("%+v: a place too many", tt)
			}
		})
	}
}

// TestTurns shows that a client with many logins does not push another back.
func TestTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(1)
		first, err := g.Enter(t.Context(), client(1), false)
		if err != nil {
			t.Fatal(err)
		}
		var order []int
		wait := func(i int) {
			go func() {
				leave, err := g.Enter(t.Context(), client(i), false)
				if err != nil {
					t.Error(err)
				}
				order = append(order, i)
				leave()
			}()
			synctest.Wait()
		}
		for range 50 {
			wait(1)
		}
		wait(2)
		first()
		synctest.Wait()
		if i := slices.Index(order, 2); i > 1 || len(order) != 51 {
			t.Errorf("the other client's turn was after %d of %d", i, len(order))
		}
	})
}

// TestAhead shows that connections opened ahead count, and give way to logins.
func TestAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(3)
		var ended []int
		var all []*Ahead
		for i := range 4 {
			var a *Ahead
			a = g.Ahead(func() {
				ended = append(ended, i)
				a.Leave()
			})
			all = append(all, a)
		}
		if all[2] == nil || all[3] != nil {
			t.Fatalf("ahead: %v", all)
		}
		claimed := all[0].Claim(true)
		for range 2 {
			if _, err := g.Enter(t.Context(), client(1), false); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(ended, []int{1, 2}) {
			t.Errorf("ended %v", ended)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := g.Enter(ctx, client(1), false); err == nil {
			t.Error("a login takes the place of another")
		}
		claimed()
		if leave, err := g.Enter(t.Context(), client(1), false); err != nil {
			t.Error(err)
		} else {
			leave()
		}
		if n := g.all.ahead.Len(); n != 0 || g.asking.free != 2 {
			t.Errorf("%d are left, %d exchanges may enter", n, g.asking.free)
		}
		g.asking.free = 0
		if a := g.Ahead(func() {}); a == nil || a.Claim(true) != nil || a.Claim(false) == nil {
			t.Error("an exchange takes the place of a connection opened ahead though there are too many")
		}
	})
}

// TestMaildrop shows that four logins for a maildrop are in, by whatever name it is
// known, and that those for others are not held up.
func TestMaildrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(0)
		g.Identified("alias", "id")
		g.Identified("joe", "id")
		g.Identified("joe", "id")
		g.Identified("bob", "bob")
		try := func(user string) func() {
			leave, err := g.EnterMaildrop(t.Context(), user, client(1), false)
			if err != nil {
				t.Fatal(err)
			}
			return leave
		}
		var in []func()
		for i := range perMaildrop {
			in = append(in, try([]string{"joe", "alias"}[i%2]))
		}
		if slices.ContainsFunc(in, func(f func()) bool { return f == nil }) || try("joe") != nil || try("alias") != nil {
			t.Error("not four")
		}
		try("bob")()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := g.EnterMaildrop(ctx, "joe", client(1), true); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a fifth: %v", err)
		}
		go in[0]()
		leave, err := g.EnterMaildrop(t.Context(), "alias", client(2), true)
		if err != nil {
			t.Fatal(err)
		}
		leave()
		for _, f := range in[1:] {
			f()
			f() // does nothing
		}
		if len(g.maildrops) != 0 {
			t.Errorf("%d maildrops are left", len(g.maildrops))
		}
		for i := range maxKnown + 10 {
			g.Identified(fmt.Sprint(i), "id")
		}
		if len(g.known) != maxKnown {
			t.Errorf("%d users are known", len(g.known))
		}
	})
}
