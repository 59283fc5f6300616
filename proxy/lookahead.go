package proxy

import (
	"bytes"
	"strings"
)

// maxForeseen is how many messages a session looks ahead in what the client
// has sent already.
const maxForeseen = 128

// foresee tells the maildrop which messages the client has asked for behind
// the command at hand, RETR or TOP for lines, so that the upstream can be asked
// for them in one flight. The commands stay where they are: each is checked and
// answered in its turn.
func (s *session) foresee(verb string, lines uint64) {
	expecter, ok := s.maildrop.(Expecter)
	if !ok || !s.r.pending() {
		return
	}
	if s.foreseen.left--; s.foreseen.left > s.foreseen.told/2 {
		return // most of what was told is still to come
	}
	var uids []uint32
	for rest := s.r.buffered(); len(uids) < maxForeseen; {
		line, after, found := bytes.Cut(rest, []byte("\n"))
		if !found {
			break
		}
		rest = after
		uid, more := s.foreseeLine(string(bytes.TrimSuffix(line, []byte("\r"))), verb, lines)
		if !more {
			break
		}
		if uid != 0 {
			uids = append(uids, uid)
		}
	}
	s.foreseen.told, s.foreseen.left = len(uids), len(uids)
	if len(uids) > 0 {
		expecter.Expect(uids)
	}
}

// foreseeLine returns the message that a line asks for in the same form, 0 if
// none; more is false if it is of no use to look behind the line. It is a guess:
// the line is checked when its turn comes.
func (s *session) foreseeLine(line, verb string, lines uint64) (uid uint32, more bool) {
	fields := strings.Fields(line)
	if len(fields) == 0 {
		return 0, false
	}
	switch strings.ToUpper(fields[0]) {
	case "DELE", "LIST", "UIDL", "STAT", "NOOP":
		return 0, true
	case verb:
	default:
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
