package imapbackend

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"popgate/imapbackend/internal/uidset"
	"popgate/proxy"
)

// covers reports whether uid is in the sequence-set text.
func covers(text string, uid uint64) bool {
	for item := range strings.SplitSeq(text, ",") {
		low, high, ok := strings.Cut(item, ":")
		if !ok {
			high = low
		}
		l, err1 := strconv.ParseUint(low, 10, 64)
		h, err2 := strconv.ParseUint(high, 10, 64)
		if err1 != nil || err2 != nil {
			panic("not a set: " + text)
		}
		if l <= uid && uid <= h {
			return true
		}
	}
	return false
}

// I-DEL-3, P-QUIT-3, I-CONN-4: in any mailbox, no set covers a message that is
// not marked, hidden or not, each marked one is covered once, and no command
// is longer than the upstream accepts.
func TestSetsProperty(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	for range 400 {
		m := &maildrop{snapshot: &snapshot{maxLine: 60 + r.IntN(900)}}
		var marked, kept []uint64
		step := 1 + r.Uint64N(1<<uint(r.IntN(20)))
		share := 1 + r.IntN(5)
		base := r.Uint64N(1 << uint(r.IntN(64))) // some of more than 32 bits
		for uid, i := base+1+r.Uint64N(100), 0; i < r.IntN(500); i++ {
			switch {
			case r.IntN(10) == 0:
				m.hidden = append(m.hidden, uid)
				kept = append(kept, uid)
			case r.IntN(share) > 0:
				m.messages = append(m.messages, proxy.Message{UID: uid})
				kept = append(kept, uid)
			default:
				m.messages = append(m.messages, proxy.Message{UID: uid})
				marked = append(marked, uid)
			}
			uid += 1 + r.Uint64N(step)
		}
		sets := m.sets(marked)
		for _, uid := range kept {
			for _, set := range sets {
				if covers(set.Text, uid) {
					t.Fatalf("%q covers %d, which is not marked", set.Text, uid)
				}
			}
		}
		for _, uid := range marked {
			n := 0
			for _, set := range sets {
				if covers(set.Text, uid) {
					n++
				}
				if len(set.Text) > max(m.maxLine-uidset.Frame, len("18446744073709551615:18446744073709551615")) {
					t.Fatalf("a set of %d octets", len(set.Text))
				}
			}
			if n != 1 {
				t.Fatalf("%d sets cover %d, which is marked", n, uid)
			}
		}
	}
}
