package proxy

import "math"

// snapshot is the maildrop as the session presents it: a fixed list of messages,
// numbered from 1, and the marks that DELE has set. It never asks the upstream.
type snapshot struct {
	messages []Message
	octets   int64 // of all messages

	marks        []uint64 // a bit for each message; nil until the first mark
	marked       int      // number of marks
	markedOctets int64
}

func newSnapshot(messages []Message) snapshot {
	s := snapshot{messages: messages}
	for _, m := range messages {
		s.octets = sum(s.octets, m.Octets)
	}
	return s
}

// sum adds sizes without overflow: an upstream may announce any number.
func sum(a, b int64) int64 {
	if b > math.MaxInt64-a {
		return math.MaxInt64
	}
	return a + b
}

// stat returns the number of unmarked messages and their octets.
func (s *snapshot) stat() (count int, octets int64) {
	return len(s.messages) - s.marked, s.octets - s.markedOctets
}

// find parses arg as the number of a message. It is an error if arg is not a
// decimal number, or if the message does not exist or is marked.
func (s *snapshot) find(arg string) (int, error) {
	n, ok := parseDecimal(arg)
	if !ok {
		return 0, errSyntax
	}
	if n == 0 || n > uint64(len(s.messages)) || s.isMarked(int(n)) {
		return 0, errNoSuchMessage
	}
	return int(n), nil
}

// message returns message n, 1 to len(messages).
func (s *snapshot) message(n int) Message { return s.messages[n-1] }

func (s *snapshot) isMarked(n int) bool {
	i := n - 1
	return s.marks != nil && s.marks[i/64]&(1<<(i%64)) != 0
}

// mark marks message n, which is not marked yet.
func (s *snapshot) mark(n int) {
	if s.marks == nil {
		s.marks = make([]uint64, (len(s.messages)+63)/64)
	}
	i := n - 1
	s.marks[i/64] |= 1 << (i % 64)
	s.marked++
	s.markedOctets = sum(s.markedOctets, s.messages[i].Octets)
}

// reset removes all marks.
func (s *snapshot) reset() {
	s.marks, s.marked, s.markedOctets = nil, 0, 0
}

// markedUIDs returns the UIDs of the marked messages in ascending order.
func (s *snapshot) markedUIDs() []uint64 {
	if s.marked == 0 {
		return nil
	}
	uids := make([]uint64, 0, s.marked)
	for i, m := range s.messages {
		if s.isMarked(i + 1) {
			uids = append(uids, m.UID)
		}
	}
	return uids
}

// parseDecimal parses a number that consists of digits only, with any number of
// leading zeros. A number that does not fit becomes MaxUint64.
func parseDecimal(arg string) (n uint64, ok bool) {
	if arg == "" {
		return 0, false
	}
	over := false
	for i := range len(arg) {
		c := arg[i]
		if c < '0' || c > '9' {
			return 0, false
		}
		digit := uint64(c - '0')
		over = over || n > (math.MaxUint64-digit)/10
		n = n*10 + digit
	}
	if over {
		return math.MaxUint64, true
	}
	return n, true
}
