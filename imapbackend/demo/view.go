package demo

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/emersion/go-imap"
	"github.com/emersion/go-imap/backend"
)

// view is the mailbox as one session sees it: message number n is uids[n-1]. It
// belongs to the goroutine of the session.
type view struct {
	mailbox  *mailbox
	uids     []uint32 // ascending
	uidNext  uint32
	readOnly bool   // opened by EXAMINE
	abort    func() // ends the session; set by FETCH
}

var _ backend.Mailbox = (*view)(nil)

func newView(m *mailbox) *view {
	v := &view{mailbox: m}
	v.uids, v.uidNext = m.uids()
	return v
}

// indexes returns the positions in v.uids of the messages in set, ascending and
// without duplicates. `*` is the last message (RFC 3501 §9, seq-number).
func (v *view) indexes(uid bool, set *imap.SeqSet) []int {
	if len(v.uids) == 0 {
		return nil
	}
	last := uint32(len(v.uids))
	if uid {
		last = v.uids[len(v.uids)-1]
	}
	var all []int
	for _, r := range set.Set {
		lo, hi := r.Start, r.Stop
		if lo == 0 {
			lo = last
		}
		if hi == 0 {
			hi = last
		}
		if lo > hi {
			lo, hi = hi, lo
		}
		i, end := int(lo)-1, min(int(hi), len(v.uids))
		if uid {
			i, _ = slices.BinarySearch(v.uids, lo)
			var found bool
			if end, found = slices.BinarySearch(v.uids, hi); found {
				end++
			}
		}
		for ; i < end; i++ {
			all = append(all, i)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// uidsOf returns the UIDs of the messages in set.
func (v *view) uidsOf(uid bool, set *imap.SeqSet) []uint32 {
	indexes := v.indexes(uid, set)
	uids := make([]uint32, len(indexes))
	for i, n := range indexes {
		uids[i] = v.uids[n]
	}
	return uids
}

// sync brings v up to date and returns the responses that announce the
// difference: EXPUNGE from the highest number down, so that each number is right
// when it is read, then EXISTS.
func (v *view) sync() imap.WriterTo {
	old := v.uids
	v.uids, v.uidNext = v.mailbox.uids()
	var b strings.Builder
	kept := 0
	for i := len(old) - 1; i >= 0; i-- {
		if _, ok := slices.BinarySearch(v.uids, old[i]); ok {
			kept++
		} else {
			fmt.Fprintf(&b, "* %d EXPUNGE\r\n", i+1)
		}
	}
	if len(v.uids) > kept {
		fmt.Fprintf(&b, "* %d EXISTS\r\n", len(v.uids))
	}
	return untagged(b.String())
}

// untagged is any number of complete response lines.
type untagged string

func (u untagged) WriteTo(w *imap.Writer) error {
	_, err := io.WriteString(w, string(u))
	return err
}

func (v *view) Name() string { return imap.InboxName }

func (v *view) Info() (*imap.MailboxInfo, error) {
	return &imap.MailboxInfo{
		Attributes: []string{imap.HasNoChildrenAttr}, Delimiter: "/", Name: imap.InboxName,
	}, nil
}

func (v *view) Status(items []imap.StatusItem) (*imap.MailboxStatus, error) {
	st := imap.NewMailboxStatus(imap.InboxName, items)
	st.Flags = []string{
		imap.SeenFlag, imap.AnsweredFlag, imap.FlaggedFlag, imap.DeletedFlag, imap.DraftFlag,
	}
	st.PermanentFlags = append(slices.Clone(st.Flags), imap.TryCreateFlag)
	st.Messages = uint32(len(v.uids))
	st.UidNext = v.uidNext
	st.UidValidity = v.mailbox.uidValidity
	for i, uid := range v.uids {
		if msg, ok := v.mailbox.get(uid); ok && !msg.has(imap.SeenFlag) {
			st.Unseen++
			if st.UnseenSeqNum == 0 {
				st.UnseenSeqNum = uint32(i + 1)
			}
		}
	}
	return st, nil
}

func (v *view) SetSubscribed(bool) error { return nil }
func (v *view) Check() error             { return nil }

// ListMessages answers FETCH. It always returns nil: otherwise go-imap does not
// wait for its writer. checkItem has checked the items.
func (v *view) ListMessages(uid bool, set *imap.SeqSet, items []imap.FetchItem, ch chan<- *imap.Message) error {
	defer close(ch)
	var sections []*imap.BodySectionName
	see := false
	for _, item := range items {
		if name, err := imap.ParseBodySectionName(item); err == nil {
			sections = append(sections, name)
			see = see || !name.Peek && !v.readOnly
		}
	}
	for _, i := range v.indexes(uid, set) {
		msg, ok := v.mailbox.get(v.uids[i])
		answer := items
		if see {
			var changed bool
			msg, changed, ok = v.mailbox.markSeen(v.uids[i])
			if changed && !slices.Contains(items, imap.FetchFlags) {
				// RFC 3501 §6.4.5: the new flags are part of the answer.
				answer = append(slices.Clone(items), imap.FetchFlags)
			}
		}
		if ok {
			ch <- fetched(uint32(i+1), &msg, answer, sections, v.abort)
		}
	}
	return nil
}

func fetched(seq uint32, msg *message, items []imap.FetchItem, sections []*imap.BodySectionName, abort func()) *imap.Message {
	m := imap.NewMessage(seq, items)
	m.Uid = msg.uid
	m.Flags = msg.flags
	m.InternalDate = msg.date
	m.Size = uint32(msg.octets())
	for _, name := range sections {
		m.Body[name] = section(msg.content, name, abort)
	}
	return m
}

func (v *view) CreateMessage(flags []string, date time.Time, body imap.Literal) error {
	_, err := v.create(flags, date, body)
	return err
}

// create appends a message and returns its UID; a zero date is now.
func (v *view) create(flags []string, date time.Time, body imap.Literal) (uid uint32, err error) {
	octets := make([]byte, body.Len())
	if _, err := io.ReadFull(body, octets); err != nil {
		return 0, err
	}
	if date.IsZero() {
		date = time.Now()
	}
	return v.mailbox.append(inMemory(octets), flags, date), nil
}

func (v *view) UpdateMessagesFlags(uid bool, set *imap.SeqSet, op imap.FlagsOp, flags []string) error {
	v.mailbox.store(v.uidsOf(uid, set), op, flags)
	return nil
}

func (v *view) CopyMessages(uid bool, set *imap.SeqSet, dest string) error {
	if !strings.EqualFold(dest, imap.InboxName) {
		return status(imap.StatusRespNo, imap.CodeTryCreate, errOnlyInbox.Error())
	}
	for _, uid := range v.uidsOf(uid, set) {
		if msg, ok := v.mailbox.get(uid); ok {
			v.mailbox.append(msg.content, msg.flags, msg.date)
		}
	}
	return nil
}

// Expunge removes the messages flagged \Deleted. CLOSE also calls it in a
// mailbox opened by EXAMINE, where it removes nothing (RFC 3501 §6.4.2).
func (v *view) Expunge() error {
	if !v.readOnly {
		v.mailbox.expunge(func(uint32) bool { return true })
	}
	return nil
}
