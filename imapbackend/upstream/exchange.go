package upstream

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"popgate/imapbackend/dialect"
	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// The mechanisms with a token.
const (
	mechXOAuth2     = "XOAUTH2"
	mechOAuthBearer = "OAUTHBEARER"
)

// maxChallenges limits the challenges of one exchange; SCRAM has two.
const maxChallenges = 8

// Relays reports whether the gateway can relay a mechanism to an upstream with
// these capabilities; both are in upper case (requirement P-SASL-5). It cannot
// relay SCRAM where the upstream supports channel binding: the gateway cannot
// offer that, having two channels, and the upstream must refuse a client that
// supports it and was not offered it (RFC 5802 §6).
func Relays(capabilities []string, mechanism string) bool {
	if IsToken(mechanism) || !slices.Contains(capabilities, "AUTH="+mechanism) {
		return false
	}
	return !strings.HasPrefix(mechanism, "SCRAM-") || !slices.ContainsFunc(capabilities, func(c string) bool {
		return strings.HasPrefix(c, "AUTH=SCRAM-") && strings.HasSuffix(c, "-PLUS")
	})
}

// IsToken reports whether a mechanism, in upper case, sends a token.
func IsToken(mechanism string) bool { return mechanism == mechXOAuth2 || mechanism == mechOAuthBearer }

// Exchange is Login by a SASL exchange with the client. An error of
// ex.Challenge is returned as it is.
func (c *Conn) Exchange(ctx context.Context, ex *proxy.Exchange) (id proxy.Identity, err error) {
	defer c.Watch(ctx)()
	authenticate := c.relay
	if IsToken(ex.Mechanism) {
		authenticate = c.sendToken
	}
	c.account = c.server.waits.account(ex.Authzid, ex.Username, ex.Authorization)
	if ex.Username != "" {
		if err := c.server.admit(ctx, c, CanonicalUser(ex.Authzid, ex.Username)); err != nil {
			return id, err
		}
	}
	if err := authenticate(ctx, ex); err != nil {
		return id, err
	}
	c.account = c.server.waits.account(ex.Authzid, ex.Username, "") // CRAM-MD5 names the user late
	if err := c.server.admit(ctx, c, CanonicalUser(ex.Authzid, ex.Username)); err != nil {
		return id, err
	}
	c.server.users.accept(c)
	c.server.refusals.accepted(CanonicalUser(ex.Authzid, ex.Username))
	c.stale = false
	c.clientUTF8 = ex.UTF8
	return c.identify(ctx, CanonicalUser(ex.Authzid, ex.Username), "")
}

// relay passes challenges and responses on unchanged (requirement P-SASL-5).
func (c *Conn) relay(ctx context.Context, ex *proxy.Exchange) error {
	if !Relays(c.Wire.Capabilities(), ex.Mechanism) {
		return SetupError(fmt.Errorf("imap: the upstream does not offer %s in a form that can be relayed", ex.Mechanism))
	}
	c.secrets.add(ex.Initial)
	answer := func(challenge string) (string, error) {
		c.Challenged = true
		response, err := ex.Challenge(ctx, challenge)
		c.secrets.add(response)
		return response, err
	}
	status, err := c.authenticateSASL(ctx, ex.Mechanism, ex.Initial, answer)
	if err == nil && !status.OK() {
		err = c.Failed(AtLogin, "AUTHENTICATE "+ex.Mechanism, status, nil)
	}
	return err
}

// sendToken sends a token by the client's mechanism or, if the upstream offers
// only the other one, by that (requirements P-SASL-2, P-SASL-3).
func (c *Conn) sendToken(ctx context.Context, ex *proxy.Exchange) error {
	mechanism := ex.Mechanism
	if !c.Wire.Has("AUTH=" + mechanism) {
		if mechanism = mechXOAuth2; ex.Mechanism == mechanism {
			mechanism = mechOAuthBearer
		}
	}
	if !c.Wire.Has("AUTH=" + mechanism) {
		return SetupError(errors.New("imap: the upstream offers neither AUTH=XOAUTH2 nor AUTH=OAUTHBEARER"))
	}
	message, dummy := tokenMessage(mechanism, ex.Username, ex.Authorization)
	_, token, _ := strings.Cut(ex.Authorization, " ")
	c.secrets.add(token)
	c.secrets.add(message)

	var refusal *tokenRefusal
	answer := func(challenge string) (string, error) {
		if refusal != nil {
			return "", SetupError(fmt.Errorf("imap: AUTHENTICATE %s: a second error challenge", mechanism))
		}
		c.Challenged = true
		refusal = parseRefusal(challenge)
		_, err := ex.Challenge(ctx, challenge)
		return dummy, err
	}
	status, err := c.authenticateSASL(ctx, mechanism, message, answer)
	switch op := "AUTHENTICATE " + mechanism; {
	case errors.Is(err, proxy.ErrCancelled):
		return refusal.failure(fmt.Errorf("imap: %s: token refused, status %q", op, c.Clean(refusal.status)))
	case err != nil || status.OK():
		return err
	case refusal != nil && (refusal.isTemporary() || status.Type == "BAD"): // some answer BAD to the dummy
		return refusal.failure(fmt.Errorf("imap: %s: token refused, status %q", op, c.Clean(refusal.status)))
	default:
		return c.Failed(AtLogin, op, status, nil)
	}
}

// tokenMessage returns the client's message of XOAUTH2 or OAUTHBEARER, and the
// dummy response to the error challenge that refuses the token. It omits host
// and port, which an upstream would compare with its own (RFC 7628 §3.1).
func tokenMessage(mechanism, user, authorization string) (message, dummy string) {
	if mechanism == mechXOAuth2 {
		return "user=" + user + "\x01auth=" + authorization + "\x01\x01", ""
	}
	escaped := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(user)
	return "n,a=" + escaped + ",\x01auth=" + authorization + "\x01\x01", "\x01"
}

// tokenRefusal is the error challenge of RFC 7628 §3.2.2, which XOAUTH2 has
// too.
type tokenRefusal struct{ status string }

func parseRefusal(challenge string) *tokenRefusal {
	var result struct{ Status json.RawMessage }
	_ = json.Unmarshal([]byte(challenge), &result) // without a status it is a refusal too
	return &tokenRefusal{strings.Trim(string(result.Status), `"`)}
}

// isTemporary reports whether the fault is temporary, and not the token's.
func (r *tokenRefusal) isTemporary() bool {
	switch r.status {
	case "temporarily_unavailable", "server_error":
		return true
	}
	return len(r.status) == 3 && r.status[0] == '5' && strings.Trim(r.status, "0123456789") == ""
}

// failure returns a refusal as an error for the client; cause goes to the log.
func (r *tokenRefusal) failure(cause error) error {
	if r.isTemporary() {
		return TempError(cause)
	}
	return WithCause(proxy.ErrAuth, cause)
}

// authenticateSASL runs AUTHENTICATE. first is the client's first message, ""
// where the server begins; answer returns the response to each challenge. Its
// errors end the exchange and are returned as they are; the others are
// *proxy.Error. If an initial response is rejected, it sends the command again
// without one.
func (c *Conn) authenticateSASL(ctx context.Context, mechanism, first string, answer func(challenge string) (string, error)) (wire.Status, error) {
	initial := first != "" && c.initialResponse()
	status, err := c.converse(ctx, mechanism, first, initial, answer)
	if err == nil && initial && !status.OK() && !c.Challenged && !c.Wire.InitialIgnored() && c.rejects(status, true, mechanism) {
		refusal := status
		status, err = c.converse(ctx, mechanism, first, false, answer)
		if err == nil && status.OK() {
			c.failed(ctx, dialect.InitialResponse, true, fmt.Errorf("imap: AUTHENTICATE %s with an initial response: %s", mechanism, c.Clean(refusal.String())))
		}
	}
	if err == nil && status.OK() {
		c.settle(ctx, loginForms)
	}
	return status, err
}

// converse runs one AUTHENTICATE, in one flight with ID if the upstream takes that.
func (c *Conn) converse(ctx context.Context, mechanism, first string, initial bool, answer func(challenge string) (string, error)) (wire.Status, error) {
	op := "AUTHENTICATE " + mechanism
	ops, forms := c.startID(ctx)
	ops = append(ops, op)
	if initial {
		forms |= dialect.InitialResponse
	}
	c.dare(forms, ProgressTimeout)
	var err error
	if first == "" {
		err = c.Wire.Start(op)
	} else {
		err = c.Wire.StartAuthenticate(mechanism, base64.StdEncoding.EncodeToString([]byte(first)), initial)
		c.judging = true
	}
	c.Wire.ForgetCapabilities() // as in logIn
	var gaveUp error
	for rounds := 1; err == nil && gaveUp == nil; rounds++ {
		challenge, more, lost := c.Wire.Challenge()
		if err = lost; !more {
			break
		}
		if rounds > maxChallenges {
			c.Wire.Exceed("too many challenges")
			err = c.Wire.Err()
			break
		}
		c.dare(0, ProgressTimeout)
		var response string
		resume := c.attempt.Pause()
		response, gaveUp = answer(challenge)
		if resume(); gaveUp == nil {
			err = c.Wire.Respond(response)
		}
	}
	if gaveUp != nil {
		c.cancelExchange(ctx, ops)
		return wire.Status{}, gaveUp
	}
	var status []wire.Status
	if err == nil {
		status, err = c.Answers(ctx, ops, nil)
	}
	if err != nil {
		return wire.Status{}, c.Failed(AtLogin, op, wire.Status{}, err)
	}
	c.judging = false
	c.dare(0, ProgressTimeout)
	if last := status[len(status)-1]; last.OK() && !c.Wire.InitialIgnored() {
		c.succeeded(forms)
	}
	return status[len(status)-1], nil
}

// cancelExchange cancels a SASL exchange. It does not wait long for the
// answer, as the client may be gone.
func (c *Conn) cancelExchange(ctx context.Context, ops []string) {
	defer c.Wire.SetProgress(c.Wire.SetProgress(LogoutTimeout))
	if c.Wire.Cancel() == nil {
		_, _ = c.Answers(ctx, ops, nil) // the result does not matter; a loss shows at LOGOUT
	}
}
