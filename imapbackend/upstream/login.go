package upstream

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
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
	if err := c.server.admit(ctx, c, CanonicalUser(cred.Authzid, cred.Username)); err != nil {
		return id, err
	}
	mailboxID, err := c.logIn(ctx, cred)
	c.judgedLogin(ctx, cred, err)
	if err != nil {
		return id, err
	}
	c.server.users.accept(c)
	c.stale = false
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

// logIn sends the credential in the form that the upstream offers and takes
// (requirement P-SASL-1). If AUTHENTICATE is rejected before a credential has been
// judged, LOGIN is tried.
func (c *Conn) logIn(ctx context.Context, cred proxy.Credential) (mailboxID string, err error) {
	lit, cannot := literals(c.Wire), c.cannotLogIn(cred)
	offered := c.Wire.Has("AUTH=PLAIN")
	if !offered && cannot != nil {
		return "", SetupError(cannot)
	}
	op, status, rejected := cmdAuthenticate, wire.Status{}, false
	byLogin := !offered || cannot == nil && !c.uses(dialect.Authenticate)
	if !byLogin {
		status, rejected, err = c.authenticate(ctx, cred, &mailboxID)
		if rejected && cannot != nil {
			return "", SetupError(fmt.Errorf("imap: %s: %s", op, c.Clean(status.String())))
		}
	}
	refusal := status
	if rejected || byLogin {
		op = cmdLogin
		status, err = c.login(ctx, cred, lit)
	}
	if err != nil || !status.OK() {
		return "", c.Failed(AtLogin, op, status, err)
	}
	if rejected {
		c.failed(ctx, dialect.Authenticate, true, fmt.Errorf("imap: %s: %s", cmdAuthenticate, c.Clean(refusal.String())))
	}
	c.settle(ctx, loginForms)
	return mailboxID, nil
}

// cannotLogIn returns why LOGIN cannot take the credential, or nil.
func (c *Conn) cannotLogIn(cred proxy.Credential) error {
	switch {
	case c.Wire.Has("LOGINDISABLED"):
		return errors.New("imap: the upstream offers neither AUTH=PLAIN nor LOGIN")
	case cred.Authzid != "":
		return errors.New("imap: an authorization identity needs AUTH=PLAIN, which the upstream does not offer")
	case !isASCII(cred.Username + cred.Password):
		return errors.New("imap: a name or password beyond ASCII needs AUTH=PLAIN, which the upstream does not offer")
	}
	return nil
}

const (
	cmdAuthenticate = "AUTHENTICATE PLAIN"
	cmdLogin        = "LOGIN"
)

// authenticate sends the credential by AUTHENTICATE. If that is rejected in one
// form, it is sent again in a more careful one. rejected reports that no credential
// has been judged.
func (c *Conn) authenticate(ctx context.Context, cred proxy.Credential, mailboxID *string) (status wire.Status, rejected bool, err error) {
	_, response, _ := sasl.NewPlainClient(cred.Authzid, cred.Username, cred.Password).Start() // never fails
	encoded := base64.StdEncoding.EncodeToString(response)
	initial := c.initialResponse()
	var blamed dialect.Form // for the rejection before
	var cause error
	for {
		var forms dialect.Form
		var requested bool
		status, requested, forms, err = c.plain(ctx, encoded, initial, mailboxID)
		if err == nil && status.OK() {
			c.failed(ctx, blamed, true, cause)
		}
		if err != nil || status.OK() || requested || !c.rejects(status, initial, "PLAIN") {
			return status, false, err
		}
		cause = fmt.Errorf("imap: %s: %s", cmdAuthenticate, c.Clean(status.String()))
		blamed = forms & flights &^ c.learned.Facts().Works
		switch {
		case blamed != 0:
			c.attempt.avoids |= flights
		case initial:
			blamed, initial = dialect.InitialResponse, false
		default:
			return status, true, nil
		}
	}
}

// flights are the forms in which AUTHENTICATE does not come alone.
const flights = dialect.IDFlight | dialect.LoginFlight

// plain sends AUTHENTICATE PLAIN, in one flight with what may share it: ID, and,
// to an upstream known to answer it, the question for the mailbox-id. requested
// reports that the upstream has requested the response.
func (c *Conn) plain(ctx context.Context, encoded string, initial bool, mailboxID *string) (status wire.Status, requested bool, forms dialect.Form, err error) {
	ops, forms := c.startID(ctx)
	ops = append(ops, cmdAuthenticate)
	if initial {
		forms |= dialect.InitialResponse
		c.dare(forms, ProgressTimeout)
	} else { // without a response the server has no reason to take long
		c.dare(forms|dialect.Authenticate, ProgressTimeout)
	}
	err = c.Wire.StartAuthenticate("PLAIN", encoded, initial)
	number := c.Wire.Started()
	if !initial {
		requested = err == nil && c.Wire.ResultOf(number) == wire.Status{}
	}
	if err == nil && initial && c.uses(dialect.LoginFlight) && c.server.objectID.Load() {
		forms |= dialect.LoginFlight
		c.dare(forms, ProgressTimeout)
		ops = append(ops, c.mailboxIDCommand())
		err = c.Wire.Start(c.mailboxIDCommand())
	}
	if requested { // the server reads what follows, and judges it
		c.dare(0, ProgressTimeout)
	}
	err = c.judged(ctx, ops, err, mailboxID)
	status = c.Wire.ResultOf(number)
	if err != nil && status.Type == "NO" { // the connection was lost after that answer
		c.final, err = true, nil
	}
	ignored := initial && c.Wire.InitialIgnored()
	if err == nil && status.OK() {
		c.authenticated(ctx, forms, ignored, c.Wire.ResultOf(number+1))
	}
	return status, requested || ignored, forms, err
}

// authenticated records what an AUTHENTICATE that has succeeded says about the
// forms it was sent in. along is the result of what was sent along.
func (c *Conn) authenticated(ctx context.Context, forms dialect.Form, ignored bool, along wire.Status) {
	if ignored {
		forms &^= dialect.InitialResponse
		c.failed(ctx, dialect.InitialResponse, true, errors.New("imap: the initial response is ignored"))
	}
	if forms&dialect.LoginFlight != 0 && !along.OK() {
		forms &^= dialect.LoginFlight
		if along.Type == "BAD" && c.Wire.Has("OBJECTID") { // else this user has no mailbox-ids
			c.failed(ctx, dialect.LoginFlight, true, errors.New("imap: after AUTHENTICATE: "+c.Clean(along.String())))
		}
	}
	c.succeeded(forms | dialect.Authenticate)
}

// login sends the credential by LOGIN, without go-imap, which can wait forever for
// the continuation before a literal.
func (c *Conn) login(ctx context.Context, cred proxy.Credential, lit wire.Literals) (wire.Status, error) {
	ops, forms := c.startID(ctx)
	c.dare(forms, ProgressTimeout)
	ops = append(ops, cmdLogin)
	err := c.Wire.StartLogin(cred.Username, cred.Password, lit)
	err = c.judged(ctx, ops, err, nil)
	status := c.Wire.ResultOf(c.Wire.Started())
	blamed := forms &^ c.learned.Facts().Works
	switch {
	case err == nil && status.OK():
		c.succeeded(forms)
	case err == nil && status.Type == "BAD" && blamed != 0 && c.rejects(status, true, cmdLogin):
		refusal := status
		if status, err = c.login(ctx, cred, lit); err == nil && status.OK() { // ID has been sent
			c.failed(ctx, blamed, true, errors.New("imap: LOGIN after ID: "+c.Clean(refusal.String())))
		}
	}
	return status, err
}

// startID starts ID if it may share the flight of the login, and returns it.
func (c *Conn) startID(ctx context.Context) (ops []string, forms dialect.Form) {
	if !c.uses(dialect.IDFlight) || !c.sendsID() {
		return nil, 0
	}
	c.identified = true
	ops = []string{c.opts.idCommand(ctx)}
	_ = c.Wire.Start(ops[0]) // the error is that of the next command
	return ops, dialect.IDFlight
}

// judged reads the answers to ops, one of which has sent a credential unless err is
// an error.
func (c *Conn) judged(ctx context.Context, ops []string, err error, mailboxID *string) error {
	// Capabilities announced before the login are no longer valid. Those
	// in its answer are, and have not been read yet.
	c.Wire.ForgetCapabilities()
	c.judging = true
	if err == nil {
		_, err = c.Answers(ctx, ops, func(ev wire.Event) {
			if mailboxID != nil {
				c.takeMailboxID(mailboxID, ev)
			}
		})
	}
	if err == nil {
		c.judging = false
		c.dare(0, ProgressTimeout)
	}
	return err
}

// rejects reports whether a refusal is about AUTHENTICATE, or its initial response,
// and not about the credential.
func (c *Conn) rejects(s wire.Status, initial bool, mechanism string) bool {
	switch s.Code {
	case "AUTHENTICATIONFAILED", "AUTHORIZATIONFAILED", "EXPIRED", "NOPERM", "UNAVAILABLE", "LIMIT", "INUSE",
		"CONTACTADMIN", "PRIVACYREQUIRED", "OVERQUOTA", "REFERRAL":
		return false
	}
	switch {
	case judge(s) != lasting:
		return false
	case s.Type == "BAD", !initial:
		return true
	case c.learned.Works(dialect.Authenticate), c.dialect.Takes&dialect.Authenticate != 0:
		return false
	}
	words := strings.FieldsFunc(strings.ToUpper(s.Text), func(r rune) bool { return r < 'A' && r != '-' && (r < '0' || r > '9') || r > 'Z' })
	return slices.Contains(words, "AUTHENTICATE") || slices.Contains(words, mechanism)
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
