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
	// measureBatch is how many messages one command reads to measure them,
	// measureStore how many sizes are found before they are stored, and
	// measureLog how often the log reports the progress.
	measureBatch = 100
	measureStore = 1000
	measureLog   = 10 * time.Second
)

// trueSizes replaces sizes that the upstream reports by those known to be true
// (requirements I-SIZE-2 to 4).
func (o *opening) trueSizes(ctx context.Context, s *snapshot) error {
	if !s.lasting {
		return nil
	}
	known := o.b.store.Sizes(o.key, s.uidValidity)
	if o.b.opts.Sizes == SizesExact {
		missing := s.without(known)
		if len(missing) > 0 {
			m := &measurement{o: o, s: s, found: make(map[uint64]int64)}
			err := m.measure(ctx, missing)
			m.store()
			if err != nil {
				return err
			}
			known = o.b.store.Sizes(o.key, s.uidValidity)
			if len(known) == 0 { // the store has no room
				known = m.found
			}
		}
	}
	s.announce(known)
	return nil
}

// without returns the messages of the snapshot that are not in known.
func (s *snapshot) without(known map[uint64]int64) []uint64 {
	var missing []uint64
	for _, msg := range s.messages {
		if _, ok := known[msg.UID]; !ok {
			missing = append(missing, msg.UID)
		}
	}
	return missing
}

// announce makes the sizes of the snapshot those of known. The messages are
// shared, so they are copied if one differs.
func (s *snapshot) announce(known map[uint64]int64) {
	for uid, octets := range known {
		i, ok := s.index(uid)
		if !ok || s.messages[i].Octets == octets {
			continue
		}
		if s.reported == nil {
			s.messages = slices.Clone(s.messages)
			s.reported = make(map[uint64]int64)
		}
		s.reported[uid] = s.messages[i].Octets
		s.messages[i].Octets = octets
	}
}

// reportedOctets returns what the upstream reports as the size of a message of
// the snapshot.
func (s *snapshot) reportedOctets(uid uint64) int64 {
	if octets, ok := s.reported[uid]; ok {
		return octets
	}
	return s.octets(uid)
}

// learnSize records the octets of a message that has been read. A placeholder
// says nothing about the size.
func (m *maildrop) learnSize(uid uint64, octets int64) {
	if !m.lasting || octets == m.octets(uid) || slices.Contains(m.placeholders, uid) {
		return
	}
	if m.learnt == nil {
		m.learnt = make(map[uint64]int64)
	}
	// The next session may begin before this one is closed: sizes are
	// stored at once. Where there are many, they are stored in larger
	// batches, as each batch copies all the earlier ones.
	if m.learnt[uid] = octets; len(m.learnt) > (len(m.reported)+m.stored)/64 {
		m.rememberSizes()
	}
}

// rememberSizes stores the learnt sizes for the next session.
func (m *maildrop) rememberSizes() {
	if len(m.learnt) > 0 {
		m.opts.Store.PutSizes(m.key, m.uidValidity, m.learnt)
		m.stored += len(m.learnt)
		m.learnt = nil
	}
}

// measurement reads messages to find out their octets.
type measurement struct {
	o     *opening
	s     *snapshot
	found map[uint64]int64 // octets as RETR would send them

	kept       int // how many of found are stored
	due        int // bodies that the current command may still bring
	uidOf      map[uint32]uint64
	unassigned map[uint32]int64 // by sequence number: the UID follows the body
}

// measure measures the messages uids. One that cannot be read keeps the
// reported size. Sizes are stored on the way, so that after a loss of the
// connection the next login resumes from there.
func (m *measurement) measure(ctx context.Context, uids []uint64) error {
	log := proxy.Logger(ctx).With("upstream", m.o.key.Upstream)
	reported := time.Now()
	for batch := range slices.Chunk(uids, measureBatch) {
		for _, set := range uidset.Split(batch, nil, m.o.MaxLine()-uidset.Frame) {
			m.uidOf, m.unassigned, m.due = make(map[uint32]uint64), make(map[uint32]int64), len(set.UIDs)
			cmd := "UID FETCH " + set.Text + " (UID BODY.PEEK[])"
			status, err := m.o.Collect(ctx, cmd, m.addEvent)
			if err != nil {
				return m.o.Lost(upstream.AtList, err)
			}
			if !status.OK() {
				log.WarnContext(ctx, "sizes cannot be measured", "uids", set.Text, "status", m.o.Clean(status.String()))
			}
		}
		if len(m.found)-m.kept >= measureStore+m.kept/8 {
			m.store()
		}
		if time.Since(reported) >= measureLog {
			reported = time.Now()
			m.store()
			log.InfoContext(ctx, "measuring messages", "done", len(m.found), "of", len(uids))
		}
	}
	return nil
}

// store stores what has been found so far.
func (m *measurement) store() {
	if len(m.found) > m.kept {
		m.o.b.store.PutSizes(m.o.key, m.s.uidValidity, maps.Clone(m.found))
		m.kept = len(m.found)
	}
}

// addEvent handles a response of the upstream. It reads a body to its end; an
// error shows at the next response.
func (m *measurement) addEvent(ev wire.Event) {
	switch {
	case ev.Kind == wire.Data && ev.Name == "EXPUNGE": // sequence numbers have moved
		clear(m.uidOf)
		clear(m.unassigned)
	case ev.Kind == wire.Fetch && ev.UID != 0 && len(m.uidOf) < maxNumbered:
		m.uidOf[ev.Seq] = ev.UID
		if octets, ok := m.unassigned[ev.Seq]; ok {
			m.record(ev.UID, octets)
		}
	case ev.Kind == wire.Body && ev.Section == "" && ev.Origin < 0 && !ev.Nil:
		if m.due > 0 {
			m.due--
			m.o.Wire.Grant(ev.Octets)
		}
		var c octetCounter
		if _, err := m.o.Wire.BodyTo(&c); err != nil {
			return
		}
		uid := ev.UID
		if uid == 0 {
			uid = m.uidOf[ev.Seq]
		}
		if uid == 0 {
			if len(m.unassigned) < maxNumbered {
				m.unassigned[ev.Seq] = c.total()
			}
			return
		}
		m.record(uid, c.total())
	}
}

// record records the octets of a message of the snapshot. An empty body does
// not count where the upstream reports a size.
func (m *measurement) record(uid uint64, octets int64) {
	if _, ok := m.s.index(uid); ok && (octets > 0 || m.s.octets(uid) == 0) {
		if _, known := m.found[uid]; !known {
			m.o.at.Arrived(1)
		}
		m.found[uid] = octets
	}
}

// octetCounter counts the octets of a message as POP3 sends it (requirement
// P-RETR-3): a bare LF counts as CRLF, and so does the missing end of the last
// line.
type octetCounter struct {
	octets int64
	last   byte // the last octet, if some
	some   bool // there has been an octet
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
