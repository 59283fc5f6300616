package uidset

import (
	"slices"
	"strings"
	"testing"
)

// I-DEL-3: sets contain no other messages.
func TestUIDSets(t *testing.T) {
	for _, tt := range []struct {
		uids, others []uint32
		maxLen       int
		want         string // sets, separated by spaces
	}{
		{nil, nil, 100, ""},
		{[]uint32{7}, nil, 100, "7"},
		{[]uint32{101, 102}, []uint32{}, 100, "101:102"},
		{[]uint32{7, 27, 65}, []uint32{34}, 100, "7,27,65"},
		{[]uint32{7, 27, 33, 65}, []uint32{34}, 100, "7:33,65"},
		{[]uint32{1, 2, 3, 5, 6, 9}, nil, 100, "1:3,5:6,9"},
		{[]uint32{1, 2, 3, 5, 6, 9}, []uint32{4}, 100, "1:3,5:9"},
		{[]uint32{2, 4, 6}, []uint32{1, 7}, 100, "2:6"},
		{[]uint32{2, 4, 6}, []uint32{3, 5}, 100, "2,4,6"},
		{[]uint32{4294967294, 4294967295}, nil, 100, "4294967294:4294967295"},
		{[]uint32{10, 20, 30, 40}, nil, 5, "10,20 30,40"},
		{[]uint32{10, 20, 30, 40}, nil, 1, "10 20 30 40"},
	} {
		var got []string
		var all []uint32
		for _, set := range Split(tt.uids, tt.others, tt.maxLen) {
			got = append(got, set.Text)
			all = append(all, set.UIDs...)
		}
		if strings.Join(got, " ") != tt.want || !slices.Equal(all, tt.uids) {
			t.Errorf("%d without %d: %q for %d, want %q", tt.uids, tt.others, got, all, tt.want)
		}
	}
}
