package proxy

import (
	"context"
	"io"
)

// Logins.

// Backend logs users in on the upstream. It is safe for concurrent use.
type Backend interface {
	// Login has the upstream verify cred. The caller owns the returned Login
	// and closes it, or the Maildrop opened from it. An error that is no
	// *Error is treated as [SYS/TEMP]; after any error nothing is left open
	// upstream. Cancelling ctx ends the attempt.
	Login(ctx context.Context, cred Credential) (Login, error)
}

// Credential is the name and password of a login, from USER and PASS
// (RFC 1939 §7) or from a SASL mechanism that reveals the password (RFC 5034).
// The fields are the client's octets, unchanged; none contains a NUL.
type Credential struct {
	Authzid  string // authorization identity; "" means Username's
	Username string
	Password string

	// UTF8 reports that the client has asked for UTF8 mode (RFC 6856 §2.1).
	UTF8 bool

	// Attempt counts the logins of the session, from 1.
	Attempt int
}

// Caller is what is known of a client that has not logged in.
type Caller struct {
	Client

	// Username is the name given by USER or in the SASL exchange, as long as
	// the client may log in with it; "" before that. It is not verified: an
	// answer that depends on it reveals something about that user to anyone.
	Username string

	// TLS reports that the client uses TLS, to the gateway or to the proxy in
	// front of it.
	TLS bool
}

// Login is a verified user whose maildrop is not open yet. One goroutine at a
// time may use it.
type Login interface {
	// Identity names the maildrop that Open would open.
	Identity() Identity

	// Open selects the mailbox and takes the snapshot. The caller holds the
	// lock of Identity. After success the Maildrop owns the upstream
	// connection, and Close of the Login does nothing.
	Open(ctx context.Context) (Maildrop, error)

	// Close logs out upstream. It waits only a short time.
	Close() error
}

// Identity names one maildrop, the same for all spellings of the login name.
type Identity struct {
	Upstream  string // configured name of the upstream
	User      string // canonical login name
	Mailbox   string
	MailboxID string // RFC 8474 §4; "" if it is not known
	AccountID string // of the account that owns the mailbox; "" if it is not known
}

// minMailboxID is the length, in octets, from which a mailbox-id is that of one
// mailbox of the whole upstream, as a UUID is. RFC 8474 §4 makes it unique, but
// some upstreams number the mailboxes of each account.
const minMailboxID = 16

// Keys returns the keys that lock the maildrop (RFC 1939 §4), in the order in
// which they are acquired: that of user and mailbox, which no other account has,
// and that of the mailbox-id if it is long enough, which the aliases of a mailbox
// share. No session that holds the second waits for a first, so the order cannot
// deadlock.
func (id Identity) Keys() []string {
	keys := []string{id.Upstream + "\x00" + id.User + "\x00" + id.Mailbox}
	if len(id.MailboxID) >= minMailboxID {
		keys = append(keys, id.Upstream+"\x00\x00id\x00"+id.AccountID+"\x00"+id.MailboxID)
	}
	return keys
}

// Namer is a Backend that knows which login names are of one account.
type Namer interface {
	// AccountName returns one text for all login names of one account, as far as
	// that is known before anything is verified. It answers from memory. username
	// is the login name as the client gave it, never "", and authzid the
	// authorization identity, "" without one. Failed logins count by that text; the
	// log has the name that the client gave.
	AccountName(authzid, username string) string
}

// Logins by a SASL exchange.

// Exchanger is a Backend that also supports SASL mechanisms that need more than
// a name and a password. The Backend decides who verifies them: the upstream,
// or a service that holds the secrets.
type Exchanger interface {
	// Offers reports whether an exchange of this mechanism, in upper case,
	// can succeed now for c. It answers from memory, without asking the
	// upstream.
	Offers(mechanism string, c Caller) bool

	// Exchange is Login for a SASL exchange (RFC 4422 §3). It returns errors
	// of ex.Challenge unchanged.
	Exchange(ctx context.Context, ex *Exchange) (Login, error)
}

// Exchange is the client's side of a SASL exchange. It belongs to the session,
// which fills in what the client sends. A Backend may use it until its call of
// Exchange returns.
type Exchange struct {
	// Mechanism is its registered name, in upper case.
	Mechanism string

	// Initial is the client's first message, decoded; "" where the server
	// begins, as in CRAM-MD5.
	Initial string

	// Authzid and Username are valid UTF-8 without NUL. Username is "" only
	// before the first response of CRAM-MD5.
	Authzid, Username string

	// Authorization is the value of "auth" in XOAUTH2 and OAUTHBEARER, such
	// as "Bearer abc"; "" in other mechanisms.
	Authorization string

	// UTF8 is as in Credential.
	UTF8 bool

	// Challenge sends data to the client and returns its response, both
	// without base64. After an *Error, such as ErrCancelled, the client still
	// expects the reply to AUTH; any other error ends the session.
	Challenge func(ctx context.Context, data string) (response string, err error)
}

// Connections made in advance.

// Preparer is a Backend that can connect to its upstream before the client has
// sent its credential.
type Preparer interface {
	// Prepare begins to connect and returns at once. It returns nil if it does
	// not connect; then it is called again when more is known of the client.
	// Cancelling ctx closes the connection, unless Login has been called.
	Prepare(ctx context.Context, c Caller) Prepared
}

// Prepared is a connection for one login, possibly of another user than the one
// that Prepare was called for.
type Prepared interface {
	// Login is Backend.Login over this connection. It is called at most once.
	Login(ctx context.Context, cred Credential) (Login, error)

	// Close closes the connection, if Login has not been called.
	Close()
}

// PreparedExchanger is a Prepared that can serve an exchange instead of Login.
type PreparedExchanger interface {
	// Exchange is Exchanger.Exchange over this connection. It is called
	// instead of Login, at most once.
	Exchange(ctx context.Context, ex *Exchange) (Login, error)
}

// Open maildrops.

// Message is one message of a snapshot.
type Message struct {
	UID    uint64
	Octets int64 // for LIST: line ends count as two octets, byte-stuffing not at all
}

// Maildrop is an open mailbox with the snapshot taken when it was opened. One
// goroutine at a time may use it. Errors that are no *Error are treated as
// [SYS/TEMP]. The Maildrop remains usable after any error except one of a Body.
// Cancelling a context may close the upstream connection.
type Maildrop interface {
	// Messages returns the snapshot in ascending order of UID: the message
	// with message-number n is element n-1. The slice is shared and never
	// changes.
	Messages() []Message

	// UniqueIDs returns a function that appends the unique-id of a message
	// of the snapshot to dst: 1 to 70 characters from 0x21 to 0x7E, unique in
	// the maildrop (RFC 1939 §7). An error means that this maildrop has no
	// unique-ids.
	UniqueIDs() (func(dst []byte, uid uint64) []byte, error)

	// ReadOnly reports that messages cannot be removed.
	ReadOnly() bool

	// Read starts reading the message uid and returns when the upstream has
	// begun to deliver it, or ErrGone if it has been removed since the
	// snapshot. The Maildrop must not be used until the Body is closed.
	Read(ctx context.Context, uid uint64) (Body, error)

	// Top is Read for the header, the empty line and the first lines lines
	// of the text (RFC 1939 §7).
	Top(ctx context.Context, uid uint64, lines uint64) (Body, error)

	// Retrieved reports that RETR has sent the client the whole message,
	// including the final line. octets is the size that LIST should have
	// announced: with line ends repaired and without byte-stuffing.
	Retrieved(ctx context.Context, uid uint64, octets int64)

	// Update ends a session by QUIT (RFC 1939 §6). It removes exactly the
	// marked messages, whose UIDs are in ascending order, and does any other
	// work that is due then. It is called at most once, also with no message
	// marked. nil means that all marked messages are gone. Once ctx has ended
	// no further removal is started, as another session may have locked the
	// maildrop.
	Update(ctx context.Context, marked []uint64) error

	// Close leaves the mailbox without changing it and logs out upstream. It
	// waits only a short time. It may be called after any error, and again.
	Close() error
}

// Body is a message that the upstream is delivering.
type Body interface {
	// Octets is the length that the upstream announced for what WriteTo
	// writes; -1 if it is not known, as for Top.
	Octets() int64

	// WriteTo writes the octets of the message as the upstream has them:
	// lines may end in a bare LF, and the last may have no end. It is called
	// at most once. An error that is not w's own means that the message
	// is incomplete; the reply must not be terminated then. If nothing of it
	// has left the process, the client is sent AsError of the error, else
	// the connection is closed.
	io.WriterTo

	// Close discards what has not been read, after which the Maildrop may be
	// used again.
	Close() error
}

// Optional interfaces of a Maildrop.

// Expecter is a Maildrop that can use advance notice of messages that the
// client has already asked for.
type Expecter interface {
	// Expect announces the messages that the client has asked for after the
	// one that the next call of Read or Top is for, in that order and in the
	// same form: whole, or with the same number of lines. They may not be
	// read after all. The callee owns the slice.
	Expect(uids []uint64)
}

// Retainer is a Maildrop that may be configured to retain marked messages.
type Retainer interface {
	// Retains reports that Update removes nothing, by configuration, although
	// it returns nil.
	Retains() bool
}

// Sourced is a Maildrop that knows where its upstream connection came from.
type Sourced interface {
	// Source returns where the connection on which Open succeeded came from.
	Source() Source
}

// Source is where the upstream connection of a login came from.
type Source string

// The sources of upstream connections.
const (
	SourceDialed   Source = "cold" // opened once the credential was known
	SourcePrepared Source = "warm" // opened by Prepare
	SourceKept     Source = "kept" // left open by an earlier session
)
