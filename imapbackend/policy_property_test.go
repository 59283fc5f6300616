package imapbackend

import (
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"popgate/imapbackend/imapmodel"
	"popgate/imapbackend/internal/uidset"
	"popgate/proxy"
)

// policyRun is one session with a mailbox that another client changes during
// UPDATE.
type policyRun struct {
	*testing.T
	r       *rand.Rand
	m       *model
	opts    Options
	present []uint64 // at SELECT
	deleted []uint64 // those of them that were flagged before
	marked  []uint64
	removed []uint64 // by the other client
	flagged []uint64 // \Deleted, by the other client
	began   int      // commands before UPDATE
}

// I-DEL-3, P-QUIT-3, P-QUIT-2, I-CONC-1: with any policy, capabilities and
// mailbox, and whatever another client does, no command names a message of the
// snapshot that is not marked, no such message is removed or flagged, each
// marked one is named once by each command, and +OK is true.
func TestPolicyProperty(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 5))
	caps := []string{"UIDPLUS", "UIDPLUS MOVE ESEARCH SPECIAL-USE", "MOVE", "", "UIDPLUS ESEARCH QRESYNC"}
	for _, d := range []Delete{DeleteExpunge, DeleteTrash, DeleteFlag, DeleteKeep} {
		for _, w := range []WithoutUIDPLUS{Flag, Move, ExpungeIfAlone, Refuse} {
			for _, c := range caps {
				for i := range 5 + int(imapmodel.SearchStyles) {
					run := &policyRun{T: t, r: r, m: newModel(), opts: Options{Delete: d, WithoutUIDPLUS: w}}
					run.m.setSearch(imapmodel.SearchStyle(max(i-5, 0)))
					run.m.Caps = "IMAP4rev1 AUTH=PLAIN SASL-IR " + c
					run.m.Mailbox("", "Trash").SetTrash()
					run.play()
				}
			}
		}
	}
}

func (p *policyRun) play() {
	p.Helper()
	inbox := p.m.Inbox()
	for range p.r.IntN(60) {
		uid := inbox.Add(fmt.Sprintf("A: %d\r\n\r\n", p.r.Uint32()))
		switch p.r.IntN(8) {
		case 0:
			inbox.Remove(uid)
		case 1:
			inbox.SetFlag(uid, `\Deleted`, true)
		}
	}
	for _, msg := range inbox.Messages() {
		p.present = append(p.present, msg.UID)
		if msg.Deleted() {
			p.deleted = append(p.deleted, msg.UID)
		}
	}
	ctx := proxy.WithLogger(p.Context(), slog.New(slog.DiscardHandler))
	l, err := p.m.backend(p.T, p.opts).Login(ctx, joe)
	if err != nil {
		p.Fatal(err)
	}
	d, err := l.Open(ctx)
	if err != nil {
		p.Fatal(err)
	}
	defer d.Close()
	share := 1 + p.r.IntN(4)
	for _, msg := range d.Messages() {
		if p.r.IntN(share) == 0 {
			p.marked = append(p.marked, msg.UID)
		}
	}
	p.began = len(p.m.Commands())
	other := rand.New(rand.NewPCG(p.r.Uint64(), 6))
	p.m.Before = func(cmd string) { p.interfere(other, cmd) }
	err = d.Update(ctx, p.marked)
	p.checkCommands(err)
	p.checkMailbox(err)
	if p.Failed() {
		p.Fatalf("%+v, %s, search %d: present %d, deleted %d, marked %d, others removed %d and flagged %d: %v\n%s", p.opts, p.m.Caps, p.m.Search,
			p.present, p.deleted, p.marked, p.removed, p.flagged, err, strings.Join(p.m.Commands()[p.began:], "\n"))
	}
}

// interfere is what the other client does before the upstream executes cmd.
// Just before a plain EXPUNGE it flags nothing: that is the documented risk of
// the policy.
func (p *policyRun) interfere(r *rand.Rand, cmd string) {
	inbox := p.m.Inbox()
	if len(p.present) == 0 || cmd == "LOGOUT" {
		return
	}
	uid := p.present[r.IntN(len(p.present))]
	switch r.IntN(6) {
	case 0:
		if inbox.Remove(uid) {
			p.removed = append(p.removed, uid)
		}
	case 1:
		if cmd != "EXPUNGE" && !slices.Contains(p.marked, uid) {
			inbox.SetFlag(uid, `\Deleted`, true)
			p.flagged = append(p.flagged, uid)
		}
	case 2:
		inbox.Add("new\r\n\r\n")
	}
}

// checkCommands checks the commands of UPDATE.
func (p *policyRun) checkCommands(err error) {
	p.Helper()
	sent := p.m.Commands()[p.began:]
	if p.opts.Delete == DeleteKeep && len(sent) > 0 {
		p.Errorf("sent %q", sent)
	}
	covered := make(map[string]map[uint64]int)
	for _, cmd := range sent {
		words := strings.Fields(strings.Replace(cmd, "SEARCH RETURN (ALL)", "ESEARCH", 1))
		if words[0] != "UID" || cmd == "UID SEARCH DELETED" || cmd == "UID SEARCH RETURN (ALL) DELETED" || cmd == "UID FETCH 1:* (UID FLAGS)" ||
			slices.Contains([]string{"UID SEARCH ALL", "UID SEARCH RETURN (ALL) ALL", "UID FETCH 1:* (UID)"}, cmd) {
			continue
		}
		verb, set := words[1], words[2]
		if strings.HasSuffix(verb, "SEARCH") {
			set = words[3]
		}
		if verb == "STORE" {
			verb += words[3]
		}
		if covered[verb] == nil {
			covered[verb] = make(map[uint64]int)
		}
		for _, uid := range p.present {
			if !covers(set, uid) {
				continue
			}
			if !uidset.Contains(p.marked, uid) {
				p.Errorf("%q covers %d, which is not marked", cmd, uid)
			}
			covered[verb][uid]++
		}
	}
	for verb, n := range covered {
		for _, uid := range p.marked {
			if n[uid] != 1 && !strings.HasPrefix(verb, "STORE-") && err == nil {
				p.Errorf("%s covers %d %d times", verb, uid, n[uid])
			}
		}
	}
}

// checkMailbox checks what is left.
func (p *policyRun) checkMailbox(err error) {
	p.Helper()
	left := make(map[uint64]imapmodel.Message)
	for _, msg := range p.m.Inbox().Messages() {
		left[msg.UID] = msg
	}
	trash := len(p.m.Mailbox("", "Trash").Messages())
	for _, uid := range p.present {
		msg, there := left[uid]
		gone := slices.Contains(p.removed, uid)
		byOthers := uidset.Contains(p.deleted, uid) || slices.Contains(p.flagged, uid)
		switch {
		case !uidset.Contains(p.marked, uid):
			if !there && !gone {
				p.Errorf("%d, not marked, has been removed", uid)
			}
			if there && msg.Deleted() != byOthers {
				p.Errorf("%d, not marked, is flagged: %v", uid, msg.Deleted())
			}
		case err != nil || p.opts.Delete == DeleteKeep || !there:
		case !msg.Deleted():
			p.Errorf("%d is there after +OK", uid)
		}
	}
	if toTrash := p.opts.Delete == DeleteTrash; toTrash && err == nil && trash+len(p.removed) < len(p.marked) {
		p.Errorf("%d of %d in the trash", trash, len(p.marked))
	} else if !toTrash && p.opts.WithoutUIDPLUS != Move && trash > 0 {
		p.Errorf("%d in the trash", trash)
	}
}
