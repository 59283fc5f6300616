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

	"popgate/imapbackend/store"
	"popgate/imapbackend/uniqueid"
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

// Values returns the policies there are.
func (Delete) Values() []Delete { return []Delete{DeleteExpunge, DeleteTrash, DeleteFlag, DeleteKeep} }

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

// Values returns the policies there are.
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

// Values returns the policies there are.
func (Seen) Values() []Seen { return []Seen{SeenNever, SeenOnRetr, SeenOnQuit} }

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

// Values returns the policies there are.
func (Sizes) Values() []Sizes { return []Sizes{SizesReported, SizesExact} }

// MaxKeepOpen bounds Options.KeepOpen: an upstream may log off after 30 minutes
// (RFC 9051 §5.4), and nothing is sent on a kept connection.
const MaxKeepOpen = 10 * time.Minute

// Options describe one upstream. Defaults returns those to start from; Address
// has no default.
type Options struct {
	// Name identifies the upstream in logs and locks. "": the host of Address.
	Name string

	// Address is the upstream's "host:port", the port as a number.
	Address string

	// TLS is TLSImplicit by default. TLSNone is accepted for a loopback
	// Address only, unless Insecure is set.
	TLS      TLSMode
	Insecure bool

	// ServerName is the name the upstream's certificate must carry. "": the
	// host of Address.
	ServerName string

	// RootCAs verifies the upstream's certificate. nil: the system's.
	RootCAs *x509.CertPool

	// Mailbox is the mailbox served, in UTF-8. Default: "INBOX".
	Mailbox string

	// Delete defaults to DeleteExpunge, WithoutUIDPLUS to Flag.
	Delete         Delete
	WithoutUIDPLUS WithoutUIDPLUS

	// Trash is the mailbox that messages are moved to, in UTF-8. "": the one
	// that the upstream lists with the attribute \Trash (RFC 6154 §2). It is
	// created where it is missing, and must not be Mailbox.
	Trash string

	// Seen defaults to SeenNever.
	Seen Seen

	// UIDL is a template of unique-ids as uniqueid.Parse takes them, or
	// uniqueid.SourceEmailID or uniqueid.SourceGmail. Default:
	// uniqueid.Default.
	UIDL string

	// UIDLMemory remembers unique-ids in Store, so that they outlive a change
	// of UIDVALIDITY. UIDLImport, which needs it, holds those of a former
	// server.
	UIDLMemory bool
	UIDLImport *uniqueid.Import

	// ShowDeleted puts messages into the snapshot that were flagged \Deleted
	// before the session. It is refused where UPDATE may leave messages that
	// are flagged so: with DeleteFlag, and without DeleteKeep unless
	// WithoutUIDPLUS is Refuse.
	ShowDeleted bool

	// ReadAhead bounds the octets that one session holds in memory of what
	// it has read ahead of its client, ReadAheadTotal those of all sessions,
	// in memory or on their way. 0 or less: no reading ahead. Defaults: 1 MiB
	// and 256 MiB.
	ReadAhead      int64
	ReadAheadTotal int64

	// KeepOpen is how long after a login that the upstream has verified its
	// connection may serve further logins with the same credential, which
	// the upstream is not asked about: 0 to MaxKeepOpen. Default: 0, not at
	// all. It excludes SendClientID.
	KeepOpen time.Duration

	// Observer is informed of the connections to the upstream. nil: nobody
	// is.
	Observer proxy.Observer

	// Sizes defaults to SizesReported.
	Sizes Sizes

	// Store remembers mailboxes between sessions. Several Backends may share
	// it, if their Names differ; its owner closes it, after them. nil: one of
	// its own, of store.DefaultMemory, that ends with the process.
	Store *store.Store

	// Compress asks the upstream for COMPRESS=DEFLATE (RFC 4978) where it
	// offers that, which costs a round trip at login.
	Compress bool

	// SendClientID reports to the upstream by ID where the client comes from.
	// It is personal data, for an upstream that trusts the gateway and logs
	// it.
	SendClientID bool

	// Version is reported to the upstream by ID (RFC 2971).
	Version string
}

// Defaults returns the Options from which to start.
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
		Sizes:          SizesReported,
	}
}

// An OptionError is what is wrong with one of the Options.
type OptionError struct {
	// Option is the option's name as a configuration spells it: "keep_open"
	// for KeepOpen; "deleted_messages" for ShowDeleted.
	Option string

	// Others are the options whose values it does not go with, spelt so too.
	Others []string

	// Err is what is wrong with the value, as said after the option's name.
	Err error
}

func (e *OptionError) Error() string { return e.Option + ": " + e.Err.Error() }
func (e *OptionError) Unwrap() error { return e.Err }

// OptionErrors are all that is wrong with Options.
type OptionErrors []*OptionError

// Error returns one line for each.
func (es OptionErrors) Error() string {
	lines := make([]string, len(es))
	for i, e := range es {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// Resolve returns o with the values that follow from others, and what is wrong
// with it, nil for nothing.
func (o Options) Resolve() (Options, OptionErrors) {
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

// optionRules are what Options must fulfil. A rule with others looks at the
// values of these options too. It has nothing to say while one of them breaks a
// rule of its own.
var optionRules = []struct {
	option string
	others []string
	check  func(*Options) error
}{
	{"address", nil, checkAddress},
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
}

// known refuses what is none of the values of its type.
func known[T interface {
	~string
	Values() []T
}](v T) error {
	if !slices.Contains(v.Values(), v) {
		return fmt.Errorf("unknown value %q", string(v))
	}
	return nil
}

// printable refuses names of mailboxes that are not text.
func printable(mailbox string) error {
	if !utf8.ValidString(mailbox) || strings.ContainsFunc(mailbox, unicode.IsControl) {
		return fmt.Errorf("%q is not printable UTF-8", mailbox)
	}
	return nil
}

func checkAddress(o *Options) error {
	host, _, err := endpoint.Split(o.Address, 1)
	switch {
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

// checkShowDeleted refuses to show in a later session what UPDATE has only
// flagged \Deleted, on one upstream or another.
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

func checkKeepOpen(o *Options) error {
	if o.KeepOpen < 0 || o.KeepOpen > MaxKeepOpen {
		return fmt.Errorf("%v is not from 0 to %v", o.KeepOpen, MaxKeepOpen)
	}
	return nil
}

// checkKeptClient refuses to serve a client by a connection on which another
// one was reported.
func checkKeptClient(o *Options) error {
	if o.KeepOpen > 0 && o.SendClientID {
		return errors.New("keeps connections on which another client was reported to the upstream")
	}
	return nil
}
