package imapbackend

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"

	"popgate/imapbackend/imapmodel"
	"popgate/imapbackend/store"
	"popgate/imapbackend/uniqueid"
)

const identityItems = "(UID RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE FROM SUBJECT RECEIVED)])\n"

// identified is the identity of message uid by a Date.
func identified(uid int) string {
	return fmt.Sprintf("S: * 1 FETCH (UID %d RFC822.SIZE 100 BODY[HEADER.FIELDS (DATE)] \"Date: %[1]d\")\n", uid)
}

// I-UIDL-5, I-UIDL-3: where an upstream identifies some messages and refuses the
// rest, no message gets a unique-id that changes later: the session is without
// them, what was answered is kept, and the next one asks for the rest only. What is
// refused by itself is named without its identity.
func TestIdentitiesInPart(t *testing.T) {
	id := func(uid int) string { return uniqueid.HeaderIdentity(fmt.Appendf(nil, "Date: %d", uid), 100) }
	former := func(s *session, uidValidity uint64) {
		err := s.b.store.PutUniqueIDs(joesKey(s.b), store.UniqueIDs{UIDValidity: uidValidity,
			Shown: []store.Shown{{UID: 1, ID: id(7), String: "1.1"}, {UID: 2, ID: id(8), String: "1.2"}, {UID: 3, ID: id(9), String: "1.3"}}})
		if err != nil {
			s.Fatal(err)
		}
	}
	first := mailbox("UIDPLUS", "", "7", "8", "9")
	next := strings.Replace(first, "UID FETCH 1:*", "UID FETCH 4000000000:*", 1)
	refusedAll := "C: <i> UID FETCH 7:9 " + identityItems + identified(7) + "S: <i> NO [LIMIT] zebra\n"
	present := func(set, found string) string {
		return "C: <n> NOOP\nS: <n> OK x\nC: <q> UID FETCH " + set + " (UID)\n" + shows("q", found)
	}
	one := func(uid int, answer string) string {
		response := ""
		if answer == "OK x" {
			response = identified(uid)
		}
		return fmt.Sprintf("C: <o%d> UID FETCH %[1]d %s%sS: <o%[1]d> %[4]s\n", uid, identityItems, response, answer)
	}
	for _, tt := range []struct {
		name, script string
		uidValidity  uint64 // of what is remembered
		want         string // in this session; "": none
		then         string // of the next session
		wanted       string
	}{
		{"rebuilt, all refused from then on", refusedAll + present("8:9", "8 9") + one(8, "NO zebra") + one(9, "NO zebra") + one(7, "NO zebra"), 8, "",
			"C: <j> UID FETCH 8:9 " + identityItems + identified(8) + identified(9) + "S: <j> OK x\n", "1.1 1.2 1.3"},
		{"the same mailbox, messages restored", refusedAll + present("8:9", "8 9") + one(8, "NO zebra") + one(9, "NO zebra") + one(7, "NO zebra"), 9, "",
			"C: <j> UID FETCH 8:9 " + identityItems + identified(8) + identified(9) + "S: <j> OK x\n", "1.1 1.2 1.3"},
		{"refused once", refusedAll + present("8:9", "8 9") + one(8, "OK x") + one(9, "OK x"), 8, "1.1 1.2 1.3", "", "1.1 1.2 1.3"},
		{"one is damaged", refusedAll + present("8:9", "8 9") + one(8, "NO zebra") + one(9, "OK x") + one(7, "OK x"), 8, "1.1 9.8 1.3", "", "1.1 9.8 1.3"},
		{"expunged", refusedAll + present("8:9", "9") + one(9, "OK x"), 8, "1.1 9.8 1.3", "", "1.1 9.8 1.3"},
		{"all identified", strings.Replace(refusedAll, "S: <i>", identified(8)+identified(9)+"S: <i>", 1), 8, "1.1 1.2 1.3", "", "1.1 1.2 1.3"},
		{"all expunged", refusedAll + present("8:9", ""), 8, "1.1 9.8 9.9", "", "1.1 9.8 9.9"},
		{"throttled by BAD", strings.Replace(refusedAll, "NO [LIMIT] zebra", "BAD User is throttled, zebra", 1) + present("8:9", "8 9") +
			one(8, "BAD User is throttled, zebra") + one(9, "NO zebra") + one(7, "NO zebra"), 8, "",
			"C: <j> UID FETCH 8:9 " + identityItems + identified(8) + identified(9) + "S: <j> OK x\n", "1.1 1.2 1.3"},
		{"the search refused too", refusedAll + "C: <n> NOOP\nS: <n> OK x\nC: <q> UID FETCH 8:9 (UID)\nS: <q> NO zebra\n" + allUIDs + "S: <w> NO zebra\n",
			8, "", "C: <j> UID FETCH 8:9 " + identityItems + identified(8) + identified(9) + "S: <j> OK x\n", "1.1 1.2 1.3"},
	} {
		play(t, "memory, "+tt.name, first+tt.script+bye+"-- connection 2 --\n"+next+tt.then+bye, Options{UIDLMemory: true}, func(s *session) {
			former(s, tt.uidValidity)
			d := s.open()
			if tt.want == "" {
				_, err := d.UniqueIDs()
				s.fails(err, temp)
			} else if got := s.ids(d); got != tt.want {
				s.Errorf("unique-ids %q, want %q", got, tt.want)
			}
			d.Close()
			d = s.open()
			if got := s.ids(d); got != tt.wanted {
				s.Errorf("next session: %q, want %q", got, tt.wanted)
			}
		})
	}
}

// I-UIDL-3: the same for unique-ids from EMAILID, and many messages: after a
// refusal none has another unique-id in the next session.
func TestSourceInPart(t *testing.T) {
	for _, refusals := range []int{0, 1, 2, 1000} {
		t.Run(fmt.Sprint(refusals), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newModel()
				m.Caps += " OBJECTID"
				var want []string
				var known []store.Identity // so that it takes several commands to ask for the rest
				for i := range 400 {
					name := fmt.Sprint("M", i)
					uid := m.Inbox().AddMessage(imapmodel.Message{Body: "a", Email: name})
					if want = append(want, name); i%3 == 0 {
						known = append(known, store.Identity{UID: uid, ID: name})
					}
				}
				b := m.backend(t, Options{UIDL: uniqueid.SourceEmailID})
				b.store.PutIdentities(joesKey(b), m.Inbox().UIDValidity(), uniqueid.SourceEmailID, known)
				n := 0
				m.Refuse = func(cmd string) string {
					if !strings.Contains(cmd, "EMAILID") {
						return ""
					}
					if n++; n > 1 && n < 2+refusals {
						return "NO [LIMIT] zebra"
					}
					return ""
				}
				for range 3 {
					if g := list(t, m, b); g.err == nil && g.ids != strings.Join(want, " ") {
						t.Errorf("%.100q, want %.100q", g.ids, want)
					}
				}
				m.Refuse = nil
				if g := list(t, m, b); g.err != nil || g.ids != strings.Join(want, " ") {
					t.Errorf("%v: %.100q, want %.100q", g.err, g.ids, want)
				}
			})
		})
	}
}
