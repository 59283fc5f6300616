//go:build integration

package servertest

import (
	"bufio"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"popgate/imapbackend/dovecottest"
)

// kind is what differs between the servers, beside their files below servers.
type kind struct {
	name   string
	part   string // what prepare.sh made for it; "" for Dovecot itself
	source string // what it is in the file versions of part
	domain string // what login names end with
	suffix string // what the password ends with, where Dovecot's would be too short
	proxy  bool   // it hands on to a Dovecot
	noTLS  bool

	dovecot []dovecottest.Option
}

var kinds = []kind{
	{name: "dovecot"},
	{name: "dovecot-mdbox", dovecot: []dovecottest.Option{dovecottest.WithStore("mdbox")}},
	{name: "dovecot-rev1", dovecot: []dovecottest.Option{dovecottest.WithCapability("IMAP4rev1")}},
	{name: "cyrus", part: debian, source: "cyrus-imapd"},
	{name: "courier", part: debian, source: "courier-imap"},
	{name: "mailutils", part: debian, source: "mailutils-imap4d"},
	{name: "mox", part: "mox", source: "github.com/mjl-/mox", domain: "@localhost", suffix: "-of-mox"},
	{name: "maddy", part: "maddy", source: "github.com/foxcpp/maddy", domain: "@popgate.test"},
	{name: "goimap1", part: "goservers", source: "github.com/emersion/go-imap"},
	{name: "goimap2", part: "goservers", source: "github.com/emersion/go-imap/v2"},
	{name: "gluon", part: "goservers", source: "github.com/ProtonMail/gluon"},
	{name: "hoodiecrow", part: "hoodiecrow", source: "hoodiecrow-imap"},
	{name: "nginx", part: debian, source: "nginx", proxy: true},
	{name: "perdition", part: debian, source: "perdition", proxy: true},
	{name: "imapproxy", part: debian, source: "imapproxy", proxy: true, noTLS: true},
}

const debian = "debian"

// All returns the names of all servers.
func All() []string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = k.name
	}
	return names
}

func kindOf(t testing.TB, name string) kind {
	t.Helper()
	for _, k := range kinds {
		if k.name == name {
			return k
		}
	}
	t.Fatalf("servertest: no server is called %q", name)
	return kind{}
}

// cacheDir is the directory that prepare.sh fills.
func cacheDir() (string, error) {
	if dir := os.Getenv("POPGATE_SERVERS"); dir != "" {
		return dir, nil
	}
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "popgate-servers"), err
}

// version returns the version that has been prepared. It fails the test if none
// has been.
func (k kind) version(t testing.TB) string {
	t.Helper()
	cache, err := cacheDir()
	if err != nil {
		t.Fatalf("servertest: %v", err)
	}
	list, err := os.Open(filepath.Join(cache, k.part, "versions"))
	if err != nil {
		t.Fatalf("servertest: %s is not prepared; run: make servers (%v)", k.name, err)
	}
	defer list.Close()
	lines := bufio.NewScanner(list)
	for lines.Scan() {
		if source, version, _ := strings.Cut(lines.Text(), " "); source == k.source {
			return version
		}
	}
	t.Fatalf("servertest: %s does not list %s: %v", list.Name(), k.source, lines.Err())
	return ""
}
