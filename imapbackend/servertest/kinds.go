//go:build integration

package servertest

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"popgate/imapbackend/dovecottest"
)

// kind is what differs between the servers, beside their files below servers.
type kind struct {
	name   string
	title  string // as docs/upstreams.md calls it
	part   string // what prepare.sh made for it; "" for Dovecot itself
	source string // what it is in the file versions of part
	domain string // what login names end with
	suffix string // what the password ends with, where Dovecot's would be too short
	proxy  bool   // it hands on to a Dovecot
	noTLS  bool
	trash  string // mailbox that messages may be moved to, "" for Trash

	settings []string         // keys of the configuration that suit it better than the defaults
	refuses  []string         // messages that it does not take, as messages_test.go names them
	limits   map[Limit]string // what cannot be had, and why

	dovecot []dovecottest.Option
}

var kinds = []kind{
	{name: "dovecot", title: "Dovecot, maildir"},
	{name: "dovecot-mdbox", title: "Dovecot, mdbox", dovecot: []dovecottest.Option{dovecottest.WithStore("mdbox")}},
	{name: "dovecot-rev1", title: "Dovecot that announces IMAP4rev1 only", dovecot: []dovecottest.Option{dovecottest.WithCapability("IMAP4rev1")}},
	{name: "cyrus", title: "Cyrus", part: debian, source: "cyrus-imapd", refuses: []string{"bare LF", "NUL"}},
	{name: "courier", title: "Courier", part: debian, source: "courier-imap", trash: "INBOX.Trash",
		settings: []string{`trash = "INBOX.Trash"`},
		limits: map[Limit]string{
			DividesWrongly: "a header without an empty line after it, for which TOP gives what RETR gives",
		}},
	{name: "mailutils", title: "GNU mailutils imap4d, mbox", part: debian, source: "mailutils-imap4d", limits: map[Limit]string{
		AddsFields:      "sizes of LIST may be those of the session before",
		MiscountsOctets: "RETR of a message with lines that begin with From ends the session if TOP has read it before",
		SearchesNumbers: "nothing, as messages are looked for by FETCH",
		UndoesRemoval:   "a message that another client has removed during a session comes back",
		WritesLate:      "what other clients change right after QUIT may be lost",
	}},
	{name: "mox", title: "mox", part: "mox", source: "github.com/mjl-/mox", domain: "@localhost", suffix: "-of-mox"},
	{name: "maddy", title: "maddy", part: "maddy", source: "github.com/foxcpp/maddy", domain: "@popgate.test",
		settings: []string{`without_uidplus = "move"`},
		limits: map[Limit]string{
			DividesWrongly: "a header without an empty line after it, for which TOP gives what RETR gives",
			SearchesOthers: `without_uidplus = "expunge-if-alone" acts as "flag"`,
		}},
	{name: "goimap1", title: "go-imap v1's server and memory backend", part: "goservers", source: "github.com/emersion/go-imap", limits: map[Limit]string{
		ReusesUIDs:  "a new message may have the unique-id of a removed one",
		RefusesMove: "nothing can be moved to a trash mailbox, and QUIT says so",
	}},
	{name: "goimap2", title: "go-imap v2's imapserver and imapmemserver", part: "goservers", source: "github.com/emersion/go-imap/v2"},
	{name: "gluon", title: "gluon, the server of Proton Mail Bridge", part: "goservers", source: "github.com/ProtonMail/gluon"},
	{name: "hoodiecrow", title: "hoodiecrow", part: "hoodiecrow", source: "hoodiecrow-imap", refuses: []string{"NUL"}, limits: map[Limit]string{
		DividesWrongly: "TOP of a message without an empty line, or with a bare CR, differs from RETR",
	}},
	{name: "nginx", title: "nginx in front of Dovecot", part: debian, source: "nginx", proxy: true},
	{name: "perdition", title: "Perdition in front of Dovecot", part: debian, source: "perdition", proxy: true},
	{name: "imapproxy", title: "imapproxy in front of Dovecot", part: debian, source: "imapproxy", proxy: true, noTLS: true},
}

const debian = "debian"

// Limit is what a server does in another way than the others, so that a gateway
// in front of it cannot do all that is asked of one. It completes "The server".
type Limit string

// The limits. Tests check each of them, on servers that have it and on those that
// do not.
const (
	AddsFields      Limit = "adds fields to the headers of messages between sessions"
	ReusesUIDs      Limit = "gives the UID of a removed message again"
	RefusesMove     Limit = "announces MOVE and refuses it"
	SearchesOthers  Limit = "finds messages of other users by SEARCH"
	SearchesNumbers Limit = "takes the UIDs of a search as sequence numbers"
	DividesWrongly  Limit = "gives other octets as header and text than as the whole message"
	MiscountsOctets Limit = "announces a wrong number of octets for some messages"
	Substitutes     Limit = "gives another text in place of a message that another client has removed"
	UndoesRemoval   Limit = "restores, at the end of a session, what another client has removed meanwhile"
	WritesLate      Limit = "writes flags when a session ends, not before"
)

// All returns the names of all servers.
func All() []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.name
	}
	return names
}

// Titles returns what docs/upstreams.md calls the servers, in the order of All.
func Titles() []string {
	titles := make([]string, len(kinds))
	for i, k := range kinds {
		titles[i] = k.title
	}
	return titles
}

func kindOf(t testing.TB, name string) kind {
	t.Helper()
	for _, k := range kinds {
		if k.name == name {
			return k
		}
	}
	t.Fatalf("servertest: no server is called %q", name)
	return kind{}
}

// cacheDir is the directory that prepare.sh fills.
func cacheDir() (string, error) {
	if dir := os.Getenv("POPGATE_SERVERS"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "popgate-servers"), err
}

// version returns the version that has been prepared. It fails the test if none
// has been.
func (k kind) version(t testing.TB) string {
	t.Helper()
	cache, err := cacheDir()
	if err != nil {
		t.Fatalf("servertest: %v", err)
	}
	list, err := os.Open(filepath.Join(cache, k.part, "versions"))
	if err != nil {
		t.Fatalf("servertest: %s is not prepared; run: make servers (%v)", k.name, err)
	}
	defer list.Close()
	lines := bufio.NewScanner(list)
	for lines.Scan() {
		if source, version, _ := strings.Cut(lines.Text(), " "); source == k.source {
			return version
		}
	}
	t.Fatalf("servertest: %s does not list %s: %v", list.Name(), k.source, lines.Err())
	return ""
}
