package turn

import (
	"strings"
	"testing"
)

// TestQueue shows whose turn it is: one of each group, the oldest first, and none
// that has left.
func TestQueue(t *testing.T) {
	for _, tt := range []struct{ name, add, leave, want string }{
		{"one group", "a1 a2 a3", "", "a1 a2 a3"},
		{"round robin", "a1 a2 a3 b1 c1 b2", "", "a1 b1 c1 a2 b2 a3"},
		{"left", "a1 a2 b1 b2", "a1 b1", "a2 b2"},
		{"a group has left", "a1 b1 c1", "b1", "a1 c1"},
	} {
		var q Queue[byte, string]
		var all []*Waiter[string]
		for name := range strings.FieldsSeq(tt.add) {
			all = append(all, q.Add(name[0], name))
		}
		for _, w := range all {
			if strings.Contains(tt.leave, w.Value) && (!q.Remove(w) || q.Remove(w)) {
				t.Errorf("%s: %s does not leave once", tt.name, w.Value)
			}
		}
		var got []string
		for w := q.Next(); w != nil; w = q.Next() {
			got = append(got, w.Value)
		}
		if s := strings.Join(got, " "); s != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, s, tt.want)
		}
		if q.Len()+len(q.groups)+q.order.Len() != 0 {
			t.Errorf("%s: something is left of %+v", tt.name, q)
		}
	}
}

// TestQueueNewcomer shows that a group that keeps sending does not push back one
// that comes later.
func TestQueueNewcomer(t *testing.T) {
	var q Queue[byte, int]
	for range 100 {
		q.Add('a', 0)
	}
	q.Next()
	late := q.Add('b', 0)
	for range 2 {
		if q.Next() == late {
			return
		}
		q.Add('a', 0)
	}
	t.Error("the newcomer does not get the second turn")
}
