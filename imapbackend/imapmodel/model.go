package imapmodel

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
)

// defaultCaps are the capabilities of a new Model.
const defaultCaps = "IMAP4rev1 AUTH=PLAIN SASL-IR UIDPLUS ID ESEARCH"

// Style is how a connection sees a message that another client has expunged while
// the EXPUNGE has not been announced to it (RFC 2180 §4.1).
type Style int

// The styles. With all but Omitted the EXPUNGE is announced at NOOP, and at
// commands that expunge or move.
const (
	Omitted Style = iota // FETCH omits it, and any UID command announces it
	Served               // FETCH still delivers it (§4.1.1)
	Refused              // FETCH of it is answered NO (§4.1.2)
	Nil                  // FETCH delivers NIL in its place (§4.1.3)
	Kept                 // it cannot be expunged while a connection sees it (§4.1.4)
)

// SearchStyle is how UID SEARCH is answered.
type SearchStyle int

// The styles. Searches is right, the others are those of real servers.
const (
	Searches       SearchStyle = iota
	CountOnly                  // an ESEARCH response contains COUNT, whatever was asked
	DeletedRefused             // DELETED by itself is BAD
	DeletedCloses              // DELETED by itself ends the connection
	SilentIfEmpty              // an empty result has no response
	FindsOthers                // DELETED by itself finds messages of all mailboxes

	SearchStyles // the number of styles so far

	// DeletedHangs is that DELETED by itself, and what follows it, is never
	// answered.
	DeletedHangs
)

// Model is the server. The fields are set before a connection uses them; the
// methods are safe for concurrent use.
type Model struct {
	// Caps are the capabilities, before and after the login.
	Caps string

	Quirks

	// RTT is the round trip of connections made by Dial.
	RTT time.Duration

	// Link, if not nil, carries what these connections bring to the client.
	Link *Link

	// Style is how expunges by others are seen.
	Style Style

	// UIDNext returns what SELECT announces as UIDNEXT of a mailbox whose next
	// UID is next, such as a number that is too small. nil: next itself.
	UIDNext func(next uint64) string

	// AnnounceRebuilt keeps a connection open whose mailbox gets another
	// UIDVALIDITY: it sends OK [UIDVALIDITY], and NO to each command on
	// messages. Otherwise the connection ends with BYE.
	AnnounceRebuilt bool

	// Before is called before each command is executed, After when its
	// answer has been written. cmd is the command without its tag.
	Before, After func(cmd string)

	// Refuse may return a status such as "NO [LIMIT] x", with which the
	// command is answered instead of being executed.
	Refuse func(cmd string) (status string)

	mu        sync.Mutex
	mailboxes []*Mailbox
	made      int               // number of mailboxes created so far
	passwords map[string]string // nil: every login succeeds, to the mailboxes of ""
	commands  []string
	octets    int64
	dials     int
	conns     map[*conn]struct{}
}

// New returns a Model with defaultCaps and an empty INBOX that every user sees.
func New() *Model {
	m := &Model{Caps: defaultCaps, conns: make(map[*conn]struct{})}
	m.create("", "INBOX")
	return m
}

// name is what the server calls itself in its greeting.
func (m *Model) name() string {
	if m.Unknown {
		return "IMAP"
	}
	return "Dovecot"
}

// SetPassword sets a user's password. user is an authorization identity or "",
// NUL, and a name; the session sees the mailboxes of the identity, or else of the
// name, in lower case. After the first call no other login succeeds.
func (m *Model) SetPassword(user, password string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.passwords == nil {
		m.passwords = make(map[string]string)
	}
	m.passwords[user] = password
}

// Inbox returns the INBOX that every user sees without SetPassword.
func (m *Model) Inbox() *Mailbox { return m.Mailbox("", "INBOX") }

// Mailbox returns the owner's mailbox with this name. It creates it if there is
// none.
func (m *Model) Mailbox(owner, name string) *Mailbox {
	m.mu.Lock()
	defer m.mu.Unlock()
	if b := m.find(owner, name); b != nil {
		return b
	}
	return m.create(owner, name)
}

func (m *Model) find(owner, name string) *Mailbox {
	if strings.EqualFold(name, "INBOX") {
		name = "INBOX"
	}
	i := slices.IndexFunc(m.mailboxes, func(b *Mailbox) bool { return b.owner == owner && b.name == name })
	if i < 0 {
		return nil
	}
	return m.mailboxes[i]
}

func (m *Model) create(owner, name string) *Mailbox {
	m.made++
	b := &Mailbox{m: m, owner: owner, name: name, uidValidity: uint64(6 + m.made), uidNext: 1, id: fmt.Sprintf("F%d", m.made)}
	m.mailboxes = append(m.mailboxes, b)
	return b
}

// has reports whether the capability is announced.
func (m *Model) has(capability string) bool {
	return slices.Contains(strings.Fields(strings.ToUpper(m.Caps)), capability)
}

// Commands returns the commands so far, without their tags.
func (m *Model) Commands() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Clone(m.commands)
}

// Octets returns the number of octets of all answers so far.
func (m *Model) Octets() int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.octets
}

// Dials returns the number of calls of Dial so far.
func (m *Model) Dials() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.dials
}

// Open returns the number of open connections.
func (m *Model) Open() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.conns)
}

// Push sends an unrequested line on every connection, and closes them if end is
// set.
func (m *Model) Push(line string, end bool) {
	m.mu.Lock()
	all := make([]*conn, 0, len(m.conns))
	for c := range m.conns {
		all = append(all, c)
	}
	m.octets += int64(len(all) * (len(line) + 2))
	m.mu.Unlock()
	for _, c := range all {
		_ = c.write([]byte(line + "\r\n")) // an error means that the connection is lost
		if end {
			c.net.Close()
		}
	}
}

// Serve serves the connections of l until it is closed, and returns its error.
func (m *Model) Serve(l net.Listener) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go m.ServeConn(conn)
	}
}
