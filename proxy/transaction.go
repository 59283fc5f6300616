package proxy

import (
	"errors"
	"fmt"
	"strconv"
)

// listingLine is more octets than any line of LIST or UIDL has: two numbers, or
// a number and a unique-id of 70 characters, with a space and CRLF.
const listingLine = 128

var errNoTop = &Error{Text: "TOP is switched off"}

// stat answers STAT: RFC 1939 §5. Nothing follows the two numbers.
func (s *session) stat([]string) error {
	count, octets := s.snap.stat()
	s.w.ok(fmt.Sprintf("%d %d", count, octets))
	return nil
}

// list answers LIST.
func (s *session) list(args []string) error {
	if len(args) > 0 {
		n, err := s.snap.find(args[0])
		if err != nil {
			return err
		}
		s.w.ok(fmt.Sprintf("%d %d", n, s.snap.message(n).Octets))
		return nil
	}
	count, octets := s.snap.stat()
	s.w.ok(fmt.Sprintf("%d messages (%d octets)", count, octets))
	s.listing(func(dst []byte, m Message) []byte {
		return strconv.AppendInt(dst, m.Octets, 10)
	})
	return nil
}

// uidl answers UIDL: RFC 1939 §7.
func (s *session) uidl(args []string) error {
	n := 0
	if len(args) > 0 {
		var err error
		if n, err = s.snap.find(args[0]); err != nil {
			return err
		}
	}
	uniqueID, err := s.maildrop.UniqueIDs()
	if err != nil {
		return err
	}
	if n > 0 {
		s.w.ok(fmt.Sprintf("%d %s", n, uniqueID(nil, s.snap.message(n).UID)))
		return nil
	}
	s.w.ok("unique-id listing follows")
	s.listing(func(dst []byte, m Message) []byte {
		return uniqueID(dst, m.UID)
	})
	return nil
}

// listing writes a line for each unmarked message: its number and what value
// appends. It allocates nothing per message.
func (s *session) listing(value func(dst []byte, m Message) []byte) {
	for i, m := range s.snap.messages {
		if s.snap.isMarked(i + 1) {
			continue
		}
		s.w.room(listingLine)
		b := strconv.AppendInt(s.w.buf, int64(i+1), 10)
		b = value(append(b, ' '), m)
		s.w.buf = append(b, "\r\n"...)
	}
	s.w.end()
}

// retr answers RETR.
func (s *session) retr(args []string) error {
	n, err := s.snap.find(args[0])
	if err != nil {
		return err
	}
	m := s.snap.message(n)
	s.expect(0)
	s.lookOut()
	defer s.stopLooking()
	body, err := s.maildrop.Read(s.ctx, m.UID)
	if err != nil {
		return err
	}
	text := "message follows"
	if octets := body.Octets(); octets >= 0 {
		text = strconv.FormatInt(octets, 10) + " octets"
	}
	if err := s.sendBody(text, body); err != nil {
		return err
	}
	s.record.Retr++
	if s.dot.octets != m.Octets {
		s.record.Mismatches++
		s.log.Debug("octets differ from LIST", "uid", m.UID, "listed", m.Octets, "sent", s.dot.octets)
	}
	s.sent = append(s.sent, Message{UID: m.UID, Octets: s.dot.octets})
	return nil
}

// top answers TOP: RFC 1939 §7.
func (s *session) top(args []string) error {
	if s.srv.hidden("TOP") {
		return errNoTop
	}
	lines, ok := parseDecimal(args[1])
	if !ok {
		return errSyntax
	}
	n, err := s.snap.find(args[0])
	if err != nil {
		return err
	}
	s.expect(lines)
	s.lookOut()
	defer s.stopLooking()
	body, err := s.maildrop.Top(s.ctx, s.snap.message(n).UID, lines)
	if err != nil {
		return err
	}
	if err := s.sendBody("top of message follows", body); err != nil {
		return err
	}
	s.record.Top++
	return nil
}

// sendBody writes the positive reply of RETR or TOP and closes body. A failure
// while all of the reply is still in the buffer takes it back, and is answered as
// one before +OK. Later it can be reported only by ending the session without the
// final line (RFC 1939 §3), so that no client takes the part for the whole.
func (s *session) sendBody(text string, body Body) error {
	defer func() {
		if err := body.Close(); err != nil {
			s.log.Debug("closing a message failed", "error", err)
		}
	}()
	s.w.ok(text)
	s.dot = dotWriter{w: &s.w}
	_, err := body.WriteTo(&s.dot)
	if err != nil && s.w.retract() {
		return unread(err)
	}
	s.record.Octets += s.dot.octets
	switch {
	case s.w.err != nil:
		return s.writeError(s.w.err)
	case err != nil && s.ctx.Err() != nil:
		return &endError{endShutdown, err}
	case err != nil:
		s.log.Warn("message broke off", "error", err, "octets", s.dot.octets)
		return &endError{endUpstream, err}
	}
	before := s.dot.octets
	s.dot.finish()
	s.record.Octets += s.dot.octets - before
	return nil
}

// unread returns err, of a body that cannot be read to its end, as the client may
// see it.
func unread(err error) error {
	if _, ok := errors.AsType[*Error](err); ok {
		return err
	}
	return &Error{Code: CodeSysTemp, Text: "message cannot be read, try again later", Err: err}
}

// dele answers DELE. It only sets a mark, in memory.
func (s *session) dele(args []string) error {
	n, err := s.snap.find(args[0])
	if err != nil {
		return err
	}
	if s.maildrop.ReadOnly() {
		return ErrReadOnly
	}
	s.snap.mark(n)
	s.record.Dele++
	s.w.ok(fmt.Sprintf("message %d deleted", n))
	return nil
}

// noop answers NOOP.
func (s *session) noop([]string) error {
	s.w.ok("")
	return nil
}

// rset answers RSET. It removes all marks.
func (s *session) rset([]string) error {
	s.snap.reset()
	s.maildropOK()
	return nil
}

// maildropOK is the reply to a login and to RSET.
func (s *session) maildropOK() {
	count, octets := s.snap.stat()
	s.w.ok(fmt.Sprintf("maildrop has %d messages (%d octets)", count, octets))
}
