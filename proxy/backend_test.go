package proxy_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"

	"popgate/proxy"
)

// TestIdentityKeys shows O-LOCK-1 and O-LOCK-2: which logins share a key, so that
// one at a time holds its maildrop.
func TestIdentityKeys(t *testing.T) {
	const uuid, other = "F2212ea87-6097-4256-9d51-71338625", "F2212ea87-6097-4256-9d51-71338626"
	id := func(upstream, user, mailbox, mailboxID, accountID string) proxy.Identity {
		return proxy.Identity{Upstream: upstream, User: user, Mailbox: mailbox, MailboxID: mailboxID, AccountID: accountID}
	}
	alice := id("u", "alice", "INBOX", "", "")
	for _, tt := range []struct {
		a, b proxy.Identity
		meet bool
	}{
		{alice, alice, true},
		{alice, id("v", "alice", "INBOX", "", ""), false},
		{alice, id("u", "bob", "INBOX", "", ""), false},
		{alice, id("u", "alice", "Archive", "", ""), false},
		// STATUS was not answered, or only once: it is still the same maildrop.
		{alice, id("u", "alice", "INBOX", "F1", ""), true},
		{alice, id("u", "alice", "INBOX", uuid, ""), true},
		{id("u", "alice", "INBOX", uuid, ""), id("u", "alice", "INBOX", other, ""), true},
		// Ids that are unique within an account only.
		{id("u", "alice", "INBOX", "1", ""), id("u", "bob", "INBOX", "1", ""), false},
		{id("u", "alice", "INBOX", "123456789012345", ""), id("u", "bob", "INBOX", "123456789012345", ""), false},
		{id("u", "alice", "INBOX", uuid, "A1"), id("u", "bob", "INBOX", uuid, "A2"), false},
		// Aliases of one mailbox.
		{id("u", "alice", "INBOX", "1234567890123456", ""), id("u", "bob", "x", "1234567890123456", ""), true},
		{id("u", "alice", "INBOX", uuid, ""), id("u", "bob", "x", uuid, ""), true},
		{id("u", "alice", "INBOX", uuid, "A1"), id("u", "bob", "x", uuid, "A1"), true},
		{id("u", "alice", "INBOX", uuid, ""), id("v", "bob", "x", uuid, ""), false},
		{id("u", "alice", "INBOX", uuid, ""), id("u", "bob", "x", other, ""), false},
		// A name that looks like the other key.
		{id("u", "alice", "INBOX", uuid, ""), id("u", "id", uuid, "", ""), false},
	} {
		meet := slices.ContainsFunc(tt.a.Keys(), func(key string) bool { return slices.Contains(tt.b.Keys(), key) })
		if meet != tt.meet {
			t.Errorf("%+v and %+v: share a key: %v", tt.a, tt.b, meet)
		}
		if tt.a.Keys()[0] != tt.b.Keys()[0] && slices.Contains(tt.b.Keys()[1:], tt.a.Keys()[0]) {
			t.Errorf("%+v and %+v: the first key of one is the second of the other", tt.a, tt.b)
		}
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
