package imapbackend

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"popgate/imapbackend/imapmodel"
	"popgate/imapbackend/internal/imapfault"
	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// faultCase is one session with its faults.
type faultCase struct {
	policy  faultPolicy
	session faultSession
	faults  []imapfault.Fault
	dials   int             // connections refused after the first fault
	refusal string          // the upstream's answer to one command, which it does not execute
	command int             // the number of that command, from 1
	style   imapmodel.Style // how messages that others have expunged are served
	event   *event          // what another client does, nil: nothing
	at      int             // the number of the command before which it does so, from 1
	quirks  imapmodel.Quirks
	before  uint64 // UIDs begin after it; there are servers with UIDs above 32 bits
	verbose bool
	unseen  bool // the client must not notice
}

func (fc faultCase) String() string {
	s := fc.policy.name + ", " + fc.session.name
	if len(fc.faults) > 0 {
		s += fmt.Sprintf(": %v", fc.faults)
	}
	if fc.dials > 0 {
		s += fmt.Sprintf(", %d dials refused", fc.dials)
	}
	if fc.event != nil {
		s += fmt.Sprintf(": %s before command %d, style %d", fc.event.name, fc.at, fc.style)
	}
	if fc.refusal != "" {
		s += fmt.Sprintf(": %q to command %d", fc.refusal, fc.command)
	}
	if fc.quirky() {
		s += fmt.Sprintf(", UIDs after %d, quirks %v", fc.before, fc.quirks)
	}
	return s + fmt.Sprintf(", POPGATE_FAULT_SEED=%d", faultSeed)
}

// wrongUIDs reports that the upstream confuses messages, which the gateway
// cannot notice.
func (fc faultCase) wrongUIDs() bool {
	return slices.ContainsFunc(fc.faults, func(f imapfault.Fault) bool { return f.Kind == imapfault.OtherUID })
}

// faultWorld is one run of a case.
type faultWorld struct {
	*testing.T
	fc     faultCase
	m      *imapmodel.Model
	in     *imapfault.Injector
	g      *proxytest.Gateway
	inbox  *imapmodel.Mailbox
	before []imapmodel.Message
	c      *popSession
	log    proxytest.Log

	removed map[uint64]bool // by another client
	frozen  string          // contents of INBOX that must not change any more; "": they may
	number  int             // of the last command
}

// traffic is what upstream and gateway have sent in a run.
type traffic struct {
	responses [][]byte
	login     int // responses until the client was logged in
	commands  []string

	loginCommands int // commands until then
}

// run runs the case in fake time and checks the invariant. A case that fails is
// run again, with a log.
func (fc faultCase) run(t *testing.T) (h traffic) {
	t.Helper()
	ok := true
	defer func() {
		if !ok && !fc.verbose {
			fc.verbose = true
			fc.run(t)
		}
	}()
	synctest.Test(t, func(t *testing.T) {
		w := &faultWorld{T: t, fc: fc, m: imapmodel.New(), removed: make(map[uint64]bool),
			in: imapfault.New(fc.faults...).RefuseDials(fc.dials)}
		w.fill()
		w.serve()
		w.c = begin(w.g.Dial().Conn, w.visible())
		h.login, h.loginCommands = len(w.in.Responses()), len(w.m.Commands())
		fc.session.play(w.c)
		w.settle()
		h.responses, h.commands = w.in.Responses(), w.m.Commands()
		w.m.Before, w.m.Refuse = nil, nil
		w.checkInvariant()
		if fc.unseen {
			w.checkUnseen()
		}
		w.in.Stop()
		w.checkNextSession()
		w.g.Stop()
		synctest.Wait()
		if n := w.m.Open(); n > 0 {
			w.Errorf("%d upstream connections are open at the end", n)
		}
		if strings.Contains(w.log.String(), "panic") {
			w.Error("the gateway panicked")
		}
		if ok = !t.Failed(); !ok && fc.verbose {
			t.Logf("%v\n%s\nlog:\n%s", fc, w.c, w.log.String())
		}
	})
	return h
}

// fill creates the mailbox: messages of several sizes, one flagged \Deleted by
// another client, and a gap in the UIDs.
func (w *faultWorld) fill() {
	w.m.Caps = "IMAP4rev1 AUTH=PLAIN SASL-IR " + w.fc.policy.caps
	w.m.Style, w.m.Quirks = w.fc.style, w.fc.quirks
	w.m.Unknown = w.m.Unknown || w.fc.policy.unknown
	w.m.UIDLast = w.m.UIDLast || w.fc.session.last
	w.m.Mailbox("", "Bin").SetTrash()
	inbox := w.m.Inbox().SetUIDValidity(1 << 40).SetUIDNext(w.uid(1)) // above 32 bits, as on some servers
	w.inbox = inbox
	for i := range 7 {
		inbox.Add(mail(i, 10+i*150))
	}
	inbox.Remove(w.uid(3))
	inbox.SetFlag(w.uid(5), `\Deleted`, !w.fc.policy.alone)
	inbox.SetFlag(w.uid(2), `\Seen`, true)
	if w.fc.session.big {
		inbox.Add(mail(8, 100_000))
	}
	w.before = inbox.Messages()
	w.m.Before = func(string) {
		if w.number++; w.fc.event != nil && w.number == w.fc.at {
			w.runEvent()
		}
	}
	w.m.Refuse = func(cmd string) string {
		if w.fc.refusal == "" || w.number != w.fc.command || strings.HasPrefix(cmd, "LOGOUT") {
			return ""
		}
		return w.fc.refusal
	}
}

// uid is the UID of the n-th message.
func (w *faultWorld) uid(n int) uint64 { return w.fc.before + uint64(n) }

// visible are the UIDs of the maildrop now.
func (w *faultWorld) visible() []uint64 {
	var uids []uint64
	for _, msg := range w.m.Inbox().Messages() {
		if !msg.Deleted() {
			uids = append(uids, msg.UID)
		}
	}
	return uids
}

// serve runs the gateway.
func (w *faultWorld) serve() {
	b := backend(w, w.fc.policy.opts)
	b.dial = w.in.Dial(w.m.Dial)
	level := slog.LevelError
	if w.fc.verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(&w.log, &slog.HandlerOptions{Level: level}))
	w.g = proxytest.Serve(w, proxytest.Listen(), proxy.Options{Backend: b, Logger: log}, proxytest.Insecure)
}

// settle waits until the session has ended upstream too: it may be about to
// connect again.
func (w *faultWorld) settle() {
	w.c.Conn.Close()
	for quiet, n := 0, 0; quiet < 2 && n < 20; n++ {
		if synctest.Wait(); w.m.Open() == 0 {
			quiet++
		} else {
			quiet = 0
		}
		<-time.After(time.Minute)
	}
}

// checkInvariant checks what holds whatever goes wrong (P-RETR-7, P-SESS-5,
// P-QUIT-2, P-QUIT-3): a message that was complete has the right content, only
// messages marked before a QUIT are changed, and a QUIT that is answered +OK,
// or for which the client did not wait, has removed all of them.
func (w *faultWorld) checkInvariant() {
	if w.c.silent {
		w.Error("the gateway does not answer")
	}
	for _, text := range w.c.changed {
		w.Errorf("the listing has changed %s", text)
	}
	if e := w.fc.event; e != nil && !e.ends && w.c.lost {
		w.Error("the session is lost")
	}
	left := make(map[uint64]imapmodel.Message)
	for _, msg := range w.inbox.Messages() {
		left[msg.UID] = msg
	}
	trash := make(map[string]bool)
	for _, name := range []string{"Bin", "Waste"} {
		for _, msg := range w.m.Mailbox("", name).Messages() {
			trash[msg.Body] = true
		}
	}
	for _, msg := range w.before {
		if got, whole := w.c.got[msg.UID]; whole && got != msg.Body && !w.fc.wrongUIDs() {
			w.Errorf("UID %d, ended by a dot, is %d octets %.60q, want %d %.60q", msg.UID, len(got), got, len(msg.Body), msg.Body)
		}
		if w.frozen != "" {
			continue
		}
		now, there := left[msg.UID]
		toRemove := w.c.quit && w.c.marked[msg.UID]
		switch {
		case w.removed[msg.UID]:
			if there {
				w.Errorf("UID %d is there again", msg.UID)
			}
		case !toRemove && (!there || now.Body != msg.Body || now.Deleted() != msg.Deleted() || trash[msg.Body]):
			w.Errorf("UID %d has changed: there %v, flags %v, in the trash %v", msg.UID, there, now.Flags, trash[msg.Body])
		case there && now.Body != msg.Body:
			w.Errorf("UID %d is another message", msg.UID)
		case !there && !w.fc.policy.mayGo(trash[msg.Body]):
			w.Errorf("UID %d is lost", msg.UID)
		case toRemove && w.mustRemove() && !w.fc.policy.done(now, there, trash[msg.Body]):
			w.Errorf("UID %d was not removed, QUIT answered +OK: %v; there %v, flags %v, in the trash %v", msg.UID, w.c.quitOK, there, now.Flags, trash[msg.Body])
		}
	}
	if now := w.contents(); w.frozen != "" && now != w.frozen {
		w.Errorf("another mailbox than that of the session was changed, from\n%sto\n%s", w.frozen, now)
	}
}

// mayGo reports whether a marked message may be missing from the mailbox.
func (p faultPolicy) mayGo(inTrash bool) bool {
	switch p.effect {
	case isExpunged, isEither:
		return true
	case isMoved, isCopied:
		return inTrash
	}
	return false
}

// done reports whether the policy has been applied to a marked message.
func (p faultPolicy) done(now imapmodel.Message, there, inTrash bool) bool {
	switch p.effect {
	case isExpunged:
		return !there
	case isFlagged:
		return there && now.Deleted()
	case isMoved:
		return !there && inTrash
	case isCopied:
		return there && now.Deleted() && inTrash
	case isEither:
		return !there || now.Deleted()
	case isKept:
		return there
	}
	return false
}

// stalls reports that the upstream becomes silent: QUIT is answered before that
// counts as a loss (requirement P-QUIT-6).
func (fc faultCase) stalls() bool {
	return slices.ContainsFunc(fc.faults, func(f imapfault.Fault) bool {
		return f.Kind == imapfault.Stall || f.Kind == imapfault.StallMiddle
	})
}

// mustRemove reports whether the marked messages must have been removed: QUIT
// was answered +OK, or it was sent and nothing prevented the removal, though
// the client may be gone.
func (w *faultWorld) mustRemove() bool {
	return w.c.quitOK || w.c.quit && w.fc.unseen && !w.fc.stalls() && w.fc.policy.effect != isRefused
}

// checkUnseen checks that the client has not noticed any fault.
func (w *faultWorld) checkUnseen() {
	refused := slices.DeleteFunc(slices.Clone(w.c.refused), func(reply string) bool {
		return (w.fc.policy.effect == isRefused || w.fc.stalls()) && strings.HasPrefix(reply, "QUIT: ") ||
			w.fc.excused(reply)
	})
	if w.c.lost || len(refused) > 0 {
		w.Errorf("the client has noticed: session lost %v, refused %q", w.c.lost, refused)
	}
}

// checkUnflagged checks, after the next login, that no message is flagged \Deleted
// but that of another client, and, unless QUIT was answered -ERR, what the policy
// leaves flagged (I-DEL-5). In
// another mailbox than that of the session nothing changes.
func (w *faultWorld) checkUnflagged() {
	if w.frozen != "" || w.fc.wrongUIDs() {
		return
	}
	failed := slices.ContainsFunc(w.c.refused, func(reply string) bool { return strings.HasPrefix(reply, "QUIT: ") })
	for _, msg := range w.m.Inbox().Messages() {
		left := w.c.quit && !failed && w.c.marked[msg.UID] && w.fc.policy.leavesFlags()
		if msg.Deleted() && msg.UID != w.uid(5) && !left {
			w.Errorf("UID %d is flagged \\Deleted after the next login", msg.UID)
		}
		if msg.UID == w.uid(5) && !msg.Deleted() && !w.fc.policy.alone {
			w.Error("the flag of another client is gone")
		}
	}
}

// leavesFlags reports whether messages that were removed stay, flagged \Deleted.
func (p faultPolicy) leavesFlags() bool {
	return p.effect == isFlagged || p.effect == isCopied || p.effect == isEither
}

// checkNextSession logs in again without faults, and compares the maildrop with
// the mailbox. A wrong listing is remembered until a client asks for a message
// that does not exist.
func (w *faultWorld) checkNextSession() {
	if w.fc.wrongUIDs() {
		c := begin(w.g.Dial().Conn, w.visible())
		for n := 1; n <= len(c.uidOf); n++ {
			c.retr(n)
		}
		c.leave()
	}
	w.m.Inbox().SetReadOnly(false)
	begin(w.g.Dial().Conn, []uint64{0}).leave() // shows what UPDATE has left flagged
	w.checkUnflagged()
	want := w.visible()
	c := begin(w.g.Dial().Conn, want)
	var shown []uint64
	for n := 1; n <= len(c.uidOf); n++ {
		shown = append(shown, c.uidOf[n])
		c.retr(n)
	}
	c.leave()
	for _, msg := range w.m.Inbox().Messages() {
		if !msg.Deleted() && c.got[msg.UID] != msg.Body {
			w.Errorf("the next session: UID %d is %.60q", msg.UID, c.got[msg.UID])
		}
	}
	if !slices.Equal(shown, want) || !c.quitOK || slices.ContainsFunc(c.refused, func(reply string) bool { return !w.fc.excused(reply) }) {
		w.Errorf("the next session shows UIDs %d, want %d:\n%s", shown, want, c)
	}
}
