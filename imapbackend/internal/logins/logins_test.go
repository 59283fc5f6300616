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

// client is somebody at an address, of whom no name is known.
func client(i int) Who {
	return Who{Client: netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 32)}
}

// user is a user at an address.
func user(i int, name string) Who {
	who := client(i)
	who.User = name
	return who
}

// queued returns how many wait.
func (l *limit) queued() int { return l.waiting[0].Len() + l.waiting[1].Len() }

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
			if most.Load() != int32(tt.want) || g.all.queued()+g.asking.queued() != 0 {
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
			a = g.Ahead(client(1), func() {
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
		if a := g.Ahead(client(1), func() {}); a == nil || a.Claim(true) != nil || a.Claim(false) == nil {
			t.Error("an exchange takes the place of a connection opened ahead though there are too many")
		}
	})
}

// TestMaildrop shows that four logins for a maildrop are in, by whatever name it is
// known, and that those for others are not held up.
func TestMaildrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(0)
		g.Identified(user(1, "alias"), "id")
		g.Identified(user(1, "joe"), "id")
		g.Identified(user(1, "joe"), "id")
		g.Identified(user(1, "bob"), "bob")
		try := func(name string) func() {
			a := g.Ahead(client(1), func() {})
			defer a.Leave()
			return a.EnterMaildrop(user(1, name))
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
		if _, err := g.EnterMaildrop(ctx, user(1, "joe")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a fifth: %v", err)
		}
		go in[0]()
		leave, err := g.EnterMaildrop(t.Context(), user(2, "alias"))
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
			g.Identified(user(1, fmt.Sprint(i)), "id")
		}
		if len(g.known) != maxKnown || g.pairs.Len() != maxPairs {
			t.Errorf("%d users and %d pairs are known", len(g.known), g.pairs.Len())
		}
	})
}

// TestKnownTurns shows I-LOGIN-9: who has logged in from there before waits for one login,
// though guesses from 250 addresses wait too, and that those have every third turn
// while more of the others wait.
func TestKnownTurns(t *testing.T) {
	for _, where := range []string{"all", "maildrop"} {
		synctest.Test(t, func(t *testing.T) {
			g := New(perMaildrop)
			enter := g.EnterMaildrop
			if where == "all" {
				enter = func(ctx context.Context, who Who) (func(), error) { return g.Enter(ctx, who, false) }
			}
			g.Identified(user(251, "joe"), "joe")
			var first []func()
			for range perMaildrop {
				leave, err := enter(t.Context(), user(1, "joe"))
				if err != nil {
					t.Fatal(err)
				}
				first = append(first, leave)
			}
			var order []int
			wait := func(n, i int) {
				for range n {
					go func() {
						leave, err := enter(t.Context(), user(i, "joe"))
						if err != nil {
							t.Error(err)
							return
						}
						order = append(order, i)
						<-time.After(time.Second)
						leave()
					}()
					synctest.Wait()
				}
			}
			for i := range 250 {
				wait(2, i)
			}
			wait(9, 251)
			wait(1, 252)
			first[0]()
			<-time.After(time.Hour)
			var known []int
			for turn, i := range order {
				if i == 251 {
					known = append(known, turn)
				}
			}
			if want := []int{0, 1, 3, 4, 6, 7, 9, 10, 12}; !slices.Equal(known, want) {
				t.Errorf("%s: who is known has the turns %v, want %v", where, known, want)
			}
			if i := slices.Index(order, 252); i != 250+9 || len(order) != 2*250+9+1 {
				t.Errorf("%s: the turn of a new address was after %d of %d", where, i, len(order))
			}
			for _, leave := range first[1:] {
				leave()
			}
		})
	}
}

// TestAheadOfMaildrop shows I-LOGIN-9: connections opened ahead have places among the
// logins for a maildrop, pass them on to its logins, and give way to them.
func TestAheadOfMaildrop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := New(0)
		g.Identified(user(1, "alias"), "joe")
		var all []*Ahead
		ended := 0
		for i := range perMaildrop + 1 {
			var a *Ahead
			a = g.Ahead(user(1, []string{"joe", "alias"}[i%2]), func() {
				ended++
				a.Leave()
			})
			all = append(all, a)
		}
		if all[perMaildrop-1] == nil || all[perMaildrop] != nil {
			t.Fatalf("ahead: %v", all)
		}
		other := g.Ahead(user(1, "bob"), func() {})
		if other.EnterMaildrop(user(1, "joe")) != nil {
			t.Error("the place of a connection opened ahead for another name is used twice")
		}
		other.Leave()
		leave, claimed := all[0].EnterMaildrop(user(1, "alias")), all[0].Claim(false)
		if leave == nil {
			t.Fatal("the own place is not used")
		}
		for i := range perMaildrop {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			enter, err := g.EnterMaildrop(ctx, user(1, "joe"))
			if i == perMaildrop-1 {
				if err == nil {
					t.Error("a login takes the place of another")
				}
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			defer enter()
		}
		if ended != perMaildrop-1 {
			t.Errorf("%d were ended", ended)
		}
		go leave()
		done, err := g.EnterMaildrop(t.Context(), user(2, "joe"))
		if err != nil {
			t.Fatal(err)
		}
		done()
		claimed()
		all[0].Leave() // does nothing
		synctest.Wait()
		if n := len(g.maildrops); n != 1 || g.maildrops["joe"].users != perMaildrop-1 || g.maildrops["joe"].ahead.Len() != 0 {
			t.Errorf("%d maildrops", n)
		}
	})
}
