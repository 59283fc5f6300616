// Package imapfault injects faults between a gateway and its upstream: a net.Conn
// that splits the upstream's octets into responses and, at one of them, loses the
// connection, falls silent, or changes the response.
package imapfault

import (
	"bytes"
	"fmt"
	"regexp"
	"strconv"
)

// Kind is what happens to a response.
type Kind int

// The kinds. Those up to Bye lose the connection in a way that a client can notice
// at once; Stall and StallMiddle only by waiting: nothing more arrives, and
// what the client sends is ignored.
const (
	CutBefore   Kind = iota // the connection ends before the response
	CutMiddle               // or within it
	CutAfter                // or right after it
	Reset                   // the connection is reset within the response
	Bye                     // BYE replaces the response, and the connection ends
	Stall                   // silence from the response on
	StallMiddle             // silence within it
	Drop                    // the response is left out
	No                      // a tagged OK is a NO
	Bad                     // or a BAD
	Garble                  // octets in the middle of the line are changed
	Join                    // its line end is missing
	OtherUID                // FETCH has the next UID
	Longer                  // a literal is announced with more octets than it has
	Shorter                 // or with fewer
	OtherSize               // RFC822.SIZE is far off
	More                    // EXISTS or a search has one message too many
	Fewer                   // or one too few
	Swap                    // the response follows the next one
	Twice                   // the response is repeated
	Chatter                 // EXISTS, FETCH with flags and unknown responses precede it
	Expunge                 // a false EXPUNGE precedes it
	Octets                  // it arrives octet by octet
	kinds
)

var names = [kinds]string{"cut before", "cut in the middle", "cut after", "reset", "BYE", "stall", "stall in the middle",
	"drop", "NO", "BAD", "garble", "join", "other UID", "longer literal", "shorter literal", "other size", "more", "fewer", "swap",
	"twice", "chatter", "false EXPUNGE", "octet by octet"}

func (k Kind) String() string { return names[k] }

// Kinds returns all kinds.
func Kinds() []Kind {
	all := make([]Kind, kinds)
	for i := range all {
		all[i] = Kind(i)
	}
	return all
}

// Loss reports whether the fault is that the connection is lost and nothing else:
// a client that connects again can get all that it wants.
func (k Kind) Loss() bool { return k <= StallMiddle }

// Harmless reports whether what the upstream says stays true and the connection
// usable, so that no client may notice the fault.
func (k Kind) Harmless() bool { return k == Chatter || k == Octets }

// Fault is one fault.
type Fault struct {
	Kind     Kind
	Response int // counted from 1 over all connections of an Injector
	Octet    int // for CutMiddle, Reset and StallMiddle: how many octets arrive; 0: half of them
}

func (f Fault) String() string {
	s := fmt.Sprintf("%s at response %d", f.Kind, f.Response)
	if f.Octet > 0 {
		s += fmt.Sprintf(", octet %d", f.Octet)
	}
	return s
}

var (
	literalLine = regexp.MustCompile(`\{(\d+)\}\r\n`)
	fetchUID    = regexp.MustCompile(`\bUID (\d+)`)
	fetchSize   = regexp.MustCompile(`\bRFC822\.SIZE (\d+)`)
	existsCount = regexp.MustCompile(`^\* (\d+) EXISTS`)
	searchUIDs  = regexp.MustCompile(`^(?:\* SEARCH|\* ESEARCH.* ALL)((?: |,|\d+)*)\r\n`)
	taggedOK    = regexp.MustCompile(`^[A-Za-z0-9]+ (OK)\b`)
	greeting    = regexp.MustCompile(`^\* OK \[CAPABILITY [^\]]*\] .* ready\r\n`)
	isFetch     = regexp.MustCompile(`^\* \d+ FETCH `)
)

// Applies reports whether a fault of this kind is possible at response: some kinds
// need a response of a certain form.
func (k Kind) Applies(response []byte) bool {
	line := firstLine(response)
	switch k {
	case No, Bad:
		return taggedOK.Match(line)
	case OtherUID:
		return isFetch.Match(line) && fetchUID.Match(line)
	case OtherSize:
		return isFetch.Match(line) && fetchSize.Match(line)
	case Longer, Shorter:
		return literalLine.Match(line)
	case More, Fewer:
		return existsCount.Match(line) || searchUIDs.Match(line)
	case Chatter, Expunge: // nothing precedes a greeting
		return !bytes.HasPrefix(line, []byte("+")) && !greeting.Match(line)
	}
	return true
}

// firstLine returns the first line of a response, its end included.
func firstLine(response []byte) []byte {
	i := bytes.IndexByte(response, '\n')
	return response[:i+1]
}

// changed returns what replaces a response, for the kinds that change it.
func (k Kind) changed(response []byte) []byte {
	line := firstLine(response)
	rest := response[len(line):]
	switch k {
	case Drop:
		return nil
	case No:
		return replace(response, taggedOK, func(string) string { return "NO" })
	case Bad:
		return replace(response, taggedOK, func(string) string { return "BAD" })
	case Garble:
		out := bytes.Clone(response)
		copy(out[len(line)/2:], "\x00{")
		return out
	case Join:
		return response[:len(response)-2]
	case OtherUID:
		return append(replace(line, fetchUID, plus(1)), rest...)
	case OtherSize:
		return append(replace(line, fetchSize, plus(5000)), rest...)
	case Longer:
		return append(replace(line, literalLine, plus(7)), rest...)
	case Shorter:
		return append(replace(line, literalLine, plus(-7)), rest...)
	case More, Fewer:
		return k.counted(line)
	case Twice:
		return append(bytes.Clone(response), response...)
	case Chatter:
		return append([]byte("* 1000 EXISTS\r\n* 0 RECENT\r\n* 1 FETCH (FLAGS (\\Seen))\r\n* OK [X-CODE a] b\r\n* X-DATA (c d)\r\n"), response...)
	case Expunge:
		return append([]byte("* 1 EXPUNGE\r\n"), response...)
	}
	return response
}

func (k Kind) counted(line []byte) []byte {
	if existsCount.Match(line) {
		if k == More {
			return replace(line, existsCount, plus(1))
		}
		return replace(line, existsCount, plus(-1))
	}
	return replace(line, searchUIDs, func(uids string) string {
		if k == More {
			if bytes.HasPrefix(line, []byte("* ESEARCH")) {
				return uids + ",1"
			}
			return uids + " 1"
		}
		i := bytes.LastIndexAny([]byte(uids), " ,")
		return uids[:max(i, 0)]
	})
}

// plus returns a function that adds n to a number; the sum is at least 0.
func plus(n int) func(string) string {
	return func(s string) string {
		v, _ := strconv.Atoi(s) // digits only
		return strconv.Itoa(max(v+n, 0))
	}
}

// replace replaces the first group of the first match.
func replace(p []byte, re *regexp.Regexp, f func(string) string) []byte {
	m := re.FindSubmatchIndex(p)
	if m == nil {
		return p
	}
	out := append([]byte(nil), p[:m[2]]...)
	out = append(out, f(string(p[m[2]:m[3]]))...)
	return append(out, p[m[3]:]...)
}
