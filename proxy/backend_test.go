package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"

	"popgate/proxy"
)

// TestIdentityKey shows O-LOCK-1 and O-LOCK-2: which logins share a key.
func TestIdentityKey(t *testing.T) {
	a := proxy.Identity{Upstream: "u", User: "alice", Mailbox: "INBOX"}
	for _, tt := range []struct {
		b    proxy.Identity
		same bool
	}{
		{proxy.Identity{Upstream: "u", User: "alice", Mailbox: "INBOX"}, true},
		{proxy.Identity{Upstream: "v", User: "alice", Mailbox: "INBOX"}, false},
		{proxy.Identity{Upstream: "u", User: "bob", Mailbox: "INBOX"}, false},
		{proxy.Identity{Upstream: "u", User: "alice", Mailbox: "Archive"}, false},
		{proxy.Identity{Upstream: "u", User: "alice", Mailbox: "INBOX", MailboxID: "F1"}, false},
	} {
		if got := a.Key() == tt.b.Key(); got != tt.same {
			t.Errorf("%+v and %+v: same key %v", a, tt.b, got)
		}
	}
	alias := proxy.Identity{Upstream: "u", User: "alias", Mailbox: "INBOX", MailboxID: "F1"}
	owner := proxy.Identity{Upstream: "u", User: "owner", Mailbox: "x", MailboxID: "F1"}
	if alias.Key() != owner.Key() {
		t.Error("aliases of one mailbox-id have different keys")
	}
}

// TestAsError shows M-1: an unclassified error is [SYS/TEMP], and an *Error is
// found when it is wrapped.
func TestAsError(t *testing.T) {
	cause := errors.New("cause")
	got := proxy.AsError(cause)
	if got.Code != proxy.CodeSysTemp || !errors.Is(got, cause) {
		t.Errorf("unclassified: %v", got)
	}
	if got := proxy.AsError(fmt.Errorf("select: %w", proxy.ErrGone)); got != proxy.ErrGone {
		t.Errorf("wrapped: %v", got)
	}
	withCause := &proxy.Error{Code: proxy.ErrAuth.Code, Text: proxy.ErrAuth.Text, Err: cause}
	if !errors.Is(withCause, proxy.ErrAuth) || errors.Is(withCause, proxy.ErrInUse) {
		t.Error("Is compares what the client sees")
	}
	if got := withCause.Error(); got != "[AUTH] authentication failed: cause" {
		t.Errorf("for the log: %q", got)
	}
}

// TestLogger shows that a context carries a logger.
func TestLogger(t *testing.T) {
	l := slog.New(slog.DiscardHandler)
	if got := proxy.Logger(proxy.WithLogger(context.Background(), l)); got != l {
		t.Error("the logger is not in the context")
	}
	if got := proxy.Logger(context.Background()); got != slog.Default() {
		t.Error("no default logger")
	}
}
