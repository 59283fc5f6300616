package imapbackend

import (
	"crypto/x509"
	"time"

	"popgate/imapbackend/store"
)

// TLSMode says how the connection to the upstream is protected.
type TLSMode string

// The modes of TLS towards the upstream (RFC 8314 §3, RFC 9051 §6.2.1).
const (
	TLSImplicit TLSMode = "implicit"
	TLSStartTLS TLSMode = "starttls"
	TLSNone     TLSMode = "none"
)

// WithoutUIDPLUS says what UPDATE does where the upstream lacks UIDPLUS, so
// that no command removes exactly the marked messages.
type WithoutUIDPLUS string

// The policies for an upstream without UIDPLUS.
const (
	// Flag sets \Deleted and leaves the expunge to others; later sessions
	// hide what is so flagged.
	Flag WithoutUIDPLUS = "flag"
	// Refuse removes nothing and says so at QUIT.
	Refuse WithoutUIDPLUS = "refuse"
)

// Seen says when a message that RETR has delivered is flagged \Seen.
type Seen string

// The policies for \Seen.
const (
	SeenNever  Seen = "never"
	SeenOnRetr Seen = "on-retr"
	SeenOnQuit Seen = "on-quit"
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

	// WithoutUIDPLUS defaults to Flag, Seen to SeenNever.
	WithoutUIDPLUS WithoutUIDPLUS
	Seen           Seen

	// UIDL is a template of unique-ids as ParseTemplate takes them. Default:
	// DefaultUIDL.
	UIDL string

	// ShowDeleted puts messages into the snapshot that were flagged \Deleted
	// before the session. It is refused together with Flag.
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
