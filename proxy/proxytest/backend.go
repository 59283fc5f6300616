package proxytest

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"popgate/proxy"
)

// Backend is a proxy.Backend in memory. It is safe for concurrent use. The letter
// case of names does not matter.
type Backend struct {
	mu       sync.Mutex
	accounts map[string]*account
	faults   Faults
	counts   Counts
	open     int
}

var (
	_ proxy.Backend   = (*Backend)(nil)
	_ proxy.Exchanger = (*Backend)(nil)
)

// Counts are the numbers of calls of a Backend.
type Counts struct {
	Logins  int // Login and Exchange
	Reads   int // Read and Top
	Updates int // Update
}

// Faults are the faults of a Backend. The zero value means none.
type Faults struct {
	Login, Open           error // returned instead of success
	LoginDelay, OpenDelay time.Duration

	Read      map[uint64]error // returned by Read and Top, by UID
	ReadDelay time.Duration    // before either
	Cut       map[uint64]int   // octets after which the body breaks off
	Chunk     int              // octets of one write of a body; 0: all
	UniqueIDs error

	Update      error         // returned without removing anything
	RetainAll   bool          // Update removes nothing, by configuration
	UpdateDelay time.Duration // before removing
	UpdateLate  time.Duration // the same, whatever the context says
	Unremovable []uint64      // UIDs that cannot be removed
	NoExchanges bool          // Offers says no
	Panic       string        // method that panics, in lower case
	OnWrite     func()        // called before each write of a body
	OnUpdate    func()        // called when Update begins
	OnRetrieved func(uid uint64)
}

// Stored is a message in a mailbox.
type Stored struct {
	UID       uint64 // 0: the next one
	Body      []byte
	Listed    int64 // octets that LIST announces; 0: as many as RETR sends
	Announced int64 // octets that RETR announces; 0: the length of Body
}

type account struct {
	password string
	readOnly bool
	mailbox  []Stored
	nextUID  uint64
	removed  []uint64
}

// NewBackend returns a Backend without accounts.
func NewBackend() *Backend {
	return &Backend{accounts: make(map[string]*account)}
}

// AddAccount adds an account with an empty mailbox, or replaces one.
func (b *Backend) AddAccount(user, password string, readOnly bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.accounts[strings.ToLower(user)] = &account{password: password, readOnly: readOnly, nextUID: 1}
}

// Add stores messages in user's mailbox. UIDs must ascend.
func (b *Backend) Add(user string, messages ...Stored) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.accounts[strings.ToLower(user)]
	for _, m := range messages {
		if m.UID == 0 {
			m.UID = a.nextUID
		}
		a.nextUID = m.UID + 1
		a.mailbox = append(a.mailbox, m)
	}
}

// Expunge removes a message as another client of the mailbox would.
func (b *Backend) Expunge(user string, uid uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.accounts[strings.ToLower(user)]
	a.mailbox = slices.DeleteFunc(slices.Clone(a.mailbox), func(m Stored) bool { return m.UID == uid })
}

// Messages returns the messages in user's mailbox.
func (b *Backend) Messages(user string) []Stored {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.accounts[strings.ToLower(user)].mailbox)
}

// Removed returns the UIDs that Update has removed from user's mailbox.
func (b *Backend) Removed(user string) []uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.accounts[strings.ToLower(user)].removed)
}

// SetFaults replaces the faults.
func (b *Backend) SetFaults(f Faults) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.faults = f
}

// Counts returns the calls so far.
func (b *Backend) Counts() Counts {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.counts
}

// Open returns the number of logins and maildrops not closed yet.
func (b *Backend) Open() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.open
}

func (b *Backend) call(method string, f func(c *Counts)) Faults {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f != nil {
		f(&b.counts)
	}
	if b.faults.Panic == method {
		panic("proxytest: fault of " + method)
	}
	return b.faults
}

func wait(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Login implements proxy.Backend. A non-empty Authzid must equal Username.
func (b *Backend) Login(ctx context.Context, cred proxy.Credential) (proxy.Login, error) {
	f := b.call("login", func(c *Counts) { c.Logins++ })
	if err := wait(ctx, f.LoginDelay); err != nil {
		return nil, err
	}
	if f.Login != nil {
		return nil, f.Login
	}
	password, ok := b.password(cred.Authzid, cred.Username)
	if !ok || password != cred.Password {
		return nil, proxy.ErrAuth
	}
	return b.admit(cred.Username), nil
}

// password returns the secret of the account; ok is false if there is none, or
// authzid names another.
func (b *Backend) password(authzid, user string) (password string, ok bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a := b.accounts[strings.ToLower(user)]
	if a == nil || authzid != "" && !strings.EqualFold(authzid, user) {
		return "", false
	}
	return a.password, true
}

func (b *Backend) admit(user string) *login {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.open++
	return &login{b: b, user: strings.ToLower(user)}
}

type login struct {
	b    *Backend
	user string
	done bool
}

func (l *login) Identity() proxy.Identity {
	return proxy.Identity{Upstream: "memory", User: l.user, Mailbox: "INBOX"}
}

func (l *login) Open(ctx context.Context) (proxy.Maildrop, error) {
	f := l.b.call("open", nil)
	if err := wait(ctx, f.OpenDelay); err != nil {
		return nil, err
	}
	if f.Open != nil {
		return nil, f.Open
	}
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	l.done = true
	a := l.b.accounts[l.user]
	d := &maildrop{b: l.b, a: a, snapshot: make([]proxy.Message, 0, len(a.mailbox))}
	for _, m := range a.mailbox {
		octets := m.Listed
		if octets == 0 {
			octets = int64(len(Repair(m.Body)))
		}
		d.snapshot = append(d.snapshot, proxy.Message{UID: m.UID, Octets: octets})
	}
	return d, nil
}

func (l *login) Close() error {
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	if !l.done {
		l.done = true
		l.b.open--
	}
	return nil
}

type maildrop struct {
	b        *Backend
	a        *account
	snapshot []proxy.Message
	closed   bool
}

func (d *maildrop) Messages() []proxy.Message { return d.snapshot }

func (d *maildrop) UniqueIDs() (func([]byte, uint64) []byte, error) {
	if f := d.b.call("uniqueids", nil); f.UniqueIDs != nil {
		return nil, f.UniqueIDs
	}
	return func(dst []byte, uid uint64) []byte {
		return fmt.Appendf(dst, "1.%d", uid)
	}, nil
}

func (d *maildrop) ReadOnly() bool { return d.a.readOnly }

func (d *maildrop) find(ctx context.Context, method string, uid uint64) (Stored, Faults, error) {
	f := d.b.call(method, func(c *Counts) { c.Reads++ })
	if err := ctx.Err(); err != nil {
		return Stored{}, f, err
	}
	if err := wait(ctx, f.ReadDelay); err != nil {
		return Stored{}, f, err
	}
	if err := f.Read[uid]; err != nil {
		return Stored{}, f, err
	}
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	for _, m := range d.a.mailbox {
		if m.UID == uid {
			return m, f, nil
		}
	}
	return Stored{}, f, proxy.ErrGone
}

func (d *maildrop) Read(ctx context.Context, uid uint64) (proxy.Body, error) {
	m, f, err := d.find(ctx, "read", uid)
	if err != nil {
		return nil, err
	}
	octets := m.Announced
	if octets == 0 {
		octets = int64(len(m.Body))
	}
	return newBody(ctx, m.Body, octets, uid, f), nil
}

func (d *maildrop) Top(ctx context.Context, uid uint64, lines uint64) (proxy.Body, error) {
	m, f, err := d.find(ctx, "top", uid)
	if err != nil {
		return nil, err
	}
	return newBody(ctx, topOf(m.Body, lines), -1, uid, f), nil
}

func (d *maildrop) Retrieved(_ context.Context, uid uint64, _ int64) {
	if f := d.b.call("retrieved", nil); f.OnRetrieved != nil {
		f.OnRetrieved(uid)
	}
}

// Retains implements proxy.Retainer.
func (d *maildrop) Retains() bool { return d.b.call("retains", nil).RetainAll }

func (d *maildrop) Update(ctx context.Context, marked []uint64) error {
	f := d.b.call("update", func(c *Counts) { c.Updates++ })
	if f.OnUpdate != nil {
		f.OnUpdate()
	}
	_ = wait(context.Background(), f.UpdateLate)
	if err := wait(ctx, f.UpdateDelay); err != nil {
		return err
	}
	if f.Update != nil || f.RetainAll {
		return f.Update
	}
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	left := 0
	d.a.mailbox = slices.DeleteFunc(slices.Clone(d.a.mailbox), func(m Stored) bool {
		if !slices.Contains(marked, m.UID) {
			return false
		}
		if slices.Contains(f.Unremovable, m.UID) {
			left++
			return false
		}
		d.a.removed = append(d.a.removed, m.UID)
		return true
	})
	if left > 0 {
		return proxy.ErrNotRemoved
	}
	return nil
}

func (d *maildrop) Close() error {
	d.b.call("close", nil)
	d.b.mu.Lock()
	defer d.b.mu.Unlock()
	if !d.closed {
		d.closed = true
		d.b.open--
	}
	return nil
}

// body is a message that is delivered in chunks and may be cut off.
type body struct {
	ctx    context.Context // of the call of Read or Top
	data   []byte
	octets int64
	chunk  int
	broken bool
	before func()
}

func newBody(ctx context.Context, data []byte, octets int64, uid uint64, f Faults) *body {
	b := &body{ctx: ctx, data: data, octets: octets, chunk: f.Chunk, before: f.OnWrite}
	if n, cut := f.Cut[uid]; cut {
		b.data, b.broken = data[:min(n, len(data))], true
	}
	return b
}

func (b *body) Octets() int64 { return b.octets }

func (b *body) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for rest := b.data; len(rest) > 0; {
		piece := rest
		if err := b.ctx.Err(); err != nil {
			return total, err
		}
		if b.chunk > 0 {
			piece = rest[:min(b.chunk, len(rest))]
		}
		if b.before != nil {
			b.before()
		}
		n, err := w.Write(piece)
		total += int64(n)
		if err != nil {
			return total, err
		}
		rest = rest[n:]
	}
	if b.broken {
		return total, fmt.Errorf("proxytest: upstream lost after %d octets: %w", total, io.ErrUnexpectedEOF)
	}
	return total, nil
}

func (b *body) Close() error { return nil }
