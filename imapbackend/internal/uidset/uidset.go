// Package uidset writes UIDs as the sequence-sets of commands, and reads the
// ranges of a search result (RFC 3501 §9, sequence-set; RFC 4731 §3.1).
package uidset

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"
)

// Frame is the number of octets of the longest command without its set.
const Frame = len("P1000000 UID SEARCH RETURN (ALL) UID  UNDELETED")

// Set is one sequence-set of a command and the UIDs in it.
type Set struct {
	Text string
	UIDs []uint64
}

// Gaps says between which UIDs of a set a range may reach over UIDs that are not
// in the set: UIDs are not used again, so that those of no message stay free. From
// From on all other messages of the mailbox are in Others, which is ascending.
//
// For a command that changes messages this must be what the upstream has reported
// in this session, whatever is remembered of earlier ones (requirement I-DEL-3).
type Gaps struct {
	From   uint64
	Others []uint64
}

// Split writes uids, ascending, as sequence-sets of at most maxLen octets. A
// message that a command must leave alone is never in its set (requirement
// I-DEL-3): consecutive UIDs form a range, and others where gaps allows it, unless
// gaps is nil.
func Split(uids []uint64, gaps *Gaps, maxLen int) []Set {
	var sets []Set
	var text []byte
	start := 0
	for i := 0; i < len(uids); {
		n := rangeLen(uids[i:], gaps)
		item := strconv.AppendUint(nil, uids[i], 10)
		if n > 1 {
			item = strconv.AppendUint(append(item, ':'), uids[i+n-1], 10)
		}
		if len(text) > 0 && len(text)+1+len(item) > maxLen {
			sets = append(sets, Set{string(text), uids[start:i]})
			text, start = text[:0], i
		}
		if len(text) > 0 {
			text = append(text, ',')
		}
		text = append(text, item...)
		i += n
	}
	if len(text) > 0 {
		sets = append(sets, Set{string(text), uids[start:]})
	}
	return sets
}

// rangeLen returns how many of the first uids form one range.
func rangeLen(uids []uint64, gaps *Gaps) int {
	n := 1
	for n < len(uids) && (uids[n] == uids[n-1]+1 || gaps.isFree(uids[n-1], uids[n])) {
		n++
	}
	if n == 2 && uids[1] != uids[0]+1 {
		return 1 // "7,27" is no longer than "7:27"
	}
	return n
}

// isFree reports whether no message has a UID between low and high.
func (g *Gaps) isFree(low, high uint64) bool {
	if g == nil || low < g.From {
		return false
	}
	i, _ := slices.BinarySearch(g.Others, low)
	return i == len(g.Others) || g.Others[i] >= high
}

// Range is a range of UIDs, both ends included.
type Range struct{ Low, High uint64 }

// Ranges returns the ranges of a sequence-set that Split has written, or another
// one that ascends and has no "*".
func Ranges(text string) []Range {
	var all []Range
	for item := range strings.SplitSeq(text, ",") {
		low, high, isRange := strings.Cut(item, ":")
		if !isRange {
			high = low
		}
		from, _ := strconv.ParseUint(low, 10, 64)
		to, _ := strconv.ParseUint(high, 10, 64)
		all = append(all, Range{from, to})
	}
	return all
}

// InRanges reports whether one of ranges, which ascend, contains uid.
func InRanges(ranges []Range, uid uint64) bool {
	i, _ := slices.BinarySearchFunc(ranges, uid, func(r Range, uid uint64) int { return cmp.Compare(r.High, uid) })
	return i < len(ranges) && ranges[i].Low <= uid
}

// Merge returns ranges in ascending order, with those that overlap merged into one.
// It reuses ranges.
func Merge(ranges []Range) []Range {
	byLow := func(a, b Range) int { return cmp.Compare(a.Low, b.Low) }
	if !slices.IsSortedFunc(ranges, byLow) {
		slices.SortFunc(ranges, byLow)
	}
	merged := ranges[:0]
	for _, r := range ranges {
		if last := len(merged) - 1; last >= 0 && r.Low <= merged[last].High {
			merged[last].High = max(merged[last].High, r.High)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// Expand returns the UIDs in ranges, ascending and without duplicates. Before it
// allocates, it refuses a result of more than most UIDs, duplicates included.
func Expand(ranges []Range, most int) ([]uint64, error) {
	var total uint64
	for _, r := range ranges {
		n := r.High - r.Low // one less than its UIDs, which could be 2^64
		if n >= uint64(most)-total {
			return nil, errors.New("imap: a search result larger than the mailbox")
		}
		total += n + 1
	}
	uids := make([]uint64, 0, total)
	for _, r := range ranges {
		for uid := r.Low; ; uid++ {
			uids = append(uids, uid)
			if uid == r.High {
				break
			}
		}
	}
	slices.Sort(uids)
	return slices.Compact(uids), nil
}

// Covers reports whether uids, ascending, contains each UID of the range.
func Covers(uids []uint64, all Range) bool {
	low, _ := slices.BinarySearch(uids, all.Low)
	high, ok := slices.BinarySearch(uids, all.High)
	return ok && uint64(high-low) == all.High-all.Low
}

// Contains reports whether uids, ascending, contains uid.
func Contains(uids []uint64, uid uint64) bool {
	_, ok := slices.BinarySearch(uids, uid)
	return ok
}
