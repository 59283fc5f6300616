package imapbackend

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"time"

	"popgate/imapbackend/internal/uidset"
	"popgate/imapbackend/upstream"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

const (
	// measuredAtOnce is how many messages one command reads to measure them,
	// measuredMost how many sizes are found before they are stored, and
	// measureReport how often the log says how far that has come.
	measuredAtOnce = 100
	measuredMost   = 1000
	measureReport  = 10 * time.Second
)

// trueSizes puts sizes that are known to be true in the place of those that the
// upstream reports (requirements I-SIZE-2 to 4).
func (o *opening) trueSizes(ctx context.Context, s *snapshot) error {
	if !s.lasting {
		return nil
	}
	known := o.b.store.Sizes(o.key, s.uidValidity)
	if o.b.opts.Sizes == SizesExact {
		missing := s.without(known)
		if len(missing) > 0 {
			m := &measuring{o: o, s: s, found: make(map[uint32]int64)}
			err := m.measure(ctx, missing)
			m.store()
			if err != nil {
				return err
			}
			known = o.b.store.Sizes(o.key, s.uidValidity)
			if len(known) == 0 { // there is no room in the store
				known = m.found
			}
		}
	}
	s.announce(known)
	return nil
}

// without returns the messages of the snapshot that are not in known.
func (s *snapshot) without(known map[uint32]int64) []uint32 {
	var missing []uint32
	for _, msg := range s.messages {
		if _, ok := known[msg.UID]; !ok {
			missing = append(missing, msg.UID)
		}
	}
	return missing
}

// announce makes the sizes of the snapshot those of known. The messages, which
// are shared, are copied only where one differs.
func (s *snapshot) announce(known map[uint32]int64) {
	for uid, octets := range known {
		i, ok := s.index(uid)
		if !ok || s.messages[i].Octets == octets {
			continue
		}
		if s.reported == nil {
			s.messages = slices.Clone(s.messages)
			s.reported = make(map[uint32]int64)
		}
		s.reported[uid] = s.messages[i].Octets
		s.messages[i].Octets = octets
	}
}

// reportedOctets returns what the upstream reports as the size of a message of
// the snapshot.
func (s *snapshot) reportedOctets(uid uint32) int64 {
	if octets, ok := s.reported[uid]; ok {
		return octets
	}
	return s.octets(uid)
}

// learnSize records the octets that a message turned out to have. What an
// upstream has sent in a message's place says nothing of it.
func (m *maildrop) learnSize(uid uint32, octets int64) {
	if !m.lasting || octets == m.octets(uid) || slices.Contains(m.placeholders, uid) {
		return
	}
	if m.learnt == nil {
		m.learnt = make(map[uint32]int64)
	}
	// At once, as the next session may begin before this one is closed; in
	// larger pieces where there are many, each of which copies those before.
	if m.learnt[uid] = octets; len(m.learnt) > (len(m.reported)+m.stored)/64 {
		m.rememberSizes()
	}
}

// rememberSizes stores what has been learnt, for the next session.
func (m *maildrop) rememberSizes() {
	if len(m.learnt) > 0 {
		m.opts.Store.PutSizes(m.key, m.uidValidity, m.learnt)
		m.stored += len(m.learnt)
		m.learnt = nil
	}
}

// measuring reads messages to know their octets.
type measuring struct {
	o     *opening
	s     *snapshot
	found map[uint32]int64 // octets as RETR would send them

	kept       int // how many of found are stored
	uidOf      map[uint32]uint32
	unassigned map[uint32]int64 // by sequence number: the UID follows the body
}

// measure measures the messages uids. One that cannot be had keeps the size that is
// reported. What is found is stored on the way, so that after a lost connection
// the next login goes on from there.
func (m *measuring) measure(ctx context.Context, uids []uint32) error {
	log := proxy.Logger(ctx).With("upstream", m.o.key.Upstream)
	reported := time.Now()
	for batch := range slices.Chunk(uids, measuredAtOnce) {
		for _, set := range uidset.Split(batch, nil, m.o.MaxLine()-uidset.Frame) {
			m.uidOf, m.unassigned = make(map[uint32]uint32), make(map[uint32]int64)
			cmd := "UID FETCH " + set.Text + " (UID BODY.PEEK[])"
			status, err := m.o.Collect(ctx, cmd, m.addEvent)
			if err != nil {
				return m.o.Lost(upstream.AtList, err)
			}
			if !status.OK() {
				log.WarnContext(ctx, "sizes cannot be measured", "uids", set.Text, "status", m.o.Clean(status.String()))
			}
		}
		if len(m.found)-m.kept >= measuredMost+m.kept/8 {
			m.store()
		}
		if time.Since(reported) >= measureReport {
			reported = time.Now()
			m.store()
			log.InfoContext(ctx, "measuring messages", "done", len(m.found), "of", len(uids))
		}
	}
	return nil
}

// store stores what has been found so far.
func (m *measuring) store() {
	if len(m.found) > m.kept {
		m.o.b.store.PutSizes(m.o.key, m.s.uidValidity, maps.Clone(m.found))
		m.kept = len(m.found)
	}
}

// addEvent takes a response of the upstream. A body is read to its end; an error
// shows at the next response.
func (m *measuring) addEvent(ev wire.Event) {
	switch {
	case ev.Kind == wire.Data && ev.Name == "EXPUNGE": // sequence numbers have moved
		clear(m.uidOf)
		clear(m.unassigned)
	case ev.Kind == wire.Fetch && ev.UID != 0:
		m.uidOf[ev.Seq] = ev.UID
		if octets, ok := m.unassigned[ev.Seq]; ok {
			m.record(ev.UID, octets)
		}
	case ev.Kind == wire.Body && ev.Section == "" && ev.Origin < 0 && !ev.Nil:
		var c octetCounter
		if _, err := m.o.Wire.BodyTo(&c); err != nil {
			return
		}
		uid := ev.UID
		if uid == 0 {
			uid = m.uidOf[ev.Seq]
		}
		if uid == 0 {
			m.unassigned[ev.Seq] = c.total()
			return
		}
		m.record(uid, c.total())
	}
}

// record takes the octets of a message of the snapshot. Of one that the upstream
// has a size but no octets for, nothing is known.
func (m *measuring) record(uid uint32, octets int64) {
	if _, ok := m.s.index(uid); ok && (octets > 0 || m.s.octets(uid) == 0) {
		m.found[uid] = octets
	}
}

// octetCounter counts a message as POP3 sends it (requirement P-RETR-3): a bare
// LF is two octets, and so is the end of a last line that has none.
type octetCounter struct {
	octets int64
	last   byte // the last octet; LF or none: not within a line
	some   bool
}

func (c *octetCounter) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			c.octets += int64(len(rest))
			break
		}
		c.octets += int64(i) + 1
		if i > 0 && rest[i-1] != '\r' || i == 0 && (!c.some || c.last != '\r') {
			c.octets++
		}
		c.last, c.some = '\n', true
		rest = rest[i+1:]
	}
	if len(p) > 0 {
		c.last, c.some = p[len(p)-1], true
	}
	return len(p), nil
}

func (c *octetCounter) total() int64 {
	if c.some && c.last != '\n' {
		return c.octets + 2
	}
	return c.octets
}
