package proxy

import (
	"context"
	"io"
)

// Logins.

// Backend logs users in on the upstream. It is safe for concurrent use.
type Backend interface {
	// Login verifies cred with the upstream's own verdict. The returned Login
	// belongs to the caller, who closes it, or the Maildrop opened from it.
	// An error is an *Error, or is treated as [SYS/TEMP]; nothing is left
	// open upstream then. Cancelling ctx ends the attempt.
	Login(ctx context.Context, cred Credential) (Login, error)
}

// Credential is what a client offered to log in with: by USER and PASS
// (RFC 1939 §7), or by a SASL mechanism that reveals the password (RFC 5034).
// The fields are the client's octets, unchanged; none holds a NUL.
type Credential struct {
	Authzid  string // authorization identity, "" for that of Username
	Username string
	Password string

	// UTF8 reports that the client has asked for UTF8 mode (RFC 6856 §2.1).
	UTF8 bool
}

// Caller is what is known of a client that has not logged in.
type Caller struct {
	Client

	// Username is the name that the client has given, by USER or in its SASL
	// exchange, and may still log in with; "" before that. Nothing proves it:
	// an answer that depends on it tells anybody about that user.
	Username string

	// TLS reports that the client uses TLS, to the gateway or to the proxy in
	// front of it.
	TLS bool
}

// Login is a user who has been verified but whose maildrop is not open yet.
// One goroutine at a time may use it.
type Login interface {

	// Identity names the maildrop that Open would open.
	Identity() Identity

	// Open selects the mailbox and takes the snapshot; the caller holds the
	// lock of Identity. After success the Maildrop owns the upstream
	// connection and Close of the Login does nothing.
	Open(ctx context.Context) (Maildrop, error)

	// Close logs out upstream, waiting a short time at most.
	Close() error
}

// Identity names one maildrop, however its user spelt the login name.
type Identity struct {
	Upstream  string // configured name of the upstream
	User      string // canonical login name
	Mailbox   string
	MailboxID string // RFC 8474 §4, "" where the upstream has none
}

// Key is what two sessions on the same maildrop have in common: the mailbox-id
// where there is one, so that aliases of one mailbox meet, else user and
// mailbox (RFC 1939 §4).
func (id Identity) Key() string {
	if id.MailboxID != "" {
		return id.Upstream + "\x00id\x00" + id.MailboxID
	}
	return id.Upstream + "\x00" + id.User + "\x00" + id.Mailbox
}

// Logins by a SASL exchange.

// Exchanger is a Backend that verifies users by SASL mechanisms which are more
// than a name and a password. Whether the upstream decides, or a service that
// holds the secrets, is up to the Backend.
type Exchanger interface {
	// Offers reports whether an exchange of this mechanism, in upper case,
	// can succeed now for c. It answers from memory, without asking the
	// upstream.
	Offers(mechanism string, c Caller) bool

	// Exchange is Login for a SASL exchange (RFC 4422 §3). It returns errors
	// of ex.Challenge as they are.
	Exchange(ctx context.Context, ex *Exchange) (Login, error)
}

// Exchange is the client's side of a SASL exchange. It belongs to the session,
// which fills in what the client sends; a Backend uses it for one call.
type Exchange struct {
	// Mechanism is its registered name, in upper case.
	Mechanism string

	// Initial is the client's first message, decoded; "" where the server
	// begins, as in CRAM-MD5.
	Initial string

	// Authzid and Username are valid UTF-8 without NUL. They are what the
	// client has sent so far: Username is "" until the first response of
	// CRAM-MD5, and never in another mechanism.
	Authzid, Username string

	// Authorization is the value of "auth" in XOAUTH2 and OAUTHBEARER, such
	// as "Bearer abc"; "" in other mechanisms.
	Authorization string

	// UTF8 is as in Credential.
	UTF8 bool

	// Challenge sends data to the client and returns its response, both not
	// in base64. Of its errors ErrCancelled leaves the client waiting for the
	// reply to AUTH, as do all others that are an *Error; the rest end the
	// session.
	Challenge func(ctx context.Context, data string) (response string, err error)
}

// Connections made in advance.

// Preparer is a Backend that can connect to its upstream before the client has
// sent its credential.
type Preparer interface {
	// Prepare begins to connect and returns at once; nil if the Backend has
	// reasons not to. It is called again, as long as it has returned nil, when
	// more is known of c. Cancelling ctx ends the connection until Login has
	// it.
	Prepare(ctx context.Context, c Caller) Prepared
}

// Prepared is a connection for one login. The login may be that of another user
// than Prepare was given: what Login is given decides.
type Prepared interface {
	// Login is as that of Backend, and is called at most once.
	Login(ctx context.Context, cred Credential) (Login, error)

	// Close gives the connection up, if Login has not been called.
	Close()
}

// PreparedExchanger is a Prepared that may serve an exchange instead of a Login.
type PreparedExchanger interface {
	// Exchange is as that of Exchanger; it counts as the call of Login.
	Exchange(ctx context.Context, ex *Exchange) (Login, error)
}

// Open maildrops.

// Message is one message of a snapshot.
type Message struct {
	UID    uint32
	Octets int64 // as announced by LIST: line ends count two, byte-stuffing none
}

// Maildrop is an open mailbox and the snapshot of it that was taken when it
// was opened. One goroutine at a time may use it. Errors are *Error, or are
// treated as [SYS/TEMP]; after any error but one of Body the Maildrop stays
// usable. Cancelling a context may cost the upstream connection.
type Maildrop interface {
	// Messages returns the snapshot in ascending order of UID: the message
	// with message-number n is element n-1. The slice is shared and never
	// changes.
	Messages() []Message

	// UniqueIDs returns the function that appends the unique-id of a message
	// of the snapshot: 1 to 70 characters of 0x21 to 0x7E, unique in the
	// maildrop (RFC 1939 §7). An error means that this maildrop has none.
	UniqueIDs() (func(dst []byte, uid uint32) []byte, error)

	// ReadOnly reports that messages cannot be removed.
	ReadOnly() bool

	// Read begins to read the message uid. It returns once the upstream has
	// begun to deliver it; ErrGone if it has been removed meanwhile. The
	// Maildrop must not be used again before the Body is closed.
	Read(ctx context.Context, uid uint32) (Body, error)

	// Top is Read for the header, the empty line and the first lines lines
	// of the text (RFC 1939 §7).
	Top(ctx context.Context, uid uint32, lines uint64) (Body, error)

	// Retrieved reports that the client has been sent the whole message by
	// RETR, its final line included: octets of it, with line ends repaired
	// and byte-stuffing not counted, which is what LIST should have said.
	Retrieved(ctx context.Context, uid uint32, octets int64)

	// Update removes exactly the messages marked, in ascending order, and
	// does what else the end of a session by QUIT asks for (RFC 1939 §6). It
	// is called at most once, with none marked too. nil means that all
	// marked are gone; no other message is ever removed. Once ctx has ended
	// no further removal is begun: the lock of the maildrop may be another
	// session's by then.
	Update(ctx context.Context, marked []uint32) error

	// Close leaves the mailbox without changing it and logs out upstream,
	// waiting a short time at most. It may be called after any error.
	Close() error
}

// Body is a message on its way from the upstream.
type Body interface {
	// Octets is the length that the upstream announced for what WriteTo
	// writes; -1 where that is not known, as for Top.
	Octets() int64

	// WriteTo writes the octets of the message as the upstream has them:
	// lines may end in bare LF and the last may lack its end. It is called
	// at most once. An error that is not w's own means that the message
	// is not whole; then it must not be ended as if it were.
	io.WriterTo

	// Close gives up what has not been read and frees the Maildrop for the
	// next call.
	Close() error
}

// What a Maildrop may be besides.

// Expecter is a Maildrop that can make use of what the client has asked for
// already, after the current command.
type Expecter interface {
	// Expect announces which messages the client has asked for after the one
	// that Read or Top, called next, is about, in the order in which it
	// wants them and in the same form: whole, or the header. It costs
	// nothing if they are not asked for in the end. The slice is the
	// callee's.
	Expect(uids []uint32)
}

// Retainer is a Maildrop that may leave all marked messages where they are.
type Retainer interface {
	// Retains reports that Update removes nothing, by configuration, and so
	// that its nil means that.
	Retains() bool
}

// Sourced is a Maildrop that knows where its upstream connection came from.
type Sourced interface {
	// Source says where the connection came from on which Open succeeded.
	Source() Source
}

// Source says where the upstream connection of a login came from.
type Source string

// The sources of upstream connections.
const (
	SourceDialed   Source = "cold" // opened once the credential was known
	SourcePrepared Source = "warm" // opened by Prepare
	SourceKept     Source = "kept" // left open by an earlier session
)
