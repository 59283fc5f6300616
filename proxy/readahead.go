package proxy

import (
	"bytes"
	"strings"
)

// maxExpected limits how many messages a session announces to the maildrop.
const maxExpected = 128

// expect announces to the maildrop the messages that pipelined commands ask for
// after the current RETR or TOP, which has that number of lines, so that they can
// be requested from the upstream together. The commands stay in the buffer and
// are checked and answered in order.
func (s *session) expect(lines uint64) {
	expecter, ok := s.maildrop.(Expecter)
	if !ok || !s.r.pending() {
		return
	}
	if s.expected.left--; s.expected.left > s.expected.announced/2 {
		return // most of what was announced is still to come
	}
	var uids []uint64
	for rest := s.r.buffered(); len(uids) < maxExpected; {
		line, after, found := bytes.Cut(rest, []byte("\n"))
		if !found {
			break
		}
		rest = after
		uid, more := s.expectLine(string(bytes.TrimSuffix(line, []byte("\r"))), lines)
		if !more {
			break
		}
		if uid != 0 {
			uids = append(uids, uid)
		}
	}
	s.expected.announced, s.expected.left = len(uids), len(uids)
	if len(uids) > 0 {
		expecter.Expect(uids)
	}
}

// expectLine returns the UID of the message that a line asks for in the same
// form, or 0. more is false if the lines after it cannot be predicted. The
// result is a guess: the line is checked when it is executed.
func (s *session) expectLine(line string, lines uint64) (uid uint64, more bool) {
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return 0, false
	}
	switch cmd := findCommand(fields[0]); {
	case cmd == nil:
		return 0, false
	case cmd.has(harmless):
		return 0, true
	case cmd != s.cmd:
		return 0, false
	}
	if len(fields) < 2 {
		return 0, true
	}
	if len(fields) > 2 {
		if k, ok := parseDecimal(fields[2]); !ok || k != lines {
			return 0, true
		}
	}
	n, err := s.snap.find(fields[1])
	if err != nil {
		return 0, true
	}
	return s.snap.message(n).UID, true
}
