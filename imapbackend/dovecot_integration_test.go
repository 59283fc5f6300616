//go:build integration

package imapbackend

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"popgate/imapbackend/dovecottest"
	"popgate/proxy"
	"popgate/proxy/proxytest"
)

// I-DEL-7, P-SASL-1: the suite that every Backend must pass, with Dovecot: with
// TLS, with STARTTLS, and with the capabilities of plain IMAP4rev1 only.
func TestConformanceDovecot(t *testing.T) {
	for _, tt := range []struct {
		name  string
		start []dovecottest.Option
		opts  Options
	}{
		{"UIDPLUS, implicit TLS", nil, Options{TLS: TLSImplicit}},
		{"STARTTLS, mdbox", []dovecottest.Option{dovecottest.WithStore("mdbox")}, Options{TLS: TLSStartTLS}},
		{"bare IMAP4rev1", []dovecottest.Option{dovecottest.WithCapability("IMAP4rev1")}, Options{TLS: TLSNone}},
		{"keep_open", nil, Options{TLS: TLSImplicit, KeepOpen: MaxKeepOpen}},
		{"compress and keep_open", []dovecottest.Option{dovecottest.WithCompression()},
			Options{TLS: TLSImplicit, Compress: true, KeepOpen: MaxKeepOpen}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			up := dovecottest.Start(t, tt.start...)
			user := 0
			proxytest.TestBackend(t, func(t *testing.T) proxytest.Mailbox {
				user++
				return dovecotMailbox(t, up, tt.opts, fmt.Sprintf("user%d", user))
			})
		})
	}
}

// dovecotMailbox is the empty mailbox of one user. Messages that UPDATE has
// only flagged count as removed.
func dovecotMailbox(t *testing.T, up *dovecottest.Server, opts Options, user string) proxytest.Mailbox {
	opts.Address, opts.RootCAs = up.Addr, up.RootCAs
	if opts.TLS == TLSImplicit {
		opts.Address = up.TLSAddr
	}
	left := func() (messages []dovecottest.Message) {
		for _, m := range up.Messages(user) {
			if !strings.Contains(m.Flags, `\Deleted`) {
				messages = append(messages, m)
			}
		}
		return messages
	}
	return proxytest.Mailbox{
		Backend:    knownUsers{backend(t, opts)},
		Credential: proxy.Credential{Username: user, Password: dovecottest.Password},
		Seed:       func(_ *testing.T, messages ...[]byte) { up.Append(user, messages...) },
		Left: func(*testing.T) (octets [][]byte) {
			for _, m := range left() {
				octets = append(octets, m.Octets)
			}
			return octets
		},
		Expunge: func(_ *testing.T, i int) {
			uid := left()[i].UID
			c := up.Login(user)
			c.Select("INBOX")
			c.Store(fmt.Sprint(uid), `+FLAGS (\Deleted)`)
			c.Expunge()
			c.Logout()
		},
	}
}

// knownUsers is a Backend for a server on which every login name exists: it
// makes the server refuse those that the suite invents.
type knownUsers struct{ proxy.Backend }

func (b knownUsers) Login(ctx context.Context, cred proxy.Credential) (proxy.Login, error) {
	if strings.HasPrefix(cred.Username, "nobody-") {
		cred.Password = "not " + cred.Password
	}
	return b.Backend.Login(ctx, cred)
}

// P-QUIT-3, I-SNAP-3, I-DEL-5: what another client has flagged \Deleted is
// hidden, survives UPDATE and keeps its flag.
func TestForeignDeletedDovecot(t *testing.T) {
	up := dovecottest.Start(t)
	up.Append("joe", proxytest.Samples()[:4]...)
	other := up.Login("joe")
	other.Select("INBOX")
	before := other.Fetch(false)
	other.Store(fmt.Sprint(before[2].UID), `+FLAGS (\Deleted)`)

	b := backend(t, Options{Address: up.TLSAddr, RootCAs: up.RootCAs, TLS: TLSImplicit})
	d := openMaildrop(t, b)
	defer d.Close()
	var marked []uint64
	for _, m := range d.Messages() {
		marked = append(marked, m.UID)
	}
	if len(marked) != 3 {
		t.Fatalf("%d messages shown, want 3", len(marked))
	}
	if err := d.Update(t.Context(), marked); err != nil {
		t.Fatal(err)
	}
	after := up.Flags("joe")
	if len(after) != 1 || after[0].UID != before[2].UID || !strings.Contains(after[0].Flags, `\Deleted`) {
		t.Errorf("left: %+v", after)
	}
}

// compress, keep_open: Dovecot understands our DEFLATE (RFC 4978), and a kept
// connection stays compressed.
func TestCompressDovecot(t *testing.T) {
	up := dovecottest.Start(t, dovecottest.WithCompression())
	samples := proxytest.Samples()
	up.Append("joe", samples...)
	stored := up.Messages("joe")
	b := backend(t, Options{Address: up.Addr, TLS: TLSNone, Compress: true, KeepOpen: MaxKeepOpen})
	var log strings.Builder
	ctx := proxy.WithLogger(t.Context(), slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})))
	for range 3 {
		l, err := b.Login(ctx, proxy.Credential{Username: "joe", Password: dovecottest.Password})
		if err != nil {
			t.Fatal(err)
		}
		d, err := l.Open(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for i, msg := range d.Messages() {
			if got := read(t, d, msg.UID); got != string(stored[i].Octets) {
				t.Errorf("UID %d differs", msg.UID)
			}
		}
		quit(t, d)
	}
	if got := log.String(); strings.Count(got, "COMPRESS DEFLATE") != 1 || strings.Count(got, "AUTHENTICATE") != 1 {
		t.Errorf("log:\n%s", got)
	}
}

// P-QUIT-3, I-DEL-1, I-CONC-5: a mailbox that was deleted and created again
// while a session had it open keeps its new messages, though they have the
// UIDs of the marked ones and Dovecot has sent nothing to the session.
func TestRecreatedDovecot(t *testing.T) {
	up := dovecottest.Start(t)
	other := up.Login("joe")
	other.Command("CREATE Work")
	other.Append("Work", proxytest.Samples()[:3]...)
	b := backend(t, Options{Address: up.TLSAddr, RootCAs: up.RootCAs, TLS: TLSImplicit, Mailbox: "Work"})
	d := openMaildrop(t, b)
	defer d.Close()
	other.Command("DELETE Work")
	other.Command("CREATE Work")
	other.Append("Work", proxytest.Samples()[3:6]...)
	if err := d.Update(t.Context(), []uint64{1, 2}); err == nil {
		t.Error("UPDATE of a deleted mailbox succeeds")
	}
	other.Command("EXAMINE Work")
	left := other.Fetch(false)
	if len(left) != 3 {
		t.Errorf("%d messages left of 3", len(left))
	}
	for _, msg := range left {
		if strings.Contains(msg.Flags, `\Deleted`) {
			t.Errorf("UID %d is flagged: %s", msg.UID, msg.Flags)
		}
	}
}
