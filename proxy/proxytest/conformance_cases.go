package proxytest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"popgate/proxy"
)

func (c *conformance) wrongPassword() {
	cred := c.Credential
	cred.Password += "x"
	c.refused(cred)
	_ = c.login().Close() // the right password still works
}

func (c *conformance) unknownUser() {
	cred := c.Credential
	cred.Username = "nobody-" + cred.Username
	c.refused(cred)
}

func (c *conformance) foreignAuthzid() {
	cred := c.Credential
	cred.Authzid = "nobody-" + cred.Username
	c.refused(cred)
}

func (c *conformance) identity() {
	first, second := c.login(), c.login()
	if a, b := first.Identity(), second.Identity(); !slices.Equal(a.Keys(), b.Keys()) || a.Upstream == "" || a.User == "" {
		c.Errorf("identities %+v and %+v", a, b)
	}
	for _, l := range []proxy.Login{first, second} {
		if err := l.Close(); err != nil {
			c.Errorf("Close: %v", err)
		}
	}
}

func (c *conformance) loginNotOpened() {
	c.Seed(c.T, Samples()[0])
	if err := c.login().Close(); err != nil {
		c.Errorf("Close: %v", err)
	}
	if n := len(c.open().Messages()); n != 1 {
		c.Errorf("then %d messages, want 1", n)
	}
}

func (c *conformance) empty() {
	d := c.open()
	if n := len(d.Messages()); n != 0 {
		c.Errorf("%d messages in an empty mailbox", n)
	}
	if err := d.Update(c.ctx, nil); err != nil {
		c.Errorf("Update: %v", err)
	}
}

func (c *conformance) snapshot() {
	samples := Samples()
	c.Seed(c.T, samples...)
	d := c.open()
	messages := d.Messages()
	if len(messages) != len(samples) {
		c.Fatalf("%d messages, want %d", len(messages), len(samples))
	}
	last := uint64(0)
	for i, m := range messages {
		if m.UID <= last {
			c.Errorf("UID %d follows %d", m.UID, last)
		}
		last = m.UID
		stored := int64(len(samples[i])) // if no final CRLF has been added
		if want := int64(len(Repair(samples[i]))); m.Octets != want && m.Octets != stored {
			c.Errorf("message %d: %d octets, want %d", i+1, m.Octets, want)
		}
	}
	if d.ReadOnly() {
		c.Error("the maildrop is read-only")
	}
}

func (c *conformance) newMail() {
	c.Seed(c.T, Samples()[0], Samples()[1])
	d := c.open()
	before := slices.Clone(d.Messages())
	c.Seed(c.T, Samples()[2])
	c.text(d.Read(c.ctx, before[0].UID))
	if !slices.Equal(before, d.Messages()) {
		c.Error("the snapshot has changed")
	}
	if err := d.Update(c.ctx, []uint64{before[0].UID}); err != nil {
		c.Errorf("Update: %v", err)
	}
	c.left(Samples()[1], Samples()[2])
}

func (c *conformance) ids(d proxy.Maildrop) []string {
	c.Helper()
	f, err := d.UniqueIDs()
	if err != nil {
		c.Fatalf("UniqueIDs: %v", err)
	}
	var ids []string
	for _, m := range d.Messages() {
		id := string(f([]byte("1 "), m.UID))
		if len(id) < 3 || id[:2] != "1 " {
			c.Fatalf("%q does not append", id)
		}
		ids = append(ids, id[2:])
	}
	return ids
}

func (c *conformance) uniqueIDs() {
	c.Seed(c.T, Samples()...)
	d := c.open()
	ids := c.ids(d)
	seen := make(map[string]bool)
	for _, id := range ids {
		if len(id) > 70 || seen[id] {
			c.Errorf("unique-id %q is too long or not unique", id)
		}
		seen[id] = true
		for i := range len(id) {
			if id[i] < 0x21 || id[i] > 0x7e {
				c.Errorf("unique-id %q has octet %#x", id, id[i])
			}
		}
	}
	if err := d.Update(c.ctx, []uint64{d.Messages()[0].UID}); err != nil {
		c.Errorf("Update: %v", err)
	}
	_ = d.Close()
	c.Seed(c.T, Samples()[0])
	again := c.ids(c.open())
	if len(again) != len(ids) || !slices.Equal(again[:len(ids)-1], ids[1:]) {
		c.Errorf("next session: %q, want %q and a new one", again, ids[1:])
	}
	if seen[again[len(again)-1]] {
		c.Error("a unique-id has been used again")
	}
}

func (c *conformance) read() {
	samples := Samples()
	c.Seed(c.T, samples...)
	d := c.open()
	for i, m := range d.Messages() {
		body, err := d.Read(c.ctx, m.UID)
		if err != nil {
			c.Fatalf("message %d: %v", i+1, err)
		}
		announced := body.Octets()
		got := c.text(body, nil)
		if announced != int64(len(got)) {
			c.Errorf("message %d: %d octets announced, %d written", i+1, announced, len(got))
		}
		if !bytes.Equal(Repair(got), Repair(samples[i])) {
			c.Errorf("message %d: got %.300q, want %.300q", i+1, got, samples[i])
		}
		d.Retrieved(c.ctx, m.UID, int64(len(Repair(got))))
	}
}

func (c *conformance) gone() {
	c.Seed(c.T, Samples()[:3]...)
	d := c.open()
	c.Expunge(c.T, 1)
	uid := d.Messages()[1].UID
	// A server may still serve what another client has expunged (RFC 2180
	// §4.1), but then it must be the right message.
	if body, err := d.Read(c.ctx, uid); !errors.Is(err, proxy.ErrGone) {
		if got := c.text(body, err); !bytes.Equal(Repair(got), Repair(Samples()[1])) {
			c.Errorf("Read: %.300q, want ErrGone or the message", got)
		}
	}
	if body, err := d.Top(c.ctx, uid, 0); !errors.Is(err, proxy.ErrGone) {
		if got := c.text(body, err); !bytes.Equal(got, topOf(Samples()[1], 0)) {
			c.Errorf("Top: %.300q, want ErrGone or the header", got)
		}
	}
	if got := c.text(d.Read(c.ctx, d.Messages()[2].UID)); !bytes.Equal(Repair(got), Repair(Samples()[2])) {
		c.Errorf("the next message: %q", got)
	}
	if len(d.Messages()) != 3 {
		c.Error("the snapshot has changed")
	}
}

func closeBody(b proxy.Body) {
	if b != nil {
		_ = b.Close()
	}
}

// limitedWriter fails after n octets, like a client that disconnects.
type limitedWriter struct{ n int }

var errWriterFull = errors.New("proxytest: writer is full")

func (w *limitedWriter) Write(p []byte) (int, error) {
	if len(p) > w.n {
		return 0, errWriterFull
	}
	w.n -= len(p)
	return len(p), nil
}

func (c *conformance) bodyNotRead() {
	big := Generate(1, 300_000)
	c.Seed(c.T, big, Samples()[0])
	d := c.open()
	uids := d.Messages()
	body, err := d.Read(c.ctx, uids[0].UID)
	if err != nil {
		c.Fatal(err)
	}
	_ = body.Close() // nothing read of it
	if got := c.text(d.Read(c.ctx, uids[1].UID)); !bytes.Equal(Repair(got), Samples()[0]) {
		c.Errorf("after a body that was not read: %q", got)
	}
	if body, err = d.Read(c.ctx, uids[0].UID); err != nil {
		c.Fatal(err)
	}
	if _, err := body.WriteTo(&limitedWriter{1000}); !errors.Is(err, errWriterFull) {
		c.Errorf("WriteTo a failing writer: %v", err)
	}
	_ = body.Close()
	if err := d.Close(); err != nil {
		c.Errorf("Close after a body that was read in part: %v", err)
	}
	c.left(big, Samples()[0])
}

func (c *conformance) top() {
	samples := Samples()
	c.Seed(c.T, samples...)
	d := c.open()
	for i, m := range d.Messages() {
		for _, lines := range []uint64{0, 1, 2, 29_999, math.MaxUint64} {
			body, err := d.Top(c.ctx, m.UID, lines)
			if err != nil {
				c.Fatalf("message %d, %d lines: %v", i+1, lines, err)
			}
			want := Repair(topOf(Repair(samples[i]), lines))
			if got := Repair(c.text(body, nil)); !bytes.Equal(got, want) {
				c.Errorf("message %d, %d lines: got %.300q, want %.300q", i+1, lines, got, want)
			}
		}
	}
}

// left compares the mailbox with the messages that must be in it.
func (c *conformance) left(want ...[]byte) {
	c.Helper()
	got := c.Left(c.T)
	if len(got) != len(want) {
		c.Fatalf("%d messages are left, want %d", len(got), len(want))
	}
	for i := range want {
		if !bytes.Equal(Repair(got[i]), Repair(want[i])) {
			c.Errorf("message %d left: %.300q, want %.300q", i+1, got[i], want[i])
		}
	}
}

func (c *conformance) closeOnly() {
	c.Seed(c.T, Samples()...)
	d := c.open()
	c.text(d.Read(c.ctx, d.Messages()[0].UID))
	for range 2 {
		if err := d.Close(); err != nil {
			c.Errorf("Close: %v", err)
		}
	}
	c.left(Samples()...)
}

func (c *conformance) update() {
	var messages, remain [][]byte
	for i := range 30 {
		messages = append(messages, fmt.Appendf(nil, "Subject: %d\r\n\r\ntext %d\r\n", i, i))
	}
	c.Seed(c.T, messages...)
	d := c.open()
	var marked []uint64
	for i, m := range d.Messages() {
		if i%3 == 0 || i >= 20 && i < 25 {
			marked = append(marked, m.UID)
		} else {
			remain = append(remain, messages[i])
		}
	}
	if err := d.Update(c.ctx, marked); err != nil {
		c.Fatalf("Update: %v", err)
	}
	if err := d.Close(); err != nil {
		c.Errorf("Close: %v", err)
	}
	c.left(remain...)
	if n := len(c.open().Messages()); n != len(remain) {
		c.Errorf("the next session has %d messages, want %d", n, len(remain))
	}
}

func (c *conformance) updateGone() {
	c.Seed(c.T, Samples()[:4]...)
	d := c.open()
	c.Expunge(c.T, 0)
	m := d.Messages()
	if err := d.Update(c.ctx, []uint64{m[0].UID, m[2].UID}); err != nil {
		c.Errorf("Update: %v", err)
	}
	c.left(Samples()[1], Samples()[3])
}

func (c *conformance) updateNone() {
	c.Seed(c.T, Samples()...)
	d := c.open()
	if err := d.Update(c.ctx, nil); err != nil {
		c.Errorf("Update: %v", err)
	}
	if err := d.Close(); err != nil {
		c.Errorf("Close: %v", err)
	}
	c.left(Samples()...)
}

func (c *conformance) cancelled() {
	c.Seed(c.T, Samples()[0])
	ctx, cancel := context.WithCancel(c.ctx)
	d := c.open()
	cancel()
	if l, err := c.Backend.Login(ctx, c.Credential); err == nil {
		_ = l.Close()
		c.Error("Login under a cancelled context succeeded")
	}
	if body, err := d.Read(ctx, d.Messages()[0].UID); err == nil {
		// A part may be delivered, but must not be taken for the whole.
		var got bytes.Buffer
		if _, err := body.WriteTo(&got); err == nil && !bytes.Equal(Repair(got.Bytes()), Samples()[0]) {
			c.Errorf("under a cancelled context %q counts as the whole message", got.Bytes())
		}
		closeBody(body)
	}
	if err := d.Update(ctx, []uint64{d.Messages()[0].UID}); err == nil {
		c.Error("Update under a cancelled context succeeded")
	}
	_ = d.Close()
	c.left(Samples()[0])
}
