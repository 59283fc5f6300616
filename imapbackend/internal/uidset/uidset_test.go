package uidset

import (
	"math"
	"slices"
	"strings"
	"testing"
)

// I-DEL-3: sets contain no other messages.
func TestUIDSets(t *testing.T) {
	for _, tt := range []struct {
		uids   []uint64
		gaps   *Gaps
		maxLen int
		want   string // sets, separated by spaces
	}{
		{nil, nil, 100, ""},
		{[]uint64{7}, nil, 100, "7"},
		{[]uint64{101, 102}, &Gaps{}, 100, "101:102"},
		{[]uint64{7, 27, 65}, &Gaps{Others: []uint64{34}}, 100, "7,27,65"},
		{[]uint64{7, 27, 33, 65}, &Gaps{Others: []uint64{34}}, 100, "7:33,65"},
		{[]uint64{1, 2, 3, 5, 6, 9}, nil, 100, "1:3,5:6,9"},
		{[]uint64{1, 2, 3, 5, 6, 9}, &Gaps{Others: []uint64{4}}, 100, "1:3,5:9"},
		{[]uint64{2, 4, 6}, &Gaps{Others: []uint64{1, 7}}, 100, "2:6"},
		{[]uint64{2, 4, 6}, &Gaps{Others: []uint64{3, 5}}, 100, "2,4,6"},
		{[]uint64{2, 3, 5, 9, 11, 13}, &Gaps{From: 9, Others: []uint64{12}}, 100, "2:3,5,9,11,13"},
		{[]uint64{2, 3, 5, 9, 11, 14}, &Gaps{From: 5}, 100, "2:3,5:14"},
		{[]uint64{2, 3, 5, 9, 11, 14}, &Gaps{From: 6}, 100, "2:3,5,9:14"},
		{[]uint64{2, 4, 6}, &Gaps{From: 1 << 32}, 100, "2,4,6"},
		{[]uint64{4294967294, 4294967295}, nil, 100, "4294967294:4294967295"},
		{[]uint64{4294967295, 4294967296}, nil, 100, "4294967295:4294967296"},
		{[]uint64{1, 18446744073709551614, 18446744073709551615}, nil, 100, "1,18446744073709551614:18446744073709551615"},
		{[]uint64{1, 2, 18446744073709551615}, &Gaps{Others: []uint64{3}}, 100, "1:2,18446744073709551615"},
		{[]uint64{10, 20, 30, 40}, nil, 5, "10,20 30,40"},
		{[]uint64{10, 20, 30, 40}, nil, 1, "10 20 30 40"},
	} {
		var got []string
		var all []uint64
		for _, set := range Split(tt.uids, tt.gaps, tt.maxLen) {
			got = append(got, set.Text)
			all = append(all, set.UIDs...)
		}
		if strings.Join(got, " ") != tt.want || !slices.Equal(all, tt.uids) {
			t.Errorf("%d, gaps %v: %q for %d, want %q", tt.uids, tt.gaps, got, all, tt.want)
		}
	}
}

// I-CONN-3: ranges up to the last number of 64 bits end there, and one that is larger
// than the mailbox is refused, however large.
func TestExpand(t *testing.T) {
	const last = math.MaxUint64
	for _, tt := range []struct {
		ranges []Range
		exists int
		want   []uint64 // nil: refused
	}{
		{[]Range{{9, 10}, {1, 2}, {2, 3}}, 5, []uint64{1, 2, 3, 9, 10}},
		{[]Range{{last, last}}, 0, []uint64{last}},
		{[]Range{{last - 1, last}, {7, 7}}, 3, []uint64{7, last - 1, last}},
		{[]Range{{1 << 32, 1<<32 + 1}}, 2, []uint64{1 << 32, 1<<32 + 1}},
		{[]Range{{1, last}}, 1, nil},
		{[]Range{{0, last}}, 1, nil},
		{[]Range{{1, last}, {1, 1}}, 1, nil},
		{[]Range{{1, 1000}, {2001, 2000 + 3}}, 1, nil},
	} {
		got, err := Expand(tt.ranges, 2*tt.exists+1000)
		if (err != nil) != (tt.want == nil) || !slices.Equal(got, tt.want) {
			t.Errorf("%v of %d messages: %d, %v, want %d", tt.ranges, tt.exists, got, err, tt.want)
		}
	}
}

// I-CONN-8: ranges that overlap are merged; those side by side stay apart, since one
// of them may be about no message.
func TestMerge(t *testing.T) {
	const last = math.MaxUint64
	for _, tt := range []struct{ ranges, want []Range }{
		{nil, nil},
		{[]Range{{7, 7}, {7, 7}, {7, 7}}, []Range{{7, 7}}},
		{[]Range{{5, 9}, {1, 2}, {2, 3}, {6, 7}}, []Range{{1, 3}, {5, 9}}},
		{[]Range{{1, 1}, {2, 2}}, []Range{{1, 1}, {2, 2}}},
		{[]Range{{last, last}, {1, last}, {3, 4}}, []Range{{1, last}}},
	} {
		if got := Merge(slices.Clone(tt.ranges)); !slices.Equal(got, tt.want) {
			t.Errorf("%v: %v, want %v", tt.ranges, got, tt.want)
		}
	}
}

// I-DEL-7: a range is covered only if each UID of it is there.
func TestCovers(t *testing.T) {
	const last = math.MaxUint64
	for _, tt := range []struct {
		uids []uint64
		all  Range
		want bool
	}{
		{[]uint64{7, 8, 9}, Range{7, 9}, true},
		{[]uint64{7, 9}, Range{7, 9}, false},
		{[]uint64{7}, Range{7, 7 + 1<<32}, false},
		{[]uint64{last - 1, last}, Range{last - 1, last}, true},
		{[]uint64{1, last}, Range{1, last}, false},
		{nil, Range{1, last}, false},
	} {
		if got := Covers(tt.uids, tt.all); got != tt.want {
			t.Errorf("%d covers %v: %v", tt.uids, tt.all, got)
		}
	}
}

// I-SNAP-3: which UIDs a set names is read from what Split has written.
func TestRanges(t *testing.T) {
	all := []uint64{1, 2, 3, 7, 9, 10, math.MaxUint64}
	for _, maxLen := range []int{1, 100} {
		var in []uint64
		for _, set := range Split(all, nil, maxLen) {
			ranges := Ranges(set.Text)
			for _, uid := range []uint64{0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11, math.MaxUint64 - 1, math.MaxUint64} {
				if InRanges(ranges, uid) {
					in = append(in, uid)
				}
			}
		}
		if !slices.Equal(in, all) {
			t.Errorf("%d of %d", in, all)
		}
	}
	if InRanges(nil, 1) {
		t.Error("no range contains a UID")
	}
}
