package dialect

// Search is a form in which messages are looked for. Each is right on more servers
// than the one before it, and costs more.
type Search int

// The forms of a Search.
const (
	// BySearchReturn is SEARCH RETURN (ALL) where the server offers ESEARCH
	// (RFC 4731), else BySearch. iCloud answers it with COUNT only.
	BySearchReturn Search = iota

	// BySearch is SEARCH. Some servers refuse it or close the connection,
	// hoodiecrow sends no SEARCH response for an empty result, and that of
	// maddy has the messages of other users.
	BySearch

	// ByFetch is FETCH of the flags.
	ByFetch
)

// Search returns the first form that a server of dialect d is not known to get
// wrong; ofSet: in a search among a set of UIDs. What is wrong with that does not
// show in each answer, so that a server has to be known to get it right.
func (l *Learned) Search(d Dialect, ofSet bool) Search {
	switch {
	case ofSet && !d.SearchesSets:
		return ByFetch
	case l.Uses(d, SearchReturn|SearchPlain):
		return BySearchReturn
	case l.Uses(d, SearchPlain):
		return BySearch
	}
	return ByFetch
}

// UseSearch records that the forms before s are wrong. news reports that this was
// not known.
func (l *Learned) UseSearch(s Search) (news bool) {
	switch s {
	case BySearch:
		return l.Failed(SearchReturn)
	case ByFetch:
		return l.Failed(SearchReturn | SearchPlain)
	}
	return false
}

// Searches reports whether the server has answered SEARCH properly. If so, a
// refusal says nothing about the form.
func (l *Learned) Searches() bool { return l.Facts().Works&(SearchReturn|SearchPlain) != 0 }

// HasSearched records that the server has answered SEARCH properly in the form s.
func (l *Learned) HasSearched(s Search) (news bool) {
	switch s {
	case BySearchReturn:
		return l.Succeeded(SearchReturn)
	case BySearch:
		return l.Succeeded(SearchPlain)
	}
	return false
}
