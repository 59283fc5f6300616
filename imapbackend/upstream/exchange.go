package upstream

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"popgate/imapbackend/wire"
	"popgate/proxy"
)

// The mechanisms that pass a token.
const (
	mechXOAuth2     = "XOAUTH2"
	mechOAuthBearer = "OAUTHBEARER"
)

// Relays reports whether an upstream with these capabilities, in upper case,
// lets a client use the mechanism through the gateway (requirement P-SASL-5).
// An upstream that can bind SCRAM to the TLS channel must refuse clients that
// can too and have been shown that it cannot (RFC 5802 §6); and we cannot show
// that it can, as there are two channels.
func Relays(capabilities []string, mechanism string) bool {
	if IsToken(mechanism) || !slices.Contains(capabilities, "AUTH="+mechanism) {
		return false
	}
	return !strings.HasPrefix(mechanism, "SCRAM-") || !slices.ContainsFunc(capabilities, func(c string) bool {
		return strings.HasPrefix(c, "AUTH=SCRAM-") && strings.HasSuffix(c, "-PLUS")
	})
}

func IsToken(mechanism string) bool { return mechanism == mechXOAuth2 || mechanism == mechOAuthBearer }

// Exchange is authenticate for a SASL exchange.
func (u *Conn) Exchange(ctx context.Context, ex *proxy.Exchange) (id proxy.Identity, err error) {
	defer u.Watch(ctx)()
	carry := u.relay
	if IsToken(ex.Mechanism) {
		carry = u.passToken
	}
	if err := carry(ctx, ex); err != nil {
		return id, err
	}
	u.clientUTF8 = ex.UTF8
	return u.identify(ctx, CanonicalUser(ex.Authzid, ex.Username), "")
}

// relay passes challenges and responses on unchanged (requirement P-SASL-5).
func (u *Conn) relay(ctx context.Context, ex *proxy.Exchange) error {
	if !Relays(u.Wire.Capabilities(), ex.Mechanism) {
		return SetupError(fmt.Errorf("imap: the upstream does not offer %s to be relayed", ex.Mechanism))
	}
	u.keepSecret(ex.Initial)
	answer := func(challenge string) (string, error) {
		u.challenged = true
		response, err := ex.Challenge(ctx, challenge)
		u.keepSecret(response)
		return response, err
	}
	status, err := u.authenticateSASL(ctx, ex.Mechanism, ex.Initial, answer)
	if err == nil && !status.OK() {
		err = u.Failed(AtLogin, "AUTHENTICATE "+ex.Mechanism, status, nil)
	}
	return err
}

// passToken sends a token in the form that the upstream has, the client's own
// if it can be (requirements P-SASL-2, P-SASL-3).
func (u *Conn) passToken(ctx context.Context, ex *proxy.Exchange) error {
	mechanism := ex.Mechanism
	if !u.Wire.Has("AUTH=" + mechanism) {
		if mechanism = mechXOAuth2; ex.Mechanism == mechanism {
			mechanism = mechOAuthBearer
		}
	}
	if !u.Wire.Has("AUTH=" + mechanism) {
		return SetupError(errors.New("imap: the upstream offers neither AUTH=XOAUTH2 nor AUTH=OAUTHBEARER"))
	}
	message, dummy := tokenMessage(mechanism, ex.Username, ex.Authorization)
	_, token, _ := strings.Cut(ex.Authorization, " ")
	u.keepSecret(token)
	u.keepSecret(message)

	var refusal *tokenRefusal
	answer := func(challenge string) (string, error) {
		if refusal != nil {
			return "", SetupError(fmt.Errorf("imap: AUTHENTICATE %s: a second error challenge", mechanism))
		}
		u.challenged = true
		refusal = parseRefusal(challenge)
		_, err := ex.Challenge(ctx, challenge)
		return dummy, err
	}
	status, err := u.authenticateSASL(ctx, mechanism, message, answer)
	switch op := "AUTHENTICATE " + mechanism; {
	case errors.Is(err, proxy.ErrCancelled):
		return u.tokenRefused(op, refusal)
	case err != nil || status.OK():
		return err
	case refusal != nil && (refusal.passes() || status.Type == "BAD"): // to the dummy, as some answer
		return u.tokenRefused(op, refusal)
	default:
		return u.Failed(AtLogin, op, status, nil)
	}
}

// tokenMessage returns the client's message of XOAUTH2 or OAUTHBEARER, and the
// response that ends an exchange in which the token has been refused. Host and
// port, which an upstream would compare with its own, are left out
// (RFC 7628 §3.1).
func tokenMessage(mechanism, user, authorization string) (message, dummy string) {
	if mechanism == mechXOAuth2 {
		return "user=" + user + "\x01auth=" + authorization + "\x01\x01", ""
	}
	escaped := strings.NewReplacer("=", "=3D", ",", "=2C").Replace(user)
	return "n,a=" + escaped + ",\x01auth=" + authorization + "\x01\x01", "\x01"
}

// tokenRefusal is the error challenge of RFC 7628 §3.2.2; XOAUTH2 has the same.
type tokenRefusal struct{ status string }

func parseRefusal(challenge string) *tokenRefusal {
	var result struct{ Status json.RawMessage }
	_ = json.Unmarshal([]byte(challenge), &result) // what says nothing is a refusal like any other
	return &tokenRefusal{strings.Trim(string(result.Status), `"`)}
}

// passes reports whether the fault is not the token's and may pass.
func (r *tokenRefusal) passes() bool {
	switch r.status {
	case "temporarily_unavailable", "server_error":
		return true
	}
	return len(r.status) == 3 && r.status[0] == '5' && strings.Trim(r.status, "0123456789") == ""
}

// tokenRefused returns what the client is told of a refusal.
func (u *Conn) tokenRefused(op string, r *tokenRefusal) error {
	cause := fmt.Errorf("imap: %s: token refused, status %q", op, u.Clean(r.status))
	if r.passes() {
		return TempError(cause)
	}
	return WithCause(proxy.ErrAuth, cause)
}

// authenticateSASL runs AUTHENTICATE, in one flight with ID. first is the client's first
// message, "" where the server begins; answer is asked for the response to each
// challenge. Its errors end the exchange and are returned as they are; the
// others are *proxy.Error.
func (u *Conn) authenticateSASL(ctx context.Context, mechanism, first string, answer func(challenge string) (string, error)) (wire.Status, error) {
	op := "AUTHENTICATE " + mechanism
	ops := []string{op}
	var err error
	if u.Wire.Has("ID") {
		ops = []string{u.idCommand(ctx), op}
		err = u.Wire.Start(ops[0])
	}
	if first == "" {
		err = errors.Join(err, u.Wire.Start(op))
	} else {
		encoded := base64.StdEncoding.EncodeToString([]byte(first))
		err = errors.Join(err, u.Wire.StartAuthenticate(mechanism, encoded, u.Wire.Has("SASL-IR")))
	}
	u.Wire.ForgetCapabilities() // as for logIn: success has not been read yet
	var gaveUp error
	for err == nil && gaveUp == nil {
		challenge, more, lost := u.Wire.Challenge()
		if err = lost; !more {
			break
		}
		var response string
		if response, gaveUp = answer(challenge); gaveUp == nil {
			err = u.Wire.Respond(response)
		}
	}
	if gaveUp != nil {
		u.giveUp(ctx, ops)
		return wire.Status{}, gaveUp
	}
	var status []wire.Status
	if err == nil {
		status, err = u.Answers(ctx, ops, nil)
	}
	if err != nil {
		return wire.Status{}, u.Failed(AtLogin, op, wire.Status{}, err)
	}
	return status[len(status)-1], nil
}

// giveUp cancels an exchange, for which it waits a short time only, as the
// client may be gone.
func (u *Conn) giveUp(ctx context.Context, ops []string) {
	defer u.Wire.SetProgress(u.Wire.SetProgress(LogoutTimeout))
	if u.Wire.Cancel() == nil {
		_, _ = u.Answers(ctx, ops, nil) // the verdict is in; a loss shows at LOGOUT
	}
}
