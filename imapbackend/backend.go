package imapbackend

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"unicode"
	"unicode/utf8"

	"github.com/emersion/go-sasl"
	"golang.org/x/text/secure/precis"

	"popgate/imapbackend/internal/eyeballs"
	"popgate/imapbackend/store"
	"popgate/imapbackend/uniqueid"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// Backend logs users in on one upstream. It is safe for concurrent use.
type Backend struct {
	opts      Options
	form      *uniqueid.Template       // of unique-ids
	source    uniqueid.Kind            // in place of form
	objectID  atomic.Bool              // the upstream had OBJECTID at the last login
	told      atomic.Pointer[[]string] // its capabilities before the last login; nil: not known
	tls       *tls.Config              // shared, never changed
	store     *store.Store
	readAhead *budget
	keeper    *keeper
	waiting   chan struct{}                           // full of one for each connection that is prepared
	dial      func(context.Context) (net.Conn, error) // replaced by tests
}

var (
	_ proxy.Backend   = (*Backend)(nil)
	_ proxy.Exchanger = (*Backend)(nil)
)

// New checks opts and returns a Backend. It does not contact the upstream.
func New(opts Options) (*Backend, error) {
	host, port, err := net.SplitHostPort(opts.Address)
	if err != nil || host == "" || port == "" {
		return nil, fmt.Errorf("address %q is not host:port", opts.Address)
	}
	number, err := net.LookupPort("tcp", port)
	if err != nil {
		return nil, fmt.Errorf("address %q: %w", opts.Address, err)
	}
	setDefault(&opts.Name, host)
	setDefault(&opts.ServerName, host)
	setDefault(&opts.TLS, TLSImplicit)
	setDefault(&opts.Mailbox, "INBOX")
	setDefault(&opts.Delete, DeleteExpunge)
	setDefault(&opts.WithoutUIDPLUS, Flag)
	setDefault(&opts.Seen, SeenNever)
	setDefault(&opts.Sizes, SizesReported)
	switch {
	case !slices.Contains([]TLSMode{TLSImplicit, TLSStartTLS, TLSNone}, opts.TLS):
		err = fmt.Errorf("unknown TLS mode %q", opts.TLS)
	case opts.TLS == TLSNone && !opts.Insecure && !isLoopback(host):
		err = errors.New("an upstream without TLS must be on a loopback address, or insecure must be set")
	case !slices.Contains([]Delete{DeleteExpunge, DeleteTrash, DeleteFlag, DeleteKeep}, opts.Delete):
		err = fmt.Errorf("unknown policy %q for marked messages", opts.Delete)
	case !slices.Contains([]WithoutUIDPLUS{Flag, Move, ExpungeIfAlone, Refuse}, opts.WithoutUIDPLUS):
		err = fmt.Errorf("unknown policy %q without UIDPLUS", opts.WithoutUIDPLUS)
	case !slices.Contains([]Sizes{SizesReported, SizesExact}, opts.Sizes):
		err = fmt.Errorf("unknown policy %q for sizes", opts.Sizes)
	case !slices.Contains([]Seen{SeenNever, SeenOnRetr, SeenOnQuit}, opts.Seen):
		err = fmt.Errorf("unknown policy %q for \\Seen", opts.Seen)
	case !isMailboxName(opts.Mailbox):
		err = fmt.Errorf("mailbox %q is not printable UTF-8", opts.Mailbox)
	case !isMailboxName(opts.Trash):
		err = fmt.Errorf("trash %q is not printable UTF-8", opts.Trash)
	case SameMailbox(opts.Trash, opts.Mailbox):
		err = fmt.Errorf("trash %q is the mailbox served", opts.Trash)
	case opts.KeepOpen < 0 || opts.KeepOpen > maxKeepOpen:
		err = fmt.Errorf("connections are kept open for up to %v, not %v", maxKeepOpen, opts.KeepOpen)
	case opts.UIDLImport != nil && !opts.UIDLMemory:
		err = errors.New("unique-ids can be imported only where they are remembered")
	case opts.ShowDeleted && MayFlag(opts.Delete, opts.WithoutUIDPLUS):
		err = errors.New("messages that UPDATE only flags \\Deleted must be hidden from later sessions")
	}
	if err != nil {
		return nil, err
	}
	form, err := uniqueid.ForMailbox(opts.UIDL, opts.Mailbox)
	if err != nil {
		return nil, err
	}
	if opts.ReadAhead == 0 {
		opts.ReadAhead = defaultReadAhead
	}
	if opts.ReadAheadTotal == 0 {
		opts.ReadAheadTotal = defaultReadAheadTotal
	}
	if opts.Store == nil {
		opts.Store = store.NewMemory(DefaultStoreMemory)
	}
	b := &Backend{
		opts:      opts,
		form:      form,
		source:    uniqueid.ParseSource(opts.UIDL),
		tls:       opts.tlsConfig(),
		store:     opts.Store,
		readAhead: &budget{left: opts.ReadAheadTotal},
		keeper:    newKeeper(opts.KeepOpen),
		waiting:   make(chan struct{}, maxPrepared),
	}
	b.dial = func(ctx context.Context) (net.Conn, error) {
		return eyeballs.New().Connect(ctx, host, uint16(number))
	}
	return b, nil
}

// Close ends the connections that wait for a next login. Sessions go on, and
// those that end later log out.
func (b *Backend) Close() error {
	b.keeper.close()
	return nil
}

func setDefault[T ~string](v *T, def T) {
	if *v == "" {
		*v = def
	}
}

func isMailboxName(name string) bool {
	return utf8.ValidString(name) && !strings.ContainsFunc(name, unicode.IsControl)
}

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// Login implements proxy.Backend: it connects, verifies the user, and learns
// which mailbox that is. All this has been done where a connection is kept for
// that credential.
func (b *Backend) Login(ctx context.Context, cred proxy.Credential) (proxy.Login, error) {
	if l := b.resume(ctx, cred); l != nil {
		return l, nil
	}
	l, err := b.verify(ctx, cred)
	if err != nil {
		return nil, err
	}
	return l, nil
}

// verify connects and logs in.
func (b *Backend) verify(ctx context.Context, cred proxy.Credential) (*login, error) {
	u, err := b.connect(ctx)
	if err != nil {
		return nil, err
	}
	l, err := u.authenticate(ctx, cred)
	if err != nil {
		u.logout(ctx)
		return nil, err
	}
	return l, nil
}

// login is a verified user on a connection without a selected mailbox.
type login struct {
	u       *upstream // nil once a Maildrop owns it
	id      proxy.Identity
	again   relogin           // nil: what the client has said serves for one login
	resumed *proxy.Credential // of a kept connection that has not proved to be alive
}

// relogin logs the same user in on a new connection. It holds the credential,
// in memory only and for as long as the session lasts.
type relogin func(context.Context) (*login, error)

func (b *Backend) repeat(cred proxy.Credential) relogin {
	return func(ctx context.Context) (*login, error) { return b.verify(ctx, cred) }
}

// authenticate brings a connection that has greeted to where the mailbox is
// named but not selected. On error the caller closes it.
func (u *upstream) authenticate(ctx context.Context, cred proxy.Credential) (*login, error) {
	defer u.watch(ctx)()
	if strings.ContainsRune(cred.Authzid+cred.Username+cred.Password, 0) {
		return nil, withCause(proxy.ErrAuth, errors.New("NUL in a credential"))
	}
	u.secrets = secretsOf(cred)
	u.user = cred.Authzid + "\x00" + cred.Username
	mailboxID, err := u.logIn(ctx, cred)
	if err != nil {
		return nil, err
	}
	u.clientUTF8 = cred.UTF8
	l, err := u.identify(ctx, canonical(cred.Authzid, cred.Username), mailboxID)
	if err != nil {
		return nil, err
	}
	l.again = u.backend.repeat(cred)
	u.ticket = u.backend.keeper.admit(cred, l.id)
	return l, nil
}

// identify learns, after the login, which mailbox is user's.
func (u *upstream) identify(ctx context.Context, user, mailboxID string) (_ *login, err error) {
	if u.conn.Capabilities() == nil {
		if err := u.askCapabilities(ctx); err != nil {
			return nil, err
		}
	}
	if err := u.enableUTF8(ctx); err != nil {
		return nil, err
	}
	hasIDs := u.conn.Has("OBJECTID")
	u.backend.objectID.Store(hasIDs)
	if hasIDs && mailboxID == "" {
		if mailboxID, err = u.askMailboxID(ctx); err != nil {
			return nil, err
		}
	}
	if err := u.compress(ctx); err != nil {
		return nil, err
	}
	id := proxy.Identity{
		Upstream:  u.opts.Name,
		User:      user,
		Mailbox:   u.opts.Mailbox,
		MailboxID: mailboxID,
	}
	return &login{u: u, id: id}, nil
}

// canonical returns the name by which two spellings of one user meet. What the
// upstream gets is the client's octets (requirement P-AUTH-6).
func canonical(authzid, username string) string {
	name := username
	if authzid != "" {
		name = authzid
	}
	if prepared, err := precis.UsernameCaseMapped.CompareKey(name); err == nil {
		return prepared
	}
	return name
}

// logIn sends the credential in the form that the upstream offers
// (requirement P-SASL-1), in one flight with ID and, to an upstream known to
// answer it, the question for the mailbox-id. It does so without go-imap, which
// can wait for ever for the word to send a literal.
func (u *upstream) logIn(ctx context.Context, cred proxy.Credential) (mailboxID string, err error) {
	plain := u.conn.Has("AUTH=PLAIN")
	switch {
	case plain:
	case u.conn.Has("LOGINDISABLED"):
		return "", setupError(errors.New("imap: the upstream offers neither AUTH=PLAIN nor LOGIN"))
	case cred.Authzid != "":
		return "", setupError(errors.New("imap: an authorization identity needs AUTH=PLAIN, which the upstream does not offer"))
	case !isASCII(cred.Username + cred.Password):
		return "", setupError(errors.New("imap: a name or password beyond ASCII needs AUTH=PLAIN, which the upstream does not offer"))
	}
	var ops []string
	if u.conn.Has("ID") {
		ops = append(ops, u.idCommand(ctx))
		err = u.conn.Start(ops[0])
	}
	login := len(ops)
	initial := u.conn.Has("SASL-IR")
	if plain {
		ops = append(ops, "AUTHENTICATE PLAIN")
		_, response, _ := sasl.NewPlainClient(cred.Authzid, cred.Username, cred.Password).Start() // never fails
		encoded := base64.StdEncoding.EncodeToString(response)
		err = errors.Join(err, u.conn.StartAuthenticate("PLAIN", encoded, initial))
	} else {
		ops = append(ops, "LOGIN")
		err = errors.Join(err, u.conn.StartLogin(cred.Username, cred.Password, u.literals()))
	}
	if err == nil && plain && initial && u.backend.objectID.Load() {
		ops = append(ops, u.mailboxIDCommand())
		err = u.conn.Start(u.mailboxIDCommand())
	}
	// What was told before the login is void with it, but for what comes in
	// its answer; no answer has been read that could be one to success.
	u.conn.ForgetCapabilities()
	status := make([]wire.Status, len(ops))
	if err == nil {
		status, err = u.answers(ctx, ops, func(ev wire.Event) { takeMailboxID(&mailboxID, ev) })
	}
	if err != nil {
		return "", u.failed(atLogin, ops[login], wire.Status{}, err)
	}
	if !status[login].OK() {
		return "", u.failed(atLogin, ops[login], status[login], nil)
	}
	return mailboxID, nil
}

// literals says which literals the upstream takes unasked.
func (u *upstream) literals() wire.Literals {
	switch {
	case u.conn.Has("LITERAL+"):
		return wire.AnyLiterals
	case u.conn.Has("LITERAL-"):
		return wire.ShortLiterals
	}
	return wire.NoLiterals
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > '~'+1 }) < 0
}

// Identity implements proxy.Login.
func (l *login) Identity() proxy.Identity { return l.id }

// Close implements proxy.Login.
func (l *login) Close() error {
	if l.u != nil {
		l.u.logout(context.Background())
		l.u = nil
	}
	return nil
}

// mailboxIDCommand asks for the mailbox-id before SELECT, so that two names of
// one mailbox have one lock (RFC 8474 §4.3).
func (u *upstream) mailboxIDCommand() string {
	return "STATUS " + u.mailboxName() + " (MAILBOXID)"
}

// askMailboxID sends that question by itself. Where there is no answer the
// mailbox's name serves.
func (u *upstream) askMailboxID(ctx context.Context) (id string, err error) {
	cmd := u.mailboxIDCommand()
	if _, err = u.collect(ctx, cmd, func(ev wire.Event) { takeMailboxID(&id, ev) }); err != nil {
		return "", u.lost(atSelect, err)
	}
	return id, nil
}

// takeMailboxID takes the mailbox-id out of an answer to STATUS.
func takeMailboxID(id *string, ev wire.Event) {
	if ev.Kind == wire.Data && ev.Name == "STATUS" {
		*id = statusMailboxID(ev.Text)
	}
}

// statusMailboxID finds the mailbox-id in what follows STATUS: the mailbox's
// name, which may hold anything, and a list at the end of the line.
func statusMailboxID(text string) string {
	const item = "MAILBOXID ("
	i := strings.LastIndex(strings.ToUpper(text), item)
	if i < 0 {
		return ""
	}
	id, _, ok := strings.Cut(text[i+len(item):], ")")
	if !ok || len(id) > 255 {
		return ""
	}
	return strings.TrimSpace(id)
}
