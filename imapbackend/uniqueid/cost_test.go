package uniqueid

import (
	"fmt"
	"runtime"
	"testing"

	"popgate/imapbackend/store"
	"popgate/proxy"
)

// I-UIDL-5: what the memory of unique-ids takes while it names the messages of a
// large mailbox, in the first session and after UIDVALIDITY has changed, besides the
// identities and what was stored.
func TestAssignMemory(t *testing.T) {
	const messages = 50_000
	all := make([]proxy.Message, messages)
	identities := make(map[uint64]Identities, messages)
	for i := range all {
		uid := uint64(i + 1)
		all[i].UID = uid
		identities[uid] = Identities{Header: fmt.Sprintf("header:%043d:1000", uid)}
	}
	form, err := Parse(Default)
	if err != nil {
		t.Fatal(err)
	}
	var old store.UniqueIDs
	for _, tt := range []struct {
		name string
		most float64 // octets a message
	}{
		{"first session", 120},
		{"rebuilt", 175},
	} {
		before := heap()
		m := NewMemory(old, uint64(len(old.Shown)+1), all, Imported{}, 20000)
		m.Identities, m.Complete = identities, true
		byTemplate := form.Bind(m.uidValidity)
		var during int
		base := func(uid uint64, _ Identities) string {
			if uid == messages {
				during = heap()
			}
			return string(byTemplate(nil, uid))
		}
		delete(identities, messages)
		now, found := m.Assign(base)
		if len(now.Shown) != messages || found != max(len(old.Shown)-1, 0) {
			t.Fatalf("%d messages, %d found again", len(now.Shown), found)
		}
		got := float64(during-before) / messages
		t.Logf("%s: %.0f octets a message", tt.name, got)
		if got > tt.most {
			t.Errorf("%s: %.0f octets a message, want %v at most", tt.name, got, tt.most)
		}
		old = now
		runtime.KeepAlive(m)
	}
}

// heap returns the octets on the heap that are in use.
func heap() int {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int(m.HeapAlloc)
}
