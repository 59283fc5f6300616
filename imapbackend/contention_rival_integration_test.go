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

// rival is what is known of one user's mailboxes, which two change: a session of
// the gateway, and an IMAP client that does something at each step of it.
type rival struct {
	*testing.T
	up    *dovecottest.Server
	b     *Backend
	user  string
	c     *dovecottest.Client // the other one
	r     *rand.Rand
	mails map[string]*raceMail // by their first line
	boxes map[string]*raceBox  // by their names
	all   map[uint32]*raceBox  // by UIDVALIDITY, those that are no more too

	upset bool // the mailbox has been more than changed in this round
	plain bool // flags have been taken away at this step
	tally map[string]int
}

// raceMail is a message and what the other client has done to it.
type raceMail struct {
	octets           string
	removed, deleted bool
}

// raceBox is a mailbox as long as it has one UIDVALIDITY.
type raceBox struct {
	validity uint32
	named    map[uint32]string // all messages that it ever had
	stale    bool              // the mailbox has another UIDVALIDITY by now
}

func raceName(octets string) string {
	line, _, _ := strings.Cut(octets, "\r\n")
	return line
}

// create makes the mailbox, with messages. It may be there: a process of Dovecot
// that has one open which is deleted makes it again, empty.
func (w *rival) create() {
	w.c.Try("CREATE %q", raceMailbox)
	w.note("mailbox created")
	w.boxes[raceMailbox] = nil
	w.add(2 + w.r.IntN(6))
}

// add appends messages, some of them long, and learns their UIDs.
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
	w.insist("APPEND", func() bool {
		if w.c.TryAppend(raceMailbox, bodies...) {
			return true
		}
		w.c.Try("CREATE %q", raceMailbox)
		return false
	})
	w.survey()
}

// survey learns the UIDs of the mailbox.
func (w *rival) survey() {
	w.enter("EXAMINE", raceMailbox)
	for _, line := range w.c.Command("UID FETCH 1:* (UID BODY.PEEK[HEADER.FIELDS (SUBJECT)])") {
		var number, uid uint32
		if _, err := fmt.Sscanf(line.Text, "* %d FETCH (UID %d ", &number, &uid); err == nil {
			w.learn(raceMailbox, uid, string(line.Literals[0]))
		}
	}
	w.c.Command("UNSELECT")
}

// learn takes note of the UID of a message, which must not have been that of
// another one.
func (w *rival) learn(mailbox string, uid uint32, octets string) (name string) {
	w.Helper()
	name, named := raceName(octets), w.boxes[mailbox].named
	if named[uid] != "" && named[uid] != name {
		w.Errorf("%s: UID %d is %q, and was %q", mailbox, uid, name, named[uid])
	}
	named[uid] = name
	return name
}

// some draws messages of the mailbox.
func (w *rival) some() (uids []uint32, set string) {
	var texts []string
	for _, uid := range slices.Sorted(maps.Keys(w.boxes[raceMailbox].named)) {
		if w.r.IntN(3) == 0 {
			uids, texts = append(uids, uid), append(texts, fmt.Sprint(uid))
		}
	}
	return uids, strings.Join(texts, ",")
}

// change flags messages, and expunges them or does not.
func (w *rival) change(flags string, expunge bool) {
	w.enter("SELECT", raceMailbox)
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

// insist repeats what fails. A process of Dovecot that has had a mailbox of that
// name open which is no more may fail at the next one, until the client comes
// back; and it may damage that.
func (w *rival) insist(what string, do func() bool) {
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

// enter opens a mailbox for the other client.
func (w *rival) enter(verb, mailbox string) {
	w.Helper()
	w.insist(verb, func() bool {
		lines, ok := w.c.Try("%s %q", verb, mailbox)
		if ok {
			w.identify(mailbox, lines)
		}
		return ok
	})
}

// identify takes note of the UIDVALIDITY of a mailbox, from the responses to
// SELECT. Dovecot may have changed it by itself, where a session of a mailbox of
// that name that is no more has damaged its index.
func (w *rival) identify(mailbox string, lines []dovecottest.Response) {
	var validity uint32
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
		w.Fatalf("%s: UIDVALIDITY %d comes back", mailbox, validity)
	}
	if box != nil {
		box.stale, w.upset = true, true
	}
	box = &raceBox{validity: validity, named: make(map[uint32]string)}
	w.boxes[mailbox], w.all[validity] = box, box
}

// note counts what has happened, and tells it should the test fail.
func (w *rival) note(what string) {
	w.tally[what]++
	w.Logf("%s: %s", w.user, what)
}

// act is what the other client does at a step.
func (w *rival) act() {
	box := w.boxes[raceMailbox]
	if box == nil {
		w.comeBack()
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
		w.plain = true
		w.change(`FLAGS (\Seen)`, false)
	case n == 11:
		w.upset = true
		w.remove()
		if w.r.IntN(2) == 0 {
			w.comeBack()
		}
	case n == 12:
		w.upset = true
		w.rename()
		if w.r.IntN(2) == 0 {
			w.comeBack()
		}
	case n == 13:
		w.up.SetUIDValidity(w.user, raceMailbox, box.validity+1_000_000)
		w.survey()
		w.note("UIDVALIDITY changed")
	}
}

func (w *rival) remove() {
	for _, name := range w.boxes[raceMailbox].named {
		w.mails[name].removed = true
	}
	delete(w.boxes, raceMailbox)
	w.c.Command("DELETE %q", raceMailbox)
	w.note("mailbox deleted")
}

func (w *rival) rename() {
	name := fmt.Sprintf("Old%d", w.tally["mailbox renamed"])
	w.boxes[name] = w.boxes[raceMailbox]
	delete(w.boxes, raceMailbox)
	w.c.Command("RENAME %q %q", raceMailbox, name)
	w.note("mailbox renamed")
}

// comeBack has the mailbox be there again: a new one, or one that was renamed.
// All connections are lost before: a process of Dovecot that has not noticed yet
// would serve the messages of the new one under the UIDs of the former.
func (w *rival) comeBack() {
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
	w.note("mailbox renamed back")
}

// raceEnd is the end of a session by QUIT.
type raceEnd struct {
	marked map[string]bool // messages by their names
	void   bool            // the UIDVALIDITY had changed before
	err    error
}

// check compares all mailboxes with what should be there after a session. What
// is found is the beginning of the next.
//
// Dovecot carries out a STORE before it notices that the UIDVALIDITY has changed,
// and then ends the connection: what was marked may have got the flag, but must
// be there.
func (w *rival) check(q raceEnd) {
	w.Helper()
	there := make(map[string]bool)
	for _, mailbox := range slices.Sorted(maps.Keys(w.boxes)) {
		w.enter("EXAMINE", mailbox)
		for _, msg := range w.c.Fetch(true) {
			name := w.learn(mailbox, msg.UID, string(msg.Octets))
			there[name] = true
			mail, deleted := w.mails[name], strings.Contains(msg.Flags, `\Deleted`)
			switch {
			case mail == nil || mail.octets != string(msg.Octets):
				w.Fatalf("%s: UID %d is %q, %d octets", mailbox, msg.UID, name, len(msg.Octets))
			case q.marked[name] && q.err == nil:
				w.Errorf("%s: %q is there, and QUIT was answered +OK", mailbox, name)
			case deleted && !mail.deleted && !q.marked[name]:
				w.Errorf("%s: %q is flagged and was not to be", mailbox, name)
			}
			mail.deleted = deleted
		}
		w.c.Command("UNSELECT")
	}
	for name, mail := range w.mails {
		if !there[name] && !mail.removed && (!q.marked[name] || q.void) {
			w.Errorf("%q is lost", name)
		}
		mail.removed = !there[name]
	}
}
