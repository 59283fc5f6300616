package imapbackend

import (
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"popgate/imapbackend/imapmodel"
	"popgate/imapbackend/store"
	"popgate/imapbackend/uniqueid"
	"popgate/proxy"
)

// letter returns a message with the fields that identify it.
func letter(i int) string {
	return fmt.Sprintf("Received: from a\r\n\tby b; %d\r\nMessage-ID: <%d@x>\r\nSubject: letter %d\r\n\r\ntext\r\n", i, i, i)
}

// listResult is the result of one session, and what it cost.
type listResult struct {
	ids      string // unique-ids, with spaces in between
	err      error  // of UniqueIDs
	identity int    // commands that asked for identities
	trips    float64
	log      string
}

// list opens joe's maildrop, asks for the unique-ids and closes it.
func list(t *testing.T, m *model, b *Backend) (g listResult) {
	t.Helper()
	var log strings.Builder
	ctx := proxy.WithLogger(t.Context(), slog.New(slog.NewTextHandler(&log, nil)))
	before, start := len(m.Commands()), time.Now()
	l, err := b.Login(ctx, joe)
	if err != nil {
		t.Fatalf("Login: %v", err)
	}
	d, err := l.Open(ctx)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	g.trips = trips(start)
	id, err := d.UniqueIDs()
	if g.err = err; err == nil {
		var out []string
		for _, msg := range d.Messages() {
			out = append(out, string(id(nil, msg.UID)))
		}
		g.ids = strings.Join(out, " ")
	}
	d.Close()
	for _, cmd := range m.Commands()[before:] {
		if strings.Contains(cmd, "HEADER.FIELDS") || strings.Contains(cmd, "EMAILID") || strings.Contains(cmd, "X-GM-MSGID") {
			g.identity++
		}
	}
	g.log = log.String()
	return g
}

// shows checks the unique-ids, and the number of commands that asked for
// identities.
func (g listResult) shows(t *testing.T, want string, commands int) {
	t.Helper()
	if g.ids != want || g.err != nil || g.identity != commands {
		t.Errorf("%q (%v) for %d commands, want %q for %d", g.ids, g.err, g.identity, want, commands)
	}
}

// memory runs f in fake time with a model and a Backend that remembers
// unique-ids.
func memory(t *testing.T, name string, opts Options, f func(t *testing.T, m *model, b *Backend)) {
	t.Run(name, func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			m := newModel()
			opts.UIDLMemory = true
			f(t, m, m.backend(t, opts))
		})
	})
}

// I-UIDL-5, I-UIDV-3: a rebuilt mailbox keeps its unique-ids. New messages
// cost one flight, known ones none.
func TestRecall(t *testing.T) {
	memory(t, "rebuilt", Options{}, func(t *testing.T, m *model, b *Backend) {
		m.RTT = rtt
		v := m.Inbox().SetUIDValidity(1 << 40).UIDValidity()
		for i := range 3 {
			m.add(letter(i))
		}
		want := fmt.Sprintf("%d.1 %d.2 %d.3", v, v, v)
		first := list(t, m, b)
		first.shows(t, want, 1)
		again := list(t, m, b)
		again.shows(t, want, 0)
		if first.trips-again.trips > 1.01 || again.trips > 3.51 {
			t.Errorf("%.2f round trips with new messages, %.2f without", first.trips, again.trips)
		}
		m.remove(0)
		m.Inbox().Rebuild()
		g := list(t, m, b)
		g.shows(t, fmt.Sprintf("%d.3 %d.2", v, v), 1) // the model reverses the order
		if !strings.Contains(g.log, "unique-ids are remembered") || !strings.Contains(g.log, "messages=2 kept=2") || strings.Contains(g.log, "download") {
			t.Errorf("the log says %s", g.log)
		}
		m.add(letter(9))
		now := m.Inbox().UIDValidity()
		list(t, m, b).shows(t, fmt.Sprintf("%d.3 %d.2 %d.4", v, v, now), 1)
		list(t, m, b).shows(t, fmt.Sprintf("%d.3 %d.2 %d.4", v, v, now), 0)
	})
	memory(t, "filled again over days", Options{}, func(t *testing.T, m *model, b *Backend) {
		m.add(letter(1))
		m.add(letter(2))
		before := list(t, m, b).ids
		m.Inbox().Clear()
		m.Inbox().Rebuild()
		list(t, m, b).shows(t, "", 0)
		<-time.After(59 * 24 * time.Hour)
		m.add(letter(1))
		one, two, _ := strings.Cut(before, " ")
		list(t, m, b).shows(t, one, 1)
		<-time.After(2 * 24 * time.Hour)
		m.add(letter(2))
		if g := list(t, m, b); g.ids == one+" "+two {
			t.Error("remembered for more than 60 days")
		}
	})
	memory(t, "ambiguous", Options{}, func(t *testing.T, m *model, b *Backend) {
		m.add(letter(1))
		m.add(letter(1))
		m.add("Subject: nobody\r\n\r\n") // without identity
		before := strings.Fields(list(t, m, b).ids)
		m.remove(0)
		m.Inbox().Rebuild()
		after := strings.Fields(list(t, m, b).ids)
		for _, id := range after {
			for _, old := range before {
				if id == old {
					t.Errorf("unique-id %s again, of %v", id, before)
				}
			}
		}
		list(t, m, b).shows(t, strings.Join(after, " "), 0)
	})
	memory(t, "by EMAILID", Options{}, func(t *testing.T, m *model, b *Backend) {
		m.Caps += " OBJECTID"
		m.Inbox().AddMessage(imapmodel.Message{Body: "a", Email: "Ma"})
		m.Inbox().AddMessage(imapmodel.Message{Body: "a", Email: "Mb"})
		one, two, _ := strings.Cut(list(t, m, b).ids, " ")
		m.Inbox().Rebuild()
		list(t, m, b).shows(t, two+" "+one, 1)
	})
	memory(t, "the upstream gets OBJECTID", Options{}, func(t *testing.T, m *model, b *Backend) {
		m.add(letter(1))
		before := list(t, m, b).ids
		m.Caps += " OBJECTID"
		m.Inbox().Rebuild()
		list(t, m, b).shows(t, before, 1)
	})
	memory(t, "a template that repeats itself", Options{UIDL: "{uid}"}, func(t *testing.T, m *model, b *Backend) {
		m.add(letter(1))
		m.add(letter(2))
		list(t, m, b).shows(t, "1 2", 1)
		m.remove(0)
		list(t, m, b).shows(t, "2", 0)
		m.Inbox().Clear()
		m.add(letter(2)) // UID 1
		m.add(letter(3)) // UID 2
		list(t, m, b).shows(t, "2 2.2", 1)
		list(t, m, b).shows(t, "2 2.2", 0)
	})
	memory(t, "the template is changed", Options{}, func(t *testing.T, m *model, b *Backend) {
		m.add(letter(1))
		before := list(t, m, b).ids
		other := m.backend(t, Options{UIDL: "x{uid}", UIDLMemory: true, Store: b.store})
		m.add(letter(2))
		list(t, m, other).shows(t, before+" x2", 1)
	})
	memory(t, "removed by the client", Options{}, func(t *testing.T, m *model, b *Backend) {
		m.add(letter(1))
		m.add(letter(2))
		before := strings.Fields(list(t, m, b).ids)
		d := openMaildrop(t, b)
		if err := d.Update(t.Context(), []uint64{1}); err != nil {
			t.Fatal(err)
		}
		d.Close()
		key := store.Key{Upstream: b.opts.Name, User: "\x00joe", Mailbox: "INBOX"}
		if u, _ := b.store.UniqueIDs(key); len(u.Shown) != 1 || len(u.Gone) != 0 {
			t.Errorf("remembered: %+v", u)
		}
		list(t, m, b).shows(t, before[1], 0)
	})
}

// I-UIDL-5: if the upstream refuses to identify messages, at most UIDL fails,
// and no client downloads again. If the connection is lost, the login fails.
func TestRecallRefused(t *testing.T) {
	rebuilt := func(status string) string {
		return strings.Replace(opened, "UIDVALIDITY 9", "UIDVALIDITY 10", 1) +
			"C: <i> UID FETCH 7 (UID RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE FROM SUBJECT RECEIVED)])\nS: <i> " + status + "\n"
	}
	remember := func(s *session) {
		key := store.Key{Upstream: s.b.opts.Name, User: "\x00joe", Mailbox: "INBOX"}
		if err := s.b.store.PutUniqueIDs(key, store.UniqueIDs{UIDValidity: 9, Shown: []store.Shown{{UID: 7, ID: "header:a:1", String: "9.7"}}}); err != nil {
			s.Fatal(err)
		}
	}
	play(t, "NO after a rebuild", rebuilt("NO zebra")+bye, Options{UIDLMemory: true}, func(s *session) {
		remember(s)
		_, err := s.open().UniqueIDs()
		s.fails(err, temp)
	})
	play(t, "BAD after a rebuild", rebuilt("BAD zebra")+bye, Options{UIDLMemory: true}, func(s *session) {
		remember(s)
		if got := s.ids(s.open()); got != "10.7" {
			s.Errorf("unique-id %s", got)
		}
	})
	play(t, "NO where there is something to import", strings.Replace(rebuilt("NO zebra"), "UIDVALIDITY 10", "UIDVALIDITY 9", 1)+bye,
		Options{UIDLMemory: true, UIDLImport: importOf(t, uniqueid.HeaderIdentity([]byte("Date: x\r\n"), 100)+"\ta")}, func(s *session) {
			_, err := s.open().UniqueIDs()
			s.fails(err, temp)
		})
	play(t, "NO for a new message", strings.Replace(rebuilt("NO zebra"), "UIDVALIDITY 10", "UIDVALIDITY 9", 1)+bye, Options{UIDLMemory: true}, func(s *session) {
		if got := s.ids(s.open()); got != "9.7" {
			s.Errorf("unique-id %s", got)
		}
	})
	play(t, "lost", strings.TrimSuffix(rebuilt(""), "S: <i> \n")+"X:\n", Options{UIDLMemory: true}, func(s *session) {
		s.fails(s.openFails(), temp)
	})
	play(t, "lost inside a header", strings.TrimSuffix(rebuilt(""), "S: <i> \n")+"S: * 1 FETCH (UID 7 BODY[HEADER.FIELDS (DATE)] {10}\nX:\n",
		Options{UIDLMemory: true}, func(s *session) { s.fails(s.openFails(), temp) })
}

// I-UIDL-5: with a store on disk the memory outlives the process, even while
// the mailbox is being filled again.
func TestRecallOnDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	m := newModel()
	open := func() (*Backend, func()) {
		s, err := store.Open(path, store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		return m.backend(t, Options{UIDLMemory: true, Store: s}), func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	for i := range 100 {
		m.add(letter(i))
	}
	b, end := open()
	before := list(t, m, b).ids
	end()
	m.Inbox().Clear()
	b, end = open()
	list(t, m, b).shows(t, "", 0)
	end()
	for i := range 99 {
		m.add(letter(i))
	}
	b, end = open()
	want := before[:strings.LastIndex(before, " ")]
	list(t, m, b).shows(t, want, 1)
	end()
	b, end = open()
	list(t, m, b).shows(t, want, 0)
	end()
}

// I-UIDL-5: if a login ends before all messages are identified, the next one
// resumes there.
func TestRecallResumed(t *testing.T) {
	const fetch = "C: <i> UID FETCH %s (UID RFC822.SIZE BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE FROM SUBJECT RECEIVED)])\n"
	one := func(n, uid int) string {
		return fmt.Sprintf("S: * %d FETCH (UID %d RFC822.SIZE 100 BODY[HEADER.FIELDS (DATE)] \"Date: %d\")\n", n, uid, uid)
	}
	first := mailbox("UIDPLUS", "", "5", "6", "9")
	next := strings.Replace(first, "UID FETCH 1:*", "UID FETCH 4000000000:*", 1)
	script := first + fmt.Sprintf(fetch, "5:9") + one(1, 5) + one(2, 6) + "X:\n-- connection 2 --\n" +
		next + fmt.Sprintf(fetch, "9") + one(3, 9) + "S: <i> OK x\n" + bye
	check := func(s *session) {
		if got := s.ids(s.open()); got != "9.5 9.6 9.9" {
			s.Errorf("unique-ids %s", got)
		}
		u, _ := s.b.store.UniqueIDs(store.Key{Upstream: s.b.opts.Name, User: "\x00joe", Mailbox: "INBOX"})
		for _, shown := range u.Shown {
			if want := uniqueid.HeaderIdentity(fmt.Appendf(nil, "Date: %d", shown.UID), 100); shown.ID != want {
				s.Errorf("UID %d has identity %s, want %s", shown.UID, shown.ID, want)
			}
		}
	}
	play(t, "lost", script, Options{UIDLMemory: true}, check)
	// Header and size may come in two responses, either of them first, and one of
	// them on the connection that is lost, which is of no use then.
	header := func(n, uid int) string {
		return fmt.Sprintf("S: * %d FETCH (UID %d BODY[HEADER.FIELDS (DATE)] \"Date: %d\")\n", n, uid, uid)
	}
	const size = "S: * %d FETCH (UID %d RFC822.SIZE 100)\n"
	script = first + fmt.Sprintf(fetch, "5:9") + header(1, 5) + header(2, 6) + fmt.Sprintf(size, 1, 5) + fmt.Sprintf(size, 3, 9) + "X:\n-- connection 2 --\n" +
		next + fmt.Sprintf(fetch, "6,9") + fmt.Sprintf(size, 3, 9) + one(2, 6) + fmt.Sprintf(size, 2, 6) + header(3, 9) + "S: <i> OK x\n" + bye
	play(t, "lost, in two responses", script, Options{UIDLMemory: true}, check)
}

// I-UIDL-3: unique-ids from EMAILID or X-GM-MSGID.
func TestSources(t *testing.T) {
	source := func(name, uidl, caps string, f func(t *testing.T, m *model, b *Backend)) {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newModel()
				m.Caps += caps
				f(t, m, m.backend(t, Options{UIDL: uidl}))
			})
		})
	}
	add := func(m *model, ids ...string) {
		for _, id := range ids {
			m.Inbox().AddMessage(imapmodel.Message{Body: "a", Email: id})
		}
	}
	source("emailid", uniqueid.SourceEmailID, " OBJECTID", func(t *testing.T, m *model, b *Backend) {
		long := strings.Repeat("M", 71)
		add(m, "Ma", "M_b-1", "Ma", "Ma", long, "a.b")
		want := "Ma M_b-1 Ma.2 Ma.3 " + hashOf(long) + " " + hashOf("a.b")
		list(t, m, b).shows(t, want, 1)
		list(t, m, b).shows(t, want, 0)
		m.remove(0) // the copies keep their numbers
		want = strings.TrimPrefix(want, "Ma ")
		list(t, m, b).shows(t, want, 0)
		add(m, "Mz")
		list(t, m, b).shows(t, want+" Mz", 1)
		m.remove(1)
		m.remove(1)
		m.Inbox().Rebuild()
		g := list(t, m, b)
		g.shows(t, "Mz "+hashOf("a.b")+" "+hashOf(long)+" M_b-1", 1)
		if strings.Contains(g.log, "download") {
			t.Errorf("the log says %s", g.log)
		}
	})
	source("gmail", uniqueid.SourceGmail, " X-GM-EXT-1", func(t *testing.T, m *model, b *Backend) {
		add(m, "1278455344230334865", "18446744073709551615")
		list(t, m, b).shows(t, "GmailId11bdfc5cae0c8191 GmailIdffffffffffffffff", 1)
	})
	source("remembered too", uniqueid.SourceEmailID, " OBJECTID", func(t *testing.T, m *model, _ *Backend) {
		b := m.backend(t, Options{UIDL: uniqueid.SourceEmailID, UIDLMemory: true})
		add(m, "Ma", "Ma", "Mb")
		list(t, m, b).shows(t, "Ma Ma.2 Mb", 1)
		m.remove(0)
		list(t, m, b).shows(t, "Ma.2 Mb", 0)
		m.Inbox().Rebuild()
		list(t, m, b).shows(t, "Mb Ma.2", 1)
	})
	for _, uidl := range []string{uniqueid.SourceEmailID, uniqueid.SourceGmail} {
		source("the upstream lacks "+uidl, uidl, "", func(t *testing.T, m *model, b *Backend) {
			m.add("a")
			g := list(t, m, b)
			if e := proxy.AsError(g.err); e.Code != perm || !strings.Contains(g.log, "no unique-ids") {
				t.Errorf("%v; the log says %s", g.err, g.log)
			}
		})
	}
	refused := strings.ReplaceAll(opened, "UIDPLUS", "X-GM-EXT-1") + "C: <i> UID FETCH 7 (UID X-GM-MSGID)\nS: <i> NO zebra\n" + bye
	play(t, "refused", refused, Options{UIDL: uniqueid.SourceGmail}, func(s *session) {
		_, err := s.open().UniqueIDs()
		s.fails(err, temp)
	})
	gone := strings.Replace(refused, "NO zebra", "OK x", 1)
	play(t, "expunged by then", gone, Options{UIDL: uniqueid.SourceGmail}, func(s *session) {
		if got := s.ids(s.open()); got != "9.7" {
			s.Errorf("unique-id %s", got)
		}
	})
}

// I-UIDL-5: what the client has removed is new to it when it comes back: also if its
// unique-id was imported, if UPDATE has failed in part, and if messages were flagged
// first. What was not removed keeps its unique-id.
func TestRemovedAndRestored(t *testing.T) {
	id := func(i int) string { return uniqueid.HeaderIdentity([]byte(letter(i)), int64(len(letter(i)))) }
	few := []int{0, 1, 2, 3}
	many := make([]int, 800)
	for i := range many {
		many[i] = i
	}
	imported := Options{UIDLImport: importOf(t, id(0)+"\tx-0", id(2)+"\tx-2")}
	for _, tt := range []struct {
		name, caps string
		opts       Options
		letters    []int
		refuse     string // the beginning of a command that is refused the second time
		days       int
	}{
		{"removed", "UIDPLUS", Options{}, few, "", 0},
		{"imported", "UIDPLUS", imported, few, "", 0},
		{"imported, much later", "UIDPLUS", imported, few, "", 100},
		{"imported, form without UIDVALIDITY", "UIDPLUS", Options{UIDL: "1.{uid}", UIDLImport: imported.UIDLImport}, few, "", 0},
		{"imported, flagged first", "", Options{WithoutUIDPLUS: ExpungeIfAlone, UIDLImport: imported.UIDLImport}, few, "", 100},
		{"removed in part", "UIDPLUS", Options{}, many, "UID EXPUNGE", 0},
		{"moved in part", "UIDPLUS MOVE", Options{Delete: DeleteTrash}, many, "UID MOVE", 0},
		{"expunged if alone", "", Options{WithoutUIDPLUS: ExpungeIfAlone}, few, "", 0},
		{"flagged, and expunged by another client", "", Options{Delete: DeleteFlag}, few, "", 0},
	} {
		memory(t, tt.name, tt.opts, func(t *testing.T, m *model, b *Backend) {
			m.Caps = "IMAP4rev1 AUTH=PLAIN SASL-IR SPECIAL-USE " + tt.caps
			m.Mailbox("", "Trash").SetTrash()
			for _, i := range tt.letters {
				m.add(letter(i))
			}
			before := strings.Fields(list(t, m, b).ids)
			var marked []uint64
			for i, msg := range m.messages() {
				if i%2 == 0 {
					marked = append(marked, msg.UID)
				}
			}
			d, n := openMaildrop(t, b), 0
			m.Refuse = func(cmd string) string {
				if tt.refuse != "" && strings.HasPrefix(cmd, tt.refuse) {
					if n++; n == 2 {
						return "NO [LIMIT] zebra"
					}
				}
				return ""
			}
			if err := d.Update(t.Context(), marked); (err == nil) == (tt.refuse != "") {
				t.Fatal(err)
			}
			d.Close()
			m.Refuse = nil
			for _, msg := range m.messages() {
				if msg.Deleted() {
					m.Inbox().Remove(msg.UID)
				}
			}
			left := make(map[string]bool)
			for _, msg := range m.messages() {
				left[before[msg.UID-1]] = true
			}
			list(t, m, b)
			<-time.After(time.Duration(tt.days) * 24 * time.Hour)
			restored := 0
			for i, uid := range marked {
				if !left[before[uid-1]] {
					m.add(letter(tt.letters[2*i]))
					restored++
				}
			}
			after := strings.Fields(list(t, m, b).ids)
			for i, id := range after {
				if known := slices.Contains(before, id); known != left[id] || known && i >= len(left) {
					t.Errorf("message %d has the unique-id %s again, of %d restored", i+1, id, restored)
				}
			}
			if restored == 0 || len(after) != len(left)+restored {
				t.Errorf("%d messages, %d of them restored, %d left", len(after), restored, len(left))
			}
		})
	}
}
