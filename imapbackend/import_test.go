package imapbackend

import (
	"strings"
	"testing"
	"testing/synctest"

	"popgate/imapbackend/uniqueid"
)

// importOf returns an Import of lines.
func importOf(t *testing.T, lines ...string) *uniqueid.Import {
	t.Helper()
	im, err := ReadImport("former.uidl", strings.NewReader(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return im
}

// I-UIDL-5: messages get the unique-ids that a previous server had for them,
// where there is no doubt which these are.
func TestImport(t *testing.T) {
	id := func(i int) string { return uniqueid.HeaderIdentity([]byte(letter(i)), int64(len(letter(i)))) }
	other := func(i int) string { return uniqueid.HeaderIdentity([]byte(letter(i)), 1) } // the old server counted the size differently
	for _, tt := range []struct {
		name    string
		letters []int
		lines   []string
		want    string
	}{
		{"all", []int{1, 2}, []string{id(1) + "\ta", id(2) + "\tb"}, "a b"},
		{"a new one", []int{1, 2}, []string{id(1) + "\ta"}, "a 1.2"},
		{"another size", []int{1, 2}, []string{other(1) + "\ta", id(2) + "\tb"}, "a b"},
		{"copies in the mailbox", []int{1, 1, 2}, []string{id(1) + "\ta", id(2) + "\tb"}, "1.1 1.2 b"},
		{"copies on the previous server", []int{1, 2}, []string{id(1) + "\ta", id(1) + "\tc", id(2) + "\tb"}, "1.1 b"},
		{"two sizes", []int{1}, []string{other(1) + "\ta", id(1) + "\tb"}, "b"},
		{"by user", []int{1, 2, 3}, []string{id(1) + "\ta\tann", id(1) + "\tj\tJoe", id(2) + "\tb\tann", id(3) + "\tx\tjoe", id(3) + "\ty"}, "j 1.2 x"},
		{"not that of another message", []int{1, 2}, []string{id(2) + "\t1.1"}, "1.1.2 1.1"},
		{"not that of a message not yet copied", []int{1}, []string{id(2) + "\t1.1"}, "1.1.2"},
		{"the same as the template makes", []int{1, 1}, []string{id(1) + "\t1.1", id(1) + "\t1.2"}, "1.1 1.2"},
		{"one for two", []int{1, 2}, []string{id(1) + "\ta", id(2) + "\ta"}, "a 1.2"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newModel()
				for _, i := range tt.letters {
					m.add(letter(i))
				}
				b := m.backend(t, Options{UIDL: "1.{uid}", UIDLMemory: true, UIDLImport: importOf(t, tt.lines...)})
				list(t, m, b).shows(t, tt.want, 1)
				list(t, m, b).shows(t, tt.want, 0)
			})
		})
	}
	memory(t, "remembered ones have precedence", Options{}, func(t *testing.T, m *model, b *Backend) {
		m.add(letter(1))
		before := list(t, m, b).ids
		b = m.backend(t, Options{UIDLMemory: true, Store: b.store, UIDLImport: importOf(t, id(1)+"\ta")})
		list(t, m, b).shows(t, before, 0)
		m.Inbox().Rebuild()
		list(t, m, b).shows(t, before, 1)
	})
	memory(t, "with EMAILID", Options{UIDLImport: importOf(t, id(1)+"\ta")}, func(t *testing.T, m *model, b *Backend) {
		m.Caps += " OBJECTID"
		m.add(letter(1))
		list(t, m, b).shows(t, "a", 1)
	})
}

// I-UIDL-5: an import has no effect without the memory, so it is refused.
func TestImportNeedsMemory(t *testing.T) {
	if _, err := New(orDefaults(Options{Address: "a:1", UIDLImport: importOf(t)})); err == nil {
		t.Error("an import without memory is accepted")
	}
}
