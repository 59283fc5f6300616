// Package demo is a small IMAP server in memory: the upstream of popgate demo
// and of fast tests.
//
// It runs on go-imap's server package with a store of its own, because what a
// gateway must get right depends on it: UIDs rise and are never used twice,
// each mailbox has a UIDVALIDITY, UID EXPUNGE removes exactly the messages it
// names (RFC 4315), and a message is delivered as the octets that were
// appended, however odd they are; RFC822.SIZE is the length of that literal.
//
// A session numbers messages by the list it took at SELECT. NOOP, CHECK,
// APPEND and EXPUNGE bring that list up to date and announce the difference
// (RFC 3501 §5.2); no other command does, so a message number always means
// the same message. A message that another session has expunged meanwhile is
// left out of answers, which end in OK (RFC 2180 §4.1.3).
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

// maxLiteral is the largest literal that a client may send, in octets: what
// go-imap allocates before the first of them arrives.
const maxLiteral = 256 << 20

// Server is an IMAP server whose mail lives in memory. Its methods are safe
// for concurrent use; its fields are set before the first call.
type Server struct {
	// Logger gets what go-imap reports about sessions, at level debug.
	// nil: nothing is logged.
	Logger *slog.Logger

	// NoUIDPLUS takes away UIDPLUS (RFC 4315): it is not announced and UID
	// EXPUNGE is refused.
	NoUIDPLUS bool

	// UIDValidity is that of the mailboxes of users added from now on.
	// Zero: the time at which the user is added, in seconds.
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

// AddUser creates the user name with an empty INBOX. For a user who exists it
// changes the password only.
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

// Append adds a message to the INBOX of user and returns its UID. msg is
// served as it is and must not be modified afterwards.
func (s *Server) Append(user string, msg []byte, flags ...string) (uid uint32, err error) {
	u := s.user(user)
	if u == nil {
		return 0, fmt.Errorf("demo: append: no user %q", user)
	}
	return u.inbox.append(msg, flags, time.Now()), nil
}

// Message is a message as it stands in the store.
type Message struct {
	UID    uint32
	Flags  []string // sorted
	Octets []byte   // not to be modified
}

// Messages returns what is in the INBOX of user, by ascending UID; nil if
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

// Serve accepts connections on l until Close, and returns nil then. It closes
// l when it returns. Several listeners may be served at a time.
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

// listener keeps account of the connections that go-imap serves.
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

// conn is a connection whose Close, which go-imap calls when the session has
// ended, ends the account of it.
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

// errorLog is the imap.Logger that hands go-imap's messages to slog.
type errorLog struct{ server *Server }

var _ imap.Logger = errorLog{}

func (l errorLog) Printf(format string, v ...any) { l.log(fmt.Sprintf(format, v...)) }
func (l errorLog) Println(v ...any)               { l.log(fmt.Sprint(v...)) }

func (l errorLog) log(text string) {
	if l.server.Logger != nil {
		l.server.Logger.Debug("demo: imap server", "report", text)
	}
}
