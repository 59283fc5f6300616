package imapbackend

import (
	"context"
	"encoding/base64"
	"errors"
	"strings"

	"github.com/emersion/go-sasl"
	"golang.org/x/text/secure/precis"

	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// authenticate brings a connection that has greeted to where the mailbox is
// named but not selected. On error the caller closes the connection. Errors are
// *proxy.Error.
func (u *upstream) authenticate(ctx context.Context, cred proxy.Credential) (id proxy.Identity, err error) {
	defer u.watch(ctx)()
	if strings.ContainsRune(cred.Authzid+cred.Username+cred.Password, 0) {
		return id, withCause(proxy.ErrAuth, errors.New("NUL in a credential"))
	}
	u.secrets = secretsOf(cred)
	mailboxID, err := u.logIn(ctx, cred)
	if err != nil {
		return id, err
	}
	u.clientUTF8 = cred.UTF8
	return u.identify(ctx, CanonicalUser(cred.Authzid, cred.Username), mailboxID)
}

// identify learns, after the login, which mailbox is user's.
func (u *upstream) identify(ctx context.Context, user, mailboxID string) (id proxy.Identity, err error) {
	if u.conn.Capabilities() == nil {
		if err := u.askCapabilities(ctx); err != nil {
			return id, err
		}
	}
	if err := u.enableUTF8(ctx); err != nil {
		return id, err
	}
	hasIDs := u.conn.Has("OBJECTID")
	u.server.objectID.Store(hasIDs)
	if hasIDs && mailboxID == "" {
		if mailboxID, err = u.askMailboxID(ctx); err != nil {
			return id, err
		}
	}
	if err := u.compress(ctx); err != nil {
		return id, err
	}
	return proxy.Identity{
		Upstream:  u.opts.Name,
		User:      user,
		Mailbox:   u.opts.Mailbox,
		MailboxID: mailboxID,
	}, nil
}

// CanonicalUser returns the name in which two spellings of one user are equal.
// What the upstream gets is the client's octets (requirement P-AUTH-6).
func CanonicalUser(authzid, username string) string {
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
	if err == nil && plain && initial && u.server.objectID.Load() {
		ops = append(ops, u.mailboxIDCommand())
		err = u.conn.Start(u.mailboxIDCommand())
	}
	// Capabilities announced before the login hold no longer, except those in
	// its answer; no answer that reports success has been read yet.
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

// mailboxIDCommand asks for the mailbox-id before SELECT, so that two names of
// one mailbox have one lock (RFC 8474 §4.3).
func (u *upstream) mailboxIDCommand() string {
	return "STATUS " + u.mailboxName() + " (MAILBOXID)"
}

// askMailboxID sends that question by itself. Without an answer the mailbox's
// name serves.
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
