//go:build integration

package imapbackend

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"popgate/imapbackend/dovecottest"
	"popgate/imapbackend/upstream"
	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// I-DEL-7, I-DEL-8, I-DEL-13, P-QUIT-3: each policy on Dovecot, with and
// without MOVE and UIDPLUS. No policy touches a message that another client
// has flagged \Deleted.
func TestPoliciesDovecot(t *testing.T) {
	const (
		full     = "IMAP4rev1 SASL-IR LITERAL+ UIDPLUS MOVE SPECIAL-USE LIST-EXTENDED ESEARCH"
		uidplus  = "IMAP4rev1 SASL-IR LITERAL+ UIDPLUS SPECIAL-USE"
		moveOnly = "IMAP4rev1 SASL-IR MOVE"
		bare     = "IMAP4rev1"
	)
	for _, tt := range []struct {
		name, caps string
		opts       Options
		left       string // in INBOX, with what is flagged \Deleted in parentheses
		trash      int    // messages in the trash mailbox
		failed     bool
	}{
		{"expunge", full, Options{}, "1 3 (4)", 0, false},
		{"trash, MOVE", full, Options{Delete: DeleteTrash}, "1 3 (4)", 2, false},
		{"trash, MOVE without UIDPLUS and SPECIAL-USE", moveOnly, Options{Delete: DeleteTrash}, "1 3 (4)", 2, false},
		{"trash, COPY", uidplus, Options{Delete: DeleteTrash}, "1 3 (4)", 2, false},
		{"trash, COPY without UIDPLUS", bare, Options{Delete: DeleteTrash}, "1 (2) 3 (4) (5)", 2, false},
		{"trash, created", full, Options{Delete: DeleteTrash, Trash: "Gelöschte Nachrichten"}, "1 3 (4)", 2, false},
		{"trash, COPY, created", uidplus, Options{Delete: DeleteTrash, Trash: "Gelöschte Nachrichten"}, "1 3 (4)", 2, false},
		{"flag", full, Options{Delete: DeleteFlag}, "1 (2) 3 (4) (5)", 0, false},
		{"keep", full, Options{Delete: DeleteKeep}, "1 2 3 (4) 5", 0, false},
		{"move", moveOnly, Options{WithoutUIDPLUS: Move}, "1 3 (4)", 2, false},
		{"expunge-if-alone, not alone", bare, Options{WithoutUIDPLUS: ExpungeIfAlone}, "1 (2) 3 (4) (5)", 0, false},
		{"refuse", bare, Options{WithoutUIDPLUS: Refuse}, "1 2 3 (4) 5", 0, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := dovecottest.Start(t, dovecottest.WithCapability(tt.caps), dovecottest.WithTrash("Deleted Items"))
			before := seedPolicies(t, up, true)
			err := updatePolicies(t, up, tt.opts, before)
			if (err != nil) != tt.failed {
				t.Errorf("Update: %v", err)
			}
			if left := leftIn(up, "INBOX"); left != tt.left {
				t.Errorf("left are %s, want %s", left, tt.left)
			}
			name := "Deleted Items"
			if tt.opts.Trash != "" {
				name = "Gel&APY-schte Nachrichten"
			}
			trash := messagesIn(up, name)
			if len(trash) != tt.trash {
				t.Fatalf("%d messages in the trash, want %d", len(trash), tt.trash)
			}
			for i, msg := range trash {
				if want := before[[]int{1, 4}[i]].Octets; !bytes.Equal(msg.Octets, want) || strings.Contains(msg.Flags, `\Deleted`) {
					t.Errorf("message %d of the trash, flags %s, differs", i, msg.Flags)
				}
			}
		})
	}
	t.Run("expunge-if-alone, alone", func(t *testing.T) {
		up := dovecottest.Start(t, dovecottest.WithCapability(bare))
		before := seedPolicies(t, up, false)
		if err := updatePolicies(t, up, Options{WithoutUIDPLUS: ExpungeIfAlone}, before); err != nil {
			t.Error(err)
		}
		if left := leftIn(up, "INBOX"); left != "1 3 4" {
			t.Errorf("left are %s", left)
		}
	})
}

// seedPolicies adds five messages to joe's INBOX. With foreign, another client
// flags the fourth.
func seedPolicies(t *testing.T, up *dovecottest.Server, foreign bool) []dovecottest.Message {
	t.Helper()
	up.Append("joe", proxytest.Samples()[:5]...)
	if foreign {
		other := up.Login("joe")
		other.Select("INBOX")
		other.Store("4", `+FLAGS (\Deleted)`)
		other.Logout()
	}
	return up.Messages("joe")
}

// updatePolicies removes the second and the fifth of the messages.
func updatePolicies(t *testing.T, up *dovecottest.Server, opts Options, messages []dovecottest.Message) error {
	t.Helper()
	opts.Address, opts.RootCAs, opts.TLS = up.TLSAddr, up.RootCAs, TLSImplicit
	d := openMaildrop(t, backend(t, opts))
	defer d.Close()
	return d.Update(t.Context(), []uint64{messages[1].UID, messages[4].UID})
}

// leftIn returns the UIDs in a mailbox of joe's, in parentheses those flagged
// \Deleted.
func leftIn(up *dovecottest.Server, mailbox string) string {
	var left []string
	for _, m := range messagesIn(up, mailbox) {
		uid := fmt.Sprint(m.UID)
		if strings.Contains(m.Flags, `\Deleted`) {
			uid = "(" + uid + ")"
		}
		left = append(left, uid)
	}
	return strings.Join(left, " ")
}

func messagesIn(up *dovecottest.Server, mailbox string) []dovecottest.Message {
	c := up.Login("joe")
	c.Examine(mailbox)
	messages := c.Fetch(true)
	c.Logout()
	return slices.Clone(messages)
}

// I-DEL-8, M-1: a trash mailbox over quota is reported, and nothing is removed
// or flagged.
func TestTrashOverQuotaDovecot(t *testing.T) {
	var octets int64
	for _, m := range proxytest.Samples()[:5] {
		octets += int64(len(m))
	}
	up := dovecottest.Start(t, dovecottest.WithCapability("IMAP4rev1 SASL-IR UIDPLUS SPECIAL-USE"),
		dovecottest.WithTrash("Trash"), dovecottest.WithQuota(octets+10))
	before := seedPolicies(t, up, false)
	err := updatePolicies(t, up, Options{Delete: DeleteTrash}, before)
	if !errors.Is(err, &proxy.Error{Code: proxy.CodeSysPerm, Text: upstream.TextQuota}) {
		t.Errorf("Update: %v", err)
	}
	if left, trash := leftIn(up, "INBOX"), leftIn(up, "Trash"); left != "1 2 3 4 5" || trash != "" {
		t.Errorf("left are %s, in the trash %s", left, trash)
	}
}
