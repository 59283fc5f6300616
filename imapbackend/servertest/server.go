//go:build integration

package servertest

import (
	"cmp"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"popgate/imapbackend/dovecottest"
	"popgate/proxy/proxytest"
)

// Hashes of dovecottest.Password, as crypt(3) and as bcrypt make them.
const (
	cryptHash  = "$6$popgate$m.47o54hvk67cyTCKpKwxB.v/PZIwIrawq8DTtg2OL8SfgLhQos9iLk2OGEObbeVNBsiGeKbCdMy.bf4iJeWM0"
	bcryptHash = "$2a$04$G.72f3VQ9LBuuWB0T/2KBOuqgNRA/mym9DVNxHEdXFXFpb6q7rF.i"
)

// userCount is how many users a server has. Setting them up takes time.
const userCount = 32

// startTries is how often ports are chosen: one may be taken between choosing
// and binding it.
const startTries = 5

// Server is a private IMAP server, or proxy. Its methods fail the test that
// started it, or that of In; they belong to that test's goroutine.
type Server struct {
	// Name is the one given to Start; Version is that of the package or
	// module that the program comes from.
	Name, Version string

	// Addr is the host:port of IMAP without TLS, where plain login is
	// allowed; TLSAddr that of IMAP over implicit TLS, "" if there is none.
	Addr, TLSAddr string

	// RootCAs holds the CA that signed the server's certificate, which names
	// localhost and 127.0.0.1.
	RootCAs *x509.CertPool

	// User is the login name of a user whose INBOX is empty. NewUser returns
	// more of them. Password is that of each.
	User, Password string

	// Upstream is the address of what a proxy is in front of; "" for servers.
	Upstream string

	// AuthURL is the web server that a proxy asks who may log in, if it asks one;
	// "" for servers.
	AuthURL string

	t       testing.TB
	kind    kind
	dir     string
	users   *[]string // not yet returned by NewUser
	mailbox string    // host:port where Login finds the mailboxes
	process *process
}

// Start runs the server called name until the end of the test.
func Start(t testing.TB, name string) *Server {
	t.Helper()
	k := kindOf(t, name)
	s := &Server{Name: name, Password: dovecottest.Password + k.suffix, t: t, kind: k, users: new([]string)}
	for i := range userCount {
		*s.users = append(*s.users, fmt.Sprintf("u%d%s", i+1, k.domain))
	}
	if k.part == "" {
		s.startDovecot()
	} else {
		s.start()
	}
	s.User = s.NewUser()
	return s
}

func (s *Server) startDovecot() {
	s.t.Helper()
	d := dovecottest.Start(s.t, s.kind.dovecot...)
	s.Version = d.Version()
	s.Addr, s.TLSAddr, s.mailbox = d.Addr, d.TLSAddr, d.Addr
	s.RootCAs = d.RootCAs
}

func (s *Server) start() {
	s.t.Helper()
	if os.Geteuid() != 0 {
		s.t.Fatalf("servertest: %s runs only as root", s.Name)
	}
	s.Version = s.kind.version(s.t)
	// Not t.TempDir: users of the server's own must be able to traverse the
	// path, and the names of Unix sockets are short.
	dir, err := os.MkdirTemp("", s.Name)
	if err != nil {
		s.t.Fatalf("servertest: %v", err)
	}
	s.dir = dir
	s.t.Cleanup(s.cleanup)
	if err := os.Chmod(dir, 0o755); err != nil {
		s.t.Fatalf("servertest: %v", err)
	}
	certificate := proxytest.NewCertificate(s.t, proxytest.CertificateOptions{})
	certificate.WriteFiles(s.t, dir)
	s.RootCAs = certificate.CA
	upstream := ""
	if s.kind.proxy {
		upstream = dovecottest.Start(s.t).Addr
		s.mailbox, s.Upstream = upstream, upstream
	}
	for range startTries {
		if err = s.launch(upstream); !errors.Is(err, errInUse) {
			break
		}
	}
	if err != nil {
		s.t.Fatalf("servertest: %s does not start: %v", s.Name, err)
	}
}

// launch starts the server on addresses that it chooses.
func (s *Server) launch(upstream string) error {
	s.Addr = freeAddr(s.t)
	if !s.kind.noTLS {
		s.TLSAddr = freeAddr(s.t)
	}
	if !s.kind.proxy {
		s.mailbox = s.Addr
	}
	run := filepath.Join(s.dir, "run")
	if err := os.RemoveAll(run); err != nil {
		return err
	}
	p, err := newProcess(s.kind, run, s.words(upstream))
	if err != nil {
		return err
	}
	s.process = p
	return p.awaitGreeting(s.Addr, s.TLSAddr)
}

// words are the words that the files below servers have for what differs from
// one instance to the next.
func (s *Server) words(upstream string) map[string]string {
	s.t.Helper()
	cache, err := cacheDir()
	if err != nil {
		s.t.Fatalf("servertest: %v", err)
	}
	names := make([]string, userCount)
	for i := range names {
		names[i] = fmt.Sprintf("u%d", i+1)
	}
	words := map[string]string{
		"CACHE":    cache, // the directory that prepare.sh fills
		"ROOT":     filepath.Join(cache, debian, "root"),
		"USERS":    strings.Join(names, " "), // without domain
		"PASSWORD": s.Password,
		"CRYPT":    cryptHash,
		"BCRYPT":   bcryptHash,
		"PORT":     port(s.Addr),
		"TLS_PORT": port(s.TLSAddr),
	}
	if s.kind.proxy {
		words["UPSTREAM_PORT"] = port(upstream)
		auth := authServer(s.t, upstream)
		s.AuthURL, words["AUTH_PORT"] = "http://"+auth+"/", port(auth)
	}
	return words
}

func port(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// freeAddr returns an address of 127.0.0.1 that nobody listened on a moment
// ago.
func freeAddr(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("servertest: %v", err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// NewUser returns the login name of a user whose INBOX is empty, each time of
// another one. There are userCount users.
func (s *Server) NewUser() string {
	s.t.Helper()
	if len(*s.users) == 0 {
		s.t.Fatalf("servertest: %s has %d users, not more", s.Name, userCount)
	}
	user := (*s.users)[0]
	*s.users = (*s.users)[1:]
	return user
}

// In returns the same server for a subtest, which its methods fail.
func (s *Server) In(t testing.TB) *Server {
	other := *s
	other.t = t
	return &other
}

// Limits are what cannot be had of this server, with the reason.
func (s *Server) Limits() map[Limit]string { return s.kind.limits }

// Title is what docs/upstreams.md calls the server.
func (s *Server) Title() string { return s.kind.title }

// Settings are keys of [[upstream]], with values, that suit the server better than
// the defaults.
func (s *Server) Settings() []string { return s.kind.settings }

// Refuses names the messages, of those that the tests have, which the server does
// not take.
func (s *Server) Refuses() []string { return s.kind.refuses }

// Trash is a mailbox that messages may be moved to. It need not exist.
func (s *Server) Trash() string { return cmp.Or(s.kind.trash, "Trash") }

// Users returns the names of the users that NewUser has not returned yet.
func (s *Server) Users() []string { return slices.Clone(*s.users) }

// Login returns a client that is logged in as user. Its connection is closed at
// the end of the test. With a proxy it is a client of the Dovecot that the proxy
// connects to.
func (s *Server) Login(user string) *dovecottest.Client {
	s.t.Helper()
	c := dovecottest.Dial(s.t, s.mailbox)
	c.Command("LOGIN %q %q", user, s.Password)
	return c
}

// Append adds messages to user's INBOX.
func (s *Server) Append(user string, messages ...[]byte) {
	s.t.Helper()
	c := s.Login(user)
	c.Append("INBOX", messages...)
	c.Logout()
}

// Messages returns the messages of user's INBOX and changes nothing.
func (s *Server) Messages(user string) []dovecottest.Message {
	s.t.Helper()
	c := s.Login(user)
	c.Examine("INBOX")
	messages := c.Fetch(true)
	c.Logout()
	return messages
}

// Log returns the end of what the server has logged.
func (s *Server) Log() string {
	if s.process == nil {
		return ""
	}
	return s.process.log()
}

// cleanup ends the server, prints its log if the test failed, and removes what
// it stored.
func (s *Server) cleanup() {
	if s.process != nil {
		s.process.kill()
	}
	if s.t.Failed() {
		s.t.Logf("log of %s:\n%s", s.Name, s.Log())
	}
	if err := os.RemoveAll(s.dir); err != nil {
		s.t.Errorf("servertest: %v", err)
	}
}
