package imapbackend

import (
	"context"
	"errors"
	"fmt"

	"popgate/imapbackend/upstream"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// errNeedsUTF8 is a message with header fields beyond ASCII, for a client that
// has not entered UTF8 mode (RFC 6856 §2.1).
var errNeedsUTF8 = &proxy.Error{Code: proxy.CodeUTF8, Text: "message needs UTF8 mode"}

// checkHeader returns errNeedsUTF8 if the header of the message has an octet
// above 0x7F and the client does not accept that (requirements I-UTF8-1,
// P-EXT-5). It reads the header only where the upstream may send such octets,
// and does not hold it in memory.
func (m *maildrop) checkHeader(ctx context.Context, uid uint64) error {
	if !m.u.RawHeaders() {
		return nil
	}
	f, err := m.newFetch(ctx, uid)
	if err != nil {
		return err
	}
	defer f.close()
	err = f.checkHeader()
	if err != nil && err != errNeedsUTF8 {
		if err = f.replaceConn(err); err == nil {
			err = f.checkHeader()
		}
	}
	return err
}

func (f *fetch) checkHeader() error {
	a, header := f.m.readAhead, part{f.uid, true}
	_, was := a.kept[header]
	if err := f.send(headerItem); err != nil {
		return f.m.u.Lost(upstream.AtRead, err)
	}
	a.awaited = header
	for {
		ev, ok, err := f.next()
		if err != nil {
			return f.m.u.Lost(upstream.AtRead, fmt.Errorf("imap: %s: %w", f.cmd, err))
		}
		if data, isKept := a.get(header, !was); isKept {
			_, err := asciiOnly{}.Write(data)
			return err
		}
		switch {
		case !ok:
			if again, err := f.askAgain(headerItem); err != nil {
				return f.m.u.Lost(upstream.AtRead, err)
			} else if !again {
				return f.outcome()
			}
			continue
		case ev.Section != "HEADER" || ev.Origin >= 0:
			continue
		case ev.Nil && f.m.octets(f.uid) > 0:
			f.empty = true
			continue
		}
		return f.headerASCII(ev)
	}
}

// headerASCII reads the header that body announces, and returns errNeedsUTF8
// if it is not ASCII.
func (f *fetch) headerASCII(body wire.Event) error {
	_, err := f.m.u.Wire.BodyTo(asciiOnly{})
	needsUTF8 := errors.Is(err, errNeedsUTF8)
	if err == nil || needsUTF8 {
		if e := f.verify(body); e != nil {
			return f.m.u.Lost(upstream.AtRead, e)
		}
	}
	switch {
	case needsUTF8:
		return errNeedsUTF8
	case err != nil:
		return f.classify(err)
	}
	return nil
}

// asciiOnly is a writer that fails at the first octet above 0x7F.
type asciiOnly struct{}

func (asciiOnly) Write(p []byte) (int, error) {
	for i, c := range p {
		if c > 0x7F {
			return i, errNeedsUTF8
		}
	}
	return len(p), nil
}
