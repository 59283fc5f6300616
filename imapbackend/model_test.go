package imapbackend

import (
	"context"
	"io"
	"math"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"popgate/imapbackend/imapmodel"
)

// model is a model of an upstream, with one INBOX for all users and Backends in
// front of it.
type model struct {
	*imapmodel.Model
}

func newModel() *model { return &model{imapmodel.New()} }

// forms are the forms of FETCH responses that the model knows.
var forms = []struct {
	name           string
	uidLast, loose bool
}{{"UID first", false, false}, {"UID last", true, false}, {"UID last, loose", true, true}}

// inEachForm runs f in fake time with a model for each of the forms.
func inEachForm(t *testing.T, name string, f func(t *testing.T, m *model)) {
	for _, form := range forms {
		t.Run(name+", "+form.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				m := newModel()
				m.UIDLast, m.Loose = form.uidLast, form.loose
				f(t, m)
			})
		})
	}
}

// add appends a message and returns its UID.
func (m *model) add(body string) uint64 { return m.Inbox().Add(body) }

// setSearch has SEARCH answered in a style. If it is wrong, the upstream is one that
// no dialect knows, with a mailbox of another user whose messages are flagged
// \Deleted.
func (m *model) setSearch(style imapmodel.SearchStyle) {
	m.Search, m.Unknown = style, style != imapmodel.Searches
	for range 40 {
		m.Mailbox("other", "INBOX").AddMessage(imapmodel.Message{Body: "x", Flags: []string{`\Deleted`}})
	}
}

// messages returns the messages of the INBOX.
func (m *model) messages() []imapmodel.Message { return m.Inbox().Messages() }

// remove expunges the message at index i.
func (m *model) remove(i int) { m.Inbox().Remove(m.messages()[i].UID) }

// backend returns a Backend in front of the model.
func (m *model) backend(t testing.TB, opts Options) *Backend {
	b := backend(t, opts)
	b.dial = m.Dial
	return b
}

// cuttableConns are the connections of a Backend, each of which breaks after as
// many octets as a test wants.
type cuttableConns struct {
	last *cutConn // the current one
	next []int    // the limits of the next ones; later ones have none
}

// cuttable makes the future connections of b cuttable.
func cuttable(b *Backend) *cuttableConns {
	conns, dial := new(cuttableConns), b.dial
	b.dial = func(ctx context.Context) (net.Conn, error) {
		c, err := dial(ctx)
		if err != nil {
			return nil, err
		}
		conns.last = &cutConn{Conn: c, left: math.MaxInt}
		if len(conns.next) > 0 {
			conns.last.left, conns.next = conns.next[0], conns.next[1:]
		}
		return conns.last, nil
	}
	return conns
}

// cutConn is a connection that ends after left octets have been read.
type cutConn struct {
	net.Conn
	left  int
	ended atomic.Bool
}

// cut ends the connection. It is safe while another goroutine reads.
func (c *cutConn) cut() {
	c.ended.Store(true)
	c.Conn.Close()
}

func (c *cutConn) Read(p []byte) (int, error) {
	if c.left <= 0 || c.ended.Load() {
		c.Conn.Close()
		return 0, io.EOF
	}
	n, err := c.Conn.Read(p[:min(len(p), c.left)])
	c.left -= n
	return n, err
}
