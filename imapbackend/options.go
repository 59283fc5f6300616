package imapbackend

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"popgate/imapbackend/dialect"
	"popgate/imapbackend/internal/srv"
	"popgate/imapbackend/store"
	"popgate/imapbackend/uniqueid"
	"popgate/imapbackend/wire"
	"popgate/proxy"
	"popgate/proxy/endpoint"
)

// TLSMode says how the connection to the upstream is protected.
type TLSMode = proxy.TLSMode

// The modes of TLS towards the upstream (RFC 8314 §3, RFC 9051 §6.2.1).
const (
	TLSImplicit = proxy.TLSImplicit
	TLSStartTLS = proxy.TLSStartTLS
	TLSNone     = proxy.TLSNone
)

// Delete says what UPDATE does with the marked messages.
type Delete string

// The policies for marked messages.
const (
	// DeleteExpunge removes them for good. WithoutUIDPLUS says what to do
	// where the upstream cannot expunge these messages only.
	DeleteExpunge Delete = "expunge"
	// DeleteTrash moves them to the trash mailbox.
	DeleteTrash Delete = "trash"
	// DeleteFlag sets \Deleted and leaves the expunge to others; later
	// sessions hide messages with that flag.
	DeleteFlag Delete = "flag"
	// DeleteKeep does nothing: the next session shows them again.
	DeleteKeep Delete = "keep"
)

// Values returns all policies.
func (Delete) Values() []Delete { return []Delete{DeleteExpunge, DeleteTrash, DeleteFlag, DeleteKeep} }

// WithoutUIDPLUS says what UPDATE does where the upstream lacks UIDPLUS, so
// that no command removes exactly the marked messages.
type WithoutUIDPLUS string

// The policies for an upstream without UIDPLUS.
const (
	// Flag does what DeleteFlag does.
	Flag WithoutUIDPLUS = "flag"
	// Move moves the messages to the trash mailbox. Where the upstream
	// lacks MOVE too, they are copied there and then treated as by Flag.
	Move WithoutUIDPLUS = "move"
	// ExpungeIfAlone does what Flag does, and sends a plain EXPUNGE if no
	// other message is flagged \Deleted. What another client flags just
	// before the EXPUNGE is lost, which RFC 1939 §6 forbids: only for a
	// mailbox that no other client deletes from.
	ExpungeIfAlone WithoutUIDPLUS = "expunge-if-alone"
	// Refuse removes nothing, and QUIT fails.
	Refuse WithoutUIDPLUS = "refuse"
)

// Values returns all policies.
func (WithoutUIDPLUS) Values() []WithoutUIDPLUS {
	return []WithoutUIDPLUS{Flag, Move, ExpungeIfAlone, Refuse}
}

// Seen says when a message that RETR has delivered is flagged \Seen.
type Seen string

// The policies for \Seen.
const (
	SeenNever  Seen = "never"
	SeenOnRetr Seen = "on-retr"
	SeenOnQuit Seen = "on-quit"
)

// Values returns all policies.
func (Seen) Values() []Seen { return []Seen{SeenNever, SeenOnRetr, SeenOnQuit} }

// Sizes says where the octets that LIST announces come from.
type Sizes string

// The policies for sizes.
const (
	// SizesReported announces what the upstream reports, or what RETR has
	// delivered in an earlier session where that differs.
	SizesReported Sizes = "reported"
	// SizesExact reads each message once, before it is first announced.
	SizesExact Sizes = "exact"
)

// Values returns all policies.
func (Sizes) Values() []Sizes { return []Sizes{SizesReported, SizesExact} }

// MaxKeepOpen bounds Options.KeepOpen: an upstream may close a connection that
// has been idle for 30 minutes (RFC 9051 §5.4), and nothing is sent on a kept
// one.
const MaxKeepOpen = 10 * time.Minute

// Options describe one upstream. Start from Defaults, and set Address.
type Options struct {
	// Name identifies the upstream in logs and locks. "": SRV or the host of Address.
	Name string

	// Address is the upstream's "host:port", the port as a number.
	Address string

	// SRV is a domain whose SRV records (RFC 6186) have the addresses, instead of
	// Address and TLS. The certificate must name it, or a server within it.
	SRV string

	// TLS is TLSImplicit by default. TLSNone is accepted for a loopback
	// Address only, unless Insecure is set.
	TLS      TLSMode
	Insecure bool

	// ServerName is the name the upstream's certificate must carry. "": the
	// host of Address.
	ServerName string

	// RootCAs verify the upstream's certificate. nil: those of the system.
	RootCAs *x509.CertPool

	// Mailbox is the mailbox served, in UTF-8. Default: "INBOX".
	Mailbox string

	// Delete defaults to DeleteExpunge, WithoutUIDPLUS to Flag.
	Delete         Delete
	WithoutUIDPLUS WithoutUIDPLUS

	// Trash is the mailbox that messages are moved to, in UTF-8. "": the
	// one that the upstream lists with the attribute \Trash (RFC 6154 §2).
	// It is created if it does not exist, and must not be Mailbox.
	Trash string

	// Seen defaults to SeenNever.
	Seen Seen

	// UIDL is a template for unique-ids (see uniqueid.Parse),
	// uniqueid.SourceEmailID or uniqueid.SourceGmail. Default:
	// uniqueid.Default.
	UIDL string

	// UIDLMemory remembers unique-ids in Store, so that they outlive a
	// change of UIDVALIDITY. UIDLImport, which needs it, holds those of a
	// previous server.
	UIDLMemory bool
	UIDLImport *uniqueid.Import

	// ShowDeleted shows messages that were flagged \Deleted before the
	// session. It is refused where UPDATE may leave messages with that
	// flag: it needs DeleteKeep, or DeleteExpunge or DeleteTrash with
	// Refuse.
	ShowDeleted bool

	// ReadAhead bounds the octets that the read-ahead of one session holds
	// in memory, ReadAheadTotal those of all sessions, also of Backends
	// joined by ShareReadAhead, in memory or on their way, beyond 64 KiB of
	// each session that do not count. 0 or less: no read-ahead. Defaults:
	// 1 MiB and 256 MiB.
	ReadAhead      int64
	ReadAheadTotal int64

	// KeepOpen is how long after the upstream has verified a login its
	// connection may serve further logins with the same credential, without
	// asking the upstream: 0 to MaxKeepOpen. Default: 0, never. It excludes
	// SendClientID.
	KeepOpen time.Duration

	// MaxLogins is how many logins may hold a connection to the upstream at a
	// time until it has verified the user; the others wait their turn. It includes
	// the connections that are opened ahead. 0: any number. Default: 64.
	MaxLogins int

	// Observer is informed of the connections to the upstream. nil: none.
	Observer proxy.Observer

	// Tap returns what sees all that a new connection carries, credentials too. It may be nil.
	Tap func() wire.Tap

	// Sizes defaults to SizesReported.
	Sizes Sizes

	// Store remembers mailboxes between sessions. Backends with different
	// Names may share one; the caller closes it, after the Backends. nil:
	// a store in memory, of store.DefaultMemory octets, for this Backend
	// only.
	Store *store.Store

	// Compress asks the upstream for COMPRESS=DEFLATE (RFC 4978) where it
	// offers that, which costs a round trip at login.
	Compress bool

	// Dialect says how the upstream is addressed where servers differ. New sets Host to that
	// of Address. Default: as the upstream announces, and as is learned.
	Dialect dialect.Choice

	// SendClientID reports the client's address to the upstream by ID.
	// That is personal data, for an upstream that trusts the gateway and
	// logs it.
	SendClientID bool

	// Version is reported to the upstream by ID (RFC 2971) as the version
	// of the gateway. "": no version.
	Version string
}

// Defaults returns Options with all defaults, and no Address.
func Defaults() Options {
	return Options{
		TLS:            TLSImplicit,
		Mailbox:        "INBOX",
		Delete:         DeleteExpunge,
		WithoutUIDPLUS: Flag,
		Seen:           SeenNever,
		UIDL:           uniqueid.Default,
		ReadAhead:      1 << 20,
		ReadAheadTotal: 256 << 20,
		MaxLogins:      64,
		Sizes:          SizesReported,
		Dialect:        dialect.Defaults(),
	}
}

// An OptionError says what is wrong with one of the Options.
type OptionError struct {
	// Option is the option's name as a configuration spells it: "keep_open"
	// for KeepOpen; "deleted_messages" for ShowDeleted.
	Option string

	// Others are the options with which it is in conflict, spelled likewise.
	Others []string

	// Err says what is wrong with the value, to be read after the option's
	// name.
	Err error
}

// Error names the option and says what is wrong.
func (e *OptionError) Error() string { return e.Option + ": " + e.Err.Error() }

// Unwrap returns the cause.
func (e *OptionError) Unwrap() error { return e.Err }

// OptionErrors are all errors of Options.
type OptionErrors []*OptionError

// Error returns one line for each error.
func (es OptionErrors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Resolve returns o with the values that follow from others, and its errors,
// nil for none.
func (o Options) Resolve() (Options, OptionErrors) {
	if o.Name == "" {
		o.Name = o.SRV
	}
	host, _, err := endpoint.Split(o.Address, 1)
	if err == nil {
		if o.Name == "" {
			o.Name = host
		}
		if o.ServerName == "" {
			o.ServerName = host
		}
	}
	var wrong OptionErrors
	for _, r := range optionRules {
		if err := r.check(&o); err != nil {
			wrong = append(wrong, &OptionError{r.option, r.others, err})
		}
	}
	return o, wrong
}

// optionRules are what Options must fulfil. A rule with others checks the
// values of these options too: its error may follow from an error of theirs.
var optionRules = []struct {
	option string
	others []string
	check  func(*Options) error
}{
	{"address", nil, checkAddress},
	{"srv", []string{"address"}, checkSRV},
	{"tls", nil, func(o *Options) error { return known(o.TLS) }},
	{"tls", []string{"address", "insecure"}, checkPlain},
	{"server_name", []string{"address"}, checkServerName},
	{"mailbox", nil, func(o *Options) error { return printable(o.Mailbox) }},
	{"delete", nil, func(o *Options) error { return known(o.Delete) }},
	{"without_uidplus", nil, func(o *Options) error { return known(o.WithoutUIDPLUS) }},
	{"trash", nil, func(o *Options) error { return printable(o.Trash) }},
	{"trash", []string{"mailbox"}, checkTrash},
	{"seen", nil, func(o *Options) error { return known(o.Seen) }},
	{"uidl", nil, checkUIDL},
	{"uidl_import", []string{"uidl_memory"}, checkImport},
	{"deleted_messages", []string{"delete", "without_uidplus"}, checkShowDeleted},
	{"keep_open", nil, checkKeepOpen},
	{"keep_open", []string{"send_client_id"}, checkKeptClient},
	{"sizes", nil, func(o *Options) error { return known(o.Sizes) }},
	{"profile", nil, func(o *Options) error { return known(o.Dialect.Profile) }},
	{"pipelining", nil, func(o *Options) error { return known(o.Dialect.Pipelining) }},
	{"send_id", nil, func(o *Options) error { return known(o.Dialect.SendID) }},
	{"authenticate", nil, func(o *Options) error { return known(o.Dialect.Authenticate) }},
	{"search", nil, func(o *Options) error { return known(o.Dialect.Search) }},
	{"partial_fetch", nil, func(o *Options) error { return known(o.Dialect.PartialFetch) }},
	{"max_user_connections", nil, checkUserConnections},
	{"max_logins", nil, checkMaxLogins},
}

// known refuses a value that its type does not have.
func known[T interface {
	~string
	Values() []T
}](v T) error {
	if !slices.Contains(v.Values(), v) {
		return fmt.Errorf("unknown value %q", string(v))
	}
	return nil
}

// printable refuses a mailbox name that is not text.
func printable(mailbox string) error {
	if !utf8.ValidString(mailbox) || strings.ContainsFunc(mailbox, unicode.IsControl) {
		return fmt.Errorf("%q is not printable UTF-8", mailbox)
	}
	return nil
}

// checkSRV refuses a domain that is none, or whose servers are given otherwise.
func checkSRV(o *Options) error {
	switch {
	case o.SRV != "" && o.Address+o.ServerName != "":
		return errors.New("has no effect with address or server_name")
	case o.SRV != "" && !srv.IsDomain(o.SRV):
		return fmt.Errorf("%q is not a domain", o.SRV)
	}
	return nil
}

func checkAddress(o *Options) error {
	host, _, err := endpoint.Split(o.Address, 1)
	switch {
	case o.Address == "" && o.SRV != "":
	case o.Address == "":
		return errors.New("missing")
	case err != nil:
		return err
	case host == "":
		return fmt.Errorf("%q has no host", o.Address)
	}
	return nil
}

func checkPlain(o *Options) error {
	host, _, err := endpoint.Split(o.Address, 1)
	if err == nil && host != "" && o.TLS == TLSNone && !o.Insecure && !endpoint.IsLoopback(host) {
		return fmt.Errorf(`"none" would send passwords to %s in the clear`, host)
	}
	return nil
}

func checkServerName(o *Options) error {
	if host, _, err := endpoint.Split(o.Address, 1); err == nil && o.ServerName == host {
		return nil // the default, such as an IPv6 address with a zone
	}
	if strings.ContainsAny(o.ServerName, ":/ ") && net.ParseIP(o.ServerName) == nil {
		return fmt.Errorf("%q is not a host name", o.ServerName)
	}
	return nil
}

func checkTrash(o *Options) error {
	if sameMailbox(o.Trash, o.Mailbox) {
		return fmt.Errorf("%q is the mailbox that is served", o.Trash)
	}
	return nil
}

func checkUIDL(o *Options) error {
	if _, err := uniqueid.ForMailbox(o.UIDL, o.Mailbox); err != nil {
		return fmt.Errorf("%q %w", o.UIDL, err)
	}
	return nil
}

func checkImport(o *Options) error {
	if o.UIDLImport != nil && !o.UIDLMemory {
		return errors.New("has no effect without uidl_memory")
	}
	return nil
}

// checkShowDeleted refuses to show what UPDATE may have only flagged \Deleted
// in an earlier session.
func checkShowDeleted(o *Options) error {
	switch {
	case !o.ShowDeleted || o.Delete == DeleteKeep:
	case o.Delete == DeleteFlag:
		return errors.New(`"show" would bring back what delete = "flag" has removed`)
	case o.WithoutUIDPLUS != Refuse:
		return fmt.Errorf(`"show" would bring back what without_uidplus = %q has removed`, string(o.WithoutUIDPLUS))
	}
	return nil
}

func checkUserConnections(o *Options) error {
	if o.Dialect.UserConnections < 0 {
		return fmt.Errorf("%d is negative", o.Dialect.UserConnections)
	}
	return nil
}

func checkMaxLogins(o *Options) error {
	if o.MaxLogins < 0 {
		return fmt.Errorf("%d is negative", o.MaxLogins)
	}
	return nil
}

func checkKeepOpen(o *Options) error {
	if o.KeepOpen < 0 || o.KeepOpen > MaxKeepOpen {
		return fmt.Errorf("%v is not from 0 to %v", o.KeepOpen, MaxKeepOpen)
	}
	return nil
}

// checkKeptClient refuses to serve a client on a connection on which another
// client was reported.
func checkKeptClient(o *Options) error {
	if o.KeepOpen > 0 && o.SendClientID {
		return errors.New("keeps connections on which another client was reported to the upstream")
	}
	return nil
}
