package imapbackend

import (
	"testing"

	"popgate/imapbackend/imapmodel"
)

// model is a model upstream with one INBOX for all, and Backends before it.
type model struct {
	*imapmodel.Model
}

func newModel() *model { return &model{imapmodel.New()} }

// add appends a message and returns its UID.
func (m *model) add(body string) uint32 { return m.Inbox().Add(body) }

// messages are those of the INBOX.
func (m *model) messages() []imapmodel.Message { return m.Inbox().Messages() }

// remove expunges the message at index i.
func (m *model) remove(i int) { m.Inbox().Remove(m.messages()[i].UID) }

// backend returns a Backend before the model.
func (m *model) backend(t testing.TB, opts Options) *Backend {
	b := backend(t, opts)
	b.dial = m.Dial
	return b
}
