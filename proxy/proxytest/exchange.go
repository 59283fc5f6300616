package proxytest

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strings"

	"popgate/proxy"
)

// What a server generates for each exchange is fixed to the examples in the RFCs,
// so that transcripts can contain the whole conversation.
const (
	cramChallenge = "<1896.697170952@postoffice.reston.mci.net>" // RFC 2195 §2
	sha1Nonce     = "3rfcNHYJY1ZVvWVs7j"                         // RFC 5802 §5
	sha1Salt      = "QSXCR+Q6sek8bf92"
	sha256Nonce   = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0" // RFC 7677 §3
	sha256Salt    = "W22ZaJ0SNY7soEsUEjb6gQ=="
	iterations    = 4096
)

// Offers implements proxy.Exchanger.
func (b *Backend) Offers(string, proxy.Caller) bool { return !b.call("offers", nil).NoExchanges }

// Exchange implements proxy.Exchanger. The password of an account is its token
// too.
func (b *Backend) Exchange(ctx context.Context, ex *proxy.Exchange) (proxy.Login, error) {
	f := b.call("exchange", func(c *Counts) { c.Logins++ })
	if err := wait(ctx, f.LoginDelay); err != nil {
		return nil, err
	}
	if f.Login != nil {
		return nil, f.Login
	}
	verify := map[string]func(context.Context, *proxy.Exchange) error{
		"XOAUTH2":     b.bearer,
		"OAUTHBEARER": b.bearer,
		"CRAM-MD5":    b.cram,
		"SCRAM-SHA-1": func(ctx context.Context, ex *proxy.Exchange) error {
			return scram(ctx, b, ex, sha1.New, sha1Nonce, sha1Salt)
		},
		"SCRAM-SHA-256": func(ctx context.Context, ex *proxy.Exchange) error {
			return scram(ctx, b, ex, sha256.New, sha256Nonce, sha256Salt)
		},
	}[ex.Mechanism]
	if err := verify(ctx, ex); err != nil {
		return nil, err
	}
	return b.admit(ex.Username), nil
}

// bearer refuses as RFC 7628 §3.2.2 says.
func (b *Backend) bearer(ctx context.Context, ex *proxy.Exchange) error {
	_, token, _ := strings.Cut(ex.Authorization, " ")
	if password, ok := b.password("", ex.Username); ok && password == token {
		return nil
	}
	if _, err := ex.Challenge(ctx, `{"status":"invalid_token"}`); err != nil && !errors.Is(err, proxy.ErrCancelled) {
		return err
	}
	return proxy.ErrAuth
}

func (b *Backend) cram(ctx context.Context, ex *proxy.Exchange) error {
	response, err := ex.Challenge(ctx, cramChallenge)
	if err != nil {
		return err
	}
	password, ok := b.password("", ex.Username)
	mac := hmac.New(md5.New, []byte(password))
	mac.Write([]byte(cramChallenge))
	if !ok || response != ex.Username+" "+hex.EncodeToString(mac.Sum(nil)) {
		return proxy.ErrAuth
	}
	return nil
}

// scram is the server side of RFC 5802 §3, without channel binding.
func scram[H hash.Hash](ctx context.Context, b *Backend, ex *proxy.Exchange, h func() H, nonce, salt64 string) error {
	password, ok := b.password(ex.Authzid, ex.Username)
	_, bare, _ := strings.Cut(ex.Initial, ",")
	_, bare, _ = strings.Cut(bare, ",")
	header := strings.TrimSuffix(ex.Initial, bare)
	_, clientNonce, _ := strings.Cut(bare, ",r=")
	first := fmt.Sprintf("r=%s%s,s=%s,i=%d", clientNonce, nonce, salt64, iterations)
	final, err := ex.Challenge(ctx, first)
	if err != nil {
		return err
	}
	withoutProof := fmt.Sprintf("c=%s,r=%s%s", base64.StdEncoding.EncodeToString([]byte(header)), clientNonce, nonce)
	salt, err := base64.StdEncoding.DecodeString(salt64)
	if err != nil {
		return err
	}
	salted, err := pbkdf2.Key(h, password, salt, iterations, h().Size())
	if err != nil {
		return err
	}
	sum := func(key []byte, text string) []byte {
		mac := hmac.New(func() hash.Hash { return h() }, key)
		mac.Write([]byte(text))
		return mac.Sum(nil)
	}
	clientKey := sum(salted, "Client Key")
	stored := h()
	stored.Write(clientKey)
	message := bare + "," + first + "," + withoutProof
	proof := sum(stored.Sum(nil), message)
	subtle.XORBytes(proof, proof, clientKey)
	if !ok || final != withoutProof+",p="+base64.StdEncoding.EncodeToString(proof) {
		return proxy.ErrAuth
	}
	signature := sum(sum(salted, "Server Key"), message)
	if response, err := ex.Challenge(ctx, "v="+base64.StdEncoding.EncodeToString(signature)); err != nil || response != "" {
		return cmp.Or[error](err, proxy.ErrAuth)
	}
	return nil
}
