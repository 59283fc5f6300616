package proxy

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// enterUTF8 answers UTF8: RFC 6856 §2.1. The mode lasts until the session ends.
// Departure: in TRANSACTION, where some clients send it and give up at -ERR, it
// is accepted, whether offered or not, and changes nothing. The client then
// allows UTF-8 in headers and does not get any: messages and sizes remain those
// of the mode at login.
func (s *session) enterUTF8([]string) error {
	if s.record.State == StateTransaction {
		s.w.ok("accepted")
		return nil
	}
	if !s.srv.opts.UTF8 {
		return errUnknown
	}
	s.utf8 = true
	s.w.ok("UTF8 mode")
	return nil
}

// utf8Argument is what CAPA lists after UTF8. "USER" announces that names and
// passwords may be UTF-8 (RFC 6856 §2.2).
func (s *session) utf8Argument() string {
	if s.utf8Names() {
		return " USER"
	}
	return ""
}

func (s *session) utf8Names() bool {
	return s.srv.opts.UTF8 && !s.srv.hidden("USER") && s.plaintextAllowed()
}

// refusesOctets reports whether RFC 6856 §2.2 forbids the name or password. If
// UTF8 is not offered, all octets are allowed: old clients send whatever their
// character set has.
func (s *session) refusesOctets(arg string) bool {
	switch {
	case s.utf8Names():
		return !utf8.ValidString(arg) || strings.ContainsFunc(arg, prohibited)
	case s.utf8:
		return strings.ContainsFunc(arg, func(r rune) bool { return r > unicode.MaxASCII })
	}
	return false
}

// prohibited reports whether SASLprep prohibits the character: RFC 4013 §2.3,
// which names tables of RFC 3454, appendix C.
func prohibited(r rune) bool {
	return unicode.Is(prohibitedOutput, r) || r&0xFFFE == 0xFFFE || // C.4: the last two of each plane
		unicode.Is(unicode.Zs, r) && r != ' ' // C.1.2
}

// prohibitedOutput is RFC 3454 C.1.2, C.2.1, C.2.2, C.3, C.4, C.6, C.7, C.8 and
// C.9, except what prohibited checks by rule. C.5, surrogates, is not valid
// UTF-8.
var prohibitedOutput = &unicode.RangeTable{
	R16: []unicode.Range16{
		{0x0000, 0x001F, 1}, {0x007F, 0x009F, 1},
		{0x0340, 0x0341, 1},
		{0x06DD, 0x06DD, 1}, {0x070F, 0x070F, 1},
		{0x180E, 0x180E, 1},
		{0x200B, 0x200F, 1}, {0x2028, 0x202E, 1}, {0x2060, 0x2063, 1}, {0x206A, 0x206F, 1},
		{0x2FF0, 0x2FFB, 1},
		{0xE000, 0xF8FF, 1},
		{0xFDD0, 0xFDEF, 1}, {0xFEFF, 0xFEFF, 1}, {0xFFF9, 0xFFFD, 1},
	},
	R32: []unicode.Range32{
		{0x1D173, 0x1D17A, 1},
		{0xE0001, 0xE0001, 1}, {0xE0020, 0xE007F, 1},
		{0xF0000, 0xFFFFD, 1}, {0x100000, 0x10FFFD, 1},
	},
	LatinOffset: 2,
}
