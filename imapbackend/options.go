package imapbackend

import (
	"crypto/x509"
	"time"

	"popgate/imapbackend/store"
	"popgate/imapbackend/uniqueid"
)

// TLSMode says how the connection to the upstream is protected.
type TLSMode string

// The modes of TLS towards the upstream (RFC 8314 §3, RFC 9051 §6.2.1).
const (
	TLSImplicit TLSMode = "implicit"
	TLSStartTLS TLSMode = "starttls"
	TLSNone     TLSMode = "none"
)

// Delete says what UPDATE does with the marked messages.
type Delete string

// The policies for marked messages.
const (
	// DeleteExpunge removes them for good. WithoutUIDPLUS tells what to do
	// where the upstream cannot expunge just these.
	DeleteExpunge Delete = "expunge"
	// DeleteTrash moves them to the trash mailbox.
	DeleteTrash Delete = "trash"
	// DeleteFlag sets \Deleted and leaves the expunge to others; later
	// sessions hide what is so flagged.
	DeleteFlag Delete = "flag"
	// DeleteKeep does nothing: they are there again in the next session.
	DeleteKeep Delete = "keep"
)

// WithoutUIDPLUS says what UPDATE does where the upstream lacks UIDPLUS, so
// that no command removes exactly the marked messages.
type WithoutUIDPLUS string

// The policies for an upstream without UIDPLUS.
const (
	// Flag is as DeleteFlag.
	Flag WithoutUIDPLUS = "flag"
	// Move moves the messages to the trash mailbox. An upstream without MOVE
	// too is left with a copy there and with what Flag does.
	Move WithoutUIDPLUS = "move"
	// ExpungeIfAlone flags and sends a plain EXPUNGE if no other message is
	// flagged \Deleted, else it is as Flag. What another client flags just
	// before the EXPUNGE is lost, which RFC 1939 §6 forbids: only for a
	// mailbox that no other client deletes from.
	ExpungeIfAlone WithoutUIDPLUS = "expunge-if-alone"
	// Refuse removes nothing and says so at QUIT.
	Refuse WithoutUIDPLUS = "refuse"
)

// MayFlag reports whether UPDATE may leave messages behind that are flagged
// \Deleted, on one upstream or another, which later sessions must not show.
func MayFlag(d Delete, w WithoutUIDPLUS) bool {
	switch d {
	case DeleteKeep:
		return false
	case DeleteFlag:
		return true
	}
	return w != Refuse
}

// Seen says when a message that RETR has delivered is flagged \Seen.
type Seen string

// The policies for \Seen.
const (
	SeenNever  Seen = "never"
	SeenOnRetr Seen = "on-retr"
	SeenOnQuit Seen = "on-quit"
)

// Sizes says where the octets that LIST announces come from.
type Sizes string

// The policies for sizes.
const (
	// SizesReported announces what the upstream reports, and what RETR has
	// found in an earlier session where that differs.
	SizesReported Sizes = "reported"
	// SizesExact reads each message once, before it is first announced.
	SizesExact Sizes = "exact"
)

// Options describe one upstream. The zero value of each field but Address is
// its default.
type Options struct {
	// Name identifies the upstream in logs and locks. Default: the host of
	// Address.
	Name string

	// Address is the upstream's "host:port".
	Address string

	// TLS is TLSImplicit by default. TLSNone is accepted for a loopback
	// Address only, unless Insecure is set.
	TLS      TLSMode
	Insecure bool

	// ServerName is the name the upstream's certificate must carry. Default:
	// the host of Address.
	ServerName string

	// RootCAs verifies the upstream's certificate. nil: the system's.
	RootCAs *x509.CertPool

	// Mailbox is the mailbox served, in UTF-8. Default: "INBOX".
	Mailbox string

	// Delete defaults to DeleteExpunge, WithoutUIDPLUS to Flag.
	Delete         Delete
	WithoutUIDPLUS WithoutUIDPLUS

	// Trash is the mailbox that messages are moved to, in UTF-8. Default: the
	// one that the upstream lists with the attribute \Trash (RFC 6154 §2). It
	// is made where it is missing, and must not be Mailbox.
	Trash string

	// Seen defaults to SeenNever.
	Seen Seen

	// UIDL is a template of unique-ids as ParseTemplate takes them, or
	// UIDLEmailID or UIDLGmail. Default: DefaultUIDL.
	UIDL string

	// UIDLMemory has unique-ids remembered in Store, so that they outlive a
	// change of UIDVALIDITY. UIDLImport, which needs it, holds those of a
	// former server.
	UIDLMemory bool
	UIDLImport *uniqueid.Import

	// ShowDeleted puts messages into the snapshot that were flagged \Deleted
	// before the session. It is refused where MayFlag reports true.
	ShowDeleted bool

	// ReadAhead bounds the octets that one session holds in memory of what
	// it has read ahead of its client, ReadAheadTotal those of all sessions,
	// in memory or on their way. Defaults: 1 MiB and 256 MiB. Negative: no
	// reading ahead.
	ReadAhead      int64
	ReadAheadTotal int64

	// KeepOpen is how long after a login that the upstream has verified its
	// connection may serve further logins with the same credential, which
	// the upstream is not asked about: 0 to 10 minutes, 0 for not at all.
	KeepOpen time.Duration

	// Sizes defaults to SizesReported.
	Sizes Sizes

	// Store remembers mailboxes between sessions. Several Backends may share
	// it, if their Names differ; it is closed by who opened it, after them.
	// nil: one of its own, of DefaultStoreMemory, that ends with the process.
	Store *store.Store

	// Compress asks the upstream for COMPRESS=DEFLATE (RFC 4978) where it
	// offers that, which costs a round trip at login.
	Compress bool

	// SendClientID tells the upstream by ID where the client comes from. It
	// is personal data, for an upstream that trusts the gateway and logs it.
	SendClientID bool

	// Version is told to the upstream by ID (RFC 2971).
	Version string
}
