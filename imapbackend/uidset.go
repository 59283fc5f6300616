package imapbackend

import (
	"errors"
	"slices"
	"strconv"
)

// setFrame is the most that a command has around its set, in octets.
const setFrame = len("P1000000 UID SEARCH RETURN (ALL) UID  UNDELETED")

// uidSet is one sequence-set of a command and the UIDs it stands for.
type uidSet struct {
	text string
	uids []uint32
}

// uidSets writes uids, ascending, as sequence-sets of at most maxLen octets.
// A range is used only where no UID of others, ascending, lies inside: what a
// command is to leave alone is never within its set (requirement I-DEL-3). A
// UID that no message has does no harm there, since UIDs are not used again;
// it is taken in where that makes the set shorter. Without others only
// consecutive UIDs make a range.
func uidSets(uids, others []uint32, maxLen int) []uidSet {
	var sets []uidSet
	var text []byte
	start := 0
	for i := 0; i < len(uids); {
		n := rangeLen(uids[i:], others)
		item := strconv.AppendUint(nil, uint64(uids[i]), 10)
		if n > 1 {
			item = strconv.AppendUint(append(item, ':'), uint64(uids[i+n-1]), 10)
		}
		if len(text) > 0 && len(text)+1+len(item) > maxLen {
			sets = append(sets, uidSet{string(text), uids[start:i]})
			text, start = text[:0], i
		}
		if len(text) > 0 {
			text = append(text, ',')
		}
		text = append(text, item...)
		i += n
	}
	if len(text) > 0 {
		sets = append(sets, uidSet{string(text), uids[start:]})
	}
	return sets
}

// rangeLen returns how many of uids, from the first, make one range.
func rangeLen(uids, others []uint32) int {
	n := 1
	for n < len(uids) {
		low, high := uids[n-1], uids[n]
		if others == nil {
			if high != low+1 {
				break
			}
		} else if i, _ := slices.BinarySearch(others, low); i < len(others) && others[i] < high {
			break
		}
		n++
	}
	if n == 2 && uids[1] != uids[0]+1 {
		return 1 // "7,27" is no longer than "7:27"
	}
	return n
}

// sets writes uids of the snapshot, ascending, as sequence-sets that hold no
// other message of the mailbox, shown or hidden.
func (m *maildrop) sets(uids []uint32) []uidSet { return m.setsBeside(uids, 0) }

// setsBeside is sets for commands with so many octets more.
func (m *maildrop) setsBeside(uids []uint32, more int) []uidSet {
	others := make([]uint32, 0, len(m.messages)+len(m.hidden)-len(uids))
	others = append(others, m.hidden...)
	for _, msg := range m.messages {
		if _, ours := slices.BinarySearch(uids, msg.UID); !ours {
			others = append(others, msg.UID)
		}
	}
	slices.Sort(others)
	return uidSets(uids, others, m.maxLine-setFrame-more)
}

// runs is sets for uids that stand close together in the snapshot: it looks at
// no others than those between them.
func (m *maildrop) runs(uids []uint32) []uidSet {
	if len(uids) == 0 {
		return nil
	}
	i, _ := m.index(uids[0])
	j, _ := m.index(uids[len(uids)-1])
	others := make([]uint32, 0, len(m.hidden))
	others = append(others, m.hidden...)
	for _, msg := range m.messages[i : j+1] {
		if _, ours := slices.BinarySearch(uids, msg.UID); !ours {
			others = append(others, msg.UID)
		}
	}
	slices.Sort(others)
	return uidSets(uids, others, m.maxLine-len("P1000000 UID FETCH  (UID BODY.PEEK[HEADER])"))
}

// uidRange is a range of UIDs, both ends included.
type uidRange struct{ low, high uint32 }

// expandRanges returns the UIDs in ranges, ascending, each once. A result that
// cannot be that of a mailbox of exists messages is refused before it takes
// its memory.
func expandRanges(ranges []uidRange, exists uint32) ([]uint32, error) {
	var total uint64
	for _, r := range ranges {
		total += uint64(r.high-r.low) + 1
	}
	if total > 2*uint64(exists)+1000 {
		return nil, errors.New("imap: a search result larger than the mailbox")
	}
	uids := make([]uint32, 0, total)
	for _, r := range ranges {
		for uid := uint64(r.low); uid <= uint64(r.high); uid++ {
			uids = append(uids, uint32(uid))
		}
	}
	slices.Sort(uids)
	return slices.Compact(uids), nil
}
