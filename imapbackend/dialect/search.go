package dialect

import "sync/atomic"

// Search is a form in which messages are looked for. Each is right on more servers
// than the one before it, and costs more.
type Search int32

// The forms.
const (
	// SearchReturn is SEARCH RETURN (ALL) where the server offers ESEARCH
	// (RFC 4731), else SearchPlain. iCloud answers it with COUNT only.
	SearchReturn Search = iota

	// SearchPlain is SEARCH. Some servers refuse it or close the connection,
	// hoodiecrow sends no SEARCH response for an empty result, and that of
	// maddy has the messages of other users.
	SearchPlain

	// SearchFetch is FETCH of the flags.
	SearchFetch
)

// Learned is what the connections to one server have found out about it. The zero
// value knows nothing. It is safe for concurrent use.
type Learned struct {
	search   atomic.Int32
	searches atomic.Bool
}

// Search returns the first form that is not known to be wrong.
func (l *Learned) Search() Search { return Search(l.search.Load()) }

// UseSearch records that the forms before s are wrong. news reports that this was
// not known.
func (l *Learned) UseSearch(s Search) (news bool) {
	for {
		old := l.search.Load()
		if old >= int32(s) {
			return false
		}
		if l.search.CompareAndSwap(old, int32(s)) {
			return true
		}
	}
}

// Searches reports whether the server has answered SEARCH properly. If so, a
// refusal says nothing about the form.
func (l *Learned) Searches() bool { return l.searches.Load() }

// HasSearched records that the server has answered SEARCH properly.
func (l *Learned) HasSearched() { l.searches.Store(true) }
