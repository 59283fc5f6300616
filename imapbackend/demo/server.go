// Package demo is a small IMAP server in memory: the upstream of popgate demo
// and of tests.
//
// go-imap's server package speaks the protocol. This is why demo exists beside
// imapmodel: it is the one upstream in memory whose IMAP was not written by the
// author of the client, so a misreading of the standard is not in both. The
// conformance suite, the property tests of QUIT and the tests of TOP run on it.
//
// The store is demo's own, because a gateway depends on its properties: UIDs
// rise and are never used twice, each mailbox has a UIDVALIDITY, UID EXPUNGE
// removes exactly the given messages (RFC 4315), and a message is delivered as
// the octets that were appended, however odd they are; RFC822.SIZE is the length
// of that literal.
//
// A session numbers messages by the list that it took at SELECT. NOOP, CHECK,
// APPEND and EXPUNGE bring that list up to date and announce the difference
// (RFC 3501 §5.2); no other command does, so a message number always means the
// same message. A message that another session has expunged since is left out of
// answers, which end in OK (RFC 2180 §4.1.3).
//
// Liberties: INBOX is the only mailbox, so COPY goes there and MOVE, which
// go-imap announces, is refused; IDLE announces nothing; FETCH offers neither
// ENVELOPE nor BODYSTRUCTURE nor MIME parts. There is no TLS: listen on a
// loopback address.
package demo

import (
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/emersion/go-imap"
	"github.com/emersion/go-imap/server"
	"github.com/emersion/go-sasl"
)

// maxLiteral is the largest literal that a client may send, in octets. go-imap
// allocates it before the first octet arrives.
const maxLiteral = 256 << 20

// Server is an IMAP server whose mail lives in memory. Its methods are safe
// for concurrent use; its fields are set before the first call.
type Server struct {
	// Logger receives what go-imap reports about sessions, at level debug.
	// nil: nothing is logged.
	Logger *slog.Logger

	// NoUIDPLUS disables UIDPLUS (RFC 4315): it is not announced, and UID
	// EXPUNGE is refused.
	NoUIDPLUS bool

	// UIDValidity is the UIDVALIDITY of every INBOX. Zero: the time at which
	// the user is added, in seconds.
	UIDValidity uint32

	imap *server.Server

	mu        sync.Mutex
	users     map[string]*user
	listeners map[net.Listener]struct{}
	conns     map[*conn]struct{}
	closed    bool
	sessions  sync.WaitGroup // one for each element of conns
}

// New returns a Server without users.
func New() *Server {
	s := &Server{
		users:     make(map[string]*user),
		listeners: make(map[net.Listener]struct{}),
		conns:     make(map[*conn]struct{}),
	}
	s.imap = server.New(s)
	s.imap.AllowInsecureAuth = true
	s.imap.MaxLiteralSize = maxLiteral
	s.imap.ErrorLog = errorLog{s}
	s.imap.EnableAuth(sasl.Login, func(c server.Conn) sasl.Server {
		return &loginMechanism{server: s, conn: c}
	})
	s.imap.Enable(extension{s})
	return s
}

// AddUser creates a user with an empty INBOX. For an existing user it changes
// the password only.
func (s *Server) AddUser(name, password string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if u, ok := s.users[name]; ok {
		u.password = password
		return
	}
	validity := s.UIDValidity
	if validity == 0 {
		validity = uint32(time.Now().Unix())
	}
	s.users[name] = &user{name: name, password: password, inbox: newMailbox(validity)}
}

// Append adds a message to the INBOX of user and returns its UID. msg is served
// unchanged and must not be modified afterwards. It is an error if there is no
// such user.
func (s *Server) Append(user string, msg []byte, flags ...string) (uid uint32, err error) {
	u := s.user(user)
	if u == nil {
		return 0, fmt.Errorf("demo: append: no user %q", user)
	}
	return u.inbox.append(inMemory(msg), flags, time.Now()), nil
}

// AppendMail adds the messages of mail to the INBOX of user. The caller closes mail
// after the Server. It is an error if there is no such user.
func (s *Server) AppendMail(user string, mail *Mail) error {
	u := s.user(user)
	if u == nil {
		return fmt.Errorf("demo: append: no user %q", user)
	}
	for _, m := range mail.messages {
		u.inbox.append(m, nil, time.Now())
	}
	return nil
}

// Message is a message in the store.
type Message struct {
	UID    uint32
	Flags  []string // sorted
	Octets []byte   // not to be modified
}

// Messages returns the messages in the INBOX of user, by ascending UID; nil if
// there is no such user.
func (s *Server) Messages(user string) []Message {
	u := s.user(user)
	if u == nil {
		return nil
	}
	return u.inbox.messages()
}

func (s *Server) user(name string) *user {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.users[name]
}

// Serve accepts connections on l until Close, and then returns nil. It closes l
// when it returns. Several listeners may be served at a time.
func (s *Server) Serve(l net.Listener) error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return l.Close()
	}
	s.listeners[l] = struct{}{}
	s.mu.Unlock()

	err := s.imap.Serve(&listener{l, s})

	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.listeners, l)
	if s.closed {
		return nil
	}
	return fmt.Errorf("demo: %w", err)
}

// Close closes the listeners and all connections and waits for the sessions
// to end. It may be called more than once; the error is always nil.
//
// It does not use Close of go-imap's server, which reads the state of
// sessions while they run.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	for l := range s.listeners {
		l.Close()
	}
	for c := range s.conns {
		c.Conn.Close()
	}
	s.mu.Unlock()
	s.sessions.Wait()
	return nil
}

// listener registers the connections that it accepts in Server.conns.
type listener struct {
	net.Listener
	server *Server
}

// Accept returns a *conn; after Close of the Server, net.ErrClosed.
func (l *listener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	s := l.server
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		nc.Close()
		return nil, net.ErrClosed
	}
	c := &conn{Conn: nc, server: s}
	s.conns[c] = struct{}{}
	s.sessions.Add(1)
	return c, nil
}

// conn is a connection that removes itself from Server.conns when go-imap closes
// it at the end of the session.
type conn struct {
	net.Conn
	server *Server
	once   sync.Once
}

// Close closes the connection.
func (c *conn) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() {
		c.server.mu.Lock()
		delete(c.server.conns, c)
		c.server.mu.Unlock()
		c.server.sessions.Done()
	})
	return err
}

// errorLog is an imap.Logger that passes go-imap's messages to slog.
type errorLog struct{ server *Server }

var _ imap.Logger = errorLog{}

func (l errorLog) Printf(format string, v ...any) { l.log(fmt.Sprintf(format, v...)) }
func (l errorLog) Println(v ...any)               { l.log(fmt.Sprint(v...)) }

func (l errorLog) log(text string) {
	if l.server.Logger != nil {
		l.server.Logger.Debug("demo: imap server", "report", text)
	}
}
