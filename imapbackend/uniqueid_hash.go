package imapbackend

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"

	"popgate/imapbackend/upstream"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// hashUniqueIDs makes the unique-ids of a mailbox without lasting UIDs:
// SHA-256 of the header in base64url, 43 characters. Of equal ones, in the
// order of UIDs, the second gets ".2", and so on. An error is a lost
// connection; if the upstream does not give a header there are no unique-ids.
func (o *opening) hashUniqueIDs(ctx context.Context, s *snapshot) error {
	s.hashes = make(map[uint64]string, len(s.messages))
	if len(s.messages) == 0 {
		return nil
	}
	const cmd = "UID FETCH 1:* (UID BODY.PEEK[HEADER])"
	sums := make(map[uint64]string, len(s.messages))
	var sum string
	var bodyErr error
	status, err := o.Collect(ctx, cmd, func(ev wire.Event) {
		switch {
		case ev.Kind == wire.Body && ev.Section == "HEADER" && !ev.Nil && bodyErr == nil:
			h := sha256.New()
			_, bodyErr = o.Wire.BodyTo(h)
			sum = base64.RawURLEncoding.EncodeToString(h.Sum(nil))
		case ev.Kind == wire.Fetch:
			if _, listed := s.index(ev.UID); listed && sum != "" {
				if sums[ev.UID] == "" {
					o.at.Arrived(1)
					o.Wire.Grant(maxIdentityHeader)
				}
				sums[ev.UID] = sum
			}
			sum = ""
		}
	})
	if err == nil {
		err = bodyErr
	}
	if err != nil {
		return o.Lost(upstream.AtList, fmt.Errorf("imap: %s: %w", cmd, err))
	}
	seen := make(map[string]int)
	for _, msg := range s.messages {
		sum, ok := sums[msg.UID]
		if !ok {
			s.noUniqueIDs = &proxy.Error{Code: proxy.CodeSysPerm, Text: textNoUniqueIDs,
				Err: errors.New("imap: UIDs do not last and the header of UID " +
					strconv.FormatUint(msg.UID, 10) + " is not given: " + o.Clean(status.String()))}
			return nil
		}
		if seen[sum]++; seen[sum] > 1 {
			sum += "." + strconv.Itoa(seen[sum])
		}
		s.hashes[msg.UID] = sum
	}
	return nil
}
