package imapbackend

import (
	"path/filepath"
	"testing"

	"popgate/imapbackend/store"
)

// BenchmarkQuit is QUIT with ten messages marked, in front of an upstream in memory:
// what remains is the work of the gateway, and its disk. It is synced before messages
// are flagged, and where they stay flagged once more (requirement I-DEL-5).
func BenchmarkQuit(b *testing.B) {
	const marked = 10
	for _, bb := range []struct {
		name string
		opts Options
	}{
		{"expunge", Options{}},
		{"flag", Options{Delete: DeleteFlag}},
	} {
		for _, disk := range []bool{false, true} {
			name := bb.name + "/memory"
			if disk {
				name = bb.name + "/disk"
			}
			b.Run(name, func(b *testing.B) {
				m, opts := newModel(), bb.opts
				if disk {
					s, err := store.Open(filepath.Join(b.TempDir(), "store"), store.Options{})
					if err != nil {
						b.Fatal(err)
					}
					b.Cleanup(func() { s.Close() })
					opts.Store = s
				}
				g := m.backend(b, opts)
				for b.Loop() {
					b.StopTimer()
					var uids []uint64
					for range marked {
						uids = append(uids, m.add("Subject: x\r\n\r\n"))
					}
					d := openMaildrop(b, g)
					b.StartTimer()
					if err := d.Update(b.Context(), uids); err != nil {
						b.Fatal(err)
					}
					b.StopTimer()
					d.Close()
					for _, uid := range uids {
						m.Inbox().Remove(uid) // unless it is gone
					}
					b.StartTimer()
				}
			})
		}
	}
}
