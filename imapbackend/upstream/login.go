package upstream

import (
	"context"
	"encoding/base64"
	"errors"
	"slices"
	"strings"

	"github.com/emersion/go-sasl"
	"golang.org/x/text/secure/precis"

	"popgate/imapbackend/dialect"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// Login verifies the user and returns the identity of the maildrop, which it
// does not select. From then on Clean removes the credential from texts. On
// error the caller closes the connection. Errors are *proxy.Error.
func (c *Conn) Login(ctx context.Context, cred proxy.Credential) (id proxy.Identity, err error) {
	defer c.Watch(ctx)()
	if strings.ContainsRune(cred.Authzid+cred.Username+cred.Password, 0) {
		return id, WithCause(proxy.ErrAuth, errors.New("NUL in a credential"))
	}
	c.secrets = secretsOf(cred)
	c.account = c.server.waits.account(cred.Authzid, cred.Username, cred.Password)
	mailboxID, err := c.logIn(ctx, cred)
	if err != nil {
		return id, err
	}
	c.accepted = true
	c.clientUTF8 = cred.UTF8
	return c.identify(ctx, CanonicalUser(cred.Authzid, cred.Username), mailboxID)
}

// identify enables UTF-8 and compression after the login, and returns the
// identity of the maildrop.
func (c *Conn) identify(ctx context.Context, user, mailboxID string) (id proxy.Identity, err error) {
	if c.Wire.Capabilities() == nil {
		if err := c.askCapabilities(ctx); err != nil {
			return id, err
		}
	}
	if err := c.enableUTF8(ctx); err != nil {
		return id, err
	}
	hasIDs := c.Wire.Has("OBJECTID")
	c.server.objectID.Store(hasIDs)
	c.server.accountID.Store(slices.ContainsFunc(c.Wire.Capabilities(), func(name string) bool {
		return strings.HasSuffix(name, "ACCOUNTID") // of a draft; its name is not final
	}))
	if hasIDs && mailboxID == "" {
		if mailboxID, err = c.askMailboxID(ctx); err != nil {
			return id, err
		}
	}
	if err := c.compress(ctx); err != nil {
		return id, err
	}
	return proxy.Identity{
		Upstream:  c.opts.Name,
		User:      user,
		Mailbox:   c.opts.Mailbox,
		MailboxID: mailboxID,
		AccountID: c.accountID,
	}, nil
}

// CanonicalUser returns one name for all spellings of a user: authzid if it is
// not "", else username, with case and Unicode normalised (RFC 8265). The
// upstream gets the name as the client spelled it (requirement P-AUTH-6).
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

// logIn sends the credential in the form that the upstream offers (requirement
// P-SASL-1). If the dialect allows that, ID and, to an upstream known to
// answer it, the question for the mailbox-id are in the same flight. It does
// so without go-imap, which can wait forever for the continuation before a
// literal.
func (c *Conn) logIn(ctx context.Context, cred proxy.Credential) (mailboxID string, err error) {
	plain := c.Wire.Has("AUTH=PLAIN") && c.uses(dialect.Authenticate)
	switch {
	case plain:
	case c.Wire.Has("LOGINDISABLED"):
		return "", SetupError(errors.New("imap: the upstream offers neither AUTH=PLAIN nor LOGIN"))
	case cred.Authzid != "":
		return "", SetupError(errors.New("imap: an authorization identity needs AUTH=PLAIN, which the upstream does not offer"))
	case !isASCII(cred.Username + cred.Password):
		return "", SetupError(errors.New("imap: a name or password beyond ASCII needs AUTH=PLAIN, which the upstream does not offer"))
	}
	var ops []string
	if c.uses(dialect.IDFlight) && c.sendsID() {
		ops = append(ops, c.opts.idCommand(ctx))
		err = c.Wire.Start(ops[0])
	}
	login := len(ops)
	initial := c.initialResponse()
	if plain {
		ops = append(ops, "AUTHENTICATE PLAIN")
		_, response, _ := sasl.NewPlainClient(cred.Authzid, cred.Username, cred.Password).Start() // never fails
		encoded := base64.StdEncoding.EncodeToString(response)
		err = errors.Join(err, c.Wire.StartAuthenticate("PLAIN", encoded, initial))
	} else {
		ops = append(ops, "LOGIN")
		err = errors.Join(err, c.Wire.StartLogin(cred.Username, cred.Password, literals(c.Wire)))
	}
	if err == nil && c.uses(dialect.LoginFlight) && plain && initial && c.server.objectID.Load() {
		ops = append(ops, c.mailboxIDCommand())
		err = c.Wire.Start(c.mailboxIDCommand())
	}
	// Capabilities announced before the login are no longer valid. Those
	// in its answer are, and have not been read yet.
	c.Wire.ForgetCapabilities()
	status := make([]wire.Status, len(ops))
	if err == nil {
		status, err = c.Answers(ctx, ops, func(ev wire.Event) { c.takeMailboxID(&mailboxID, ev) })
	}
	if err != nil {
		return "", c.Failed(AtLogin, ops[login], wire.Status{}, err)
	}
	if !status[login].OK() {
		return "", c.Failed(AtLogin, ops[login], status[login], nil)
	}
	return mailboxID, nil
}

// initialResponse reports whether the response is to be sent with AUTHENTICATE.
func (c *Conn) initialResponse() bool {
	return c.Wire.Has("SASL-IR") && c.uses(dialect.InitialResponse)
}

// literals returns which literals the upstream accepts without a continuation
// request (RFC 7888).
func literals(conn *wire.Conn) wire.Literals {
	switch {
	case conn.Has("LITERAL+"):
		return wire.AnyLiterals
	case conn.Has("LITERAL-"):
		return wire.ShortLiterals
	}
	return wire.NoLiterals
}

func isASCII(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r > '~'+1 }) < 0
}

// enableUTF8 enables UTF8=ACCEPT for a client in UTF8 mode, and for every
// client of an upstream that requires it (RFC 6855 §3, §6). The upstream may
// then deliver headers beyond ASCII, and the gateway must not send those to a
// client without UTF8 mode.
func (c *Conn) enableUTF8(ctx context.Context) error {
	only := c.Wire.Has("UTF8=ONLY")
	if !only && !(c.clientUTF8 && c.Wire.Has("UTF8=ACCEPT")) {
		return nil
	}
	const cmd = "ENABLE UTF8=ACCEPT"
	status, err := c.run(ctx, cmd)
	switch {
	case err != nil || !status.OK() && only:
		return c.Failed(AtConnect, cmd, status, err)
	case !status.OK():
		return nil // the upstream still delivers ASCII
	}
	c.utf8 = true
	return nil
}

// compress starts DEFLATE (RFC 4978) if that is configured and the upstream
// offers it: after the login, so that no password is compressed together with
// other data. A refusal changes nothing.
func (c *Conn) compress(ctx context.Context) error {
	if !c.opts.Compress || !c.Wire.Has("COMPRESS=DEFLATE") {
		return nil
	}
	status, err := c.run(ctx, "COMPRESS DEFLATE")
	if err != nil {
		return c.Lost(AtConnect, err)
	}
	if status.OK() {
		c.Wire.Compress()
	}
	return nil
}

// mailboxIDCommand returns the command that asks for the mailbox-id, by which
// two names of one mailbox share a lock (RFC 8474 §4.3), and for the account that
// it is unique in where the upstream has ids of accounts.
func (c *Conn) mailboxIDCommand() string {
	items := " (MAILBOXID)"
	if c.server.accountID.Load() {
		items = " (MAILBOXID ACCOUNTID)"
	}
	return "STATUS " + c.MailboxName() + items
}

// askMailboxID sends that command. id is "" if the upstream does not give it.
func (c *Conn) askMailboxID(ctx context.Context) (id string, err error) {
	cmd := c.mailboxIDCommand()
	if _, err = c.Collect(ctx, cmd, func(ev wire.Event) { c.takeMailboxID(&id, ev) }); err != nil {
		return "", c.Lost(AtSelect, err)
	}
	return id, nil
}

// takeMailboxID sets id, and the account of the connection, from an answer to
// STATUS.
func (c *Conn) takeMailboxID(id *string, ev wire.Event) {
	if ev.Kind == wire.Data && ev.Name == "STATUS" {
		*id = statusID(ev.Text, "MAILBOXID")
		c.accountID = statusID(ev.Text, "ACCOUNTID")
	}
}

// statusID finds an id in what follows STATUS: the mailbox's name, which may
// contain anything, and a list at the end of the line.
func statusID(text, item string) string {
	item += " ("
	i := len(text) - len(item)
	for i >= 0 && !strings.EqualFold(text[i:i+len(item)], item) {
		i--
	}
	if i < 0 {
		return ""
	}
	id, _, ok := strings.Cut(text[i+len(item):], ")")
	if !ok || len(id) > 255 {
		return ""
	}
	return strings.TrimSpace(id)
}
