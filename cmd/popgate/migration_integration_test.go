//go:build integration

package main_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"popgate/imapbackend/dovecottest"
)

// letters returns messages with different identities.
func letters(from, to int) [][]byte {
	var all [][]byte
	for i := from; i < to; i++ {
		all = append(all, fmt.Appendf(nil, "Received: from client\r\n\tby server; Mon, 1 Jan 2024 00:00:%02d +0000\r\n"+
			"Date: Mon, 1 Jan 2024 00:00:00 +0000\r\nFrom: ann@example.com\r\nTo: joe@example.com\r\n"+
			"Subject: letter %d\r\nMessage-ID: <%d@example.com>\r\n\r\nThis is letter %d.\r\n", i%60, i, i, i))
	}
	return all
}

// uniqueIDs returns the reply to UIDL at addr for joe.
func uniqueIDs(t testing.TB, addr string) string {
	t.Helper()
	c := loginPOP(t, addr, "joe")
	got := c.Fetch("UIDL")
	c.OK("QUIT")
	return got
}

// I-UIDL-2: the templates of docs/migration.md give the unique-ids of a real
// Dovecot, with its default and with the formats that it documents for
// migrations from other servers.
func TestMigrationTemplates(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, format, template string }{
		{"Dovecot", "", "{uid:08x}{uidvalidity:08x}"},
		{"UW", "%08Xv%08Xu", "{uidvalidity:08x}{uid:08x}"},
		{"Cyrus 2.1.4 and later", "%v.%u", "{uidvalidity}.{uid}"},
		{"older Cyrus, Courier 1", "%u", "{uid}"},
		{"Courier 2", "%v-%u", "{uidvalidity}-{uid}"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			former := dovecottest.Start(t, dovecottest.WithPOP3(tt.format))
			former.Append("joe", letters(0, 12)...)
			want := uniqueIDs(t, former.POP3Addr)
			g := startGateway(t, plainConfig(former.Addr)+fmt.Sprintf("uidl = %q\n", tt.template))
			if got := uniqueIDs(t, g.addr); got != want || strings.Count(got, "\n") != 12 {
				t.Errorf("%s:\n%swant\n%s", tt.template, got, want)
			}
		})
	}
}

// mover is a client that leaves its mail on the server, while the servers
// change.
type mover struct {
	*testing.T
	dir      string
	upstream *dovecottest.Server
	sent     int
}

// send delivers n messages upstream.
func (m *mover) send(n int) {
	m.Helper()
	m.upstream.Append("joe", letters(m.sent, m.sent+n)...)
	m.sent += n
}

// fetches checks that the client downloads n messages from addr.
func (m *mover) fetches(when, addr string, n int) {
	m.Helper()
	r := retriever{}
	r.empty(m.T, m.dir)
	fetchmail(m, addr, m.dir, true)
	if got := len(r.files(m.T, m.dir)); got != n {
		m.Errorf("%s: %d messages downloaded, want %d", when, got, n)
	}
}

// rebuild changes UIDVALIDITY without the gateway.
func (m *mover) rebuild() {
	m.Helper()
	before := uniqueIDs(m, m.upstream.POP3Addr)
	m.upstream.Rebuild("joe")
	for _, line := range strings.Fields(uniqueIDs(m, m.upstream.POP3Addr)) {
		if len(line) == 16 && strings.Contains(before, line) {
			m.Fatalf("the mailbox is not rebuilt: %s again", line)
		}
	}
}

// P-UIDL-2, I-UIDL-2, I-UIDL-5, I-UIDV-3: a client downloads each message once
// when it changes from Dovecot's own POP3 to the gateway, and when UIDVALIDITY
// changes.
func TestMigration(t *testing.T) {
	t.Parallel()
	m := &mover{T: t, dir: clientDir(t), upstream: dovecottest.Start(t, dovecottest.WithPOP3(""))}
	m.send(20)
	m.fetches("the former server", m.upstream.POP3Addr, 20)
	m.fetches("the former server, again", m.upstream.POP3Addr, 0)

	config := plainConfig(m.upstream.Addr) + fmt.Sprintf("uidl = \"{uid:08x}{uidvalidity:08x}\"\nuidl_memory = true\n[store]\npath = %q\n",
		filepath.Join(t.TempDir(), "store.db"))
	g := startGateway(t, config)
	m.fetches("the gateway", g.addr, 0)
	m.send(1)
	m.fetches("new mail", g.addr, 1)
	m.fetches("no new mail", g.addr, 0)

	m.rebuild()
	m.fetches("rebuilt", g.addr, 0)
	g.stop()
	m.rebuild()
	g = startGateway(t, config)
	m.fetches("rebuilt while the gateway was down", g.addr, 0)
	m.send(2)
	m.fetches("new mail after that", g.addr, 2)
	m.fetches("no new mail after that", g.addr, 0)
	if got := len(m.upstream.Flags("joe")); got != m.sent {
		t.Errorf("%d messages upstream, want %d", got, m.sent)
	}
}

// I-UIDL-5: unique-ids that no template can give are read from the former server
// and stay valid.
func TestMigrationImport(t *testing.T) {
	t.Parallel()
	m := &mover{T: t, dir: clientDir(t), upstream: dovecottest.Start(t, dovecottest.WithPOP3("%g"))}
	m.send(20)
	m.fetches("the former server", m.upstream.POP3Addr, 20)
	file := filepath.Join(t.TempDir(), "former.uidl")
	if err := os.WriteFile(file, readFormer(t, m.upstream.POP3Addr), 0o600); err != nil {
		t.Fatal(err)
	}
	m.send(1)
	g := startGateway(t, plainConfig(m.upstream.Addr)+fmt.Sprintf("uidl_memory = true\nuidl_import = %q\n[store]\npath = %q\n",
		file, filepath.Join(t.TempDir(), "store.db")))
	m.fetches("the gateway", g.addr, 1)
	m.fetches("the gateway, again", g.addr, 0)
	m.upstream.Rebuild("joe")
	m.fetches("rebuilt", g.addr, 0)
}

// I-UIDL-5: what is read from a maildir of Dovecot, without its server, is what the
// server would have shown: unique-ids that it has saved there, or made from UIDs.
func TestMigrationMaildir(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		format, template string
		options          []dovecottest.Option
	}{
		{"", "{uid:08x}{uidvalidity:08x}", nil},
		{"", "{uid}", []dovecottest.Option{dovecottest.WithSavedUniqueIDs()}},
		{"%g", "{uid}", []dovecottest.Option{dovecottest.WithSavedUniqueIDs()}},
		{"%g", "filename", nil},
	} {
		former := dovecottest.Start(t, append(tt.options, dovecottest.WithPOP3(tt.format))...)
		former.Append("joe", letters(0, 12)...)
		shown := readFormer(t, former.POP3Addr)
		_, want, _ := strings.Cut(string(shown), "\n")
		_, got, _ := strings.Cut(string(runUIDL(t, "--maildir", former.Maildir("joe"), "--uidl", tt.template)), "\n")
		if got != want || strings.Count(got, "\n") != 12 {
			list, _ := os.ReadFile(filepath.Join(former.Maildir("joe"), "dovecot-uidlist"))
			t.Errorf("format %q:\n%swant\n%sof\n%s", tt.format, got, want, list)
		}
	}
}

// readFormer runs popgate uidl for a server.
func readFormer(t testing.TB, addr string) []byte {
	t.Helper()
	return runUIDL(t, "--server", addr, "--tls", "none", "--user", "joe")
}

// runUIDL runs popgate uidl.
func runUIDL(t testing.TB, args ...string) []byte {
	t.Helper()
	file, err := popgateRace()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), file.Fd()), append([]string{"uidl"}, args...)...)
	cmd.Stdin = strings.NewReader(dovecottest.Password + "\n")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v\n%s", err, &stderr)
	}
	return out
}
