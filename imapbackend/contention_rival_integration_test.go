//go:build integration

package imapbackend

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"popgate/imapbackend/dovecottest"
)

// rival is the state of one user's mailboxes and an IMAP client that changes
// them at each step of a session of the gateway.
type rival struct {
	*testing.T
	up    *dovecottest.Server
	b     *Backend
	user  string
	c     *dovecottest.Client // the IMAP client
	r     *rand.Rand
	mails map[string]*raceMail // by their first line
	boxes map[string]*raceBox  // by their names
	all   map[uint64]*raceBox  // by UIDVALIDITY, deleted ones too

	replaced  bool // in this round the mailbox was deleted, renamed or rebuilt
	unflagged bool // at this step flags were removed
	counts    map[string]int
}

// raceMail is a message and what the other client has done to it.
type raceMail struct {
	octets           string
	removed, deleted bool
}

// raceBox is a mailbox as long as it has one UIDVALIDITY.
type raceBox struct {
	validity uint64
	named    map[uint64]string // by UID, all messages that it ever had
	stale    bool              // the mailbox now has another UIDVALIDITY
}

func raceName(octets string) string {
	line, _, _ := strings.Cut(octets, "\r\n")
	return line
}

// create creates the mailbox, with messages. The mailbox may exist: a process
// of Dovecot that has it open when it is deleted creates it again, empty.
func (w *rival) create() {
	w.c.Try("CREATE %q", raceMailbox)
	w.count("mailbox created")
	w.boxes[raceMailbox] = nil
	w.add(2 + w.r.IntN(6))
}

// add appends messages, some of them long, and records their UIDs.
func (w *rival) add(count int) {
	var bodies [][]byte
	for range count {
		name := fmt.Sprintf("Subject: %d", len(w.mails))
		lines := 1 + w.r.IntN(4)
		if w.r.IntN(4) == 0 {
			lines += w.r.IntN(8000)
		}
		octets := name + "\r\n\r\n" + strings.Repeat(".line of "+name+"\r\n", lines)
		w.mails[name] = &raceMail{octets: octets}
		bodies = append(bodies, []byte(octets))
	}
	w.retry("APPEND", func() bool {
		if w.c.TryAppend(raceMailbox, bodies...) {
			return true
		}
		w.c.Try("CREATE %q", raceMailbox)
		return false
	})
	w.listUIDs()
}

// listUIDs records the UIDs of the mailbox.
func (w *rival) listUIDs() {
	w.openMailbox("EXAMINE", raceMailbox)
	for _, line := range w.c.Command("UID FETCH 1:* (UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])") {
		var number, uid uint64
		if _, err := fmt.Sscanf(line.Text, "* %d FETCH (UID %d ", &number, &uid); err == nil {
			w.recordUID(raceMailbox, uid, string(line.Literals[0]))
		}
	}
	w.c.Command("UNSELECT")
}

// recordUID records the UID of a message. It fails if another message had it.
func (w *rival) recordUID(mailbox string, uid uint64, octets string) (name string) {
	w.Helper()
	name, named := raceName(octets), w.boxes[mailbox].named
	if named[uid] != "" && named[uid] != name {
		w.Errorf("%s: UID %d is %q, and was %q", mailbox, uid, name, named[uid])
	}
	named[uid] = name
	return name
}

// some chooses messages of the mailbox at random.
func (w *rival) some() (uids []uint64, set string) {
	var texts []string
	for _, uid := range slices.Sorted(maps.Keys(w.boxes[raceMailbox].named)) {
		if w.r.IntN(3) == 0 {
			uids, texts = append(uids, uid), append(texts, fmt.Sprint(uid))
		}
	}
	return uids, strings.Join(texts, ",")
}

// change flags some messages, and expunges them if expunge.
func (w *rival) change(flags string, expunge bool) {
	w.openMailbox("SELECT", raceMailbox)
	defer func() { w.c.Command("UNSELECT") }()
	uids, set := w.some()
	if len(uids) == 0 {
		return
	}
	for _, uid := range uids {
		mail := w.mails[w.boxes[raceMailbox].named[uid]]
		mail.removed = mail.removed || expunge
		mail.deleted = mail.deleted || strings.Contains(flags, `\Deleted`)
	}
	w.c.Store(set, flags)
	if expunge {
		w.c.Command("UID EXPUNGE %s", set)
	}
}

// retry repeats do until it succeeds. A process of Dovecot that has a deleted
// mailbox open may fail with the next one of that name until the client
// connects again, and may damage it.
func (w *rival) retry(what string, do func() bool) {
	w.Helper()
	for range 5 {
		if do() {
			return
		}
		w.c.Logout()
		w.c = w.up.Login(w.user)
	}
	w.Fatalf("%s fails", what)
}

// openMailbox opens a mailbox for the IMAP client, by SELECT or EXAMINE.
func (w *rival) openMailbox(verb, mailbox string) {
	w.Helper()
	w.retry(verb, func() bool {
		lines, ok := w.c.Try("%s %q", verb, mailbox)
		if ok {
			w.recordUIDValidity(mailbox, lines)
		}
		return ok
	})
}

// recordUIDValidity records the UIDVALIDITY of a mailbox from the responses to
// SELECT. Dovecot may have changed it by itself, if a session of a deleted
// mailbox of that name has damaged its index.
func (w *rival) recordUIDValidity(mailbox string, lines []dovecottest.Response) {
	var validity uint64
	for _, line := range lines {
		if _, err := fmt.Sscanf(line.Text, "* OK [UIDVALIDITY %d]", &validity); err == nil {
			break
		}
	}
	box := w.boxes[mailbox]
	if box != nil && box.validity == validity {
		return
	}
	if validity == 0 || w.all[validity] != nil {
		w.Fatalf("%s: UIDVALIDITY %d has been used before", mailbox, validity)
	}
	if box != nil {
		box.stale, w.replaced = true, true
	}
	box = &raceBox{validity: validity, named: make(map[uint64]string)}
	w.boxes[mailbox], w.all[validity] = box, box
}

// count counts an event and logs it.
func (w *rival) count(what string) {
	w.counts[what]++
	w.Logf("%s: %s", w.user, what)
}

// act lets the IMAP client do something at random.
func (w *rival) act() {
	box := w.boxes[raceMailbox]
	if box == nil {
		w.restore()
		return
	}
	switch n := w.r.IntN(24); {
	case n < 4:
		w.change(`+FLAGS (\Deleted)`, true)
	case n < 7:
		w.add(1 + w.r.IntN(3))
	case n < 9:
		w.change(`+FLAGS (\Deleted \Flagged)`, false)
	case n < 11:
		w.unflagged = true
		w.change(`FLAGS (\Seen)`, false)
	case n == 11:
		w.replaced = true
		w.remove()
		if w.r.IntN(2) == 0 {
			w.restore()
		}
	case n == 12:
		w.replaced = true
		w.rename()
		if w.r.IntN(2) == 0 {
			w.restore()
		}
	case n == 13:
		w.up.SetUIDValidity(w.user, raceMailbox, uint32(box.validity)+1_000_000)
		w.listUIDs()
		w.count("UIDVALIDITY changed")
	}
}

func (w *rival) remove() {
	for _, name := range w.boxes[raceMailbox].named {
		w.mails[name].removed = true
	}
	delete(w.boxes, raceMailbox)
	w.c.Command("DELETE %q", raceMailbox)
	w.count("mailbox deleted")
}

func (w *rival) rename() {
	name := fmt.Sprintf("Old%d", w.counts["mailbox renamed"])
	w.boxes[name] = w.boxes[raceMailbox]
	delete(w.boxes, raceMailbox)
	w.c.Command("RENAME %q %q", raceMailbox, name)
	w.count("mailbox renamed")
}

// restore creates the mailbox again, or renames an old one back. First it ends
// all connections: a process of Dovecot that has not noticed the change would
// serve the new messages under the UIDs of the old ones.
func (w *rival) restore() {
	w.up.KillSessions()
	w.c = w.up.Login(w.user)
	old := slices.Sorted(maps.Keys(w.boxes))
	if len(old) == 0 || w.r.IntN(2) == 0 {
		w.create()
		return
	}
	name := old[w.r.IntN(len(old))]
	w.boxes[raceMailbox] = w.boxes[name]
	delete(w.boxes, name)
	w.c.Try("DELETE %q", raceMailbox) // see create
	w.c.Command("RENAME %q %q", name, raceMailbox)
	w.count("mailbox renamed back")
}

// raceEnd is the end of a session by QUIT.
type raceEnd struct {
	marked  map[string]bool // messages by their names
	rebuilt bool            // the UIDVALIDITY had changed before QUIT
	err     error
}

// check compares all mailboxes with what should be there after a session, and
// records them for the next one.
//
// Dovecot executes a STORE before it notices that the UIDVALIDITY has changed,
// and then ends the connection: marked messages may be flagged then, but must
// exist.
func (w *rival) check(q raceEnd) {
	w.Helper()
	there := make(map[string]bool)
	for _, mailbox := range slices.Sorted(maps.Keys(w.boxes)) {
		w.openMailbox("EXAMINE", mailbox)
		for _, msg := range w.c.Fetch(true) {
			name := w.recordUID(mailbox, msg.UID, string(msg.Octets))
			there[name] = true
			mail, deleted := w.mails[name], strings.Contains(msg.Flags, `\Deleted`)
			switch {
			case mail == nil || mail.octets != string(msg.Octets):
				w.Fatalf("%s: UID %d is %q, %d octets", mailbox, msg.UID, name, len(msg.Octets))
			case q.marked[name] && q.err == nil:
				w.Errorf("%s: %q is there, and QUIT was answered +OK", mailbox, name)
			case deleted && !mail.deleted && !q.marked[name]:
				w.Errorf("%s: %q is flagged and should not be", mailbox, name)
			}
			mail.deleted = deleted
		}
		w.c.Command("UNSELECT")
	}
	for name, mail := range w.mails {
		if !there[name] && !mail.removed && (!q.marked[name] || q.rebuilt) {
			w.Errorf("%q is lost", name)
		}
		mail.removed = !there[name]
	}
}
