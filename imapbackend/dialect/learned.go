package dialect

import (
	"fmt"
	"strings"
	"sync"
	"time"
)

// Facts is what is known of a server from connections to it. It is a value.
type Facts struct {
	Works Form // forms that have succeeded
	Fails Form // forms that do not work, where a more careful one does
}

// MarshalText returns the facts as text for a store and for an operator, such as
// "works=id,search fails=login-flight". It never fails.
func (f Facts) MarshalText() ([]byte, error) {
	return []byte("works=" + f.Works.String() + " fails=" + f.Fails.String()), nil
}

// UnmarshalText reads what MarshalText has written.
func (f *Facts) UnmarshalText(text []byte) error {
	works, fails, ok := strings.Cut(string(text), " fails=")
	works, found := strings.CutPrefix(works, "works=")
	if !ok || !found {
		return fmt.Errorf("dialect: %q are no facts", text)
	}
	var err error
	if f.Works, err = ParseForms(works); err != nil {
		return err
	}
	f.Fails, err = ParseForms(fails)
	return err
}

// doubt is how long a form that a profile says works is not used after a failure
// that may have had another cause.
const doubt = 24 * time.Hour

// Learned is what the connections to one server have found out about it, as long as
// its Fingerprint is the same. The zero value knows nothing. It is safe for
// concurrent use.
type Learned struct {
	mu      sync.Mutex
	facts   Facts
	doubted Form // until then
	until   time.Time
}

// NewLearned returns a Learned that begins with what is known.
func NewLearned(known Facts) *Learned { return &Learned{facts: known} }

// Facts returns what is known now.
func (l *Learned) Facts() Facts {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.facts
}

// Uses reports whether all of the forms are to be used with a server of dialect d.
func (l *Learned) Uses(d Dialect, f Form) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	fails := l.facts.Fails
	if l.doubted != 0 && time.Now().Before(l.until) {
		fails |= l.doubted
	}
	d.Takes |= l.facts.Works
	return f&fails == 0 && d.Uses(f)
}

// Works reports whether all of the forms have succeeded.
func (l *Learned) Works(f Form) bool { return l.Facts().Works&f == f }

// Succeeded records that forms work. news reports that this was not known of all.
func (l *Learned) Succeeded(f Form) (news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	news = l.facts.Works&f != f
	l.facts.Works |= f
	return news
}

// Failed records that forms do not work. news reports that this was not known of
// all.
func (l *Learned) Failed(f Form) (news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	news = l.facts.Fails&f != f
	l.facts.Fails |= f
	l.facts.Works &^= f
	return news
}

// Doubt has forms not be used for a day: they have failed, but are known to work
// with servers of this kind, and one that is slow or being restarted looks the
// same.
func (l *Learned) Doubt(f Form) (news bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !time.Now().Before(l.until) {
		l.doubted = 0
	}
	news = l.doubted&f != f
	l.doubted |= f
	l.until = time.Now().Add(doubt)
	return news
}
