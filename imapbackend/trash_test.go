package imapbackend

import (
	"strings"
	"testing"
)

// I-DEL-8, RFC 6154 §2, RFC 3501 §7.2.2: which mailbox is the trash. Its name
// goes into a command quoted or not at all.
func TestTrashMailbox(t *testing.T) {
	const (
		plain   = "C: <t> LIST \"\" \"*\"\n"
		special = "C: <t> LIST (SPECIAL-USE) \"\" \"*\"\n"
		done    = "S: <t> OK x\n"
	)
	trash := Options{Delete: DeleteTrash}
	for _, tt := range []struct {
		name, caps, list string
		opts             Options
		want             string // "" for none
	}{
		{"atom", "", plain + `S: * LIST (\HasNoChildren) "/" INBOX` + "\n" + `S: * LIST (\HasNoChildren \Trash) "/" Trash` + "\n" + done, trash, `"Trash"`},
		{"case of letters", "", plain + `S: * list (\trash) "." bin` + "\n" + done, trash, `"bin"`},
		{"quoted", "", plain + `S: * LIST (\Trash) "/" "Deleted Items"` + "\n" + done, trash, `"Deleted Items"`},
		{"quoted, quotes", "", plain + `S: * LIST (\Trash) "\\" "a\"b\\c"` + "\n" + done, trash, `"a\"b\\c"`},
		{"literal", "", plain + `S: * LIST (\Trash) "/" {5}` + "\nS: T \"a)\n" + done, trash, `"T \"a)"`},
		{"literal+", "", plain + `S: * LIST (\Trash) NIL {3+}` + "\nS: Bin\n" + done, trash, `"Bin"`},
		{"special use", "SPECIAL-USE", special + `S: * LIST (\Trash) "/" Trash` + "\n" + done, trash, `"Trash"`},
		{"special use, extended data", "SPECIAL-USE", special + `S: * LIST (\Trash) "/" Trash ("CHILDINFO" ("SUBSCRIBED"))` + "\n" + done, trash, `"Trash"`},
		{"special use refused", "SPECIAL-USE", special + "S: <t> BAD zebra\n" + `C: <u> LIST "" "*"` + "\n" + `S: * LIST (\Trash) "/" Trash` + "\nS: <u> OK x\n", trash, `"Trash"`},
		{"modified UTF-7", "", plain + `S: * LIST (\Trash) "/" "Gel&APY-scht"` + "\n" + done, trash, `"Gel&APY-scht"`},
		{"none", "", plain + `S: * LIST (\Sent) "/" Trash` + "\n" + done, trash, ""},
		{"none, special use", "SPECIAL-USE", special + done, trash, ""},
		{"not selectable", "", plain + `S: * LIST (\Trash \Noselect) "/" Trash` + "\n" + `S: * LIST (\NonExistent \Trash) "/" b` + "\n" + done, trash, ""},
		{"that of another user", "", plain + `S: * LIST (\Trash) "." user.bob.Trash` + "\n" + `S: * LIST (\Trash) "." INBOX.Trash` + "\n" + `S: * LIST (\Trash) "." INBOX.Second` + "\n" + done, trash, `"INBOX.Trash"`},
		{"8 bit", "", plain + `S: * LIST (\Trash) "/" "Gelöscht"` + "\n" + done, trash, ""},
		{"line end in a literal", "", plain + `S: * LIST (\Trash) "/" {19}` + "\n" + `S64: YSINCnggVUlEIEVYUFVOR0UgDQo=` + "\n" + done, trash, ""},
		{"too long", "", plain + `S: * LIST (\Trash) "/" ` + strings.Repeat("x", 513) + "\n" + done, trash, ""},
		{"broken", "", plain + `S: * LIST (\Trash "/" x` + "\n" + `S: * LIST \Trash "/" x` + "\n" + `S: * LIST (\Trash) "/" "x` + "\n" + `S: * LIST (\Trash) "/` + "\n" + `S: * LIST (\Trash)` + "\n" + `S: * LIST` + "\n" + done, trash, ""},
		{"served", "", plain + `S: * LIST (\Trash) "/" inbox` + "\n" + done, trash, ""},
		{"configured", "SPECIAL-USE", "", Options{Delete: DeleteTrash, Trash: "Gelöscht/a&b \"c\""}, `"Gel&APY-scht/a&-b \"c\""`},
	} {
		rest := ""
		if tt.want != "" {
			rest = moving("7:8", tt.want) + moved + checking("7:8") + nothing
		}
		play(t, "I-DEL-8 "+tt.name, mailbox("MOVE "+tt.caps, "", "7", "8")+tt.list+rest+bye, tt.opts, func(s *session) {
			err := s.open().Update(s.ctx, []uint64{7, 8})
			if tt.want != "" {
				s.wants(err, nil)
				return
			}
			s.wants(err, noTrashes)
		})
	}
	again := "C: <a> SELECT \"Trash\"\nS: * OK [UIDVALIDITY 9] x\nS: <a> OK x\n" // I-DEL-1
	play(t, "I-DEL-8 served, with another name", strings.Replace(mailbox("MOVE", "", "7"), "SELECT INBOX", `SELECT "Trash"`, 1)+again+
		plain+`S: * LIST (\Trash) "/" Trash`+"\n"+done+bye, Options{Delete: DeleteTrash, Mailbox: "Trash"}, func(s *session) {
		s.wants(s.open().Update(s.ctx, []uint64{7}), noTrashes)
	})
	play(t, "I-DEL-8 LIST refused", mailbox("MOVE", "", "7")+plain+"S: <t> NO [UNAVAILABLE] zebra\n"+bye, trash, func(s *session) {
		s.fails(s.open().Update(s.ctx, []uint64{7}), temp)
	})
}

// Plan says what Update would do, and changes nothing.
func TestPlan(t *testing.T) {
	for _, tt := range []struct {
		name, caps, list string
		opts             Options
		want             string
	}{
		{"expunge", "UIDPLUS", "", Options{}, `flag \Deleted, UID EXPUNGE`},
		{"flag", "UIDPLUS", "", Options{Delete: DeleteFlag}, `flag \Deleted, and hide`},
		{"keep", "UIDPLUS", "", Options{Delete: DeleteKeep}, "nothing, messages are kept"},
		{"refuse", "", "", Options{WithoutUIDPLUS: Refuse}, "nothing, QUIT is refused: no UIDPLUS"},
		{"alone", "", "", alone, `flag \Deleted, EXPUNGE if no other message is flagged`},
		{"move", "MOVE", `C: <t> LIST "" "*"` + "\n" + `S: * LIST (\Trash) "/" Bin` + "\nS: <t> OK x\n", Options{Delete: DeleteTrash}, `UID MOVE to trash, "Bin"`},
		{"copy", "UIDPLUS", "", bin, `UID COPY to trash, flag \Deleted, UID EXPUNGE, "Bin"`},
		{"none", "MOVE", `C: <t> LIST "" "*"` + "\nS: <t> OK x\n", Options{Delete: DeleteTrash}, ""},
	} {
		play(t, tt.name, mailbox(tt.caps, "", "7")+tt.list+bye, tt.opts, func(s *session) {
			got, err := s.open().(Planner).Plan(s.ctx)
			if got != tt.want || (err == nil) != (tt.want != "") {
				s.Errorf("%q, %v, want %q", got, err, tt.want)
			}
		})
	}
}
