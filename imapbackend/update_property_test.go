package imapbackend

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"popgate/imapbackend/demo"
	"popgate/proxy"
)

// P-QUIT-2, P-QUIT-3, I-SNAP-3, I-DEL-2: in any mailbox, UPDATE removes the
// marked messages and leaves all others with their flags.
func TestUpdateProperty(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 3))
	up := demo.New()
	b := serveDemo(t, up, Options{})
	for range 25 {
		for range r.IntN(40) {
			var flags []string
			if r.IntN(6) == 0 {
				flags = append(flags, `\Deleted`)
			}
			if r.IntN(2) == 0 {
				flags = append(flags, `\Seen`)
			}
			if _, err := up.Append("joe", []byte("A: b\r\n\r\nx\r\n"), flags...); err != nil {
				t.Fatal(err)
			}
		}
		before := up.Messages("joe")
		marked := updateSome(t, b, r)
		want := slices.DeleteFunc(slices.Clone(before), func(m demo.Message) bool {
			_, gone := slices.BinarySearch(marked, uint64(m.UID))
			return gone
		})
		if got, want := flagsOf(up.Messages("joe")), flagsOf(want); got != want {
			t.Fatalf("of %s, with %d marked, left are\n%s, want\n%s", flagsOf(before), marked, got, want)
		}
	}
}

func flagsOf(messages []demo.Message) string {
	var b strings.Builder
	for _, m := range messages {
		fmt.Fprintf(&b, "%d%v ", m.UID, m.Flags)
	}
	return b.String()
}

// updateSome runs a session that removes some messages, and returns which.
func updateSome(t *testing.T, b *Backend, r *rand.Rand) (marked []uint64) {
	t.Helper()
	d := openMaildrop(t, b)
	defer d.Close()
	share := 1 + r.IntN(4)
	for _, m := range d.Messages() {
		if r.IntN(share) == 0 {
			marked = append(marked, m.UID)
		}
	}
	if err := d.Update(t.Context(), marked); err != nil {
		t.Fatal(err)
	}
	return marked
}

// I-DEL-4, I-DEL-11, P-QUIT-3: wherever the answers are cut, UPDATE reports
// success only if the messages are gone, and never changes another.
func TestUpdateCutAnywhere(t *testing.T) {
	up := demo.New()
	b := serveDemo(t, up, Options{})
	conns := cuttable(b)
	for cut, done := 0, false; !done; cut++ {
		user := fmt.Sprint("user", cut)
		up.AddUser(user, "secret")
		for range 3 {
			if _, err := up.Append(user, []byte("A: b\r\n\r\nx\r\n"), `\Seen`); err != nil {
				t.Fatal(err)
			}
		}
		other := up.Messages(user)[1]
		l, err := b.Login(t.Context(), proxy.Credential{Username: user, Password: "secret"})
		if err != nil {
			t.Fatal(err)
		}
		d, err := l.Open(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		conns.last.left = cut
		m := d.Messages()
		err = d.Update(t.Context(), []uint64{m[0].UID, m[2].UID})
		d.Close()
		if err != nil && !errors.Is(err, proxy.ErrNotRemoved) {
			t.Errorf("cut at %d: %v", cut, err)
		}
		left := up.Messages(user)
		done = err == nil
		if done && len(left) != 1 {
			t.Errorf("cut at %d: success with %s left", cut, flagsOf(left))
		}
		if !strings.Contains(flagsOf(left), flagsOf([]demo.Message{other})) {
			t.Errorf("cut at %d: %s left, without %d", cut, flagsOf(left), other.UID)
		}
		if cut > 1000 {
			t.Fatal("no end")
		}
	}
}
